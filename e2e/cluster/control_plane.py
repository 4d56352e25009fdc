"""etcd, kube-apiserver, kube-controller-manager and kube-scheduler: their keys and command lines."""

from __future__ import annotations

import http
import http.client
import ssl
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .certificates import Authority, Pair
from .layout import Layout
from .processes import Component

SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
PROBE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where the API server listens and what it calls itself."""

    bind: str
    advertise: str
    port: int
    etcd_port: int
    etcd_peer_port: int
    controllers_port: int
    scheduler_port: int


@dataclass(frozen=True, slots=True)
class Programs:
    """The built folders of the control plane."""

    kubernetes: Path
    etcd: Path


class ControlPlane:
    """The four processes of a control plane at one address."""

    def __init__(self, layout: Layout, address: Address, programs: Programs, environment: dict[str, str]) -> None:
        self._layout, self._address, self._programs, self._environment = layout, address, programs, environment
        self.authority = Authority(layout.pki)
        self.admin = self.authority.issue("admin", user="admin", groups=("system:masters",))

    @property
    def url(self) -> str:
        """The API server's address for its own clients beside it."""
        return f"https://127.0.0.1:{self._address.port}"

    def client(self, name: str, user: str, groups: tuple[str, ...] = (), hosts: tuple[str, ...] = ()) -> Path:
        """A kubeconfig for a component `user`, with a certificate of its own."""
        pair = self.authority.issue(name, user=user, groups=groups, hosts=hosts)
        return self.authority.kubeconfig(self._layout.pki / f"{name}.kubeconfig", self.url, pair)

    def components(self, probe: Callable[[str], Callable[[], bool]]) -> list[Component]:
        """In the order of their start; `probe` makes a readiness check of an API path."""
        return [self._etcd(), self._api_server(probe("/readyz")), self._controllers(probe), self._scheduler()]

    def _etcd(self) -> Component:
        url, peer = (f"https://127.0.0.1:{port}" for port in (self._address.etcd_port, self._address.etcd_peer_port))
        pair, root = self.authority.issue("etcd", user="etcd", hosts=("127.0.0.1",)), self.authority.root.certificate
        command = (
            str(self._programs.etcd / "etcd"),
            f"--data-dir={self._layout.state / 'etcd'}",
            f"--listen-client-urls={url}",
            f"--advertise-client-urls={url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            f"--cert-file={pair.certificate}",
            f"--key-file={pair.key}",
            f"--trusted-ca-file={root}",
            "--client-cert-auth",
            f"--peer-cert-file={pair.certificate}",
            f"--peer-key-file={pair.key}",
            f"--peer-trusted-ca-file={root}",
            "--peer-client-cert-auth",
            "--unsafe-no-fsync",
            "--log-level=warn",
        )
        # The API server waits for it.
        return Component("etcd", command, self._environment, lambda: True)

    def _api_server(self, is_ready: Callable[[], bool]) -> Component:
        names = (
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        )
        serving = self.authority.issue(
            "apiserver", user="kube-apiserver", hosts=("127.0.0.1", self._address.advertise, API_SERVICE_IP, *names)
        )
        kubelet = self.authority.issue("apiserver-kubelet", user="kube-apiserver", groups=("system:masters",))
        aggregator = self.authority.issue("front-proxy", user="front-proxy")
        etcd = self.authority.issue("apiserver-etcd", user="kube-apiserver")
        accounts = self.authority.signing_pair("service-accounts")
        root = self.authority.root.certificate
        command = (
            str(self._programs.kubernetes / "kube-apiserver"),
            f"--etcd-servers=https://127.0.0.1:{self._address.etcd_port}",
            f"--etcd-cafile={root}",
            f"--etcd-certfile={etcd.certificate}",
            f"--etcd-keyfile={etcd.key}",
            f"--bind-address={self._address.bind}",
            f"--advertise-address={self._address.advertise}",
            f"--secure-port={self._address.port}",
            *(("--endpoint-reconciler-type=none",) if self._address.bind == "127.0.0.1" else ()),
            f"--service-cluster-ip-range={SERVICE_CIDR}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--client-ca-file={root}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged=true",
            "--enable-aggregator-routing=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={accounts.certificate}",
            f"--service-account-signing-key-file={accounts.key}",
            f"--kubelet-client-certificate={kubelet.certificate}",
            f"--kubelet-client-key={kubelet.key}",
            f"--kubelet-certificate-authority={root}",
            "--kubelet-preferred-address-types=InternalIP",
            f"--requestheader-client-ca-file={root}",
            "--requestheader-allowed-names=front-proxy",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
            f"--proxy-client-cert-file={aggregator.certificate}",
            f"--proxy-client-key-file={aggregator.key}",
        )
        return Component("kube-apiserver", command, self._environment, is_ready, deadline_s=90.0)

    def _controllers(self, probe: Callable[[str], Callable[[], bool]]) -> Component:
        config = self.client("controllers", "system:kube-controller-manager")
        root = self.authority.root
        command = (
            str(self._programs.kubernetes / "kube-controller-manager"),
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._address.controllers_port}",
            "--leader-elect=false",
            "--use-service-account-credentials",
            f"--flex-volume-plugin-dir={self._layout.state / 'volume-plugins'}",
            f"--service-account-private-key-file={self._layout.pki / 'service-accounts.key'}",
            f"--root-ca-file={root.certificate}",
            f"--cluster-signing-cert-file={root.certificate}",
            f"--cluster-signing-key-file={root.key}",
            # A scenario waits for an autoscaler: the stock 15 s would be most of its time.
            "--horizontal-pod-autoscaler-sync-period=5s",
            "--horizontal-pod-autoscaler-initial-readiness-delay=5s",
            "--horizontal-pod-autoscaler-cpu-initialization-period=10s",
        )
        is_ready = probe("/api/v1/namespaces/default/serviceaccounts/default")
        return Component("kube-controller-manager", command, self._environment, is_ready)

    def _scheduler(self) -> Component:
        config = self.client("scheduler", "system:kube-scheduler")
        command = (
            str(self._programs.kubernetes / "kube-scheduler"),
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            f"--secure-port={self._address.scheduler_port}",
            "--leader-elect=false",
        )
        return Component("kube-scheduler", command, self._environment, lambda: True)


class ApiProbe:
    """Asks an API server over HTTPS as one client; cheaper than a kubectl a poll."""

    def __init__(self, url: str, root: Path, pair: Pair) -> None:
        self._url = url
        self._context = ssl.create_default_context(cafile=str(root))
        # What Python 3.13 demands of certificates by default.
        self._context.verify_flags |= ssl.VERIFY_X509_STRICT
        self._context.load_cert_chain(pair.certificate, pair.key)

    def __call__(self, path: str) -> Callable[[], bool]:
        """A check: does the server answer `path` with 200?"""
        return lambda: self.answers(path)

    def answers(self, path: str) -> bool:
        """Whether the server answers `path` with 200 now."""
        try:
            with self.open(path) as response:
                return response.status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False

    def open(self, path: str) -> http.client.HTTPResponse:
        """GET `path`; the caller closes the response."""
        request = urllib.request.Request(self._url + path, method="GET")  # noqa: S310 - https, by construction
        response: http.client.HTTPResponse = urllib.request.urlopen(  # noqa: S310
            request, timeout=PROBE_TIMEOUT_S, context=self._context
        )
        return response

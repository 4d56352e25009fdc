"""What an addon is: its processes, the objects it needs, and how its health is told."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import yaml

from ..certificates import Pair
from ..control_plane import ControlPlane
from ..errors import NotReady
from ..kubectl import Kubectl, Manifest
from ..layout import Layout
from ..namespaces import NODE_IP, Namespaces
from ..processes import Component, wait_until
from ..toolchain import Toolchain

CRD_DEADLINE_S = 30.0


@dataclass(frozen=True, slots=True)
class AddonContext:
    """What an addon works with."""

    layout: Layout
    tools: Toolchain
    plane: ControlPlane
    kubectl: Kubectl
    environment: dict[str, str]
    forward: Callable[[str, int], int]
    """Name and port inside -> port on this machine's loopback."""
    namespaces: Namespaces

    def folder(self, name: str) -> Path:
        """A folder of the bed's state for addon `name`."""
        folder = self.layout.state / "addons" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def administrator(self, name: str) -> Path:
        """A kubeconfig with all rights for addon `name`, inside the namespaces."""
        return self.plane.client(f"addon-{name}", name, ("system:masters",))

    def serving(self, name: str, service: str, namespace: str) -> Pair:
        """A serving certificate for `service`, and for the node's addresses."""
        hosts = (f"{service}.{namespace}", f"{service}.{namespace}.svc", f"{service}.{namespace}.svc.cluster.local")
        return self.plane.authority.issue(f"addon-{name}-serving", user=name, hosts=(*hosts, "127.0.0.1", NODE_IP))

    @property
    def ca_bundle(self) -> str:
        """The bed's root certificate as API objects carry it: PEM in base64."""
        return base64.b64encode(self.plane.authority.bundle).decode()

    def probe(self, url: str) -> Callable[[], bool]:
        """A readiness check: does `url`, inside the namespaces, answer with a success?"""
        return partial(self.is_answering, url)

    def is_answering(self, url: str) -> bool:
        """Whether `url`, inside the namespaces, answers with a success."""
        try:
            self.namespaces.run("curl", "--silent", "--insecure", "--fail", "--max-time", "2", url)
        except NotReady:
            return False
        return True


class Addon(Protocol):
    """One addon."""

    name: str
    deadline_s: float

    def prepare(self, context: AddonContext) -> None:
        """Apply what must be there before the processes start: CRDs, namespaces, configuration."""

    def components(self, context: AddonContext) -> list[Component]:
        """The processes, in the order of their start."""

    def configure(self, context: AddonContext) -> None:
        """Apply what needs the processes: webhooks, API services, classes."""

    def is_healthy(self, context: AddonContext) -> bool:
        """Whether it does its work now."""


def documents(*files: Path) -> list[Manifest]:
    """The objects in YAML files."""
    return [document for file in files for document in yaml.safe_load_all(file.read_text()) if document]


def apply_crds(context: AddonContext, folder: Path) -> None:
    """Apply the CRDs of a kustomization and wait until the API server serves them."""
    crds = [crd for crd in yaml.safe_load_all(context.kubectl.run("kustomize", str(folder))) if crd]
    context.kubectl.apply(*crds)
    await_established(context, [crd["metadata"]["name"] for crd in crds if crd["kind"] == "CustomResourceDefinition"])


def await_established(context: AddonContext, crds: Iterable[str]) -> None:
    """Wait until the API server serves the CRDs of these names; NotReady names the one that it does not."""
    for crd in crds:
        if not wait_until(partial(_is_established, context, crd), CRD_DEADLINE_S):
            raise NotReady(f"CRD {crd} is not Established after {CRD_DEADLINE_S:.0f} s")


def _is_established(context: AddonContext, crd: str) -> bool:
    return is_condition_true(context.kubectl.get("crd", crd), "Established")


def namespace(name: str) -> Manifest:
    """A Namespace."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


def host_service(name: str, in_namespace: str, ports: Iterable[tuple[str, int, int]]) -> list[Manifest]:
    """A Service for a process of the node: name, port and target of each port. No pod stands behind it."""
    listed = list(ports)
    metadata = {"name": name, "namespace": in_namespace}
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {
                "ports": [{"name": port, "port": number, "targetPort": target} for port, number, target in listed]
            },
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
            "ports": [{"name": port, "port": target, "protocol": "TCP"} for port, _, target in listed],
        },
    ]


def is_condition_true(found: dict[str, Any] | None, condition: str) -> bool:
    """Whether `status.conditions` of an object has `condition` as True."""
    conditions = ((found or {}).get("status") or {}).get("conditions") or []
    return any(entry["type"] == condition and entry["status"] == "True" for entry in conditions)

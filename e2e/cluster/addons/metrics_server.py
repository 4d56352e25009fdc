"""metrics-server: what `kubectl top` and an autoscaler on CPU or memory read."""

from __future__ import annotations

from ..processes import Component
from .base import AddonContext, host_service, is_condition_true

PORT = 4443
API_SERVICE = "v1beta1.metrics.k8s.io"


class MetricsServer:
    """metrics-server as a process of the node, behind the aggregation layer."""

    name = "metrics-server"
    deadline_s = 60.0

    def prepare(self, context: AddonContext) -> None:
        """Nothing: it needs no CRD."""

    def components(self, context: AddonContext) -> list[Component]:
        """The one process; 10 s is the shortest resolution that it takes."""
        serving = context.serving(self.name, self.name, "kube-system")
        kubeconfig = context.administrator(self.name)
        command = (
            str(context.tools.folder("metrics-server") / "metrics-server"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--secure-port={PORT}",
            f"--tls-cert-file={serving.certificate}",
            f"--tls-private-key-file={serving.key}",
            f"--kubelet-certificate-authority={context.plane.authority.root.certificate}",
            "--kubelet-preferred-address-types=InternalIP",
            "--metric-resolution=10s",
            "--kubelet-request-timeout=5s",
        )
        is_ready = context.probe(f"https://127.0.0.1:{PORT}/livez")
        return [Component(self.name, command, context.environment, is_ready)]

    def configure(self, context: AddonContext) -> None:
        """Register the metrics API with the API server."""
        context.kubectl.apply(
            *host_service(self.name, "kube-system", [("https", 443, PORT)]),
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": API_SERVICE},
                "spec": {
                    "group": "metrics.k8s.io",
                    "version": "v1beta1",
                    "groupPriorityMinimum": 100,
                    "versionPriority": 100,
                    "caBundle": context.ca_bundle,
                    "service": {"name": self.name, "namespace": "kube-system"},
                },
            },
        )

    def is_healthy(self, context: AddonContext) -> bool:
        """It serves figures of the node."""
        if not is_condition_true(context.kubectl.get("apiservice", API_SERVICE), "Available"):
            return False
        return context.kubectl.succeeds("top", "node")

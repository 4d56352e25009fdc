"""KEDA: its operator and its metrics API server, so that an autoscaler can read Prometheus and scale from zero."""

from __future__ import annotations

import shutil

from ..processes import Component
from .base import AddonContext, apply_crds, documents, host_service, is_condition_true, namespace

NAMESPACE = "keda"
SERVICE = "keda-metrics-apiserver"
API_SERVICE = "v1beta1.external.metrics.k8s.io"
ADAPTER_PORT = 6444
GRPC_PORT = 9666
HEALTH_PORT = 8081


class Keda:
    """The operator and the adapter as processes of the node."""

    name = "keda"
    deadline_s = 60.0

    def prepare(self, context: AddonContext) -> None:
        """The CRDs of the module that it was built from, and the certificate that both processes use."""
        apply_crds(context, context.tools.source("keda") / "config/crd")
        context.kubectl.apply(namespace(NAMESPACE))
        folder = context.folder(self.name)
        serving = context.serving(self.name, SERVICE, NAMESPACE)
        shutil.copy(serving.certificate, folder / "tls.crt")
        shutil.copy(serving.key, folder / "tls.key")
        shutil.copy(context.plane.authority.root.certificate, folder / "ca.crt")

    def components(self, context: AddonContext) -> list[Component]:
        """The operator, then the adapter, which asks the operator for every figure."""
        folder, kubeconfig = context.folder(self.name), context.administrator(self.name)
        programs = context.tools.folder("keda")
        environment = {
            **context.environment,
            "POD_NAMESPACE": NAMESPACE,
            "POD_NAME": "keda-operator",
            "WATCH_NAMESPACE": "",
            "KEDA_CLUSTER_OBJECT_NAMESPACE": NAMESPACE,
        }
        operator = (
            str(programs / "keda-operator"),
            f"--kubeconfig={kubeconfig}",
            "--metrics-bind-address=127.0.0.1:8086",
            f"--health-probe-bind-address=127.0.0.1:{HEALTH_PORT}",
            f"--metrics-service-bind-address=127.0.0.1:{GRPC_PORT}",
            f"--cert-dir={folder}",
            "--zap-log-level=info",
        )
        adapter = (
            str(programs / "keda-adapter"),
            f"--kubeconfig={kubeconfig}",
            f"--authentication-kubeconfig={kubeconfig}",
            f"--authorization-kubeconfig={kubeconfig}",
            f"--lister-kubeconfig={kubeconfig}",
            "--port=8087",
            f"--secure-port={ADAPTER_PORT}",
            f"--metrics-service-address=127.0.0.1:{GRPC_PORT}",
            f"--client-ca-file={folder / 'ca.crt'}",
            f"--tls-cert-file={folder / 'tls.crt'}",
            f"--tls-private-key-file={folder / 'tls.key'}",
            f"--cert-dir={folder}",
        )
        is_operator_ready = context.probe(f"http://127.0.0.1:{HEALTH_PORT}/readyz")
        is_adapter_ready = context.probe(f"https://127.0.0.1:{ADAPTER_PORT}/healthz")
        return [
            Component("keda-operator", operator, environment, is_operator_ready),
            Component("keda-adapter", adapter, environment, is_adapter_ready),
        ]

    def configure(self, context: AddonContext) -> None:
        """Register the external metrics API with the API server."""
        (api_service,) = documents(context.tools.source("keda") / "config/metrics-server/api_service.yaml")
        api_service["spec"]["caBundle"] = context.ca_bundle
        context.kubectl.apply(*host_service(SERVICE, NAMESPACE, [("https", 443, ADAPTER_PORT)]), api_service)

    def is_healthy(self, context: AddonContext) -> bool:
        """The API server reaches it."""
        return is_condition_true(context.kubectl.get("apiservice", API_SERVICE), "Available")

"""KServe's controller in Standard mode: InferenceServices become Deployments and Services, with its own webhooks."""

from __future__ import annotations

import json
import shutil
from typing import Any

from ..kubectl import Manifest
from ..processes import Component
from .base import AddonContext, apply_crds, documents, namespace

NAMESPACE = "kserve"
WEBHOOK_PORT = 9443
HEALTH_PORT = 8085
RUNTIMES = ("kserve-vllmserver", "kserve-huggingfaceserver")


class KServe:
    """The controller as a process of the node; the API server calls its webhooks by URL."""

    name = "kserve"
    deadline_s = 60.0

    def prepare(self, context: AddonContext) -> None:
        """The CRDs of the module that it was built from, its configuration, and the webhooks' certificate."""
        source = context.tools.source("kserve") / "config"
        apply_crds(context, source / "crd/full")
        context.kubectl.apply(namespace(NAMESPACE), _configuration(source))
        certificates = context.folder(self.name) / "k8s-webhook-server" / "serving-certs"
        certificates.mkdir(parents=True, exist_ok=True)
        serving = context.serving(self.name, "kserve-webhook-server-service", NAMESPACE)
        shutil.copy(serving.certificate, certificates / "tls.crt")
        shutil.copy(serving.key, certificates / "tls.key")

    def components(self, context: AddonContext) -> list[Component]:
        """The one process. It looks for its certificate below the folder for temporary files."""
        command = (
            str(context.tools.folder("kserve") / "kserve-manager"),
            f"--kubeconfig={context.administrator(self.name)}",
            f"--webhook-port={WEBHOOK_PORT}",
            "--metrics-addr=0",
            f"--health-probe-addr=127.0.0.1:{HEALTH_PORT}",
        )
        environment = {**context.environment, "POD_NAMESPACE": NAMESPACE, "TMPDIR": str(context.folder(self.name))}
        return [
            Component(
                self.name,
                command,
                environment,
                context.probe(f"http://127.0.0.1:{HEALTH_PORT}/readyz"),
            )
        ]

    def configure(self, context: AddonContext) -> None:
        """The webhooks, then the serving runtimes and the storage container, which the webhooks check."""
        source = context.tools.source("kserve") / "config"
        context.kubectl.apply(
            *(_by_url(hook, context.ca_bundle) for hook in documents(source / "webhook/manifests.yaml"))
        )
        context.kubectl.apply(
            *documents(*(source / f"runtimes/{runtime}.yaml" for runtime in RUNTIMES)),
            *documents(source / "storagecontainers/default.yaml"),
        )

    def is_healthy(self, context: AddonContext) -> bool:
        """Its webhook answers: a dry run of an InferenceService goes through it."""
        container = {"name": "kserve-container", "image": "none"}
        probe = {
            "apiVersion": "serving.kserve.io/v1beta1",
            "kind": "InferenceService",
            "metadata": {"name": "probe", "namespace": "default"},
            "spec": {"predictor": {"containers": [container]}},
        }
        context.kubectl.run("apply", "--dry-run=server", "--filename=-", stdin=json.dumps(probe))
        return True


def _configuration(source: Any) -> Manifest:
    """KServe's own ConfigMap, with Standard mode and without Ingress objects: callers are inside the cluster."""
    (shipped,) = documents(source / "configmap/inferenceservice.yaml")
    data = {key: value for key, value in shipped["data"].items() if not key.startswith("_")}
    ingress = {**json.loads(data["ingress"]), "disableIngressCreation": True, "ingressDomain": "cluster.local"}
    deploy = {**json.loads(data["deploy"]), "defaultDeploymentMode": "Standard"}
    data |= {"ingress": json.dumps(ingress), "deploy": json.dumps(deploy)}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "inferenceservice-config", "namespace": NAMESPACE},
        "data": data,
    }


def _by_url(configuration: Manifest, ca_bundle: str) -> Manifest:
    """A webhook configuration that calls the node's process instead of a Service."""
    for hook in configuration["webhooks"]:
        path = hook["clientConfig"]["service"]["path"]
        hook["clientConfig"] = {"url": f"https://127.0.0.1:{WEBHOOK_PORT}{path}", "caBundle": ca_bundle}
    return configuration

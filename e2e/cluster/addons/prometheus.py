"""Prometheus: scrapes every pod that asks for it by annotation.

Debian's build leaves Kubernetes service discovery out, so this one is a Go tool too.
"""

from __future__ import annotations

import json

from ..processes import Component
from .base import AddonContext

PORT = 9090
_ANNOTATION = "__meta_kubernetes_pod_annotation_prometheus_io"


class Prometheus:
    """A Prometheus that reads pods' `prometheus.io/scrape`, `/port` and `/path` annotations."""

    name = "prometheus"
    deadline_s = 30.0

    def prepare(self, context: AddonContext) -> None:
        """Write its configuration."""
        relabel = [
            {"source_labels": [f"{_ANNOTATION}_scrape"], "action": "keep", "regex": "true"},
            {
                "source_labels": ["__meta_kubernetes_pod_ip", f"{_ANNOTATION}_port"],
                "separator": ":",
                "regex": "(.+):(.+)",
                "target_label": "__address__",
                "replacement": "$1:$2",
            },
            {"source_labels": [f"{_ANNOTATION}_path"], "regex": "(.+)", "target_label": "__metrics_path__"},
            {"source_labels": ["__meta_kubernetes_namespace"], "target_label": "namespace"},
            {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
            {"source_labels": ["__meta_kubernetes_pod_container_name"], "target_label": "container"},
        ]
        discovery = {"role": "pod", "kubeconfig_file": str(context.administrator(self.name))}
        configuration = {
            "global": {"scrape_interval": "2s", "evaluation_interval": "2s"},
            "scrape_configs": [
                {"job_name": "pods", "kubernetes_sd_configs": [discovery], "relabel_configs": relabel},
            ],
        }
        (context.folder(self.name) / "prometheus.yml").write_text(json.dumps(configuration, indent=2))

    def components(self, context: AddonContext) -> list[Component]:
        """The one process."""
        folder = context.folder(self.name)
        command = (
            str(context.tools.folder("prometheus") / "prometheus"),
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=0.0.0.0:{PORT}",
            "--web.enable-lifecycle",
        )
        return [
            Component(
                self.name,
                command,
                context.environment,
                context.probe(f"http://127.0.0.1:{PORT}/-/ready"),
            )
        ]

    def configure(self, context: AddonContext) -> None:
        """Offer it to this machine."""
        context.forward(self.name, PORT)

    def is_healthy(self, context: AddonContext) -> bool:
        """It answers queries."""
        return context.is_answering(f"http://127.0.0.1:{PORT}/api/v1/query?query=1")

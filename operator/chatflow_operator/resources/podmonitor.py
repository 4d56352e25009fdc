"""PodMonitors (prometheus-operator): one for gateways and worker, one for the servers of language models."""

from __future__ import annotations

from chatflow_operator.objects import POD_MONITOR, Manifest
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.resources.warmup import SERVER_PORT
from chatflow_operator.scaling.rule import SCRAPE_S
from chatflow_operator.served_models import served_models


def monitor(frame: Frame) -> Manifest:
    """Scrapes the admin port of every gateway and of the worker."""
    parts = [Part.GATEWAY.value, Part.WORKER.value]
    ours = {"key": "app.kubernetes.io/component", "operator": "In", "values": parts}
    spec = {
        "selector": {"matchLabels": frame.selector(), "matchExpressions": [ours]},
        "podMetricsEndpoints": [{"port": "admin", "path": "/metrics", "interval": f"{SCRAPE_S}s"}],
        "podTargetLabels": ["app.kubernetes.io/instance", "app.kubernetes.io/component"],
    }
    return frame.object(POD_MONITOR, Part.PODS, spec=spec)


def is_wanted_for_models(frame: Frame) -> bool:
    """Whether KServe serves a language model."""
    return any(served.role != "intent" for served in served_models(frame.spec))


def models(frame: Frame) -> Manifest:
    """Scrapes the servers of language models. KServe hands the InferenceService's labels on to its pods."""
    served = {"key": "app.kubernetes.io/component", "operator": "In", "values": [Part.LLM.value, Part.BACKUP.value]}
    endpoint = {
        "path": "/metrics",
        "interval": f"{SCRAPE_S}s",
        "relabelings": [
            # Runtimes do not declare their port, so it is not to be chosen by name or number.
            {"sourceLabels": ["__meta_kubernetes_pod_container_name"], "action": "keep", "regex": "kserve-container"},
            _address("([^:]+)", "$1"),
            _address("(.*:.*)", "[$1]"),
        ],
    }
    spec = {
        "selector": {"matchLabels": frame.selector(), "matchExpressions": [served]},
        "podMetricsEndpoints": [endpoint],
        "podTargetLabels": ["app.kubernetes.io/instance", "app.kubernetes.io/component"],
    }
    return frame.object(POD_MONITOR, "models", spec=spec)


def _address(pattern: str, host: str) -> Manifest:
    """Sets the address from a pod's IP of one family."""
    return {
        "sourceLabels": ["__meta_kubernetes_pod_ip"],
        "regex": pattern,
        "targetLabel": "__address__",
        "replacement": f"{host}:{SERVER_PORT}",
    }

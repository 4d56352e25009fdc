"""The PodMonitor (prometheus-operator) for gateways and worker."""

from __future__ import annotations

from chatflow_operator.objects import POD_MONITOR, Manifest
from chatflow_operator.resources.frame import Frame, Part


def monitor(frame: Frame) -> Manifest:
    """Scrapes the admin port of every gateway and of the worker."""
    parts = [Part.GATEWAY.value, Part.WORKER.value]
    ours = {"key": "app.kubernetes.io/component", "operator": "In", "values": parts}
    spec = {
        "selector": {"matchLabels": frame.selector(), "matchExpressions": [ours]},
        "podMetricsEndpoints": [{"port": "admin", "path": "/metrics", "interval": "15s"}],
        "podTargetLabels": ["app.kubernetes.io/instance", "app.kubernetes.io/component"],
    }
    return frame.object(POD_MONITOR, Part.PODS, spec=spec)

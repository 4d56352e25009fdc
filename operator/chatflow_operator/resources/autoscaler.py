"""Who chooses the number of gateways: a HorizontalPodAutoscaler, or KEDA's ScaledObject."""

from __future__ import annotations

from chatflow_operator.objects import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT, Manifest
from chatflow_operator.resources.frame import Frame, Part

_BEHAVIOR: Manifest = {
    # Fast up, since a chat's peak comes within a minute; slow down, since every gateway that leaves ends streams.
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "selectPolicy": "Max",
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 4, "periodSeconds": 15},
        ],
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "selectPolicy": "Max",
        "policies": [{"type": "Percent", "value": 25, "periodSeconds": 60}],
    },
}


def horizontal(frame: Frame) -> Manifest:
    """Kubernetes' own, on CPU."""
    gateway = frame.spec.gateway
    target = {"type": "Utilization", "averageUtilization": gateway.autoscaling.cpu_percent}
    spec = {
        "scaleTargetRef": _gateways(frame),
        "minReplicas": gateway.replicas.min,
        "maxReplicas": gateway.replicas.max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": _BEHAVIOR,
    }
    return frame.object(AUTOSCALER, Part.GATEWAY, spec=spec)


def keda(frame: Frame) -> Manifest:
    """KEDA's, on CPU; it makes a HorizontalPodAutoscaler of its own."""
    gateway = frame.spec.gateway
    trigger = {
        "type": "cpu",
        "metricType": "Utilization",
        "metadata": {"value": str(gateway.autoscaling.cpu_percent)},
    }
    spec = {
        "scaleTargetRef": _gateways(frame),
        "minReplicaCount": gateway.replicas.min,
        "maxReplicaCount": gateway.replicas.max,
        "triggers": [trigger],
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": _BEHAVIOR}},
    }
    return frame.object(SCALED_OBJECT, Part.GATEWAY, spec=spec)


def _gateways(frame: Frame) -> Manifest:
    return {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": frame.name(Part.GATEWAY)}

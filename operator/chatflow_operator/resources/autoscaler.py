"""Who chooses the number of gateways: a HorizontalPodAutoscaler, or KEDA's ScaledObject."""

from __future__ import annotations

from chatflow_api import v1alpha1 as api

from chatflow_operator.objects import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT, Manifest
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.scaling.rule import BEHAVIOR, POLLING_S, failures, turns_in_flight


def horizontal(frame: Frame) -> Manifest:
    """Kubernetes' own, on CPU."""
    gateway = frame.spec.gateway
    target = {"type": "Utilization", "averageUtilization": gateway.autoscaling.cpu_percent}
    spec = {
        "scaleTargetRef": _gateways(frame),
        "minReplicas": gateway.replicas.min,
        "maxReplicas": gateway.replicas.max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": BEHAVIOR.manifest(),
    }
    return frame.object(AUTOSCALER, Part.GATEWAY, spec=spec)


def keda(frame: Frame) -> Manifest:
    """KEDA's, on CPU and, with a Prometheus, on messages in flight; it makes a HorizontalPodAutoscaler of its own."""
    gateway, prometheus = frame.spec.gateway, frame.spec.observability.prometheus
    cpu = {
        "type": "cpu",
        "metricType": "Utilization",
        "metadata": {"value": str(gateway.autoscaling.cpu_percent)},
    }
    spec: Manifest = {
        "scaleTargetRef": _gateways(frame),
        "minReplicaCount": gateway.replicas.min,
        "maxReplicaCount": gateway.replicas.max,
        "triggers": [cpu],
        "advanced": {"horizontalPodAutoscalerConfig": {"behavior": BEHAVIOR.manifest()}},
    }
    if prometheus is not None:
        query = turns_in_flight(frame.flow.metadata.namespace, frame.name(Part.GATEWAY))
        spec["triggers"].append(prometheus_trigger(prometheus, query, gateway.autoscaling.turns_in_flight))
        spec["pollingInterval"] = POLLING_S
        # Of two metrics the higher number counts: with this one silent, CPU goes on alone.
        spec["fallback"] = {
            "failureThreshold": failures(POLLING_S),
            "replicas": gateway.replicas.min,
            "behavior": "static",
        }
    return frame.object(SCALED_OBJECT, Part.GATEWAY, spec=spec)


def prometheus_trigger(prometheus: api.Prometheus, query: str, threshold: int) -> Manifest:
    """A trigger of KEDA's on a query, to be shared by the replicas. No result is a failure and never a nought."""
    values = {
        "serverAddress": prometheus.url,
        "query": query,
        "threshold": str(threshold),
        "ignoreNullValues": "false",
    }
    return {"type": "prometheus", "metricType": "AverageValue", "metadata": values}


def _gateways(frame: Frame) -> Manifest:
    return {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": frame.name(Part.GATEWAY)}

"""Who chooses the number of a model's servers: KEDA by requests, a HorizontalPodAutoscaler by CPU, or nobody."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from chatflow_api import v1alpha1 as api
from chatflow_api.names import PREDICTOR, inference_service

from chatflow_operator.objects import AUTOSCALER, DEPLOYMENT, SCALED_OBJECT, Manifest
from chatflow_operator.resources.autoscaler import prometheus_trigger
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.scaling.rule import (
    BEHAVIOR,
    CPU_PERCENT,
    INTENT_CPU_PERCENT,
    POLLING_S,
    TARGET,
    WAKING_POLLING_S,
    Rule,
    Series,
    Signal,
    failures,
    fallback_replicas,
)
from chatflow_operator.served_models import Served, served_models


class Chooser(StrEnum):
    """What chooses the number of a model's servers."""

    NOBODY = "nobody"
    """There is one number; KServe sets it."""
    KEDA = "keda"
    HPA = "hpa"


def wants_requests(served: Served) -> bool:
    """Whether requests should choose: of a language model that may run in different numbers."""
    return served.autoscaling is not None and served.replicas.min != served.replicas.max


def chooser(frame: Frame, served: Served, apis: frozenset[str]) -> Chooser:
    """Who it is on a cluster with these optional APIs."""
    if wants_requests(served) and frame.spec.observability.prometheus and SCALED_OBJECT.kind in apis:
        return Chooser.KEDA
    return Chooser.NOBODY if least_without_keda(served) == served.replicas.max else Chooser.HPA


def least_without_keda(served: Served) -> int:
    """The fewest servers where nothing can wake them."""
    return max(served.replicas.min, 1)


def unscaled(frame: Frame, apis: frozenset[str]) -> frozenset[api.ModelRole]:
    """The models whose number of servers is fixed."""
    served = served_models(frame.spec)
    return frozenset(one.role for one in served if chooser(frame, one, apis) is Chooser.NOBODY)


def scalers(frame: Frame, apis: frozenset[str]) -> Iterator[Manifest]:
    """The autoscalers of all models that KServe serves."""
    for served in served_models(frame.spec):
        match chooser(frame, served, apis):
            case Chooser.KEDA:
                yield _keda(frame, served)
            case Chooser.HPA:
                yield _horizontal(frame, served)
            case Chooser.NOBODY:
                pass


def _horizontal(frame: Frame, served: Served) -> Manifest:
    percent = INTENT_CPU_PERCENT if served.autoscaling is None else CPU_PERCENT
    target = {"type": "Utilization", "averageUtilization": percent}
    spec = {
        "scaleTargetRef": _servers(frame, served),
        "minReplicas": least_without_keda(served),
        "maxReplicas": served.replicas.max,
        "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": target}}],
        "behavior": BEHAVIOR.manifest(),
    }
    return frame.object(AUTOSCALER, Part(served.role), spec=spec)


def _keda(frame: Frame, served: Served) -> Manifest:
    """One composite of all signals; its value is a number of replicas."""
    autoscaling, replicas = served.autoscaling, served.replicas
    assert autoscaling is not None, "chosen by requests"  # noqa: S101
    polling_s = WAKING_POLLING_S if replicas.min == 0 else POLLING_S
    cooldown_s = int(api.duration_s(autoscaling.cooldown))
    spec = {
        "scaleTargetRef": _servers(frame, served),
        "pollingInterval": polling_s,
        "cooldownPeriod": cooldown_s,
        # A new model is loaded once, so that what is wrong with it is found before the first question.
        "initialCooldownPeriod": cooldown_s,
        "minReplicaCount": replicas.min,
        "maxReplicaCount": replicas.max,
        "fallback": {
            "failureThreshold": failures(polling_s),
            "replicas": fallback_replicas(replicas.min, replicas.max),
            "behavior": "currentReplicasIfHigher",
        },
        "advanced": {
            # A model that sleeps when KEDA is taken from it would never be woken.
            "restoreToOriginalReplicaCount": True,
            "horizontalPodAutoscalerConfig": {"behavior": BEHAVIOR.manifest()},
            "scalingModifiers": {
                "formula": Rule(autoscaling.concurrency).formula,
                "target": str(TARGET),
                "activationTarget": "0",
                "metricType": "AverageValue",
            },
        },
        "triggers": list(_triggers(frame, served)),
    }
    return frame.object(SCALED_OBJECT, Part(served.role), spec=spec)


def _triggers(frame: Frame, served: Served) -> Iterator[Manifest]:
    metadata, prometheus = frame.flow.metadata, frame.spec.observability.prometheus
    assert prometheus is not None, "chosen by requests"  # noqa: S101
    service = inference_service(metadata.name, served.role)
    series = Series(metadata.namespace, service, frame.name(Part.GATEWAY), frame.name(Part.WORKER), served.role)
    for signal in Signal:
        yield {"name": signal.value, **prometheus_trigger(prometheus, series.query(signal), TARGET)}


def _servers(frame: Frame, served: Served) -> Manifest:
    name = f"{inference_service(frame.flow.metadata.name, served.role)}{PREDICTOR}"
    return {"apiVersion": DEPLOYMENT.api_version, "kind": DEPLOYMENT.kind, "name": name}

"""What there is to say of the autoscalers, of the gateways' and of each model's. `policies` makes a condition of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from chatflow_api import v1alpha1 as api

from chatflow_operator import objects
from chatflow_operator.objects import Name
from chatflow_operator.observation import Child, Observed
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.resources.modelscaler import Chooser, chooser, least_without_keda, wants_requests
from chatflow_operator.scaling.rule import fallback_replicas
from chatflow_operator.served_models import Served, served_models


@dataclass(frozen=True, slots=True)
class Remark:
    """How one autoscaler is."""

    is_good: bool
    reason: str
    message: str


def remarks(frame: Frame, observed: Observed) -> Iterator[Remark]:
    """The gateways' first, then those of models that may run in different numbers."""
    yield _gateways(frame, observed)
    if objects.INFERENCE_SERVICE.kind in observed.apis:
        for served in served_models(frame.spec):
            if served.replicas.min != served.replicas.max:
                yield _servers(frame, observed, served)


def _gateways(frame: Frame, observed: Observed) -> Remark:
    name, whose = frame.name(Part.GATEWAY), "gateways"
    if frame.spec.gateway.autoscaling.by is not api.Autoscaler.KEDA:
        return _horizontal(observed, name, whose)
    if objects.SCALED_OBJECT.kind not in observed.apis:
        return Remark(False, "KedaMissing", "KEDA is not installed; a HorizontalPodAutoscaler on CPU runs instead")
    return _keda(observed, name, whose, "CPU alone chooses their number")


def _servers(frame: Frame, observed: Observed, served: Served) -> Remark:
    name, whose = frame.name(served.role), f"{served.role} servers"
    who = chooser(frame, served, observed.apis)
    if who is Chooser.KEDA:
        least = fallback_replicas(served.replicas.min, served.replicas.max)
        return _keda(observed, name, whose, f"no fewer than {least} run")
    if not wants_requests(served):
        return _horizontal(observed, name, whose)
    least = least_without_keda(served)
    instead = f"{least} of them run"
    if who is Chooser.HPA:
        on_cpu = _horizontal(observed, name, whose)
        instead = "a HorizontalPodAutoscaler on CPU runs instead" + ("" if on_cpu.is_good else f" ({on_cpu.message})")
    if served.replicas.min < least:
        instead += f", and never fewer than {least}"
    if objects.SCALED_OBJECT.kind not in observed.apis:
        return Remark(False, "KedaMissing", f"KEDA is not installed, which the {whose} need; {instead}")
    why = f"observability.prometheus is not set, and the {whose} are to follow requests"
    return Remark(False, "PrometheusMissing", f"{why}; {instead}")


def _keda(observed: Observed, name: str, whose: str, fallback: str) -> Remark:
    conditions = _conditions(observed.children.get(Name(objects.SCALED_OBJECT.kind, name)))
    ready = conditions.get("Ready", {})
    if ready.get("status") != "True":
        return Remark(False, "KedaNotReady", ready.get("message", f"KEDA has not looked at the {whose} yet"))
    if conditions.get("Fallback", {}).get("status") == "True":
        remedy = "is observability.prometheus right, and does it scrape the pods?"
        return Remark(False, "Fallback", f"KEDA gets no figures of the {whose}; {fallback}; {remedy}")
    working = conditions.get("HPAActive", {})
    if working.get("status") == "False":
        remedy = "does another adapter serve external.metrics.k8s.io?"
        return Remark(False, "KedaNotActive", f"the {whose}: {working.get('message', '')}; {remedy}")
    return Remark(True, "Keda", f"KEDA chooses the number of {whose}")


def _horizontal(observed: Observed, name: str, whose: str) -> Remark:
    conditions = _conditions(observed.children.get(Name(objects.AUTOSCALER.kind, name)))
    for condition in ("AbleToScale", "ScalingActive"):
        found = conditions.get(condition)
        if found is None:
            return Remark(False, "Pending", f"the HorizontalPodAutoscaler of the {whose} has not looked yet")
        if found["status"] != "True":
            message = f"{found.get('message', '')}; the lowest number of {whose} runs. Is metrics-server installed?"
            return Remark(False, found.get("reason", condition), message)
    return Remark(True, "Hpa", f"a HorizontalPodAutoscaler on CPU chooses the number of {whose}")


def _conditions(child: Child | None) -> dict[str, dict[str, Any]]:
    return {} if child is None else {one["type"]: one for one in child.status.get("conditions") or ()}

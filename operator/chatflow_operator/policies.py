"""Ordered checks that turn what was observed into the flow's conditions. Pure; called by `plan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from chatflow_api import v1alpha1 as api
from chatflow_api.names import PREDICTOR, inference_service
from chatflow_api.status import ConditionType, ModelRow, Verdict

from chatflow_operator import objects
from chatflow_operator.autoscaling import remarks
from chatflow_operator.objects import Name
from chatflow_operator.observation import Child, Observed
from chatflow_operator.references import references_of
from chatflow_operator.resources.frame import Frame, Part
from chatflow_operator.served_models import Served, served_models


@dataclass(frozen=True, slots=True)
class Finding:
    """What a check found: a condition without its times."""

    type: ConditionType
    status: Verdict
    reason: str
    message: str

    @property
    def holds(self) -> bool:
        """Whether all is well."""
        return self.status is Verdict.TRUE


def _true(kind: ConditionType, reason: str, message: str) -> Finding:
    return Finding(kind, Verdict.TRUE, reason, message)


def _false(kind: ConditionType, reason: str, message: str) -> Finding:
    return Finding(kind, Verdict.FALSE, reason, message)


def findings(frame: Frame, observed: Observed, build: Name | None) -> list[Finding]:
    """Every condition but Ready, in the order in which a reader looks. `build` is the Job of the present content; None
    while something that it needs is missing."""
    found = [
        configuration(frame.spec, observed),
        applied(observed),
        state(frame, observed),
        knowledge(observed, build),
        models(frame, observed, build),
        gateway(frame, observed),
    ]
    if frame.spec.gateway.route is not None:
        found.append(route(frame, observed))
    return [*found, autoscaling(frame, observed)]


def ready(found: list[Finding]) -> Finding:
    """The summary: False with the first thing that does not hold. Autoscaling is a comfort and does not count."""
    failed = [one for one in found if not one.holds and one.type is not ConditionType.AUTOSCALING]
    if not failed:
        return _true(ConditionType.READY, "Ready", "the chat answers")
    others = f" (and {', '.join(one.type for one in failed[1:])})" if len(failed) > 1 else ""
    return _false(ConditionType.READY, failed[0].reason, f"{failed[0].type}: {failed[0].message}{others}")


def missing_references(spec: api.ChatFlowSpec, observed: Observed) -> Iterator[tuple[str, Name, str]]:
    """(field, object, what is wrong) for every ConfigMap and Secret that is named and lacks something."""
    for field, name, keys in references_of(spec):
        there = observed.references.get(name)
        if there is None:
            yield field, name, f"{field}: {name} is not there; create it"
        else:
            for key in keys:
                if key not in there:
                    known = ", ".join(sorted(there)) or "none"
                    yield field, name, f"{field}: {name} has no key {key} (it has: {known}); add it"


def configuration(spec: api.ChatFlowSpec, observed: Observed) -> Finding:
    """Whether all that the spec names exists. That the spec itself is valid was checked before."""
    missing = [message for _, _, message in missing_references(spec, observed)]
    if missing:
        return _false(ConditionType.CONFIGURATION_VALID, "ReferenceMissing", "; ".join(missing))
    return _true(ConditionType.CONFIGURATION_VALID, "Valid", "the manifest and all that it names can be used")


def applied(observed: Observed) -> Finding:
    """Whether every object could be written."""
    kind = ConditionType.OBJECTS_APPLIED
    if observed.foreign:
        names = ", ".join(map(str, sorted(observed.foreign)))
        remedy = "it is left untouched; rename or delete it, or give the ChatFlow another name"
        return _false(kind, "NameConflict", f"{names} exists and is not this flow's; {remedy}")
    if observed.failures:
        words = "; ".join(f"{name}: {message}" for name, message in sorted(observed.failures.items()))
        return _false(kind, "ApplyFailed", words)
    if observed.contests:
        words = "; ".join(
            f"{name}{contest.path} was taken back {contest.times} times in 10 minutes"
            for name, contest in sorted(observed.contests.items())
        )
        return _false(
            kind, "FieldContested", f"{words}; find who else writes it, the operator now waits between attempts"
        )
    return _true(kind, "Applied", "every object is as planned")


def state(frame: Frame, observed: Observed) -> Finding:
    """The state server."""
    kind, managed = ConditionType.STATE_READY, frame.managed_redis
    if managed is None:
        return _true(kind, "External", "an external state server is used; gateways report whether they reach it")
    child = observed.children.get(Name("StatefulSet", frame.name(Part.REDIS)))
    running = 0 if child is None else child.status.get("readyReplicas", 0)
    if managed.replicas == 1:
        if running == 0:
            return _false(kind, "Starting", "the state server is not ready yet; see its pod's events if this lasts")
        return _true(
            kind, "NotHighlyAvailable", "one state server runs; it is not highly available (managed.replicas: 3 is)"
        )
    if running * 2 <= managed.replicas:
        return _false(kind, "NoQuorum", f"{running} of {int(managed.replicas)} state servers are ready; two are needed")
    if running < managed.replicas:
        return _true(kind, "Degraded", f"{running} of {int(managed.replicas)} state servers are ready")
    return _true(kind, "HighlyAvailable", f"{running} state servers run under Sentinel")


def knowledge(observed: Observed, build: Name | None) -> Finding:
    """The knowledge index."""
    kind = ConditionType.KNOWLEDGE_READY
    if build is None:
        return _false(
            kind, "ReferenceMissing", "content is missing (see ConfigurationValid); what was built before stays"
        )
    job = observed.children.get(build)
    if job is None:
        return _false(
            kind, "BuildPending", "the build of the present content has not begun; what was built before stays"
        )
    if job.status.get("succeeded", 0):
        return _true(kind, "Built", "the index of the present content is in force")
    if _failed(job):
        said = observed.build_message or "see the log of its pod"
        return _false(kind, "BuildFailed", f"{said}; the newest that could be built stays in force")
    if job.status.get("ready", 0):
        return _true(kind, "IndexInForce", "the index is in force; the intent model is being trained")
    return _false(kind, "Building", "the index is being built; what was built before stays in force")


def _failed(job: Child) -> bool:
    return any(one["type"] == "Failed" and one["status"] == "True" for one in job.status.get("conditions", ()))


def models(frame: Frame, observed: Observed, build: Name | None) -> Finding:
    """Whether every model can be asked."""
    kind = ConditionType.MODELS_READY
    rows = model_rows(frame, observed, build)
    if objects.INFERENCE_SERVICE.kind not in observed.apis and any(row.source == "KServe" for row in rows):
        return _false(
            kind,
            "KServeMissing",
            "models are to be served by KServe, which this cluster lacks; install KServe 0.15 or later, or name a"
            " server with openAI. Until then the chat answers from knowledge, and with the static reply",
        )
    waiting = [row for row in rows if row.state not in ("Ready", "Waking", "External")]
    if waiting:
        words = "; ".join(
            f"{row.role} is {row.state.lower()}{': ' * bool(row.message)}{row.message}" for row in waiting
        )
        failed = any(row.state in ("Failed", "Missing") for row in waiting)
        return _false(kind, "ModelFailed" if failed else "ModelLoading", words)
    told = (f"{row.role}: {row.state.lower()}{f' ({row.message})' * bool(row.message)}" for row in rows)
    return _true(kind, "Ready", ", ".join(told))


def model_rows(frame: Frame, observed: Observed, build: Name | None) -> list[ModelRow]:
    """A row for every model of the flow."""
    served = {one.role: one for one in served_models(frame.spec)}
    rows: list[ModelRow] = []
    roles: tuple[tuple[api.ModelRole, api.LanguageModel | None], ...] = (
        ("llm", frame.spec.models.llm),
        ("backup", frame.spec.models.backup),
    )
    for role, model in roles:
        if model is None:
            continue
        if model.open_ai is not None:
            rows.append(ModelRow(role=role, name=model.open_ai.model, source="OpenAI", state="External"))
        else:
            rows.append(_served_row(frame, observed, served[role]))
    intent = served.get("intent")
    rows.append(_intent_row(observed, build) if intent is None else _served_intent_row(frame, observed, intent))
    return rows


def _served_intent_row(frame: Frame, observed: Observed, served: Served) -> ModelRow:
    row = _served_row(frame, observed, served)
    if row.state == "Ready":
        return row
    message = f"{row.message}; " * bool(row.message) + "until then questions go by retrieval alone"
    return row.model_copy(update={"message": message})


def _intent_row(observed: Observed, build: Name | None) -> ModelRow:
    job = None if build is None else observed.children.get(build)
    row = ModelRow(role="intent", name="intent", source="InProcess", state="Loading")
    if job is None or job.status.get("succeeded", 0) == 0:
        message = "the build failed" if job is not None and _failed(job) else "it is being trained"
        update: dict[str, Any] = {"state": "Failed" if job is not None and _failed(job) else "Loading"}
        return row.model_copy(update={**update, "message": f"{message}; until then questions go by retrieval alone"})
    return row.model_copy(update={"state": "Ready"})


def _served_row(frame: Frame, observed: Observed, served: Served) -> ModelRow:
    """One server that takes traffic will do, where KServe says ready of (nearly) all alone."""
    name = inference_service(frame.flow.metadata.name, served.role)
    row = ModelRow(role=served.role, name=name, source="KServe", state="Loading")
    if objects.INFERENCE_SERVICE.kind not in observed.apis:
        return row.model_copy(update={"state": "Missing", "message": "KServe is not installed"})
    child = observed.children.get(Name(objects.INFERENCE_SERVICE.kind, name))
    if child is None:
        return row.model_copy(update={"message": "its InferenceService is not there yet"})
    conditions = _conditions(child.status.get("conditions", ()))
    if conditions.get("Ready", {}).get("status") == "True":
        return row.model_copy(update={"state": "Ready"})
    available, wanted = _servers(observed, name)
    failure = _load_failure(child)
    if available:
        words = "; the newest cannot be loaded: " + failure if failure else ""
        return row.model_copy(update={"state": "Ready", "message": f"{available} of {wanted} servers{words}"})
    if failure:
        return row.model_copy(update={"state": "Failed", "message": failure})
    if wanted and not served.replicas.min:
        return row.model_copy(update={"state": "Waking", "message": f"0 of {wanted} servers"})
    return row.model_copy(update={"message": conditions.get("PredictorReady", {}).get("message", "")})


def _servers(observed: Observed, name: str) -> tuple[int, int]:
    """(those that take traffic, all) of an InferenceService. KServe hands its labels on, so its Deployment is seen."""
    child = observed.children.get(Name(objects.DEPLOYMENT.kind, name + PREDICTOR))
    return (0, 0) if child is None else (child.status.get("availableReplicas", 0), child.status.get("replicas", 0))


def _load_failure(child: Child) -> str:
    """Why a model cannot be loaded; empty when nothing is known of it."""
    states = child.status.get("modelStatus", {})
    if states.get("transitionStatus") not in ("BlockedByFailedLoad", "InvalidSpec"):
        return ""
    failure = states.get("lastFailureInfo", {})
    return str(failure.get("message") or failure.get("reason") or states["transitionStatus"])


def _conditions(found: Any) -> Mapping[str, Mapping[str, Any]]:
    return {one["type"]: one for one in found}


def gateway(frame: Frame, observed: Observed) -> Finding:
    """Whether gateways take traffic."""
    kind = ConditionType.GATEWAY_READY
    child = observed.children.get(Name("Deployment", frame.name(Part.GATEWAY)))
    if child is None:
        return _false(kind, "Starting", "the gateways are not there yet")
    available, wanted = child.status.get("availableReplicas", 0), child.status.get("replicas", 0)
    stuck = _conditions(child.status.get("conditions", ())).get("Progressing", {})
    if available == 0:
        return _false(kind, "NoGateway", "no gateway takes traffic yet; see the pods' events if this lasts")
    if stuck.get("status") == "False":
        return _false(kind, "RolloutStuck", f"{stuck.get('message', '')}; the gateways of before go on")
    updated = child.status.get("updatedReplicas", 0)
    if child.status.get("observedGeneration", 0) < child.generation or updated < wanted:
        return _true(kind, "RollingOut", f"{available} gateways take traffic; {updated} have the newest configuration")
    return _true(kind, "Available", f"{available} gateways take traffic")


def gateway_count(frame: Frame, observed: Observed) -> str | None:
    """Gateways that take traffic, of those wanted."""
    child = observed.children.get(Name("Deployment", frame.name(Part.GATEWAY)))
    if child is None or "replicas" not in child.status:
        return None
    return f"{child.status.get('availableReplicas', 0)}/{child.status['replicas']}"


def route(frame: Frame, observed: Observed) -> Finding:
    """Whether every Gateway has taken the route."""
    kind = ConditionType.ROUTE_READY
    if objects.HTTP_ROUTE.kind not in observed.apis:
        remedy = f"install Gateway API, or reach the chat by the Service {frame.name(Part.GATEWAY)}"
        return _false(kind, "GatewayApiMissing", f"the cluster has no HTTPRoute; {remedy}")
    child = observed.children.get(Name(objects.HTTP_ROUTE.kind, frame.name(Part.GATEWAY)))
    parents = [] if child is None else child.status.get("parents", [])
    if not parents:
        return _false(
            kind, "NotAccepted", "no Gateway has answered yet; check the names in spec.gateway.route.parentRefs"
        )
    for parent in parents:
        for name, condition in _conditions(parent.get("conditions", ())).items():
            if name in ("Accepted", "ResolvedRefs") and condition["status"] != "True":
                return _false(kind, condition["reason"], f"{parent['parentRef']['name']}: {condition['message']}")
    return _true(kind, "Accepted", f"{len(parents)} Gateway{'s' * (len(parents) > 1)} lead here")


def autoscaling(frame: Frame, observed: Observed) -> Finding:
    """Whether the numbers of gateways and of model servers follow the load."""
    found = list(remarks(frame, observed))
    failed = [one for one in found if not one.is_good]
    words = "; ".join(one.message for one in failed or found)
    if failed:
        return _false(ConditionType.AUTOSCALING, failed[0].reason, words)
    return _true(ConditionType.AUTOSCALING, found[0].reason, words)

"""From a flow and what was observed to what has to be done: writes, prunes, status, events. Pure.

Called by `reconcile` for every flow that may have changed, and by `chatflow render` with nothing observed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from chatflow_api import v1alpha1 as api
from chatflow_api.field_errors import explain
from chatflow_api.names import LABEL_FLOW
from chatflow_api.runtime_config import derive
from chatflow_api.status import Condition, ConditionType, Status, Verdict
from chatflow_api.validation import path_text
from pydantic import ValidationError
from pydantic_core import ErrorDetails

from chatflow_operator import objects, policies
from chatflow_operator.objects import Kind, Manifest, Name, Planned
from chatflow_operator.observation import Child, Observed
from chatflow_operator.policies import Finding
from chatflow_operator.projection import differences
from chatflow_operator.resources import (
    autoscaler,
    configmap,
    deployment,
    disruptionbudget,
    httproute,
    inferenceservice,
    job,
    modelscaler,
    networkpolicy,
    podmonitor,
    prometheusrule,
    secret,
    service,
    serviceaccount,
    servingruntime,
    statefulset,
    volumeclaim,
)
from chatflow_operator.resources.frame import Frame, Part, digest
from chatflow_operator.settings import Images

ANNOTATION_PLAN = "chatflow.dev/plan"
_PLAN_PATH = f".metadata.annotations.{ANNOTATION_PLAN}"
_ORDER = {kind.kind: number for number, kind in enumerate(objects.CHILDREN)}


@dataclass(frozen=True, slots=True)
class Write:
    """One object to apply."""

    planned: Planned
    replaces: str | None
    """UID of the object that is there; None to make it."""
    paths: tuple[str, ...] = ()
    """What differs; empty for a new one."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A condition that has changed: an Event for people."""

    is_good: bool
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Plan:
    """What has to be done; all empty when nothing has."""

    writes: tuple[Write, ...] = ()
    prunes: tuple[Child, ...] = ()
    status: Manifest | None = None
    """The whole status to write; None when it is as it should be."""
    transitions: tuple[Transition, ...] = ()
    requeue_s: float | None = None
    """When to plan again although nothing has changed, in seconds from now."""


@dataclass(frozen=True, slots=True)
class Environment:
    """What is the same for all flows of an operator."""

    images: Images
    prometheus_namespace: str | None = None


class FlowInvalid(Exception):
    """A flow that the API server let through and the types refuse; the message names the fields."""


def read_flow(body: Manifest) -> api.ChatFlow:
    """The flow of a live object; FlowInvalid when it cannot be used."""
    wanted = {key: body[key] for key in ("apiVersion", "kind", "metadata", "spec") if key in body}
    try:
        return api.ChatFlow.model_validate_json(json.dumps(wanted), by_alias=True, by_name=False)
    except ValidationError as error:
        problems = [line for detail in error.errors(include_url=False) for line in _problems(detail)]
        raise FlowInvalid("; ".join(problems)) from error


def _problems(detail: ErrorDetails) -> Iterator[str]:
    """What is wrong, field by field, in the words of `chatflow validate`."""
    path = tuple(part for part in detail["loc"] if part != "[key]")
    cause = detail.get("ctx", {}).get("error")
    if isinstance(cause, api.RuleBroken):
        yield from (f"{path_text((*path, *finding.at))}: {finding.message}" for finding in cause.findings)
    else:
        what, remedy, _ = explain(detail, path)
        yield f"{path_text(path)}: {what}; {remedy}"


def frame_of(flow: api.ChatFlow, observed: Observed, environment: Environment) -> Frame:
    """What the builders are given."""
    content = {
        f"{name.kind}/{name.name}/{key}": digest
        for name, keys in observed.references.items()
        for key, digest in keys.items()
    }
    generated = observed.children.get(Name(objects.SECRET.kind, f"{flow.metadata.name}-{Part.REDIS}"))
    if generated is not None:
        # Another password is another Secret: whoever reads it starts anew.
        content[f"Secret/{generated.name.name}/password"] = generated.uid
    return Frame(flow, derive(flow), environment.images, content, environment.prometheus_namespace)


def wanted_objects(frame: Frame, observed: Observed, *, with_build: bool = True) -> list[Planned]:
    """Every object of a flow, in the order in which it is applied."""
    found = [
        Planned(serviceaccount.account(frame)),
        Planned(configmap.configuration(frame)),
        volumeclaim.data(frame),
        *map(Planned, networkpolicy.policies(frame)),
        Planned(service.gateway(frame)),
        Planned(deployment.gateway(frame)),
        Planned(deployment.worker(frame)),
        Planned(disruptionbudget.budget(frame, Part.GATEWAY)),
        *_state(frame, observed.password),
        *map(Planned, _optional(frame, observed)),
    ]
    if with_build:
        # A Job's pod cannot be changed; another content is another Job.
        found.append(Planned(job.build(frame), is_created_once=True))
    for planned in found:
        if not planned.is_created_once:
            _stamp(planned.manifest)
    return sorted(found, key=lambda planned: _ORDER[planned.name.kind])


def _stamp(manifest: Manifest) -> None:
    """Note what was planned. Inside a list that the server keeps as one value, its defaults cannot be told from what an
    earlier plan wrote; another digest has it written again."""
    manifest["metadata"].setdefault("annotations", {})[ANNOTATION_PLAN] = digest(manifest)


def _state(frame: Frame, password: str) -> Iterator[Planned]:
    managed = frame.managed_redis
    if managed is None:
        return
    yield Planned(secret.redis_password(frame, password), is_created_once=True)
    yield Planned(configmap.redis_files(frame))
    yield Planned(service.redis(frame))
    yield Planned(statefulset.redis(frame, managed))
    if managed.replicas > 1:
        yield Planned(disruptionbudget.budget(frame, Part.REDIS))


def _optional(frame: Frame, observed: Observed) -> Iterator[Manifest]:
    gateway, observability = frame.spec.gateway, frame.spec.observability

    def has(kind: Kind) -> bool:
        return kind.kind in observed.apis

    if gateway.autoscaling.by is api.Autoscaler.KEDA and has(objects.SCALED_OBJECT):
        yield autoscaler.keda(frame)
    else:
        yield autoscaler.horizontal(frame)
    if gateway.route is not None and has(objects.HTTP_ROUTE):
        yield httproute.route(frame, gateway.route)
    if has(objects.INFERENCE_SERVICE):
        yield from servingruntime.brought(frame, observed.runtimes)
        unscaled = modelscaler.unscaled(frame, observed.apis)
        yield from inferenceservice.services(frame, observed.runtimes, unscaled)
        yield from modelscaler.scalers(frame, observed.apis)
    if observability.pod_monitor and has(objects.POD_MONITOR):
        yield podmonitor.monitor(frame)
        if has(objects.INFERENCE_SERVICE) and podmonitor.is_wanted_for_models(frame):
            yield podmonitor.models(frame)
    if observability.alerts and has(objects.PROMETHEUS_RULE):
        yield prometheusrule.alerts(frame)


def plan(body: Manifest, observed: Observed, environment: Environment, now_s: float) -> Plan:
    """What has to be done for a flow. `now_s` is the time in seconds since 1970."""
    try:
        flow = read_flow(body)
    except FlowInvalid as error:
        return _refused(body, str(error), now_s)
    frame = frame_of(flow, observed, environment)
    has_content = not any(
        name.kind == "ConfigMap" and field.startswith(("spec.knowledge", "spec.models.intent"))
        for field, name, _ in policies.missing_references(flow.spec, observed)
    )
    wanted = wanted_objects(frame, observed, with_build=has_content)
    observed = replace(observed, foreign=observed.foreign | _strangers(wanted, observed, flow.metadata.uid))
    build = next((one.name for one in wanted if one.name.kind == objects.JOB.kind), None)
    found = policies.findings(frame, observed, build)
    status, transitions = _status(body, frame, observed, build, found, now_s)
    ends_s = [one.until_s if one.until_s > now_s else one.clears_s for one in observed.contests.values()]
    return Plan(
        writes=tuple(_writes(wanted, observed, flow.metadata.uid, now_s)),
        prunes=tuple(_prunes(wanted, observed, flow.metadata.uid, keeps_builds=not has_content)),
        status=status,
        transitions=transitions,
        requeue_s=min((max(0.0, end_s - now_s) for end_s in ends_s), default=None),
    )


def is_ours(child: Child, planned: Planned, uid: str) -> bool:
    """Whether an object that stands where a planned one should belongs to the flow with this UID. Volumes that outlived
    an earlier flow of the same name are its own again."""
    if child.owner == uid:
        return True
    flow = planned.manifest["metadata"]["labels"][LABEL_FLOW]
    return planned.name.kind == objects.VOLUME_CLAIM.kind and child.owner is None and child.flow == flow


def _strangers(wanted: list[Planned], observed: Observed, uid: str) -> frozenset[Name]:
    """Objects that carry the flow's labels in the place of its own, and belong to another owner."""
    return frozenset(
        planned.name
        for planned in wanted
        if (child := observed.children.get(planned.name)) is not None
        and not is_ours(child, planned, uid)
        and not child.is_going
    )


def _writes(wanted: list[Planned], observed: Observed, uid: str, now_s: float) -> Iterator[Write]:
    builds = [
        child
        for child in observed.children.values()
        if child.name.kind == objects.JOB.kind and child.owner == uid and _is_running(child)
    ]
    for planned in wanted:
        name = planned.name
        contest = observed.contests.get(name)
        if name in observed.foreign:
            continue
        child = observed.children.get(name)
        if child is None:
            # Two builds at once would race for the pointer to what is in force.
            if name.kind != objects.JOB.kind or all(other.name == name for other in builds):
                yield Write(planned, None)
            if name.kind == objects.SECRET.kind:
                # Pods are planned once it is known which Secret they read.
                return
        elif is_ours(child, planned, uid) and not child.is_going and not planned.is_created_once:
            paths = differences(planned.manifest, child.fields)
            is_waiting = contest is not None and contest.until_s > now_s and _PLAN_PATH not in paths
            if paths and not is_waiting:
                yield Write(planned, child.uid, tuple(paths))


def _is_running(job: Child) -> bool:
    ended = {one["type"] for one in job.status.get("conditions", ()) if one["status"] == "True"}
    return not ended & {"Complete", "Failed"}


def _prunes(wanted: list[Planned], observed: Observed, uid: str, *, keeps_builds: bool) -> Iterator[Child]:
    names = {planned.name for planned in wanted} - _lost_builds(wanted, observed)
    for name, child in sorted(observed.children.items()):
        is_volume = name.kind == objects.VOLUME_CLAIM.kind
        is_kept_build = keeps_builds and name.kind == objects.JOB.kind
        # An API that is not there for a moment is no reason to delete what it serves.
        is_absent = objects.KINDS[name.kind].is_optional and name.kind not in observed.apis
        is_kept = child.is_going or is_volume or is_kept_build or is_absent
        if child.owner == uid and name not in names and not is_kept:
            yield child


def _lost_builds(wanted: list[Planned], observed: Observed) -> frozenset[Name]:
    """Builds whose volume was deleted and made anew: what they left is gone, and the same build is wanted again."""
    volume = next((planned.name for planned in wanted if planned.name.kind == objects.VOLUME_CLAIM.kind), None)
    made = observed.children.get(volume) if volume is not None else None
    builds = [one.name for one in wanted if one.name.kind == objects.JOB.kind]
    return frozenset(
        name
        for name in builds
        if made is not None and name in observed.children and observed.children[name].created < made.created
    )


def _refused(body: Manifest, message: str, now_s: float) -> Plan:
    """A flow that cannot be used: its objects stay as they are, its status says why."""
    found = [Finding(ConditionType.CONFIGURATION_VALID, Verdict.FALSE, "Invalid", message)]
    before = body.get("status", {})
    conditions = _conditions(found, before, body["metadata"].get("generation", 0), now_s)
    kept = [one for one in before.get("conditions", ()) if one["type"] not in {new["type"] for new in conditions}]
    status = {**before, "observedGeneration": body["metadata"].get("generation", 0)}
    status["conditions"] = conditions + kept
    return Plan(status=None if status == before else status, transitions=_transitions(conditions, before))


def _status(
    body: Manifest, frame: Frame, observed: Observed, build: Name | None, found: list[Finding], now_s: float
) -> tuple[Manifest | None, tuple[Transition, ...]]:
    generation, before = body["metadata"].get("generation", 0), body.get("status", {})
    conditions = _conditions(found, before, generation, now_s)
    status = Status(
        observed_generation=generation,
        conditions=[Condition.model_validate(one) for one in conditions],
        url=_url(frame),
        gateways=policies.gateway_count(frame, observed),
        models=policies.model_rows(frame, observed, build),
    ).model_dump(mode="json", by_alias=True, exclude_none=True)
    return (None if status == before else status), _transitions(conditions, before)


def _conditions(found: list[Finding], before: Mapping[str, Any], generation: int, now_s: float) -> list[Manifest]:
    known = {one["type"]: one for one in before.get("conditions", ())}
    now = datetime.fromtimestamp(int(now_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    conditions: list[Manifest] = []
    for one in [policies.ready(found), *found]:
        last = known.get(one.type.value)
        is_same = last is not None and last["status"] == one.status.value
        condition = Condition(
            type=one.type.value,
            status=one.status,
            reason=one.reason,
            message=one.message[:32768],
            last_transition_time=last["lastTransitionTime"] if last is not None and is_same else now,
            observed_generation=generation,
        )
        conditions.append(condition.model_dump(mode="json", by_alias=True))
    return conditions


def _transitions(conditions: list[Manifest], before: Mapping[str, Any]) -> tuple[Transition, ...]:
    """What has changed since the last status. The first look is no news, but for what is wrong with the manifest."""
    known = {one["type"]: one for one in before.get("conditions", ())}
    told = {ConditionType.CONFIGURATION_VALID.value, ConditionType.OBJECTS_APPLIED.value}
    found: list[Transition] = []
    for one in conditions:
        last, is_good = known.get(one["type"]), one["status"] == "True"
        is_news = last["status"] != one["status"] if last is not None else one["type"] in told and not is_good
        if is_news:
            found.append(Transition(is_good, one["reason"], f"{one['type']}: {one['message']}"))
    return tuple(found)


def _url(frame: Frame) -> str:
    route = frame.spec.gateway.route
    if route is not None and route.hostnames:
        return f"http://{route.hostnames[0]}"
    return f"http://{frame.name(Part.GATEWAY)}.{frame.flow.metadata.namespace}.svc"

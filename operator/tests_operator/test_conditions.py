"""Conditions as tables: what was observed in, status, reason and words out."""

from __future__ import annotations

from typing import Any

import pytest
from chatflow_operator.objects import Manifest, Name
from chatflow_operator.observation import Child, Observed
from chatflow_operator.plan import plan
from chatflow_operator.resources.job import build

from tests_operator.flows import ALL_APIS, ENVIRONMENT, EXTERNAL, FULL, REFERENCES, SMALL, UID, body, frame

BUILD, REDIS, GATEWAY = "build", Name("StatefulSet", "shop-redis"), Name("Deployment", "shop-gateway")
LLM, INTENT = Name("InferenceService", "shop-llm"), Name("InferenceService", "shop-intent")
ROUTE = Name("HTTPRoute", "shop-gateway")
SCALER, KEDA = Name("HorizontalPodAutoscaler", "shop-gateway"), Name("ScaledObject", "shop-gateway")
MODEL_KEDA = Name("ScaledObject", "shop-llm")


def child(name: Name, status: Manifest) -> Child:
    """An object of the flow with a status."""
    return Child(name, "uid", 1, UID, "shop", {}, status, 1, "2026-11-23T09:00:00Z", is_going=False)


def conditions(
    spec: Manifest, statuses: dict[Any, Manifest], apis: frozenset[str] = ALL_APIS
) -> dict[str, tuple[str, str, str]]:
    """Every condition of a flow: type -> (status, reason, message)."""
    names = {key: Name("Job", build(frame(spec))["metadata"]["name"]) if key == BUILD else key for key in statuses}
    children = {names[key]: child(names[key], status) for key, status in statuses.items()}
    found = plan(body(spec), Observed(children=children, references=REFERENCES, apis=apis), ENVIRONMENT, 0.0).status
    assert found is not None
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in found["conditions"]}


def _condition(kind: str, status: str, **more: str) -> Manifest:
    return {"type": kind, "status": status, **more}


SERVES = {"conditions": [_condition("Ready", "True")]}
RUNNING = {"readyReplicas": 3, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "observedGeneration": 1}
SCALES = {"conditions": [_condition("Ready", "True"), _condition("Fallback", "False")]}
ACCEPTED = {
    "parents": [
        {
            "parentRef": {"name": "public"},
            "conditions": [_condition("Accepted", "True"), _condition("ResolvedRefs", "True")],
        }
    ]
}
REFUSED = {
    "parents": [
        {
            "parentRef": {"name": "public"},
            "conditions": [_condition("Accepted", "False", reason="NotAllowedByListeners", message="no listener")],
        }
    ]
}


@pytest.mark.parametrize(
    ("spec", "statuses", "kind", "status", "reason"),
    [
        pytest.param(SMALL, {}, "StateReady", "False", "Starting", id="no state server yet"),
        pytest.param(SMALL, {REDIS: {"readyReplicas": 1}}, "StateReady", "True", "NotHighlyAvailable", id="one"),
        pytest.param(FULL, {REDIS: {"readyReplicas": 1}}, "StateReady", "False", "NoQuorum", id="one of three"),
        pytest.param(FULL, {REDIS: {"readyReplicas": 2}}, "StateReady", "True", "Degraded", id="two of three"),
        pytest.param(FULL, {REDIS: {"readyReplicas": 3}}, "StateReady", "True", "HighlyAvailable", id="three"),
        pytest.param(EXTERNAL, {}, "StateReady", "True", "External", id="an external one"),
        pytest.param(SMALL, {}, "KnowledgeReady", "False", "BuildPending", id="no build yet"),
        pytest.param(SMALL, {BUILD: {}}, "KnowledgeReady", "False", "Building", id="building"),
        pytest.param(SMALL, {BUILD: {"ready": 1}}, "KnowledgeReady", "True", "IndexInForce", id="index in force"),
        pytest.param(SMALL, {BUILD: {"succeeded": 1}}, "KnowledgeReady", "True", "Built", id="built"),
        pytest.param(SMALL, {BUILD: {"ready": 1}}, "ModelsReady", "False", "ModelLoading", id="intent in training"),
        pytest.param(SMALL, {BUILD: {"succeeded": 1}}, "ModelsReady", "True", "Ready", id="intent trained"),
        pytest.param(SMALL, {GATEWAY: RUNNING}, "GatewayReady", "True", "Available", id="gateways"),
        pytest.param(SMALL, {GATEWAY: {"replicas": 2}}, "GatewayReady", "False", "NoGateway", id="no gateway"),
        pytest.param(
            SMALL, {GATEWAY: RUNNING | {"updatedReplicas": 1}}, "GatewayReady", "True", "RollingOut", id="rolling out"
        ),
        pytest.param(
            SMALL,
            {GATEWAY: RUNNING | {"conditions": [_condition("Progressing", "False", message="deadline")]}},
            "GatewayReady",
            "False",
            "RolloutStuck",
            id="a stuck rollout",
        ),
        pytest.param(FULL, {}, "RouteReady", "False", "NotAccepted", id="no Gateway answered"),
        pytest.param(FULL, {ROUTE: REFUSED}, "RouteReady", "False", "NotAllowedByListeners", id="refused"),
        pytest.param(FULL, {ROUTE: ACCEPTED}, "RouteReady", "True", "Accepted", id="accepted"),
        pytest.param(SMALL, {}, "Autoscaling", "False", "Pending", id="the autoscaler has not looked"),
        pytest.param(
            SMALL,
            {SCALER: {"conditions": [_condition("AbleToScale", "True"), _condition("ScalingActive", "True")]}},
            "Autoscaling",
            "True",
            "Hpa",
            id="it scales",
        ),
        pytest.param(
            FULL, {KEDA: SCALES, MODEL_KEDA: SCALES}, "Autoscaling", "True", "Keda", id="KEDA scales gateways and model"
        ),
        pytest.param(FULL, {KEDA: SCALES}, "Autoscaling", "False", "KedaNotReady", id="but not the model yet"),
        pytest.param(
            FULL,
            {KEDA: SCALES, MODEL_KEDA: {"conditions": [_condition("Ready", "True"), _condition("Fallback", "True")]}},
            "Autoscaling",
            "False",
            "Fallback",
            id="Prometheus is away",
        ),
        pytest.param(
            FULL,
            {KEDA: SCALES, MODEL_KEDA: {"conditions": [*SCALES["conditions"], _condition("HPAActive", "False")]}},
            "Autoscaling",
            "False",
            "KedaNotActive",
            id="another adapter serves external metrics",
        ),
        pytest.param(
            FULL,
            {
                BUILD: {"succeeded": 1},
                LLM: {"modelStatus": {"transitionStatus": "BlockedByFailedLoad"}, "conditions": []},
            },
            "ModelsReady",
            "False",
            "ModelFailed",
            id="a model that cannot be loaded",
        ),
        pytest.param(
            FULL,
            {BUILD: {"succeeded": 1}, LLM: SERVES, INTENT: SERVES},
            "ModelsReady",
            "True",
            "Ready",
            id="models that serve",
        ),
        pytest.param(
            FULL,
            {BUILD: {"succeeded": 1}, LLM: SERVES},
            "ModelsReady",
            "False",
            "ModelLoading",
            id="an intent server that gateways need",
        ),
    ],
)
def test_a_condition_says_what_was_observed(
    spec: Manifest, statuses: dict[Any, Manifest], kind: str, status: str, reason: str
) -> None:
    assert conditions(spec, statuses)[kind][:2] == (status, reason)


@pytest.mark.parametrize(
    ("kind", "reason", "words"),
    [
        pytest.param("ModelsReady", "KServeMissing", "install KServe", id="KServe"),
        pytest.param("RouteReady", "GatewayApiMissing", "install Gateway API", id="Gateway API"),
        pytest.param("Autoscaling", "KedaMissing", "a HorizontalPodAutoscaler on CPU runs instead", id="KEDA"),
    ],
)
def test_a_missing_api_is_a_condition_that_says_what_runs_instead(kind: str, reason: str, words: str) -> None:
    status, found, message = conditions(FULL, {}, frozenset())[kind]
    assert (status, found) == ("False", reason)
    assert words in message


@pytest.mark.parametrize(
    ("replicas", "apis", "with_prometheus", "reason", "words"),
    [
        pytest.param((1, 4), ALL_APIS - {"ScaledObject"}, True, "KedaMissing", "on CPU runs instead", id="KEDA"),
        pytest.param(
            (0, 4), ALL_APIS - {"ScaledObject"}, True, "KedaMissing", "never fewer than 1", id="KEDA, to zero"
        ),
        pytest.param((0, 1), ALL_APIS - {"ScaledObject"}, True, "KedaMissing", "1 of them run", id="KEDA, none or one"),
        pytest.param((0, 4), ALL_APIS, False, "PrometheusMissing", "observability.prometheus", id="Prometheus"),
    ],
)
def test_a_model_that_cannot_follow_requests_says_what_is_missing(
    replicas: tuple[int, int], apis: frozenset[str], with_prometheus: bool, reason: str, words: str
) -> None:
    kserve = {"storageUri": "hf://m/m", "replicas": {"min": replicas[0], "max": replicas[1]}}
    spec: Manifest = {**SMALL, "models": {"llm": {"kserve": kserve}}}
    if with_prometheus:
        spec["observability"] = {"prometheus": {"url": "http://prometheus:9090"}}
    active = {"conditions": [_condition("AbleToScale", "True"), _condition("ScalingActive", "True")]}
    status, found, message = conditions(spec, {SCALER: active}, apis)["Autoscaling"]
    assert (status, found) == ("False", reason)
    assert words in message


SERVERS = Name("Deployment", "shop-llm-predictor")
BROKEN = {"modelStatus": {"transitionStatus": "BlockedByFailedLoad", "lastFailureInfo": {"message": "no such file"}}}


@pytest.mark.parametrize(
    ("least", "service", "servers", "expected"),
    [
        pytest.param(1, {}, {"replicas": 1}, ("False", "ModelLoading", "llm is loading"), id="the first one starts"),
        pytest.param(
            1,
            {},
            {"replicas": 2, "availableReplicas": 1},
            ("True", "Ready", "llm: ready (1 of 2 servers)"),
            id="another is added",
        ),
        pytest.param(
            1,
            BROKEN,
            {"replicas": 2, "availableReplicas": 1},
            ("True", "Ready", "llm: ready (1 of 2 servers; the newest cannot be loaded: no such file)"),
            id="a rollout fails",
        ),
        pytest.param(1, BROKEN, {"replicas": 1}, ("False", "ModelFailed", "llm is failed: no such file"), id="failed"),
        pytest.param(0, SERVES, {}, ("True", "Ready", "llm: ready"), id="asleep"),
        pytest.param(0, {}, {"replicas": 1}, ("True", "Ready", "llm: waking (0 of 1 servers)"), id="waking"),
        pytest.param(0, BROKEN, {"replicas": 1}, ("False", "ModelFailed", "llm is failed: no such file"), id="never"),
    ],
)
def test_a_model_is_ready_while_one_of_its_servers_takes_traffic(
    least: int, service: Manifest, servers: Manifest, expected: tuple[str, str, str]
) -> None:
    spec = {**SMALL, "models": {"llm": {"kserve": {"storageUri": "hf://m/m", "replicas": {"min": least, "max": 2}}}}}
    found = conditions(spec, {BUILD: {"succeeded": 1}, LLM: service, SERVERS: servers})["ModelsReady"]
    assert (*found[:2], found[2].removesuffix(", intent: ready")) == expected


def test_a_fixed_number_of_servers_needs_no_autoscaler() -> None:
    kserve = {"storageUri": "hf://m/m", "replicas": {"min": 3, "max": 3}}
    active = {"conditions": [_condition("AbleToScale", "True"), _condition("ScalingActive", "True")]}
    found = conditions({**SMALL, "models": {"llm": {"kserve": kserve}}}, {SCALER: active}, frozenset(ALL_APIS))
    assert found["Autoscaling"][:2] == ("True", "Hpa")


def test_a_flow_is_ready_when_all_but_autoscaling_holds() -> None:
    statuses = {REDIS: {"readyReplicas": 1}, BUILD: {"succeeded": 1}, GATEWAY: RUNNING}
    found = conditions(SMALL, statuses)
    assert found["Ready"][:2] == ("True", "Ready")
    assert found["Autoscaling"][0] == "False"


def test_ready_names_what_fails_first_and_the_others() -> None:
    status, reason, message = conditions(SMALL, {BUILD: {"succeeded": 1}})["Ready"]
    assert (status, reason) == ("False", "Starting")
    assert message.startswith("StateReady: ")
    assert message.endswith("(and GatewayReady)")


@pytest.mark.parametrize("kind", ["HorizontalPodAutoscaler", "ScaledObject"])
def test_the_autoscaler_of_before_goes_when_the_choice_changes(kind: str) -> None:
    has_prometheus = kind == "HorizontalPodAutoscaler"
    spec = FULL if has_prometheus else {**FULL, "observability": {}}
    before = Name(kind, "shop-llm")
    observed = Observed(children={before: child(before, {})}, references=REFERENCES, apis=ALL_APIS)
    assert [one.name for one in plan(body(spec), observed, ENVIRONMENT, 0.0).prunes] == [before]

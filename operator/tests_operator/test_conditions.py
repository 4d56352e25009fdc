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
LLM, ROUTE = Name("InferenceService", "shop-llm"), Name("HTTPRoute", "shop-gateway")
SCALER, KEDA = Name("HorizontalPodAutoscaler", "shop-gateway"), Name("ScaledObject", "shop-gateway")


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


RUNNING = {"readyReplicas": 3, "replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "observedGeneration": 1}
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
            FULL, {KEDA: {"conditions": [_condition("Ready", "True")]}}, "Autoscaling", "True", "Keda", id="KEDA scales"
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
            {BUILD: {"succeeded": 1}, LLM: {"conditions": [_condition("Ready", "True")]}},
            "ModelsReady",
            "True",
            "Ready",
            id="a model that serves",
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

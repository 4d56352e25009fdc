"""A model's servers follow planted load through a real Prometheus and KEDA: one, three, one; and none, until asked."""

from __future__ import annotations

import pytest

from e2e.harness import stand_in_model
from e2e.harness.fixtures import cluster, flows, installed_operator, workspace
from e2e.harness.flows import chat, wait_ready
from e2e.harness.stand_in_model import post, ready_pods
from e2e.harness.workspace import Workspace
from e2e.scenarios.test_operator import faq, small

__all__ = ["cluster", "flows", "installed_operator", "workspace"]

SEVERAL_MINUTES_S = 900
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(2400)]
SCALED = {
    # KEDA runs beside Prometheus on the node.
    "observability": {"prometheus": {"url": "http://127.0.0.1:9090"}},
}


def need_addons(workspace: Workspace) -> None:
    """What the scenarios stand on."""
    for addon in ("kserve", "prometheus", "keda"):
        workspace.target.require(addon)


def test_servers_follow_the_load_from_one_to_three_and_back(flows: Workspace) -> None:
    need_addons(flows)
    model = stand_in_model.model(replicas={"min": 1, "max": 4}, autoscaling={"concurrency": 32})
    flows.apply(*stand_in_model.objects(flows), faq(), small("busy", {"models": {"llm": model}, **SCALED}))
    wait_ready(flows, "busy", 300)
    flows.eventually("KEDA scales it", lambda: flows.kubectl.list("hpa", "scaledobject.keda.sh/name=busy-llm"), 120)
    (first,) = ready_pods(flows, "busy")
    # 60 requests, where a server of 32 slots is meant to have 24.
    post(flows, first, "/plant?running=60")
    flows.eventually("three servers run", lambda: len(ready_pods(flows, "busy")) == 3, 240)
    # 60 / 24 is 2.5, of which each of three has its share: three is what the rule wants, and not a step on the way.
    flows.eventually("the autoscaler wants three", lambda: _wanted(flows, "busy") == (3, 3, "834m"), 120)
    assert len(stand_in_model.pods(flows, "busy")) == 3
    post(flows, first, "/plant?running=0")
    flows.eventually("one is left", lambda: len(stand_in_model.pods(flows, "busy")) == 1, SEVERAL_MINUTES_S)
    with chat(flows, "busy") as reached:
        assert reached.ask("Tell me a story about the sea.", user="late")["origin"] == "llm"


def test_a_sleeping_model_is_woken_by_who_asks(flows: Workspace) -> None:
    need_addons(flows)
    model = stand_in_model.model(replicas={"min": 0, "max": 1}, autoscaling={"cooldown": "3m"})
    model |= {"whileWaking": "hold", "wakingDeadline": "4m"}
    flows.apply(*stand_in_model.objects(flows), faq(), small("idle", {"models": {"llm": model}, **SCALED}))
    wait_ready(flows, "idle", 300)
    flows.eventually("it falls asleep", lambda: not stand_in_model.pods(flows, "idle"), SEVERAL_MINUTES_S)
    with chat(flows, "idle") as reached:
        reply = reached.ask("Tell me a story about the sea.", user="early", timeout_s=300)
    assert reply["origin"] == "llm"
    assert "warm" in reply["text"]


def _wanted(workspace: Workspace, flow: str) -> tuple[int, int, str]:
    """Servers that there are and that are wanted, and KEDA's figure for each."""
    (found,) = workspace.kubectl.list("hpa", f"scaledobject.keda.sh/name={flow}-llm")
    status = found["status"]
    figure = status["currentMetrics"][0]["external"]["current"]["averageValue"]
    return status["currentReplicas"], status["desiredReplicas"], figure

"""A flow's models on a real KServe: the intent server, and a language model that is warm before it takes traffic."""

from __future__ import annotations

import http.client
import json

import pytest

from e2e.cluster.kubectl import Manifest
from e2e.harness import stand_in_model
from e2e.harness.flows import chat, conditions, wait_ready
from e2e.harness.stand_in_model import post, ready_pods, users
from e2e.harness.workspace import Workspace
from e2e.scenarios.test_operator import faq, small


def model_row(workspace: Workspace, flow: str, role: str) -> Manifest:
    """What the flow's status says of a model."""
    found = workspace.kubectl.get("chatflow", flow)
    assert found is not None
    (row,) = [one for one in found["status"]["models"] if one["role"] == role]
    return dict(row)


@pytest.mark.timeout(600)
def test_the_flows_own_intent_model_is_served_by_kserve(flows: Workspace) -> None:
    flows.target.require("kserve")
    server = {
        "storageUri": "pvc://known-data/artefacts",
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}},
    }
    flows.apply(faq(), small("known", {"models": {"intent": {"kserve": server}}}))
    wait_ready(flows, "known", 300)
    flows.eventually("the server is ready", lambda: model_row(flows, "known", "intent")["state"] == "Ready", 120)
    texts = {"name": "text", "shape": [2], "datatype": "BYTES", "data": ["When are you open?", "I want my money back"]}
    with flows.port_forward("deployment/known-intent-predictor", 8080) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

        def answered_by_v2() -> float:
            connection.request("GET", "/metrics")
            lines = connection.getresponse().read().decode().splitlines()
            name = 'chatflow_intent_request_seconds_count{model="known-intent",protocol="v2"} '
            return sum(float(line.removeprefix(name)) for line in lines if line.startswith(name))

        connection.request("POST", "/v2/models/known-intent/infer", json.dumps({"inputs": [texts]}))
        outputs = json.loads(connection.getresponse().read())["outputs"]
        assert {one["name"]: one["data"] for one in outputs}["intent"] == ["hours", "refund"]
        before = answered_by_v2()
        with chat(flows, "known") as reached:
            assert reached.ask("I want my money back")["text"].startswith("Within a week.")
        assert answered_by_v2() > before, "gateways ask the server"
        connection.close()


@pytest.mark.timeout(900)
def test_a_language_model_takes_traffic_only_when_it_is_warm_also_after_crashes_and_in_rollouts(
    flows: Workspace,
) -> None:
    flows.target.require("kserve")
    model = stand_in_model.model()
    flows.apply(*stand_in_model.objects(flows), faq(), small("served", {"models": {"llm": model}}))
    wait_ready(flows, "served", 300)
    row = model_row(flows, "served", "llm")
    assert (row["state"], row["source"], row["name"]) == ("Ready", "KServe", "served-llm")
    with chat(flows, "served") as reached:
        assert "warm" in reached.ask("Tell me a story about the sea.", user="first")["text"]

    def restarts() -> int:
        (found,) = stand_in_model.pods(flows, "served")
        return sum(one["restartCount"] for one in found["status"]["containerStatuses"])

    # Two users talk on while the server crashes and starts cold: whoever is answered by it, is answered by a warm one.
    with users(flows, "served", "ann", "bob") as replies:
        flows.eventually("it answers", lambda: {reply["origin"] for reply in replies} == {"llm"}, 60)
        (pod,) = ready_pods(flows, "served")
        post(flows, pod, "/end")
        flows.eventually("the container is started again", lambda: restarts() == 1, 120)
        flows.eventually("it is warm again", lambda: ready_pods(flows, "served"), 120)
        since = len(replies)
        flows.eventually("it answers", lambda: any(reply["origin"] == "llm" for reply in replies[since:]), 60)
    # Meanwhile everybody was told that it is busy; the answer that the crash cut short says so.
    assert {reply["origin"] for reply in replies} <= {"llm", "static"}
    assert not [reply for reply in replies if reply["origin"] == "llm" and "warm" not in reply["text"]]

    # A new version of the model: the old one answers until the new one is warm, and nobody notices.
    with users(flows, "served", "cat", "dan") as replies:
        changed = stand_in_model.model(args=["--seed=2"])
        flows.apply(small("served", {"models": {"llm": changed}}))
        flows.eventually("another server has taken its place", lambda: is_replaced(flows, pod), 240)
        since = len(replies)
        flows.eventually("it answers", lambda: len(replies) > since + 5, 60)
    assert {reply["origin"] for reply in replies} == {"llm"}
    assert not [reply for reply in replies if "warm" not in reply["text"]]

    # Without its code the next server cannot start: the model stays away until that is back. A watch that began
    # while KServe's definitions were being installed may tell nothing until the server ends it, after two minutes.
    (pod,) = ready_pods(flows, "served")
    flows.kubectl.delete("configmap", "stand-in")
    flows.kubectl.delete("pod", pod, wait=False)
    flows.eventually(
        "the status says that the model is away",
        lambda: conditions(flows, "served")["ModelsReady"]["status"] == "False",
        240,
    )
    flows.apply(*stand_in_model.objects(flows))
    wait_ready(flows, "served", 300)


def is_replaced(workspace: Workspace, pod: str) -> bool:
    """Whether the only pod of the model is another one, and ready; the old one is gone."""
    found = workspace.kubectl.list("pods", "serving.kserve.io/inferenceservice=served-llm")
    return [one["metadata"]["name"] for one in found] == ready_pods(workspace, "served") != [pod]

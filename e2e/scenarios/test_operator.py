"""A ChatFlow on a real cluster: applied, answering, edited, damaged, upgraded, deleted; the operator by its chart."""

from __future__ import annotations

import time
from typing import Any

import pytest

from e2e.cluster.kubectl import KubectlFailed, Manifest
from e2e.harness.flows import (
    NAMESPACE,
    Operator,
    chat,
    children,
    conditions,
    example,
    first_answer_s,
    merged,
    sized,
    specs,
    wait_ready,
)
from e2e.harness.workspace import Workspace
from e2e.scenarios.test_malformed_manifests import verdicts_that_are_wrong

QUESTION = "How do I change my password?"
FIRST_ANSWER_S, CHILDREN_S, BUSY = 30.0, 2.0, 4
"""What is asked on a machine of one's own, and how many times that a busy one may take; the times are printed."""


def small(name: str, spec: Manifest | None = None, replicas: int = 1) -> Manifest:
    """A flow with two answers and one intent."""
    intents = {"hours": ["When are you open?", "opening hours"], "refund": ["I want my money back", "refund please"]}
    base = {
        "locale": "en",
        "dialogue": {"greeting": "Welcome aboard."},
        "gateway": {"replicas": {"min": 1, "max": 2}},
        "knowledge": {"sources": [{"configMap": {"name": "faq"}}], "minScore": 0.2},
        "models": {"intent": {"encoder": "none", "examples": intents}},
    }
    return {
        "apiVersion": "chatflow.dev/v1alpha1",
        "kind": "ChatFlow",
        "metadata": {"name": name},
        "spec": merged(base, sized(replicas), spec or {}),
    }


def faq(answer: str = "From nine to five.") -> Manifest:
    """The knowledge of a small flow."""
    pairs = (
        f"- id: hours\n  question: When are you open?\n  answer: {answer}\n"
        "- id: refund\n  question: How do I get my money back?\n  answer: Within a week.\n"
    )
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "faq"}, "data": {"faq.yaml": pairs}}


def test_all_objects_of_the_example_are_there_in_seconds_and_it_answers_within_30(flows: Workspace) -> None:
    flow, contents = example("saas-support", flows)
    flows.apply(*contents)
    began = time.monotonic()
    flows.apply(flow)
    applied_s = time.monotonic() - began

    # A look costs kubectl half a second; the objects' own times are exact to the second.
    wait_applied(flows, "saas-support")
    found = children(flows, "saas-support").values()
    born = [time_of(one["metadata"]["creationTimestamp"]) for one in found]
    created = flows.kubectl.get("chatflow", "saas-support")
    assert created is not None
    children_s = max(born) - time_of(created["metadata"]["creationTimestamp"])
    answered_s = first_answer_s(flows, "saas-support", QUESTION, began)
    print(f"kubectl apply {applied_s:.1f} s, {len(born)} objects {children_s:.0f} s, first answer {answered_s:.1f} s")
    assert children_s <= CHILDREN_S * BUSY
    assert answered_s <= FIRST_ANSWER_S * BUSY
    wait_ready(flows, "saas-support")
    with chat(flows, "saas-support") as reached:
        replies = [reached.ask(QUESTION), reached.leave(QUESTION)]
    for reply in replies:
        assert reply["origin"] in ("knowledge", "cache"), reply
        assert reply["citations"], reply
    found_conditions = conditions(flows, "saas-support")
    assert found_conditions["StateReady"]["reason"] == "NotHighlyAvailable"
    assert "not highly available" in found_conditions["StateReady"]["message"]


def time_of(text: str) -> float:
    """Seconds of a Kubernetes timestamp."""
    return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%SZ"))


CONFIG, GATEWAY, WORKER = "ConfigMap {}-config", "Deployment {}-gateway", "Deployment {}-worker"
EDITS: list[Any] = [
    pytest.param({"dialogue": {"greeting": "Hello."}}, {CONFIG, GATEWAY, WORKER}, id="dialogue"),
    pytest.param({"state": {"ttl": "900s"}}, {CONFIG, GATEWAY, WORKER}, id="state"),
    pytest.param({"moderation": {"allow": ["all good"]}}, {CONFIG, GATEWAY, WORKER}, id="moderation"),
    pytest.param({"degradation": {"backlogLimit": 100}}, {CONFIG, GATEWAY, WORKER}, id="degradation"),
    pytest.param({"knowledge": {"cache": {"entries": 5}}}, {CONFIG, GATEWAY, WORKER, "Job"}, id="knowledge"),
    pytest.param({"gateway": {"replicas": {"max": 3}}}, {"HorizontalPodAutoscaler {}-gateway"}, id="replicas"),
    pytest.param({"gateway": {"resources": {"requests": {"cpu": "60m"}}}}, {GATEWAY}, id="resources"),
    pytest.param({"observability": {"alerts": False}}, set(), id="observability"),
    pytest.param({"models": {"intent": {"examples": {"thanks": ["thank you"]}}}}, {CONFIG, "Job"}, id="examples"),
]


@pytest.mark.parametrize(("change", "touched"), EDITS)
def test_an_edit_changes_only_what_it_must(flows: Workspace, change: Manifest, touched: set[str]) -> None:
    flows.apply(faq(), small("edit"))
    wait_applied(flows, "edit")
    # Autoscaler and controllers write specs of their own while a flow starts.
    before = stable_specs(flows, "edit")
    flows.apply(small("edit", change))
    wait_applied(flows, "edit")
    after = stable_specs(flows, "edit")
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    names = {"Job" if key.startswith("Job ") else key for key in changed}
    assert names == {name.format("edit") for name in touched}


def wait_applied(workspace: Workspace, name: str) -> None:
    """Wait until the operator has written everything of the newest spec."""

    def check() -> bool:
        found = workspace.kubectl.get("chatflow", name)
        assert found is not None
        applied = conditions(workspace, name).get("ObjectsApplied", {})
        generation = found["metadata"]["generation"]
        return applied.get("status") == "True" and applied["observedGeneration"] == generation

    workspace.eventually(f"{name} is applied", check, 60)


def contents(workspace: Workspace, name: str) -> dict[str, Any]:
    """What the flow's objects say, for a comparison across deletions: a new Service may have another address."""
    found: dict[str, Any] = {}
    for key, one in children(workspace, name).items():
        spec = {part: value for part, value in one.get("spec", {}).items() if part not in ("clusterIP", "clusterIPs")}
        found[key] = [one["metadata"]["labels"], spec, one.get("data")]
    return found


def stable_contents(workspace: Workspace, name: str) -> dict[str, Any]:
    """The same, once the objects rest."""
    stable_specs(workspace, name)
    return contents(workspace, name)


def stable_specs(workspace: Workspace, name: str) -> dict[str, str]:
    """What the flow's objects say, once two looks agree."""
    last: list[dict[str, str]] = []

    def check() -> dict[str, str] | None:
        last.append(specs(workspace, name))
        return last[-1] if len(last) > 2 and last[-1] == last[-2] == last[-3] else None

    return workspace.eventually(f"the objects of {name} rest", check, 60)


def test_what_is_deleted_or_changed_by_hand_comes_back(flows: Workspace) -> None:
    flows.apply(faq(), small("mend"))
    wait_ready(flows, "mend")
    before = stable_contents(flows, "mend")
    flows.kubectl.run("label", "statefulset", "mend-redis", "app.kubernetes.io/part-of=other", "--overwrite")
    flows.kubectl.run("label", "deployment", "mend-gateway", "app.kubernetes.io/instance=other", "--overwrite")
    flows.kubectl.run("scale", "deployment/mend-worker", "--replicas=0")
    flows.eventually("what was changed is as before", lambda: contents(flows, "mend") == before, 20)
    for kind, name in (
        ("service", "mend-gateway"),
        ("configmap", "mend-config"),
        ("networkpolicy", "mend-pods"),
        ("poddisruptionbudget", "mend-gateway"),
        ("deployment", "mend-worker"),
    ):
        flows.kubectl.delete(kind, name, wait=False)
    flows.eventually("what was deleted is back", lambda: contents(flows, "mend") == before, 20)
    with chat(flows, "mend") as reached:
        assert reached.ask("When are you open?")["text"].strip() == "From nine to five."


def test_new_knowledge_is_built_and_taken_up_without_a_restart(flows: Workspace) -> None:
    flows.apply(faq(), small("learn"))
    wait_ready(flows, "learn")
    pods = flows.pod_names("app.kubernetes.io/component=gateway")
    flows.apply(faq("Around the clock."))

    def knows() -> bool:
        with chat(flows, "learn") as reached:
            return "Around the clock." in str(reached.ask("When are you open?", user=str(time.monotonic()))["text"])

    flows.eventually("the new answer is given", knows, 90)
    assert flows.pod_names("app.kubernetes.io/component=gateway") == pods


def test_bad_knowledge_is_told_and_the_old_stays(flows: Workspace) -> None:
    flows.apply(faq(), small("bad"))
    wait_ready(flows, "bad")
    broken = faq()
    broken["data"]["faq.yaml"] = "- id: hours\n  question: When are you open?\n"
    flows.apply(broken)

    def is_told() -> bool:
        condition = conditions(flows, "bad")["KnowledgeReady"]
        return condition["reason"] == "BuildFailed" and "faq.yaml" in condition["message"]

    flows.eventually("the build's words are in the status", is_told, 150)
    with chat(flows, "bad") as reached:
        assert reached.ask("When are you open?")["text"].strip() == "From nine to five."


def test_an_operator_that_dies_in_the_middle_of_a_rollout_goes_on_where_it_was(
    flows: Workspace, installed_operator: Operator
) -> None:
    flows.apply(faq(), small("half"))
    wait_ready(flows, "half")
    flows.apply(small("half", {"dialogue": {"greeting": "After the crash."}}))
    pod = installed_operator.pod()["metadata"]["name"]
    flows.kubectl.within(NAMESPACE).run("delete", "pod", pod, "--grace-period=0", "--force", "--wait=false")

    def second_edit() -> bool:
        # While no operator runs, its webhook refuses all.
        flows.apply(small("half", {"dialogue": {"greeting": "After the second edit."}}))
        return True

    flows.eventually("the webhook takes a second edit", second_edit, 60)
    wait_ready(flows, "half")
    flows.wait_rollout("deployment", "half-gateway")
    found = flows.kubectl.get("configmap", "half-config")
    assert found is not None
    assert "After the second edit." in found["data"]["runtime.json"]


def test_an_upgrade_of_the_operator_restarts_no_pod_of_a_flow(flows: Workspace, installed_operator: Operator) -> None:
    flows.apply(faq(), small("calm"))
    wait_ready(flows, "calm")
    before = {
        pod["metadata"]["uid"]: [one["restartCount"] for one in pod["status"]["containerStatuses"]]
        for pod in flows.kubectl.list("pods", "app.kubernetes.io/instance=calm")
    }
    old = installed_operator.pod()["metadata"]["uid"]
    installed_operator.install("operator.podAnnotations.example\\.com/release=next")
    assert installed_operator.pod()["metadata"]["uid"] != old
    flows.apply(small("calm", {"observability": {"alerts": False}}))
    wait_ready(flows, "calm")
    after = {
        pod["metadata"]["uid"]: [one["restartCount"] for one in pod["status"]["containerStatuses"]]
        for pod in flows.kubectl.list("pods", "app.kubernetes.io/instance=calm")
    }
    assert after == before


def test_what_only_the_webhook_can_see_is_refused_with_a_readable_message(flows: Workspace) -> None:
    assert verdicts_that_are_wrong(flows, has_webhook=True) == []
    flow = small("odd", {"dialogue": {"slots": [{"name": "n", "ask": "?", "pattern": "("}]}})
    with pytest.raises(KubectlFailed, match=r"\( is no regular expression"):
        flows.apply(flow)


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        pytest.param(sized(3), sized(1), "replicas cannot be lowered", id="fewer state servers"),
        pytest.param(
            {}, {"storage": {"accessMode": "ReadWriteMany"}}, "accessMode cannot change later", id="another access mode"
        ),
    ],
)
def test_a_change_that_would_lose_data_is_refused(
    flows: Workspace, before: Manifest, after: Manifest, words: str
) -> None:
    flows.apply(small("keep", before))
    with pytest.raises(KubectlFailed, match=words):
        flows.apply(small("keep", after))


def test_a_deleted_flow_leaves_its_volumes_and_nothing_else(flows: Workspace) -> None:
    flows.apply(faq(), small("gone"))
    wait_ready(flows, "gone")
    flows.kubectl.delete("chatflow", "gone")
    flows.eventually(
        "everything but the volume is gone",
        lambda: children(flows, "gone").keys() == {"PersistentVolumeClaim gone-data"},
        90,
    )
    flows.eventually("no pod is left", lambda: not flows.kubectl.list("pods"), 120)
    assert flows.kubectl.get("persistentvolumeclaim", "data-gone-redis-0") is not None


def test_users_reach_the_chat_by_a_gateway(flows: Workspace) -> None:
    flows.target.require("contour")
    route = {"parentRefs": [{"name": "contour", "namespace": "projectcontour"}], "hostnames": ["chat.example.com"]}
    flows.apply(faq(), small("routed", {"gateway": {"route": route}}))
    wait_ready(flows, "routed")
    found = conditions(flows, "routed")
    assert (found["RouteReady"]["status"], found["RouteReady"]["reason"]) == ("True", "Accepted")
    flow = flows.kubectl.get("chatflow", "routed")
    assert flow is not None
    assert flow["status"]["url"] == "http://chat.example.com"

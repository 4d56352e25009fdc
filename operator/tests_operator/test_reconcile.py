"""Reconciling against a cluster in memory: convergence, and what happens when anything goes wrong at any call."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import random
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from chatflow_api.names import LABEL_FLOW, LABEL_MANAGED_BY
from chatflow_operator.errors import ApiError, Conflict, Unavailable
from chatflow_operator.metrics import Metrics
from chatflow_operator.objects import KINDS, FlowName, Manifest, Name
from chatflow_operator.peering import rivals
from chatflow_operator.reconcile import Reconciler
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from tests_operator.fake_cluster import Crash, FakeCluster, no_fault
from tests_operator.flows import ENVIRONMENT, EXTERNAL, FULL, REFERENCES, SMALL, UID, body

FLOW = FlowName("sales", "shop")
GATEWAY = Name("Deployment", "shop-gateway")


class World:
    """A cluster, a clock, and operators that come and go."""

    def __init__(self, spec: Manifest, fault: Callable[[int, bool], None] = no_fault) -> None:
        self.cluster = FakeCluster(fault)
        self.now_s = 1_000_000.0
        self.cluster.flows[FLOW] = body(spec)
        for name, keys in REFERENCES.items():
            data = dict.fromkeys(keys, "aGk=")
            metadata = {"name": name.name, "namespace": FLOW.namespace}
            self.cluster.put({"apiVersion": "v1", "kind": name.kind, "metadata": metadata, "data": data})
        self.operator = self.restart()

    def restart(self) -> Reconciler:
        """A new process, which knows nothing."""
        self.operator = Reconciler(
            self.cluster,
            ENVIRONMENT,
            Metrics(CollectorRegistry()),
            now_s=lambda: self.now_s,
            new_password=lambda: "password",
        )
        return self.operator

    def set_spec(self, spec: Manifest) -> None:
        """The user applies another manifest."""
        live = self.cluster.flows[FLOW]
        live["spec"] = spec
        live["metadata"]["generation"] += 1
        self.cluster.stamp(live)

    def watch(self) -> None:
        """What the watches tell: everything, as after a list."""
        self.operator.cache.see_flow(self.cluster.flows[FLOW], is_deleted=False)
        for (namespace, _), live in list(self.cluster.objects.items()):
            if namespace == FLOW.namespace:
                self.operator.cache.see_child(live, is_deleted=False)
                self.operator.cache.see_content(live, is_deleted=False)
        for kind in KINDS:
            living = {live["metadata"]["uid"] for (_, name), live in self.cluster.objects.items() if name.kind == kind}
            self.operator.cache.drop_children(kind, None, living)

    async def look(self) -> None:
        """One look, as a worker takes it: errors are for another attempt."""
        self.watch()
        with contextlib.suppress(ApiError):
            await self.operator.discover()
            await self.operator.reconcile(FLOW)
        self.watch()

    async def settle(self, rounds: int = 30) -> None:
        """Look until nothing is written any more."""
        for _ in range(rounds):
            before = len(self.cluster.writes)
            await self.look()
            if len(self.cluster.writes) == before:
                return
        raise AssertionError(f"still writing after {rounds} looks: {self.cluster.writes[-5:]}")

    def children(self) -> dict[Name, Manifest]:
        """The objects that carry an owner reference to the flow."""
        return {
            name: live
            for (_, name), live in self.cluster.objects.items()
            if any(ref["uid"] == UID for ref in live["metadata"].get("ownerReferences", ()))
        }

    def state(self) -> dict[Name, Manifest]:
        """Everything that there is, without what differs between runs."""
        out: dict[Name, Manifest] = {}
        for (_, name), live in self.cluster.objects.items():
            metadata = {key: value for key, value in live["metadata"].items() if key not in ("uid", "resourceVersion")}
            out[name] = copy.deepcopy({**live, "metadata": metadata})
        return out

    def condition(self, kind: str) -> Manifest:
        """A condition of the flow."""
        found: Manifest = next(one for one in self.cluster.flows[FLOW]["status"]["conditions"] if one["type"] == kind)
        return found


@pytest.mark.parametrize("spec", [SMALL, FULL, EXTERNAL], ids=["small", "full", "external"])
async def test_a_second_look_and_a_restart_write_nothing(spec: Manifest) -> None:
    world = World(spec)
    await world.settle()
    written = len(world.cluster.writes)
    await world.look()
    world.restart()
    await world.look()
    assert len(world.cluster.writes) == written
    assert world.condition("ConfigurationValid")["status"] == "True"
    assert world.condition("ObjectsApplied")["status"] == "True"


@pytest.mark.parametrize("is_after", [False, True], ids=["before it took effect", "after it took effect"])
async def test_a_crash_at_any_call_leads_to_the_same_objects(is_after: bool) -> None:
    whole = World(EXTERNAL)
    await whole.settle()
    crashes = 0
    for number in range(1, 60):

        def fault(call: int, after: bool, number: int = number) -> None:
            if call == number and after is is_after:
                raise Crash

        world = World(EXTERNAL, fault)
        try:
            await world.settle()
        except Crash:
            crashes += 1
            world.restart()
            await world.settle()
        assert world.state() == whole.state(), f"crash at call {number}"
    assert crashes > 25


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.05, 0.5))
async def test_faults_at_random_calls_lead_to_the_same_objects(seed: int, share: float) -> None:
    chance = random.Random(seed)  # noqa: S311  Faults, not secrets.
    errors: list[Callable[[], ApiError]] = [
        lambda: Unavailable("too many requests", status=429, retry_after_s=1),
        lambda: Unavailable("internal error", status=500),
        lambda: Unavailable("no answer"),
        lambda: Conflict("changed", status=409),
    ]
    is_calm = False

    def fault(_: int, is_after: bool) -> None:
        # A conflict is the server's answer, so nothing has happened; everything else may come after the effect.
        if not is_calm and chance.random() < share:
            error = chance.choice(errors[:3] if is_after else errors)()
            raise error

    world, whole = World(EXTERNAL, fault), World(EXTERNAL)
    await whole.settle()
    for _ in range(6):
        await world.look()
    is_calm = True
    await world.settle()
    assert world.state() == whole.state()


@settings(max_examples=20, deadline=None)
@given(data=st.data())
async def test_drift_is_repaired_and_nothing_of_others_is_touched(data: st.DataObject) -> None:
    world = World(FULL)
    await world.settle()
    whole = world.state()
    # Another Secret is another password, which rolls the pods: a test of its own.
    ours = sorted(name for name in world.children() if name.kind != "Secret")
    for name in data.draw(st.lists(st.sampled_from(ours), unique=True, max_size=6), label="deleted"):
        del world.cluster.objects[FLOW.namespace, name]
    left = sorted(world.children())
    for name in data.draw(st.lists(st.sampled_from(left), unique=True, max_size=6), label="changed"):
        if name.kind in ("Secret", "Job"):
            # Made once; the real ones are immutable.
            continue
        world.cluster.edit(
            FLOW.namespace, name, lambda live: live["metadata"]["labels"].update({"app.kubernetes.io/name": "x"})
        )
    foreign = world.cluster.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "theirs",
                "namespace": FLOW.namespace,
                "labels": {"app.kubernetes.io/managed-by": "chatflow-operator", "app.kubernetes.io/instance": "shop"},
                "ownerReferences": [{"uid": "someone", "controller": True}],
            },
            "data": {"a": "b"},
        }
    )
    await world.settle()
    state = world.state()
    assert state.pop(Name("ConfigMap", "theirs"))["data"] == foreign["data"]
    assert state == whole
    assert world.condition("ObjectsApplied")["status"] == "True"


async def test_another_password_rolls_every_pod_that_reads_it() -> None:
    world = World(SMALL)
    await world.settle()
    before = hashes(world)
    del world.cluster.objects[FLOW.namespace, Name("Secret", "shop-redis")]
    await world.settle()
    after = hashes(world)
    assert {name for name in before if before[name] != after[name]} == set(before)
    assert len(before) == 3


def hashes(world: World) -> dict[Name, str]:
    """The hash by which the pods of each object roll."""
    templates = {
        name: live["spec"]["template"]["metadata"]
        for name, live in world.children().items()
        if "template" in live.get("spec", {})
    }
    return {
        name: metadata["annotations"]["chatflow.dev/config-hash"]
        for name, metadata in templates.items()
        if "annotations" in metadata
    }


async def test_an_object_of_somebody_else_is_never_touched() -> None:
    world = World(SMALL)
    metadata = {"name": "shop-gateway", "namespace": FLOW.namespace}
    theirs = world.cluster.put({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": []}})
    await world.settle()
    assert world.cluster.objects[FLOW.namespace, Name("Service", "shop-gateway")] == theirs
    condition = world.condition("ObjectsApplied")
    assert (condition["status"], condition["reason"]) == ("False", "NameConflict")
    assert "Service shop-gateway" in condition["message"]
    del world.cluster.objects[FLOW.namespace, Name("Service", "shop-gateway")]
    await world.settle()
    assert world.condition("ObjectsApplied")["status"] == "True"
    assert Name("Service", "shop-gateway") in world.children()


async def test_what_the_manifest_no_longer_asks_for_goes_and_volumes_stay() -> None:
    world = World(FULL)
    await world.settle()
    assert Name("StatefulSet", "shop-redis") in world.children()
    world.set_spec(EXTERNAL)
    await world.settle()
    gone = {Name("StatefulSet", "shop-redis"), Name("Secret", "shop-redis"), Name("HTTPRoute", "shop-gateway")}
    assert not gone & set(world.children())
    assert Name("PersistentVolumeClaim", "shop-data") in world.state()


async def test_a_volume_of_an_earlier_flow_is_used_again() -> None:
    world = World(SMALL)
    await world.settle()
    volume = Name("PersistentVolumeClaim", "shop-data")
    uid = world.cluster.objects[FLOW.namespace, volume]["metadata"]["uid"]
    for name in world.children():
        del world.cluster.objects[FLOW.namespace, name]
    world.cluster.flows[FLOW]["metadata"]["uid"] = "5f0c1e9a-0000-4000-8000-000000000002"
    world.cluster.stamp(world.cluster.flows[FLOW])
    world.restart()
    await world.settle()
    assert world.cluster.objects[FLOW.namespace, volume]["metadata"]["uid"] == uid
    assert world.condition("ObjectsApplied")["status"] == "True"


async def test_a_manifest_that_cannot_be_used_changes_nothing_but_the_status() -> None:
    world = World(SMALL)
    await world.settle()
    before = world.state()
    slot = {"name": "n", "ask": "?", "pattern": "("}
    world.set_spec({**SMALL, "dialogue": {"slots": [slot]}})
    await world.settle()
    assert world.state() == before
    condition = world.condition("ConfigurationValid")
    assert (condition["status"], condition["reason"]) == ("False", "Invalid")
    assert "( is no regular expression" in condition["message"]
    assert world.condition("Ready")["status"] == "False"


async def test_missing_content_holds_the_build_back_and_says_so() -> None:
    world = World(FULL)
    del world.cluster.objects[FLOW.namespace, Name("ConfigMap", "faq")]
    await world.settle()
    assert not [name for name in world.children() if name.kind == "Job"]
    condition = world.condition("ConfigurationValid")
    assert condition["reason"] == "ReferenceMissing"
    assert "spec.knowledge.sources[0].configMap: ConfigMap faq is not there; create it" in condition["message"]
    assert [event["reason"] for event in world.cluster.events].count("ReferenceMissing") == 1
    world.cluster.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "faq", "namespace": "sales"}, "data": {"a": "b"}}
    )
    await world.settle()
    assert [name for name in world.children() if name.kind == "Job"]
    assert world.condition("ConfigurationValid")["status"] == "True"


async def test_two_builds_never_run_at_once() -> None:
    world = World(SMALL)
    await world.settle()
    (first,) = [name for name in world.children() if name.kind == "Job"]
    world.set_spec({**SMALL, "models": {"intent": {"examples": {"hours": ["open?"]}}}})
    # The garbage collector takes its time over the first one.
    live = world.cluster.objects[FLOW.namespace, first]
    live["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.cluster.stamp(live)
    await world.settle()
    assert [name for name in world.children() if name.kind == "Job"] == [first]
    del world.cluster.objects[FLOW.namespace, first]
    await world.settle()
    (second,) = [name for name in world.children() if name.kind == "Job"]
    assert second != first


async def test_a_field_that_is_taken_back_again_and_again_is_told_and_left_alone_for_a_while() -> None:
    world = World(SMALL)
    await world.settle()

    def take_back() -> None:
        world.cluster.edit(FLOW.namespace, GATEWAY, lambda live: live["spec"].update({"minReadySeconds": 99}))

    for _ in range(6):
        world.now_s += 10
        take_back()
        await world.look()
        assert world.cluster.objects[FLOW.namespace, GATEWAY]["spec"]["minReadySeconds"] == 1
    condition = world.condition("ObjectsApplied")
    assert (condition["status"], condition["reason"]) == ("False", "FieldContested")
    assert "Deployment shop-gateway.spec.minReadySeconds was taken back 6 times" in condition["message"]
    assert [event["reason"] for event in world.cluster.events].count("FieldContested") == 1
    take_back()
    await world.look()
    assert world.cluster.objects[FLOW.namespace, GATEWAY]["spec"]["minReadySeconds"] == 99
    world.now_s += 61
    await world.look()
    assert world.cluster.objects[FLOW.namespace, GATEWAY]["spec"]["minReadySeconds"] == 1
    world.now_s += 700
    await world.look()
    assert world.condition("ObjectsApplied")["status"] == "True"


async def test_a_failed_build_is_told_in_its_own_words() -> None:
    world = World(SMALL)
    await world.settle()
    (build,) = [name for name in world.children() if name.kind == "Job"]
    live = world.cluster.objects[FLOW.namespace, build]
    live["status"] = {"failed": 3, "conditions": [{"type": "Failed", "status": "True"}]}
    world.cluster.stamp(live)
    await world.settle()
    await world.look()
    condition = world.condition("KnowledgeReady")
    assert (condition["reason"], condition["status"]) == ("BuildFailed", "False")
    assert condition["message"].startswith("faq.yaml:3: no answer")


async def test_a_volume_that_was_made_anew_is_built_on_again() -> None:
    world = World(SMALL)
    await world.settle()
    (build,) = [name for name in world.children() if name.kind == "Job"]
    first = world.cluster.objects[FLOW.namespace, build]
    first["status"] = {"succeeded": 1, "conditions": [{"type": "Complete", "status": "True"}]}
    world.cluster.stamp(first)
    await world.settle()
    assert world.condition("KnowledgeReady")["status"] == "True"
    del world.cluster.objects[FLOW.namespace, Name("PersistentVolumeClaim", "shop-data")]
    world.cluster.time = "2026-11-23T09:30:00Z"
    await world.settle()
    await world.look()
    again = world.cluster.objects[FLOW.namespace, build]
    assert again["metadata"]["uid"] != first["metadata"]["uid"]
    assert world.condition("KnowledgeReady")["reason"] == "Building"


async def test_an_object_whose_flow_label_was_changed_gets_it_back() -> None:
    world = World(SMALL)
    await world.settle()
    before = world.state()[GATEWAY]
    world.cluster.edit(FLOW.namespace, GATEWAY, lambda live: live["metadata"]["labels"].update({LABEL_FLOW: "other"}))
    await world.settle()
    assert world.state()[GATEWAY] == before


async def test_no_status_takes_half_of_the_objects_for_all() -> None:
    world = World(SMALL)
    for _ in range(10):
        await world.look()
        status = world.cluster.flows[FLOW].get("status", {})
        if status:
            break
    assert world.condition("ObjectsApplied")["status"] == "True"
    before = set(world.children())
    await world.settle()
    assert set(world.children()) == before


async def test_a_secret_without_its_label_is_found_once_and_left_as_it_is() -> None:
    world = World(SMALL)
    await world.settle()
    secret = Name("Secret", "shop-redis")
    live = world.cluster.objects[FLOW.namespace, secret]
    del live["metadata"]["labels"][LABEL_MANAGED_BY]
    world.cluster.stamp(live)
    world.restart()
    world.watch()
    await world.operator.discover()
    world.operator.cache.drop_child(FLOW, secret)
    written = list(world.cluster.writes)
    await world.operator.reconcile(FLOW)
    assert await world.operator.reconcile(FLOW) is None
    assert world.cluster.writes == written


async def test_a_list_of_runtimes_that_fails_moves_no_model_to_another_runtime() -> None:
    def runtime() -> str:
        found = world.children()[Name("InferenceService", "shop-llm")]
        return str(found["spec"]["predictor"]["model"]["runtime"])

    world = World(FULL)
    await world.settle()
    assert runtime() == "kserve-vllmserver"
    world.cluster.runtimes = None
    await world.settle()
    assert runtime() == "kserve-vllmserver"
    world.cluster.runtimes = frozenset()
    await world.settle()
    assert runtime() == "shop-llm"


async def test_an_operator_that_is_held_looks_at_nothing_and_reads_all_anew_when_it_may_go_on() -> None:
    looked = asyncio.Event()
    world = World(SMALL, lambda *_: looked.set())
    await world.operator.go_on()
    await world.settle()
    async with asyncio.TaskGroup() as group:
        worker = group.create_task(world.operator.work())
        world.operator.hold()
        looked.clear()
        world.operator.queue.add(FLOW)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not looked.is_set()
        world.now_s += 1000
        assert not world.operator.is_stuck(1)
        # Another operator works meanwhile; this one's watches are closed.
        other = World(SMALL)
        other.cluster = world.cluster
        other.restart()
        other.set_spec({**SMALL, "dialogue": {"greeting": "Hello again."}})
        await other.settle()
        written = list(world.cluster.writes)
        await world.operator.go_on()
        assert not world.operator.is_stuck(1)
        await world.operator.reconcile(FLOW)
        assert world.cluster.writes == written
        world.set_spec(SMALL)
        looked.clear()
        world.operator.see_flow(world.cluster.flows[FLOW], is_deleted=False)
        async with asyncio.timeout(5):
            await looked.wait()
        worker.cancel()


@pytest.mark.parametrize(
    ("peer", "is_rival"),
    [
        ({"priority": 0, "lifetime": 20, "lastseen": "2026-11-23T09:00:00+00:00"}, True),
        ({"priority": 100, "lifetime": 20, "lastseen": "2026-11-23T09:00:00"}, True),
        ({"priority": -1, "lifetime": 20, "lastseen": "2026-11-23T09:00:00+00:00"}, False),
        ({"priority": 100, "lifetime": 5, "lastseen": "2026-11-23T09:00:00+00:00"}, False),
    ],
    ids=["equal", "higher", "lower", "gone"],
)
def test_an_operator_pauses_for_live_peers_of_its_priority_or_more(peer: Manifest, is_rival: bool) -> None:
    now = datetime(2026, 11, 23, 9, 0, 10, tzinfo=UTC)
    assert rivals({"other": peer, "self": peer}, "self", now) == (["other"] if is_rival else [])

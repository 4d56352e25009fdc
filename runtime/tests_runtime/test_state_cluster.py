"""The stores on a Redis or Valkey Cluster: slots that move while in use, primaries that die."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chatflow_api import names
from chatflow_runtime.errors import StateError, StateUnavailable
from chatflow_runtime.ports import Turn
from chatflow_runtime.state.cluster import ClusterConnection
from chatflow_runtime.state.connection import Connection
from chatflow_runtime.state.link import link_to
from chatflow_runtime.state.redis_store import open_redis_store
from chatflow_runtime.state.scripts import render
from chatflow_runtime.state.topology import SLOTS, slot_of
from hypothesis import given
from hypothesis import strategies as st
from redis.crc import key_slot
from tests_runtime.state_cases import PATIENT, RULES, new_flow
from tests_runtime.state_servers import Cluster, ServerKind, installed, running_cluster, wait_until
from tests_runtime.test_state_redis import UNHURRIED, converse
from tests_runtime.test_state_sentinel import BRISK, KEEPING, traffic


@pytest.fixture(scope="module", params=installed())
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A cluster for tests that leave it whole."""
    with running_cluster(ServerKind(request.param)) as running:
        yield running


@given(st.text(st.sampled_from("{}ab.单")) | st.binary())
def test_slots_are_those_of_the_specification(key: str | bytes) -> None:
    assert slot_of(key) == key_slot(key if isinstance(key, bytes) else key.encode())


def test_all_keys_of_a_user_share_a_slot() -> None:
    keys = (names.conversation_key("f", "u"), names.history_key("f", "u"), names.due_key("f", names.partition("u")))
    assert len({slot_of(key) for key in keys}) == 1
    assert len({slot_of(names.due_key("f", number)) for number in range(names.PARTITIONS)}) > 200


def move(cluster: Cluster, slot: int, keys_first: bool = True) -> None:
    """Move a slot to the next node, as redis-cli does."""
    source = cluster.owner(slot)
    target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
    begin_move(cluster, slot)
    while keys_first and (keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100)):
        source.ask("MIGRATE", "127.0.0.1", target.port, "", 0, 5000, "KEYS", *keys)
    name = target.ask("CLUSTER", "MYID")
    for node in (target, source):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", name)


def begin_move(cluster: Cluster, slot: int) -> None:
    """Let a slot be on its way."""
    source = cluster.owner(slot)
    target = cluster.nodes[(cluster.nodes.index(source) + 1) % 3]
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.ask("CLUSTER", "MYID"))
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.ask("CLUSTER", "MYID"))


async def test_a_slot_that_moves_is_followed_without_a_failure(cluster: Cluster) -> None:
    flow = new_flow()
    slot = slot_of(names.conversation_key(flow, "u"))
    async with open_redis_store(cluster.url, flow, RULES, patience=PATIENT) as store:
        for number in range(3):
            await converse(store, Turn("u", f"m{number}", "o", "text"))
            move(cluster, slot)
            assert len(await store.history("u")) == 2 * (number + 1)


async def test_a_slot_that_moves_under_traffic_loses_nothing(cluster: Cluster) -> None:
    flow = new_flow()
    async with (
        open_redis_store(cluster.url, flow, KEEPING, patience=BRISK) as store,
        traffic(store) as talking,
    ):
        for uid in ("u0", "u1"):
            move(cluster, slot_of(names.conversation_key(flow, uid)))
            await talking.go_on(5)


async def test_what_is_new_in_a_slot_on_its_way_is_asked_of_the_node_that_takes_it(cluster: Cluster) -> None:
    key = f"{{{new_flow()}}}"
    link = link_to(cluster.url, patience=PATIENT)
    await link.open()
    source = cluster.owner(slot_of(key))
    begin_move(cluster, slot_of(key))
    assert await link.call("SET", key, "new") == b"OK"
    assert await link.call("GET", key) == b"new"
    assert source.ask("CLUSTER", "COUNTKEYSINSLOT", slot_of(key)) == 0
    await link.close()
    move(cluster, slot_of(key))


async def test_a_script_and_what_follows_it_stay_together_when_the_node_forgot_the_script(cluster: Cluster) -> None:
    async with open_redis_store(cluster.url, new_flow(), UNHURRIED, patience=PATIENT) as store:
        for node in cluster.nodes:
            node.ask("SCRIPT", "FLUSH")
        await converse(store, Turn("u", "m", "o", "text"))
        assert len(await store.history("u")) == 2


async def test_keys_of_two_slots_in_one_call_are_refused(cluster: Cluster) -> None:
    link = link_to(cluster.url, scripts=render(RULES).all(), patience=PATIENT)
    await link.open()
    with pytest.raises(StateError, match="CROSSSLOT"):
        await link.call("DEL", "a", "b")
    await link.close()
    with pytest.raises(StateUnavailable, match="closed"):
        await link.call("GET", "a")


async def test_a_node_of_a_cluster_by_the_url_of_a_server_says_what_to_write(cluster: Cluster) -> None:
    connection = Connection(f"redis://127.0.0.1:{cluster.nodes[0].port}", patience=PATIENT)
    await connection.open()
    key = next(key for key in map(str, range(SLOTS)) if cluster.owner(slot_of(key)) is not cluster.nodes[0])
    with pytest.raises(StateError, match=r"MOVED.*redis\+cluster://"):
        await connection.call("GET", key)
    await connection.close()


async def test_opening_without_a_cluster_fails_with_every_reason_and_goes_on_trying() -> None:
    link = link_to("redis+cluster://:secret@127.0.0.1:1,127.0.0.1:2", patience=BRISK)
    assert isinstance(link, ClusterConnection)
    with pytest.raises(StateUnavailable, match=r"127\.0\.0\.1:1: .*127\.0\.0\.1:2: ") as raised:
        await link.open()
    assert "secret" not in str(raised.value) + str(link)
    with pytest.raises(StateUnavailable, match="try again"):
        await link.call("PING")
    await link.close()


@pytest.mark.parametrize("kind", installed())
async def test_a_killed_primary_is_replaced_by_its_replica(kind: ServerKind) -> None:
    with running_cluster(kind, replicas=1) as cluster:
        flow = next(
            flow
            for flow in iter(new_flow, "")
            if cluster.owner(slot_of(names.conversation_key(flow, "u0"))) is cluster.nodes[0]
        )
        async with (
            open_redis_store(cluster.url, flow, KEEPING, patience=BRISK) as store,
            traffic(store) as talking,
        ):
            # Replication is asynchronous, and on a busy machine the replica may be far behind. Nothing else runs here
            # meanwhile, so nothing is acknowledged between its arrival and the end of the primary.
            written = cluster.nodes[0].ask("ROLE")[1]
            wait_until(lambda: cluster.nodes[3].ask("ROLE")[4] >= written)
            cluster.nodes[0].kill()
            await talking.go_on(20)
            assert talking.failures

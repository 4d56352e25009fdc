"""The client of the intent server, against a server that speaks the real one's wire code and shows planted faults. The
real server has its turn in e2e/serving."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random

import pytest
from chatflow_api.runtime_config import IntentServerConfig
from chatflow_models.intent.batching import Limits
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.remote_classification import LIMITS, RENEWED_CALLS, Probe, RemoteClassifier
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.domain.breaker import BreakerRules
from chatflow_runtime.errors import ClassifierUnavailable
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import MISSED
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs
from tests_runtime.planted_intent_server import (
    DIMENSIONS,
    Cut,
    Fault,
    Hold,
    PlantedIntentServer,
    Say,
    Status,
    planted_intent_server,
    vector_of,
)

UNHURRIED_S = 30.0
SOON_S = 0.05
TEXTS = ["refund", "where is it", "我的快递", "发票 invoice"]
PROBE = "how long does a refund take"


@dataclass
class Bench:
    """A client and its server."""

    server: PlantedIntentServer
    client: RemoteClassifier
    registry: CollectorRegistry

    def faults(self) -> dict[str, float]:
        """Faults by reason, as a scrape sees them."""
        return {
            sample.labels["reason"]: sample.value
            for family in self.registry.collect()
            for sample in family.samples
            if sample.name == "chatflow_intent_faults_total"
        }

    def probe(self, encoder: int = 0) -> Probe:
        """That of an index by an encoder."""
        return Probe(PROBE, vector_of(PROBE, encoder))


@asynccontextmanager
async def running(deadline_s: float = UNHURRIED_S, limits: Limits = LIMITS) -> AsyncIterator[Bench]:
    registry = CollectorRegistry()
    async with planted_intent_server() as server, open_session() as session:
        config = IntentServerConfig(base_url=server.base_url, model="shop-intent", deadline_s=deadline_s)
        metrics = Metrics(registry)
        yield Bench(server, RemoteClassifier(config, session, metrics, Guards(metrics).of("intent"), limits), registry)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with running() as made:
        yield made


async def test_questions_of_one_moment_share_a_call_and_get_their_own_answers(bench: Bench) -> None:
    bench.client.swap(bench.probe())
    found = await asyncio.gather(*map(bench.client.classify, TEXTS))
    assert bench.server.calls == [[*TEXTS, PROBE]]
    for text, one in zip(TEXTS, found, strict=True):
        assert (one.intent, one.is_in_scope, one.version) == (text, len(text) % 2 == 0, "v1")
        assert one.confidence == pytest.approx(0.9)
        assert [name for name, _ in one.alternatives] == [text, "other"]
        assert one.embedding == pytest.approx(vector_of(text))
    assert bench.client.version == "v1"
    assert bench.faults() == {}


async def test_connections_are_kept_and_now_and_then_renewed(bench: Bench) -> None:
    for _ in range(RENEWED_CALLS - 1):
        await bench.client.classify("refund")
    assert len(bench.server.peers) == 1
    for _ in range(2):
        await bench.client.classify("refund")
    assert len(bench.server.peers) == 2


@given(
    texts=st.lists(st.text(st.characters(codec="utf-8"), min_size=1, max_size=12), min_size=1, max_size=24),
    items=st.integers(1, 8),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=25, deadline=None)
def test_any_order_of_answers_and_departures_leaves_each_its_own(texts: list[str], items: int, seed: int) -> None:
    asyncio.run(_ask_in_disorder(texts, items, Random(seed)))  # noqa: S311  An order, not a secret.


async def _ask_in_disorder(texts: Sequence[str], items: int, order: Random) -> None:
    async with running(limits=Limits(items=items, size=1000, window_s=0.001, batches=3)) as bench:
        gates = [asyncio.Event() for _ in texts]
        bench.server.faults.extend(map(Hold, order.sample(gates, len(gates))))
        tasks = [asyncio.create_task(bench.client.classify(text)) for text in texts]
        leaving = [task for task in tasks if order.random() < 0.3]
        for gate in gates:
            for _ in range(order.randrange(20)):
                await asyncio.sleep(0)
            gate.set()
            if leaving and order.random() < 0.5:
                leaving.pop().cancel()
        for text, task in zip(texts, tasks, strict=True):
            try:
                assert (await task).intent == text
            except asyncio.CancelledError:
                assert task.cancelled()


async def test_a_server_that_fails_again_and_again_is_left_alone() -> None:
    async with running() as bench:
        bench.server.faults.extend([Status(500)] * 50)
        for _ in range(40):
            assert (await bench.client.classify("refund")).is_missed
        assert len(bench.server.calls) == BreakerRules().minimum_calls
        assert bench.faults() == {"failed": 20, "left_alone": 20}


EMPTY = b'{"model_version": "v1", "outputs": []}'
SHORT = (
    b'{"model_version": "v1", "outputs": ['
    b'{"name": "intent", "datatype": "BYTES", "shape": [0], "data": []},'
    b'{"name": "confidence", "datatype": "FP32", "shape": [0], "data": []},'
    b'{"name": "out_of_scope", "datatype": "FP32", "shape": [0], "data": []},'
    b'{"name": "alternative_intents", "datatype": "BYTES", "shape": [0, 5], "data": []},'
    b'{"name": "alternative_confidences", "datatype": "FP32", "shape": [0, 5], "data": []}]}'
)
TORN = (
    b'{"model_version": "v1", "outputs": ['
    b'{"name": "intent", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},'
    b'{"name": "confidence", "datatype": "FP32", "shape": [2], "data": [0.9, 0.9]},'
    b'{"name": "out_of_scope", "datatype": "FP32", "shape": [2], "data": [0, 0]},'
    b'{"name": "alternative_intents", "datatype": "BYTES", "shape": [2, 1], "data": ["a", "b"]},'
    b'{"name": "alternative_confidences", "datatype": "FP32", "shape": [2, 1], "data": [0.9, 0.9]},'
    b'{"name": "embedding", "datatype": "FP32", "shape": [2, 8], "parameters": {"binary_data_size": 64}}]}'
)


@pytest.mark.parametrize(
    ("faults", "reason"),
    [
        pytest.param([Status(500)], "failed", id="an error"),
        pytest.param([Status(404)], "failed", id="no such model"),
        pytest.param([Status(429)], "overloaded", id="too much to do"),
        pytest.param([Cut(), Cut()], "failed", id="a connection cut twice"),
        pytest.param([Say(b"<html>")], "failed", id="no JSON"),
        pytest.param([Say(b'{"outputs": 7}')], "failed", id="another shape"),
        pytest.param([Say(EMPTY)], "failed", id="outputs missing"),
        pytest.param([Say(SHORT)], "failed", id="an answer too few"),
        pytest.param([Say(TORN + bytes(60), len(TORN))], "failed", id="an embedding cut short"),
        pytest.param([Say(TORN + bytes(30), len(TORN))], "failed", id="half a number"),
    ],
)
async def test_what_fails_is_missed_and_counted_and_the_next_question_is_asked_again(
    bench: Bench, faults: list[Fault], reason: str
) -> None:
    bench.client.swap(bench.probe())
    bench.server.faults.extend(faults)
    assert await bench.client.classify("refund") is MISSED
    assert bench.faults() == {reason: 1}
    found = await bench.client.classify("refund")
    assert (found.intent, found.embedding is None) == ("refund", False)


async def test_a_server_that_is_not_there_is_missed_at_once_and_told_once(bench: Bench) -> None:
    bench.server.faults.extend([Status(500)] * 3)
    with capture_logs() as logs:
        for _ in range(4):
            await bench.client.classify("refund")
        bench.server.faults.append(Status(500))
        await bench.client.classify("refund")
    assert [line["event"] for line in logs] == ["intent_server_failing"]
    assert bench.faults() == {"failed": 4}


async def test_a_late_answer_is_given_up() -> None:
    async with running(SOON_S) as bench:
        bench.server.faults.append(Hold(asyncio.Event()))
        assert await bench.client.classify("refund") is MISSED
        assert bench.faults() == {"late": 1}


async def test_a_call_that_is_stuck_holds_up_no_other(bench: Bench) -> None:
    gate = asyncio.Event()
    bench.server.faults.append(Hold(gate))
    stuck = asyncio.create_task(bench.client.classify("refund"))
    await bench.server.asked.wait()
    assert (await bench.client.classify("invoice")).intent == "invoice"
    assert not stuck.done()
    gate.set()
    assert (await stuck).intent == "refund"


async def test_a_question_too_many_is_missed_at_once() -> None:
    async with running(limits=Limits(items=1, waiting=1, batches=1)) as bench:
        gate = asyncio.Event()
        bench.server.faults.append(Hold(gate))
        first = asyncio.create_task(bench.client.classify("a"))
        await bench.server.asked.wait()
        second = asyncio.create_task(bench.client.classify("b"))
        await asyncio.sleep(0)
        assert await bench.client.classify("c") is MISSED
        gate.set()
        assert ((await first).intent, (await second).intent) == ("a", "b")
        assert bench.faults() == {"overloaded": 1}


async def test_a_kept_connection_that_the_server_has_closed_costs_no_question(bench: Bench) -> None:
    await bench.client.classify("refund")
    bench.server.faults.append(Cut())
    assert (await bench.client.classify("refund")).intent == "refund"
    assert bench.faults() == {}


async def test_embeddings_are_used_by_the_encoder_and_not_by_the_version(bench: Bench) -> None:
    bench.client.swap(bench.probe())
    assert (await bench.client.classify("refund")).embedding is not None
    bench.server.version = "v2"
    # One answer of an unknown model goes without; the next batch brings the probe.
    assert (await bench.client.classify("refund")).embedding is None
    found = await bench.client.classify("refund")
    assert (found.version, found.embedding is None) == ("v2", False)
    assert bench.faults() == {"mismatch": 1}
    assert [PROBE in texts for texts in bench.server.calls] == [True, False, True]


@pytest.mark.parametrize(
    ("encoder", "dimensions"),
    [
        pytest.param(1, DIMENSIONS, id="another encoder"),
        pytest.param(0, DIMENSIONS + 1, id="another length"),
        pytest.param(None, DIMENSIONS, id="no encoder"),
    ],
)
async def test_embeddings_that_do_not_go_together_with_the_index_are_left_aside(
    bench: Bench, encoder: int | None, dimensions: int
) -> None:
    bench.server.encoder, bench.server.dimensions = encoder, dimensions
    bench.client.swap(bench.probe())
    with capture_logs() as logs:
        for _ in range(3):
            found = await bench.client.classify("refund")
            assert (found.intent, found.embedding) == ("refund", None)
    assert [line["event"] for line in logs] == ["embeddings_left_aside"]
    assert bench.faults() == {"mismatch": 3}
    assert [PROBE in texts for texts in bench.server.calls] == [True, False, False]
    assert bench.server.embeddings == [True, False, False]
    bench.server.encoder, bench.server.dimensions = 1, DIMENSIONS
    bench.client.swap(bench.probe(encoder=1))
    assert (await bench.client.classify("refund")).embedding is not None


async def test_an_index_without_vectors_asks_for_none(bench: Bench) -> None:
    assert (await bench.client.classify("refund")).embedding is None
    assert bench.server.embeddings == [False]
    assert bench.faults() == {}


async def test_the_start_waits_for_a_server_that_is_ready(bench: Bench) -> None:
    bench.server.faults.append(Status(503))
    with pytest.raises(ClassifierUnavailable, match="status 503"):
        await bench.client.check()
    await bench.client.check()

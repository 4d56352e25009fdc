"""The gateway's client against the intent server, as a process under KServe's SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chatflow_api.runtime_config import IntentServerConfig
from chatflow_models.intent import IntentModel
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.remote_classification import Probe, RemoteClassifier
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import MISSED
from prometheus_client import CollectorRegistry

from e2e.serving.test_intent_server import TEXTS, Server, serving

PROBE = "how long does a refund take"
UNHURRIED_S = 30.0


@pytest.fixture(scope="module")
def server(artefact: Path) -> Iterator[Server]:
    with serving(artefact, "--grpc_port=0") as running:
        yield running


@asynccontextmanager
async def client_of(server: Server, model: str = "intent") -> AsyncIterator[RemoteClassifier]:
    async with open_session() as session:
        config = IntentServerConfig(base_url=f"http://127.0.0.1:{server.port}", model=model, deadline_s=UNHURRIED_S)
        metrics = Metrics(CollectorRegistry())
        yield RemoteClassifier(config, session, metrics, Guards(metrics).of("intent"))


async def test_gateways_learn_what_the_model_says(server: Server, artefact: Path) -> None:
    model = await asyncio.to_thread(IntentModel.load, artefact)
    expected = model.predict([*TEXTS, PROBE])
    vector = expected[-1].embedding
    assert vector is not None
    async with client_of(server) as client:
        await client.check()
        client.swap(Probe(PROBE, vector))
        found = await asyncio.gather(*map(client.classify, TEXTS))
        assert (client.version, client.calls) == (model.version, 1)
    for one, prediction in zip(found, expected, strict=False):
        assert (one.intent, one.is_in_scope) == (prediction.intent, prediction.is_in_scope)
        assert one.confidence == pytest.approx(prediction.confidence, abs=1e-5)
        assert [name for name, _ in one.alternatives] == [name for name, _ in prediction.alternatives]
        assert one.embedding == pytest.approx(prediction.embedding, abs=1e-5)


async def test_a_model_that_the_server_does_not_have_is_missed(server: Server) -> None:
    async with client_of(server, "other") as client:
        assert await client.classify(TEXTS[0]) is MISSED

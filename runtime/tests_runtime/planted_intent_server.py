"""An intent server with planted faults: speaks the real server's wire code, with a model that names each text after
itself."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import numpy as np
from aiohttp import web
from chatflow_models.intent import Prediction
from chatflow_models.serving import wire
from numpy.typing import NDArray

DIMENSIONS = 8


def vector_of(text: str, encoder: int = 0, dimensions: int = DIMENSIONS) -> NDArray[np.float32]:
    """What an encoder makes of a text: a direction of its own."""
    seed = int.from_bytes(text.encode()[:64], "big") + encoder
    vector = np.random.default_rng(seed % 2**63).standard_normal(dimensions, dtype=np.float32)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


@dataclass(frozen=True)
class Hold:
    """The answer waits for the event."""

    until: asyncio.Event


@dataclass(frozen=True)
class Status:
    """An error status."""

    number: int


@dataclass(frozen=True)
class Cut:
    """The connection is cut instead of an answer."""


@dataclass(frozen=True)
class Say:
    """A body of its own, with status 200."""

    body: bytes
    json_length: int | None = None


Fault = Hold | Status | Cut | Say


@dataclass
class PlantedIntentServer:
    """Its state: faults to show in turn, one a call; what was received."""

    version: str = "v1"
    encoder: int | None = 0
    """None: a light model."""
    dimensions: int = DIMENSIONS
    faults: deque[Fault] = field(default_factory=deque)
    calls: list[list[str]] = field(default_factory=list)
    """The texts of each call."""
    embeddings: list[bool] = field(default_factory=list)
    """Whether each call wanted them."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set once a call has come."""
    peers: set[int] = field(default_factory=set)
    """Ports of the clients' connections."""
    port: int = 0

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def predictions(self, texts: list[str]) -> list[Prediction]:
        """Every text is an intent; the even ones are in scope."""
        return [
            Prediction(
                intent=text,
                confidence=0.9,
                out_of_scope=0.05 if len(text) % 2 == 0 else 0.95,
                is_in_scope=len(text) % 2 == 0,
                alternatives=((text, 0.9), ("other", 0.1)),
                embedding=None if self.encoder is None else vector_of(text, self.encoder, self.dimensions),
            )
            for text in texts
        ]

    async def infer(self, request: web.Request) -> web.StreamResponse:
        ask = wire.read_v2(await request.read())
        self.calls.append(ask.texts)
        self.asked.set()
        self.embeddings.append(bool(ask.binary))
        assert request.transport is not None
        self.peers.add(request.transport.get_extra_info("peername")[1])
        fault = self.faults.popleft() if self.faults else None
        match fault:
            case Status(number):
                return web.json_response({"error": "planted"}, status=number)
            case Cut():
                request.transport.abort()
                return web.Response()
            case Say(body, json_length):
                return _answer(body, json_length)
            case Hold(until):
                await until.wait()
        return _answer(*wire.answer_v2(ask, self.predictions(ask.texts), "shop-intent", self.version))

    async def ready(self, _: web.Request) -> web.Response:
        fault = self.faults.popleft() if self.faults else None
        return web.json_response({"ready": fault is None}, status=fault.number if isinstance(fault, Status) else 200)


def _answer(body: bytes, json_length: int | None) -> web.Response:
    headers = {} if json_length is None else {"inference-header-content-length": str(json_length)}
    return web.Response(body=body, content_type="application/octet-stream", headers=headers)


@asynccontextmanager
async def planted_intent_server(model: str = "shop-intent") -> AsyncIterator[PlantedIntentServer]:
    """A running server of one model on a free port of 127.0.0.1."""
    server = PlantedIntentServer()
    app = web.Application()
    app.add_routes(
        [
            web.post(f"/v2/models/{model}/infer", server.infer),
            web.get(f"/v2/models/{model}/ready", server.ready),
        ]
    )
    runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        server.port = runner.addresses[0][1]
        yield server
    finally:
        await runner.cleanup()

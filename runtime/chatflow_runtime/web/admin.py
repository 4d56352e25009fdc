"""The admin port: /livez, /readyz, /metrics, /debug/breakers. `bootstrap` starts it and tells `Health` how far the
gateway is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from starlette.types import ASGIApp, Receive, Scope, Send

from chatflow_runtime.domain.breaker import Snapshot

TEXT, JSON = "text/plain; charset=utf-8", "application/json"


class Health:
    """How far a gateway is: warming up, ready, or draining."""

    def __init__(self) -> None:
        self._is_warm = False
        self._is_draining = False
        self._waiting_for = "the first turn has not run yet"
        self._on_drain: list[Callable[[], None]] = []

    @property
    def is_ready(self) -> bool:
        """Whether traffic may come."""
        return self._is_warm and not self._is_draining

    @property
    def reason(self) -> str:
        """Why it may not, or that it may."""
        if self._is_draining:
            return "draining: open streams are being ended"
        return "ready" if self._is_warm else f"warming up: {self._waiting_for}"

    def waits_for(self, what: str) -> None:
        """Tell what the start is waiting for."""
        self._waiting_for = f"waiting for {what}"

    def warmed(self) -> None:
        """The start is over: one real turn has been run, or the time for it has passed."""
        self._is_warm = True

    def drain(self) -> None:
        """No new traffic, and the end of open streams; call it before the server is told to stop."""
        if not self._is_draining:
            self._is_draining = True
            for callback in self._on_drain:
                callback()

    def on_drain(self, callback: Callable[[], None]) -> None:
        """Have something called when draining begins."""
        self._on_drain.append(callback)


def create_admin_app(
    health: Health, registry: CollectorRegistry, breakers: Callable[[], Mapping[str, Snapshot]] = dict
) -> ASGIApp:
    """The admin port's application. It shares the gateway's event loop: an answer to /livez proves that it runs.
    `breakers` gives the circuit breakers by backend."""

    def answer(path: str, accept: str) -> tuple[int, str, bytes]:
        match path:
            case "/livez":
                return 200, TEXT, b"alive\n"
            case "/readyz":
                return 200 if health.is_ready else 503, TEXT, health.reason.encode() + b"\n"
            case "/metrics":
                encode, content_type = choose_encoder(accept)
                return 200, content_type, encode(registry)
            case "/debug/breakers":
                return 200, JSON, msgspec.json.format(msgspec.json.encode(breakers())) + b"\n"
            case _:
                return 404, TEXT, b"this port serves /livez, /readyz, /metrics and /debug/breakers\n"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  Nothing here has a body.
        if scope["type"] != "http":
            return
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        status, content_type, body = answer(scope["path"], accept)
        headers = [(b"content-type", content_type.encode()), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app

"""Puts the gateway's web side together. `bootstrap` calls `create_app` once and serves the result by `server`."""

from __future__ import annotations

from dataclasses import dataclass

from chatflow_api.runtime_config import RuntimeConfig
from starlette.types import ASGIApp

from chatflow_runtime.answering import Answering, Counted
from chatflow_runtime.domain.admission import Admission
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import Clock, ConversationStore, Inbox
from chatflow_runtime.web.admin import Health
from chatflow_runtime.web.chat import Chat
from chatflow_runtime.web.completions import Completions
from chatflow_runtime.web.departure import Departures
from chatflow_runtime.web.dispatch import FastPath
from chatflow_runtime.web.events import Events
from chatflow_runtime.web.gate import Gate
from chatflow_runtime.web.handoffs import Desk
from chatflow_runtime.web.origins import Origins
from chatflow_runtime.web.pages import create_pages
from chatflow_runtime.web.problems import Problems
from chatflow_runtime.web.services import Services, Timing
from chatflow_runtime.web.sessions import SessionGiver, Sessions
from chatflow_runtime.web.streams import Streams
from chatflow_runtime.web.websocket import WebSocket


@dataclass(frozen=True, slots=True)
class Entry:
    """Who may come in, and who gives new users their tokens."""

    gate: Gate
    giver: SessionGiver
    admission: Admission


def create_app(
    config: RuntimeConfig,
    runner: Answering,
    store: ConversationStore,
    inbox: Inbox,
    metrics: Metrics,
    clock: Clock,
    entry: Entry,
    health: Health | None = None,
    timing: Timing | None = None,
    desk: Desk | None = None,
) -> ASGIApp:
    """The gateway as an ASGI application. When `health` begins to drain, open event streams and WebSockets end."""
    streams = Streams(metrics)
    if health is not None:
        health.on_drain(streams.drain)
    problems = Problems(texts_for(config))
    timing = timing or Timing()
    departures = Departures(timing.patience_s)
    counted = Counted(runner, metrics, clock)
    services = Services(
        config,
        counted,
        inbox,
        store,
        metrics,
        problems,
        clock,
        streams,
        departures,
        timing,
        entry.gate,
        entry.admission,
    )
    origins = Origins(config.gateway.allowed_origins)
    chat = Chat(services)
    routes = {
        "/v1/sessions": ("POST", Sessions(services, entry.giver).begin),
        "/v1/chat": ("POST", chat.chat),
        "/v1/messages": ("POST", chat.accept),
        "/v1/ratings": ("POST", chat.rate),
        "/v1/events": ("GET", Events(services).events),
        "/v1/chat/completions": ("POST", Completions(services).complete),
    }
    return FastPath(routes, {"/v1/ws": WebSocket(services, origins)}, create_pages(services, desk), origins, problems)

"""Wires everything once and runs a role: `python -m chatflow_runtime --role gateway | worker`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from dataclasses import dataclass

import structlog
import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from chatflow_runtime.adapters.artefacts import ArtefactFolder, Artefacts, follow
from chatflow_runtime.adapters.business_api import BusinessApi
from chatflow_runtime.adapters.classification import InProcessClassifier, NoClassifier
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.knowledge import KnowledgeRetriever
from chatflow_runtime.adapters.openai_chat import OpenAIChat
from chatflow_runtime.adapters.record_files import RecordFiles
from chatflow_runtime.answerers.cached import AnswerCache
from chatflow_runtime.answerers.dispatch import Dispatcher
from chatflow_runtime.answerers.models import ModelLadder
from chatflow_runtime.domain.moderation import Moderator, parse_words
from chatflow_runtime.domain.reply import Origin
from chatflow_runtime.domain.routing import Rules
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ports import Clock
from chatflow_runtime.settings import Settings, SettingsInvalid
from chatflow_runtime.state.redis_due import open_redis_due_store
from chatflow_runtime.state.redis_store import open_redis_store
from chatflow_runtime.state.rules import Rules as StateRules
from chatflow_runtime.turn import TurnRunner
from chatflow_runtime.web.admin import Health, create_admin_app
from chatflow_runtime.web.app import create_app
from chatflow_runtime.web.server import server_config
from chatflow_runtime.worker import Worker

log = structlog.get_logger()

CLOCK = Clock(now_ms=lambda: time.time_ns() // 1_000_000, monotonic_s=time.monotonic)


GC_ALLOCATIONS = 10_000
"""Objects more than were freed, between two passes of the collector over the young ones."""
WARM_UP_UID = "_warm-up"
DRAIN_S = 30


@dataclass(frozen=True, slots=True)
class Brain:
    """What changes while a gateway runs: classifier and retriever, swapped together."""

    classifier: InProcessClassifier | NoClassifier
    retriever: KnowledgeRetriever

    @classmethod
    def of(cls, artefacts: Artefacts) -> Brain:
        """A brain with its first artefacts."""
        model = artefacts.intent
        classifier = NoClassifier() if model is None else InProcessClassifier(model)
        return cls(classifier, KnowledgeRetriever(artefacts.index))

    def swap(self, artefacts: Artefacts) -> None:
        """Use newer artefacts from the next turn on. A flow that gains its first intent restarts instead."""
        if artefacts.intent is not None and isinstance(self.classifier, InProcessClassifier):
            self.classifier.swap(artefacts.intent)
        self.retriever.swap(artefacts.index)


async def run_gateway(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    stop = _stop_event()
    registry = CollectorRegistry()
    metrics, health = Metrics(registry), Health()
    folder = ArtefactFolder(settings.artefacts_dir)
    versions = folder.current()
    artefacts = await asyncio.to_thread(folder.load, versions)
    brain = Brain.of(artefacts)
    async with contextlib.AsyncExitStack() as parts:
        runner = await _runner(settings, brain, metrics, parts)
        app = create_app(settings.config, runner, runner.store, metrics, CLOCK, health)
        admin = create_admin_app(health, registry)
        await parts.enter_async_context(_serving(admin, settings.host, settings.admin_port, settings, stop))
        await _warm(runner, artefacts)
        # The port opens once the gateway is warm: behind a shared port nobody reaches it before.
        await parts.enter_async_context(_serving(app, settings.host, settings.port, settings, stop))
        if settings.shared_admin_port is not None:
            shared = _serving(admin, settings.host, settings.shared_admin_port, settings, stop)
            await parts.enter_async_context(shared)
        await parts.enter_async_context(_background(follow(folder, versions, brain.swap), stop))
        _settle()
        health.warmed()
        log.info("gateway_ready", flow=settings.config.flow.name, port=settings.port, backlog=runner.backlog)
        await stop.wait()
        health.drain()
        log.info("gateway_draining", backlog=runner.backlog)


def _settle() -> None:
    """What has been loaded stays: the collector need not look at it again, and turns hardly make any cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 50)


async def run_worker(settings: Settings) -> None:
    """Send closing notices, end silent conversations and move records to their files, until SIGTERM or SIGINT."""
    stop = _stop_event()
    health = Health()
    config = settings.config
    rules = StateRules.of(config.state, config.dialogue.while_busy)
    texts = texts_for(config)
    async with contextlib.AsyncExitStack() as parts:
        due = await parts.enter_async_context(
            open_redis_due_store(settings.redis_url, config.flow.key, rules, texts.notice)
        )
        worker = Worker(due, RecordFiles(settings.sink_dir))
        admin = create_admin_app(health, CollectorRegistry())
        await parts.enter_async_context(_serving(admin, settings.host, settings.admin_port, settings, stop))
        await parts.enter_async_context(_background(worker.run(), stop))
        health.warmed()
        log.info("worker_ready", flow=config.flow.name)
        await stop.wait()
        health.drain()


async def _runner(settings: Settings, brain: Brain, metrics: Metrics, parts: contextlib.AsyncExitStack) -> TurnRunner:
    config = settings.config
    texts = texts_for(config)
    rules = StateRules.of(config.state, config.dialogue.while_busy)
    store = await parts.enter_async_context(open_redis_store(settings.redis_url, config.flow.key, rules))
    session = await parts.enter_async_context(open_session(settings.host_aliases))
    moderator = Moderator.build(
        _listed_words(settings), config.moderation.allow, config.moderation.action, texts.refusal
    )
    models = {
        origin: OpenAIChat(model, session, settings.secret(model.api_key))
        for origin, model in ((Origin.LLM, config.llm), (Origin.BACKUP, config.backup))
        if model is not None
    }
    secrets = {action.name: settings.secret(action.secret) for action in config.dialogue.actions}
    dispatcher = Dispatcher(
        config=config,
        rules=Rules.of(config),
        texts=texts,
        retriever=brain.retriever,
        models=ModelLadder(models, moderator, metrics, texts.broken_off),
        actions=BusinessApi(config.dialogue, session, secrets),
        cache=AnswerCache(config.knowledge.cache_entries, config.knowledge.cache_ttl_s, CLOCK.monotonic_s),
        metrics=metrics,
        clock=CLOCK,
    )
    if not models:
        log.info("no_language_model", serves="knowledge, actions and the static reply")
    return TurnRunner(store, brain.classifier, dispatcher, moderator, metrics, new_owner=_owners())


def _listed_words(settings: Settings) -> list[str]:
    words: list[str] = []
    for path in settings.config.moderation.word_lists:
        file = settings.configmaps_dir / path
        try:
            words += parse_words(file.read_text(encoding="utf-8"), path)
        except OSError as error:
            raise SettingsInvalid(f"word list {path}: cannot read {file} ({error.strerror})") from error
    return words


def _owners() -> Callable[[], str]:
    """Names for attempts: random for the process, counted within it."""
    process, numbers = secrets.token_hex(12), itertools.count()
    return lambda: f"{process}-{next(numbers):x}"


async def _warm(runner: TurnRunner, artefacts: Artefacts) -> None:
    """Run one real turn. Every attempt is a user of its own, so that nothing of an earlier one is in the way."""
    text = next((entry.title for entry in artefacts.index.entries), "hello")
    owner = runner.new_owner()
    await runner.answer(f"{WARM_UP_UID}-{owner}", owner, text)


@contextlib.asynccontextmanager
async def _serving(app: ASGIApp, host: str, port: int, settings: Settings, stop: asyncio.Event) -> AsyncIterator[None]:
    """Serve an application while the context lasts; at its end turns under way finish within DRAIN_S."""
    server = _Server(server_config(app, host, port, drain_s=DRAIN_S))
    with _listener(host, port, reuse_port=settings.reuse_port) as listener:
        async with _background(server.serve(sockets=[listener]), stop, on_exit=server.leave):
            yield


@contextlib.asynccontextmanager
async def _background(
    work: Coroutine[object, object, None], stop: asyncio.Event, on_exit: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Run something beside the context. Its failure stops the process; at the end it is told to leave, or cancelled."""
    task = asyncio.create_task(work)
    task.add_done_callback(lambda _: stop.set())
    try:
        yield
    finally:
        if on_exit is None:
            task.cancel()
        else:
            on_exit()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class _Server(uvicorn.Server):
    """One of several servers in a process: signals are the process's own matter."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield

    def leave(self) -> None:
        """Stop accepting, and end once the requests under way are answered."""
        self.should_exit = True


@contextlib.contextmanager
def _listener(host: str, port: int, *, reuse_port: bool) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            listener.bind((host, port))
            # The server's task comes to this later: until then the kernel would refuse whoever saw that we are ready.
            listener.listen()
        except OSError as error:
            raise SettingsInvalid(
                f"port {port} on {host} cannot be opened ({error.strerror}); end what holds it, or choose another"
            ) from error
        yield listener


def _stop_event() -> asyncio.Event:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop

"""Wires everything once and runs a role: `python -m chatflow_runtime --role gateway | worker`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import math
import secrets
import socket
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import assert_never

import aiohttp
import structlog
from chatflow_api.runtime_config import RuntimeConfig
from prometheus_client import CollectorRegistry

from chatflow_runtime.adapters.artefacts import ArtefactFolder, Artefacts, Follower
from chatflow_runtime.adapters.business_api import BusinessApi
from chatflow_runtime.adapters.classification import InProcessClassifier
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.knowledge import PROBE, KnowledgeIndex, KnowledgeRetriever
from chatflow_runtime.adapters.openai_chat import OpenAIChat
from chatflow_runtime.adapters.record_files import RecordFiles
from chatflow_runtime.adapters.remote_classification import Probe, RemoteClassifier
from chatflow_runtime.adapters.word_lists import WordLists, follow
from chatflow_runtime.answerers.cached import AnswerCache
from chatflow_runtime.answerers.demand import Demand
from chatflow_runtime.answerers.dispatch import Dispatcher
from chatflow_runtime.answerers.guard import Guards
from chatflow_runtime.answerers.lane import Lane
from chatflow_runtime.answerers.models import ModelLadder
from chatflow_runtime.answering import Counted
from chatflow_runtime.domain.admission import Admission
from chatflow_runtime.domain.concurrency import LimitRules, QueueRules
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.domain.reply import Origin
from chatflow_runtime.domain.routing import Rules
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.entrance import entrance
from chatflow_runtime.inbox_worker import InboxWorker
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.overload import share_backlog, watch_loop
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import Clock
from chatflow_runtime.serving import allow_files, background, opened, serving, stop_event, unless
from chatflow_runtime.settings import Settings
from chatflow_runtime.startup import Need, Startup
from chatflow_runtime.state.durability import Durability
from chatflow_runtime.state.link import Link, link_to
from chatflow_runtime.state.redis_answers import RedisAnswers
from chatflow_runtime.state.redis_backlog import RedisBacklog
from chatflow_runtime.state.redis_due import RedisDueStore
from chatflow_runtime.state.redis_handoffs import RedisHandoffs
from chatflow_runtime.state.redis_hooks import RedisHooks
from chatflow_runtime.state.redis_inbox import RedisInbox
from chatflow_runtime.state.redis_leases import RedisLeases
from chatflow_runtime.state.redis_store import RedisStore
from chatflow_runtime.state.rules import Rules as StateRules
from chatflow_runtime.state.scripts import render
from chatflow_runtime.state.wakeups import Wakeups, WorkBell
from chatflow_runtime.turn import TurnRunner
from chatflow_runtime.web.admin import Health, create_admin_app
from chatflow_runtime.web.app import Entry, create_app
from chatflow_runtime.webhook_parts import desk_of, hook_worker
from chatflow_runtime.worker import Worker

log = structlog.get_logger()

CLOCK = Clock(now_ms=lambda: time.time_ns() // 1_000_000, monotonic_s=time.monotonic)


GC_ALLOCATIONS = 10_000
"""Objects more than were freed, between two passes of the collector over the young ones."""
WORKER_PATIENCE_S = 30.0
"""How long a turn of a worker waits for a place at a model: nobody looks at an empty line meanwhile."""
WARM_UP_UID = "_warm-up"
WARM_UP_S = 10.0
"""Time for the warm turn, even where the start's deadline has passed."""


@dataclass(frozen=True, slots=True)
class Brain:
    """What changes while a gateway runs: classifier and retriever, swapped together. Knows nothing at first."""

    classifier: InProcessClassifier | RemoteClassifier = field(default_factory=lambda: InProcessClassifier(None))
    retriever: KnowledgeRetriever = field(default_factory=lambda: KnowledgeRetriever(KnowledgeIndex.empty()))
    titles: list[str] = field(default_factory=list)
    """A question of the knowledge in use, for the warm turn."""

    def swap(self, artefacts: Artefacts) -> None:
        """Use other artefacts from the next turn on."""
        match self.classifier:
            case InProcessClassifier():
                self.classifier.swap(artefacts.intent)
            case RemoteClassifier():
                vector = artefacts.index.probe
                self.classifier.swap(None if vector is None else Probe(PROBE, vector))
            case _:
                assert_never(self.classifier)
        self.retriever.swap(artefacts.index)
        self.titles[:] = [entry.title for entry in artefacts.index.entries[:1]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What answers messages, in a gateway or a worker."""

    config: RuntimeConfig
    link: Link
    lasting: Link
    """The same server, for what must not be lost."""
    runner: TurnRunner
    follower: Follower
    brain: Brain
    models: Mapping[Origin, OpenAIChat]
    metrics: Metrics
    session: aiohttp.ClientSession

    @property
    def inbox(self) -> RedisInbox:
        """Messages that are answered later."""
        return RedisInbox(self.link, self.config.flow.key, _state_rules(self.config), lasting=self.lasting)


async def run_gateway(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then drain."""
    allow_files()
    stop = stop_event()
    registry = CollectorRegistry()
    metrics, health = Metrics(registry), Health()
    async with contextlib.AsyncExitStack() as stack:
        guards = Guards.by(settings.config.degradation.breaker, metrics)
        admin = create_admin_app(health, registry, guards.snapshots)
        await stack.enter_async_context(serving(admin, settings.host, settings.admin_port, settings, stop))
        parts = await _parts(settings, guards, stack, stop)
        runner = parts.runner
        way_in = entrance(settings, parts.link, parts.session)
        backlog = RedisBacklog(
            parts.link, settings.config.flow.key, secrets.token_hex(8), _state_rules(settings.config)
        )
        sharing = partial(share_backlog, runner.admission, backlog.tell)
        loop = partial(watch_loop, runner.admission.pressure)
        tasks: list[Callable[[], Coroutine[object, object, None]]] = [
            parts.follower.run,
            *way_in.followers,
            sharing,
            loop,
        ]
        for work in tasks:
            await stack.enter_async_context(background(work(), stop))
        needs = [*_needs(parts), *way_in.needs]
        if not await unless(stop, _started(settings, health, needs, _warm(runner, parts.brain))):
            return
        entry = Entry(way_in.gate, way_in.sessions, runner.admission)
        desk = desk_of(settings, RedisHandoffs(parts.lasting, parts.config.flow.key, _state_rules(parts.config)))
        app = create_app(settings.config, runner, runner.store, parts.inbox, metrics, CLOCK, entry, health, desk=desk)
        # The port opens once the gateway is warm: behind a shared port nobody reaches it before.
        drain_s = math.ceil(settings.config.gateway.drain_s)
        await stack.enter_async_context(serving(app, settings.host, settings.port, settings, stop, drain_s))
        if settings.shared_admin_port is not None:
            shared = serving(admin, settings.host, settings.shared_admin_port, settings, stop)
            await stack.enter_async_context(shared)
        _settle()
        health.warmed()
        log.info("gateway_ready", flow=settings.config.flow.name, port=settings.port)
        await stop.wait()
        health.drain()
        log.info("gateway_draining", turns=runner.admission.under_way)


def _needs(parts: Parts) -> list[Need]:
    """What a gateway waits for, before its warm turn. A model that may sleep wakes only once it is asked."""
    config = {Origin.LLM: parts.config.llm, Origin.BACKUP: parts.config.backup}
    needs = [Need("artefacts", parts.follower.check), Need("Redis", parts.runner.store.ping)]
    if isinstance(parts.brain.classifier, RemoteClassifier):
        needs.append(Need("intent server", parts.brain.classifier.check))
    for origin, model in parts.models.items():
        described = config[origin]
        if described is not None and not described.may_sleep:
            needs.append(Need(f"language model {origin}", model.check))
    return needs


async def _started(settings: Settings, health: Health, needs: Sequence[Need], warm: Need) -> None:
    startup = Startup(settings.startup_deadline_s, health.waits_for)
    await startup.until(needs)
    await startup.until([warm], at_least_s=WARM_UP_S)


def _settle() -> None:
    """What has been loaded stays: the collector need not look at it again, and turns hardly make any cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_ALLOCATIONS, 10, 50)


async def run_worker(settings: Settings) -> None:
    """Answer what waits in the inboxes, send closing notices, end silent conversations and move records to their files,
    until SIGTERM or SIGINT."""
    stop = stop_event()
    registry = CollectorRegistry()
    metrics, health = Metrics(registry), Health()
    config, rules, texts = settings.config, _state_rules(settings.config), texts_for(settings.config)
    async with contextlib.AsyncExitStack() as stack:
        guards = Guards.by(config.degradation.breaker, metrics)
        admin = create_admin_app(health, registry, guards.snapshots)
        await stack.enter_async_context(serving(admin, settings.host, settings.admin_port, settings, stop))
        health.waits_for("Redis")
        parts = await _parts(settings, guards, stack, stop, WORKER_PATIENCE_S)
        ownership = Ownership(
            RedisLeases(parts.link, config.flow.key, rules),
            f"{socket.gethostname()}-{secrets.token_hex(6)}",
            CLOCK.monotonic_s,
        )
        due = RedisDueStore(parts.link, config.flow.key, rules, texts.notice)
        worker = Worker(due, RecordFiles(settings.sink_dir), ownership)
        stack.push_async_callback(worker.leave)
        await stack.enter_async_context(background(worker.run(), stop))
        counted = Counted(parts.runner, metrics, CLOCK)
        waiting = _FirstUse(parts.follower, settings, stack, stop)
        is_told = config.gateway.messages_webhook is not None
        answers = InboxWorker(parts.inbox, ownership, counted, texts, waiting.ready, is_told=is_told)
        reader = RedisHooks(parts.link, config.flow.key, rules)
        handoffs = RedisHandoffs(parts.lasting, config.flow.key, rules)
        hooks = hook_worker(settings, parts.session, reader, ownership, metrics, CLOCK, handoffs)
        for work in (answers.run(), hooks.run()):
            await stack.enter_async_context(background(work, stop))

        def ring(partition: int | None) -> None:
            answers.wake(partition)
            hooks.wake(partition)

        await stack.enter_async_context(opened(WorkBell(settings.redis_url, config.flow.key, ring)))
        health.warmed()
        log.info("worker_ready", flow=config.flow.name)
        await stop.wait()
        health.drain()


class _FirstUse:
    """Loads model and index when the first message waits: a flow without messages to answer later needs no memory for
    them in its worker."""

    def __init__(
        self, follower: Follower, settings: Settings, stack: contextlib.AsyncExitStack, stop: asyncio.Event
    ) -> None:
        self._follower = follower
        self._startup_s = settings.startup_deadline_s
        self._stack = stack
        self._stop = stop
        self._loading: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Return once they are loaded, or the start's deadline has passed."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)

    async def _load(self) -> None:
        await self._stack.enter_async_context(background(self._follower.run(), self._stop))
        await Startup(self._startup_s, lambda _: None).until([Need("artefacts", self._follower.check)])


def _state_rules(config: RuntimeConfig) -> StateRules:
    return StateRules.of(config)


def _models(settings: Settings, session: aiohttp.ClientSession) -> dict[Origin, OpenAIChat]:
    config = settings.config
    return {
        origin: OpenAIChat(model, session, settings.secret(model.api_key))
        for origin, model in ((Origin.LLM, config.llm), (Origin.BACKUP, config.backup))
        if model is not None
    }


async def _parts(
    settings: Settings,
    guards: Guards,
    stack: contextlib.AsyncExitStack,
    stop: asyncio.Event,
    patience_s: float | None = None,
) -> Parts:
    """Everything that answers, whether Redis can be reached by now or not. The brain knows nothing until the follower
    runs."""
    config, metrics, server = settings.config, guards.metrics, settings.config.intent.server
    session = await stack.enter_async_context(open_session(settings.host_aliases))
    brain = Brain() if server is None else Brain(RemoteClassifier(server, session, metrics, guards.of("intent")))
    follower = Follower(ArtefactFolder(settings.artefacts_dir, has_models=server is None), brain.swap)
    models = _models(settings, session)
    texts, rules = texts_for(config), _state_rules(config)
    link = link_to(settings.redis_url, scripts=render(rules).all())
    wakeups = Wakeups(settings.redis_url, config.flow.key)
    await stack.enter_async_context(opened(link, wakeups))
    lasting = link
    if config.state.replicas:
        lasting = link_to(
            settings.redis_url,
            name="chatflow-lasting",
            scripts=render(rules).all(),
            durability=partial(
                Durability, config.state.replicas, config.state.replicas_timeout_ms, metrics.replicas_fell_short
            ),
        )
        await stack.enter_async_context(opened(lasting))
    store = RedisStore(link, wakeups, config.flow.key, rules, lasting=lasting)
    moderation, lists = config.moderation, WordLists(settings.configmaps_dir, config.moderation.word_lists)

    def made_of(words: Sequence[str]) -> Moderator:
        return Moderator.build(words, moderation.allow, moderation.action, texts.refusal)

    words = lists.read()
    moderator = made_of(words)
    if lists.paths:
        await stack.enter_async_context(background(follow(lists, words, moderator, made_of), stop))
    secrets = {action.name: settings.secret(action.secret) for action in config.dialogue.actions}
    dispatcher = Dispatcher(
        config=config,
        rules=Rules.of(config),
        texts=texts,
        retriever=brain.retriever,
        models=ModelLadder(
            models,
            moderator,
            metrics,
            texts.broken_off,
            guards,
            _lanes(config, metrics, patience_s),
            _demands(config, metrics),
        ),
        actions=BusinessApi(config.dialogue, session, secrets),
        cache=_answer_cache(config, link),
        metrics=metrics,
        clock=CLOCK,
    )
    if not models:
        log.info("no_language_model", serves="knowledge, actions and the static reply")
    wait_s = config.gateway.queue_wait_s
    admission = Admission(config.degradation.backlog_limit, config.degradation.shed_fraction)
    metrics.watch_admission(lambda: admission.backlog, lambda: admission.pressure.share)
    runner = TurnRunner(store, brain.classifier, dispatcher, moderator, metrics, _owners(), wait_s, admission)
    return Parts(config, link, lasting, runner, follower, brain, models, metrics, session)


def _lanes(config: RuntimeConfig, metrics: Metrics, patience_s: float | None) -> dict[Origin, Lane]:
    """The places at each model, which turns wait for as long as their first token's deadline allows, or
    `patience_s`."""
    bounds = config.degradation.concurrency
    rules = LimitRules(least=bounds.least, most=bounds.most, first=bounds.first)
    configured = ((Origin.LLM, config.llm), (Origin.BACKUP, config.backup))
    return {
        origin: Lane(origin, metrics, rules, _queue(model.first_token_deadline_s, patience_s))
        for origin, model in configured
        if model is not None
    }


def _queue(deadline_s: float, patience_s: float | None) -> QueueRules:
    return (
        QueueRules.within(deadline_s)
        if patience_s is None
        else QueueRules(patience_s, patience_s, math.inf, new_wait=True)
    )


def _answer_cache(config: RuntimeConfig, link: Link) -> AnswerCache:
    knowledge = config.knowledge
    shared = RedisAnswers(link, config.flow.key, knowledge.cache_ttl_s) if knowledge.cache_is_shared else None
    return AnswerCache(knowledge.cache_entries, knowledge.cache_ttl_s, CLOCK.monotonic_s, shared)


def _demands(config: RuntimeConfig, metrics: Metrics) -> dict[Origin, Demand]:
    """The demand for each model, told to the metrics from now on."""
    configured = ((Origin.LLM, config.llm), (Origin.BACKUP, config.backup))
    demands = {origin: Demand(origin, model.hold_s) for origin, model in configured if model is not None}
    for origin, demand in demands.items():
        metrics.watch_demand(origin, demand.turns)
    return demands


def _owners() -> Callable[[], str]:
    """Names for attempts: random for the process, counted within it."""
    process, numbers = secrets.token_hex(12), itertools.count()
    return lambda: f"{process}-{next(numbers):x}"


def _warm(runner: TurnRunner, brain: Brain) -> Need:
    """One real turn. Every attempt is a user of its own, so that nothing of an earlier one is in the way."""

    async def turn() -> None:
        owner = runner.new_owner()
        await runner.answer(f"{WARM_UP_UID}-{owner}", owner, next(iter(brain.titles), "hello"))

    return Need("the warm turn", turn)

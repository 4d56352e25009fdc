"""Wires webhooks and the agent desk, for `bootstrap`: whom a flow tells, what tells them in its worker, and who answers
in the place of the bot."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

import aiohttp
from chatflow_api.runtime_config import RuntimeConfig, WebhookConfig

from chatflow_runtime.adapters.webhooks import HttpWebhook
from chatflow_runtime.domain import access, signature
from chatflow_runtime.domain.deliveries import Delivery, Hook
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.errors import NotHandedOver
from chatflow_runtime.hook_worker import HookWorker
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import Clock, Handoffs, HookReader, Word
from chatflow_runtime.settings import Settings, SettingsInvalid
from chatflow_runtime.web.gate import Gate
from chatflow_runtime.web.handoffs import Desk
from chatflow_runtime.web.webhooks import body_of

T = TypeVar("T")

UNREACHED = "unreached"
"""The message id of a return for which no person could be asked, once in each handoff."""


def webhooks_of(config: RuntimeConfig) -> dict[Hook, WebhookConfig]:
    """The webhooks that a flow names."""
    handoff = config.dialogue.handoff
    named = {
        Hook.MESSAGES: config.gateway.messages_webhook,
        Hook.HANDOFF: None if handoff is None else handoff.webhook,
    }
    return {hook: webhook for hook, webhook in named.items() if webhook is not None}


def hook_worker(
    settings: Settings,
    session: aiohttp.ClientSession,
    reader: HookReader,
    ownership: Ownership,
    metrics: Metrics,
    clock: Clock,
    handoffs: Handoffs,
) -> HookWorker:
    """What tells the flow's webhooks; SettingsInvalid names a Secret that cannot be used."""
    texts = texts_for(settings.config)

    async def unreached(delivery: Delivery) -> None:
        notice = Notice("returned", texts.unreached, clock.now_ms(), UNREACHED)
        word = Word(delivery.told.uid, UNREACHED, None, "", notice, ends=True, handoff_id=delivery.handoff_id)
        with contextlib.suppress(NotHandedOver):
            await handoffs.speak(word)

    webhooks = {
        hook: HttpWebhook(config, _read(settings, config.secret, signature.keys_of), session, body_of, clock)
        for hook, config in webhooks_of(settings.config).items()
    }
    return HookWorker(reader, ownership, webhooks, metrics, clock, settings.config.flow.key, unreached)


def desk_of(settings: Settings, handoffs: Handoffs) -> Desk | None:
    """The agent desk of a flow that has one; SettingsInvalid names a Secret that cannot be used."""
    handoff = settings.config.dialogue.handoff
    if handoff is None:
        return None
    keys = _read(settings, handoff.agent_keys, lambda text: access.keys_of(text, access.SHORTEST_API_KEY))
    return Desk(handoffs, agents_only(keys), texts_for(settings.config).returned)


def agents_only(keys: list[str]) -> Gate:
    """Lets in whoever brings one of these keys, and nobody else."""
    return Gate(is_required=True, api_keys=access.digests_of(keys), readers=(), now_s=time.time)


def _read(settings: Settings, path: str, parse: Callable[[str], T]) -> T:
    try:
        return parse(settings.secret(path) or "")
    except ValueError as error:
        raise SettingsInvalid(f"secret {path}: {error}") from error

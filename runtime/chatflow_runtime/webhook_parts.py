"""Wires webhooks, for `bootstrap`: whom a flow tells, and what tells them in its worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from chatflow_api.runtime_config import RuntimeConfig, WebhookConfig

from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.adapters.webhooks import HttpWebhook
from chatflow_runtime.domain.deliveries import Hook
from chatflow_runtime.domain.signature import keys_of
from chatflow_runtime.hook_worker import HookWorker
from chatflow_runtime.metrics import Metrics
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import Clock, HookReader
from chatflow_runtime.settings import Settings, SettingsInvalid
from chatflow_runtime.web.webhooks import body_of


def webhooks_of(config: RuntimeConfig) -> dict[Hook, WebhookConfig]:
    """The webhooks that a flow names."""
    named = {Hook.MESSAGES: config.gateway.messages_webhook}
    return {hook: webhook for hook, webhook in named.items() if webhook is not None}


@asynccontextmanager
async def opened_hook_worker(
    settings: Settings, reader: HookReader, ownership: Ownership, metrics: Metrics, clock: Clock
) -> AsyncIterator[HookWorker]:
    """A worker that tells the flow's webhooks, with a pool of connections of its own; SettingsInvalid names a Secret
    that cannot be used."""
    named = {
        hook: (config, signing_keys(settings, config.secret)) for hook, config in webhooks_of(settings.config).items()
    }
    async with open_session(settings.host_aliases) as session:
        webhooks = {hook: HttpWebhook(config, keys, session, body_of, clock) for hook, (config, keys) in named.items()}
        yield HookWorker(reader, ownership, webhooks, metrics, clock, settings.config.flow.key)


def signing_keys(settings: Settings, path: str) -> tuple[bytes, ...]:
    """The keys in a Secret; SettingsInvalid when there are none."""
    try:
        return keys_of(settings.secret(path) or "")
    except ValueError as error:
        raise SettingsInvalid(f"secret {path}: {error}") from error

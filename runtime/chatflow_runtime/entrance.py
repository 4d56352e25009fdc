"""Who may use a gateway, put together from the configuration: its gate, the sessions that it gives, and the keys behind
both. Called by `bootstrap`."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TypeVar

import aiohttp
from chatflow_api.runtime_config import AuthConfig

from chatflow_runtime.adapters.jwks import PublishedKeys
from chatflow_runtime.adapters.tokens import ProviderTokens, SessionTokens
from chatflow_runtime.domain.access import SHORTEST_API_KEY, SHORTEST_SESSION_KEY, digests_of, keys_of
from chatflow_runtime.settings import Settings, SettingsInvalid
from chatflow_runtime.startup import Need
from chatflow_runtime.state.link import Link
from chatflow_runtime.state.session_key import SharedKey
from chatflow_runtime.web.gate import Gate, TokenReader

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entrance:
    """What lets requests in. `needs` are waited for at the start, `followers` run beside the gateway."""

    gate: Gate
    sessions: SessionTokens
    needs: Sequence[Need]
    followers: Sequence[Callable[[], Coroutine[object, object, None]]]


def entrance(settings: Settings, link: Link, session: aiohttp.ClientSession) -> Entrance:
    """By a flow's configuration. SettingsInvalid names the Secret that cannot be used."""
    flow, auth = settings.config.flow, settings.config.gateway.auth
    sessions = SessionTokens(flow.key, auth.session_ttl_s, time.time)
    readers: list[TokenReader] = [sessions]
    gate = Gate(auth.required, _api_keys(settings, auth), readers, time.time)
    followers: dict[str, SharedKey | PublishedKeys] = {}
    if auth.session_key is not None:
        sessions.use([key.encode() for key in _keys(settings, auth.session_key, SHORTEST_SESSION_KEY)])
    elif auth.anonymous:
        followers["the key of sessions"] = SharedKey(link, flow.key, _then(gate.forget, sessions.use))
    if auth.jwt is not None:
        provider = ProviderTokens(auth.jwt, time.time)
        readers.append(provider)
        use = _then(gate.forget, provider.use)
        followers["the issuer's keys"] = PublishedKeys(auth.jwt.jwks_url, session, use, provider.misses_key)
    needs = [Need(name, follower.check) for name, follower in followers.items()]
    return Entrance(gate, sessions, needs, [follower.run for follower in followers.values()])


def _then(told: Callable[[], None], use: Callable[[T], None]) -> Callable[[T], None]:
    """What puts keys to use, and then has tokens read anew that were read by the old ones."""

    def used(keys: T) -> None:
        use(keys)
        told()

    return used


def _api_keys(settings: Settings, auth: AuthConfig) -> frozenset[bytes]:
    if auth.api_keys is None:
        return frozenset()
    return digests_of(_keys(settings, auth.api_keys, SHORTEST_API_KEY))


def _keys(settings: Settings, path: str, shortest: int) -> list[str]:
    try:
        return keys_of(settings.secret(path) or "", shortest)
    except ValueError as error:
        raise SettingsInvalid(f"secret {path}: {error}") from error

"""`POST /v1/sessions`: a token for a conversation of one's own, without a name or a password."""

from __future__ import annotations

from typing import Protocol

from chatflow_runtime.domain.access import ANONYMOUS
from chatflow_runtime.errors import SessionsRefused, Shed
from chatflow_runtime.web import wire
from chatflow_runtime.web.exchange import Exchange
from chatflow_runtime.web.services import Services

MAX_BODY_BYTES = 1024
"""The request needs none; clients that send `{}` are no worse."""


class Given(Protocol):
    """A token that was given."""

    @property
    def token(self) -> str: ...

    @property
    def until_s(self) -> int:
        """Unix time in s."""


class SessionGiver(Protocol):
    """`adapters.tokens.SessionTokens`, as the route sees it."""

    def give(self, uid: str) -> Given:
        """A fresh token for a user; StateUnavailable where that cannot be made."""


class Sessions:
    """The route."""

    def __init__(self, services: Services, giver: SessionGiver) -> None:
        self._services = services
        self._giver = giver

    async def begin(self, exchange: Exchange) -> None:
        """Give a new user a token; who has one already gets a fresh one for the same user."""
        await exchange.body(MAX_BODY_BYTES)
        if not self._services.config.gateway.auth.anonymous:
            raise SessionsRefused("this flow gives no anonymous sessions; use the token of its identity provider")
        if (address := self._services.address_of(exchange.scope)) is not None:
            await self._services.store.meter_address(address)
        uid, is_known = None, b"authorization" in exchange.headers
        if is_known:
            uid = self._services.gate.admit(exchange.scope).uid
        if uid is None or not uid.startswith(ANONYMOUS):
            uid = wire.new_id(ANONYMOUS.rstrip("-"))
        # Whoever is let in here is let in by the turn as well: the same user decides.
        if not is_known and self._services.admission.turns_away(uid):
            raise Shed("this gateway has more to do than it can; new visitors wait, try again in a few seconds")
        given = self._giver.give(uid)
        session = wire.Session(uid, given.token, given.until_s * 1000)
        await exchange.respond(201, wire.encode(session), headers=[(b"cache-control", b"no-store")])

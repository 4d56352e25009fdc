"""Who sends a request, by its credential. Every chat route and the WebSocket ask here first.

A credential is a bearer token (RFC 6750): an API key, a session of this flow, or an identity provider's JWT. Tokens
that have been read are remembered for a minute, since most requests of a user bring the same one.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from starlette.types import Scope

from chatflow_runtime.domain.access import Known, digest_of
from chatflow_runtime.errors import ChatFlowError, CredentialInvalid, CredentialMissing, UserRefused
from chatflow_runtime.web import wire
from chatflow_runtime.web.exchange import query_parameter

REMEMBERED = 8192
"""Tokens, of about 1 KB each."""
REMEMBERED_S = 60.0
LONGEST_TOKEN = 8192
PARAMETER = "access_token"


class TokenReader(Protocol):
    """Knows one kind of tokens."""

    def read(self, token: str) -> Known:
        """Whose it is; CredentialInvalid where it is none of this kind, or no longer good."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who sends a request: one user, or with `uid` None someone who may speak for any."""

    uid: str | None

    def named(self, given: str | None) -> str:
        """The user whom a request is about; UserRefused when that is another one than the caller."""
        if self.uid is None:
            return wire.checked_id("uid", given)
        if given is not None and given != self.uid:
            raise UserRefused("the credential is of another user; leave uid out, or give the one that it names")
        return self.uid


ANYONE = Caller(None)


class Gate:
    """Lets requests in."""

    def __init__(
        self,
        is_required: bool,
        api_keys: frozenset[bytes],
        readers: Sequence[TokenReader],
        now_s: Callable[[], float],
    ) -> None:
        self._is_required = is_required
        self._api_keys = api_keys
        self._readers = readers
        self._now_s = now_s
        self._remembered: OrderedDict[str, tuple[float, Caller]] = OrderedDict()

    def admit(self, scope: Scope, *, by_parameter: bool = False) -> Caller:
        """Who sends it. CredentialMissing, CredentialInvalid. `by_parameter`: where browsers can send no header."""
        token = _token_of(scope, by_parameter=by_parameter)
        if token is None:
            if self._is_required:
                raise CredentialMissing("send Authorization: Bearer with a token; POST /v1/sessions may give one")
            return ANYONE
        found = self._remembered.get(token)
        if found is not None and found[0] > self._now_s():
            return found[1]
        try:
            return self._read(token)
        except CredentialInvalid:
            # OpenAI's clients always send a key, whether there is one or not.
            if self._is_required:
                raise
            return ANYONE

    def forget(self) -> None:
        """Read every token anew: the keys have changed."""
        self._remembered.clear()

    def _read(self, token: str) -> Caller:
        if digest_of(token) in self._api_keys:
            return ANYONE
        failure: ChatFlowError = CredentialInvalid("the credential is not known here")
        for reader in self._readers:
            try:
                known = reader.read(token)
            except CredentialInvalid as error:
                failure = error
            else:
                caller = Caller(wire.checked_id("uid", known.uid))
                self._remember(token, min(known.until_s, self._now_s() + REMEMBERED_S), caller)
                return caller
        raise failure

    def _remember(self, token: str, until_s: float, caller: Caller) -> None:
        self._remembered[token] = until_s, caller
        self._remembered.move_to_end(token)
        if len(self._remembered) > REMEMBERED:
            self._remembered.popitem(last=False)


def _token_of(scope: Scope, *, by_parameter: bool) -> str | None:
    """The one bearer token of a request. Two of them, even of the same kind, are refused: a proxy in front may have
    looked at the other one."""
    given = [_bearer(value) for name, value in scope["headers"] if name == b"authorization"]
    if by_parameter and b"access_token" in scope["query_string"]:
        parameter = query_parameter(scope, PARAMETER)
        given += [] if parameter is None else [parameter]
    if len(given) > 1:
        raise CredentialInvalid("the request has several credentials; send one")
    if not given:
        return None
    if len(given[0]) > LONGEST_TOKEN:
        raise CredentialInvalid(f"the token has {len(given[0])} characters; at most {LONGEST_TOKEN} are read")
    return given[0]


def _bearer(value: bytes) -> str:
    scheme, _, token = value.decode("latin-1").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise CredentialInvalid("the Authorization header is no bearer token; send Authorization: Bearer TOKEN")
    return token.strip()

"""Business APIs that actions call, such as an order service. Implements the ActionCaller port.

Wired by `bootstrap`, called by `answerers.dispatch`. Values come from users: they fill places in a URL that the
manifest lays down, and can neither leave those places nor choose the host.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Set
from decimal import Decimal
from urllib.parse import quote, unquote

import aiohttp
import msgspec
from chatflow_api.runtime_config import ActionConfig, DialogueConfig
from chatflow_api.v1alpha1 import HttpMethod
from yarl import URL

from chatflow_runtime.errors import ActionFailed
from chatflow_runtime.ports import ActionResult

MAX_RESPONSE_BYTES = 256 * 1024
MAX_REDIRECTS = 3

_IDEMPOTENT = frozenset({HttpMethod.GET, HttpMethod.PUT, HttpMethod.DELETE})
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""
_WITH_BODY = frozenset({HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_REMEDIES = {
    400: "the API refuses the slots: make their patterns stricter",
    401: "check the token in secretRef",
    403: "check the token in secretRef and what it may do",
    405: "check method",
    429: "the API limits requests: raise its limit",
}
_SEE_LOG = "see that API's log"
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_CREDENTIALS = re.compile(r"//[^/@]*@")
_URL_SAFE = "%:/?[]@!$&'()*+,;=-._~"
_HEADER_SAFE = "!\"#$&'()*+,/:;<=>?@[\\]^`{|}"
_JSON = msgspec.json.Decoder(float_hook=Decimal)
"""Numbers with a fraction stay as the API wrote them: 199.00 is a price."""


class BusinessApi:
    """Calls the APIs of one flow's actions. `secrets` holds each action's bearer token by the action's name."""

    def __init__(
        self, dialogue: DialogueConfig, session: aiohttp.ClientSession, secrets: Mapping[str, str | None]
    ) -> None:
        hosts = dialogue.allowed_hosts or [_host_of(action.url) for action in dialogue.actions]
        self._allowed = frozenset(host.lower() for host in hosts)
        self._session = session
        self._secrets = secrets

    async def call(self, action: ActionConfig, slots: Mapping[str, str], effect_id: str) -> ActionResult:
        """The API's answer, within the action's timeout, a retry included.

        Sent are the action's own slots alone; `effect_id` goes out as Idempotency-Key. 404 is a result: there is no
        such thing. GET, PUT and DELETE are sent once more when the connection fails or the answer is 502, 503 or 504.
        GET follows redirects to allowed hosts. Everything else raises ActionFailed, with no slot value in its message.
        """
        values = {name: slots[name] for name in action.slots if name in slots}
        url = URL(fill_url(action, values), encoded=True)
        try:
            async with asyncio.timeout(action.timeout_s):
                try:
                    return await self._attempt(action, url, values, effect_id)
                except (_Unavailable, aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
                    if action.method not in _IDEMPOTENT:
                        raise
                return await self._attempt(action, url, values, effect_id)
        except TimeoutError as error:
            raise _failure(
                action, f"took longer than {action.timeout_s:g} s", "see its load, or raise timeout"
            ) from error
        except _Unavailable as error:
            raise _failure(action, f"answered with status {error.status}", _SEE_LOG) from error
        except aiohttp.ClientError as error:
            raise _failure(action, f"cannot be reached ({type(error).__name__})", "check that it runs") from error

    async def _attempt(
        self, action: ActionConfig, first: URL, values: Mapping[str, str], effect_id: str
    ) -> ActionResult:
        url = self._permitted(action, first, first)
        body = msgspec.json.encode(values) if action.method in _WITH_BODY else None
        for _ in range(MAX_REDIRECTS + 1):
            headers = self._headers(action, effect_id, is_own=url.origin() == first.origin())
            async with self._session.request(
                action.method, url, data=body, headers=headers, allow_redirects=False
            ) as response:
                if response.status not in _REDIRECTS:
                    return await _result(action, response)
                url = self._permitted(action, first, _target(action, response))
        raise _failure(action, f"redirects more than {MAX_REDIRECTS} times", "write the final address as url")

    def _headers(self, action: ActionConfig, effect_id: str, *, is_own: bool) -> dict[str, str]:
        headers = {"Accept": "application/json", "Idempotency-Key": quote(effect_id, safe=_HEADER_SAFE)}
        if action.method in _WITH_BODY:
            headers["Content-Type"] = "application/json"
        token = self._secrets.get(action.name)
        if token is not None and is_own:
            if not (token.isascii() and token.isprintable()):
                raise _failure(action, "has a token with characters that no header can hold", "correct the Secret")
            headers["Authorization"] = f"Bearer {token}"
        return headers

    def _permitted(self, action: ActionConfig, first: URL, url: URL) -> URL:
        objection = objection_to(url, first, self._allowed)
        if objection is not None:
            raise _failure(action, *objection)
        return url


def objection_to(url: URL, first: URL, allowed: Set[str]) -> tuple[str, str] | None:
    """Why a URL may not be called, and the remedy; None if it may.

    `first` is the action's own URL, `allowed` holds hosts as host (on the scheme's port) or host:port, in lower case.
    """
    host = url.host_subcomponent
    if url.scheme not in ("http", "https") or host is None:
        return "leads to an address without http(s) or host", "write the final address as url"
    if url.user is not None or url.password is not None:
        return "leads to an address with credentials", "give them as secretRef"
    if first.scheme == "https" and url.scheme != "https":
        return "leads from https to http", "write the final address as url"
    if not {f"{host}:{url.port}", url.host_port_subcomponent} & allowed:
        return f"leads to host {url.host_port_subcomponent!r}", "list it in allowedHosts if that is right"
    return None


class _Unavailable(Exception):
    """The API, or a gateway before it, is unavailable for now."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


def _host_of(template: str) -> str:
    return re.split("[/?]", template.partition("://")[2], maxsplit=1)[0]


def fill_url(action: ActionConfig, values: Mapping[str, str]) -> str:
    """The action's URL with its placeholders filled, in ASCII. A value stays inside its path segment or query value;
    ActionFailed where it would not, or is empty or missing."""
    path, mark, query = action.url.partition("?")

    def path_value(match: re.Match[str]) -> str:
        value = _value(action, values, match.group(1))
        if "/" in value or "\\" in value:
            raise _failure(
                action, f"has a slash in slot {match.group(1)!r}", "make its pattern stricter, or use it in the query"
            )
        return quote(value, safe="")

    def query_value(match: re.Match[str]) -> str:
        return quote(_value(action, values, match.group(1)), safe="")

    path = _PLACEHOLDER.sub(path_value, path)
    if any(unquote(segment) in (".", "..") for segment in path.split("/")):
        raise _failure(action, "has '.' or '..' for a path segment", "make the pattern of its slots stricter")
    return quote(path + mark + _PLACEHOLDER.sub(query_value, query), safe=_URL_SAFE)


def _value(action: ActionConfig, values: Mapping[str, str], name: str) -> str:
    value = values.get(name)
    if not value or not value.isprintable():
        what = "no value" if not value else "control characters"
        raise _failure(action, f"has {what} in slot {name!r}", "make its pattern stricter")
    return value


def _target(action: ActionConfig, response: aiohttp.ClientResponse) -> URL:
    location = response.headers.get("Location")
    if action.method is not HttpMethod.GET or location is None:
        raise _failure(action, f"redirects (status {response.status})", "write the final address as url")
    try:
        return response.url.join(URL(location))
    except ValueError as error:
        raise _failure(action, "redirects to what is no address", _SEE_LOG) from error


async def _result(action: ActionConfig, response: aiohttp.ClientResponse) -> ActionResult:
    status = response.status
    if status == 404:
        return ActionResult(is_found=False)
    if status in (502, 503, 504):
        raise _Unavailable(status)
    if not 200 <= status < 300:
        raise _failure(action, f"answered with status {status}", _REMEDIES.get(status, _SEE_LOG))
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise _failure(action, f"answered with more than {MAX_RESPONSE_BYTES} bytes", "make the API answer shorter")
    if not body and action.method is not HttpMethod.GET:
        return ActionResult(is_found=True)
    kind = response.content_type
    if kind != "application/json" and not kind.endswith("+json"):
        raise _failure(action, f"answered with {kind}", "actions need an API that answers with JSON")
    try:
        return ActionResult(is_found=True, body=_JSON.decode(body))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _failure(action, "answered with broken JSON", _SEE_LOG) from error


def _failure(action: ActionConfig, what: str, remedy: str) -> ActionFailed:
    url = _CREDENTIALS.sub("//", action.url)
    return ActionFailed(f"action {action.name!r}, {action.method} {url}, {what}; {remedy}")

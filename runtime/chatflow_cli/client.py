"""A client of the gateway's HTTP interface, for `ask` and `chat`: one message as a stream, and the notices in between.

Standard library alone: a question from the terminal does not wait for an HTTP library to load.
"""

from __future__ import annotations

import http.client
import json
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from chatflow_cli.errors import CommandFailed, GatewayUnreachable

_TIMEOUT_S = 180.0
"""Longer than any deadline that a manifest may set for a language model's first token."""


@dataclass(frozen=True, slots=True)
class Event:
    """One server-sent event: `delta` (a piece of text), `reply` (the whole one) or `notice`."""

    kind: str
    data: Mapping[str, Any]
    id: str | None = None


def new_uid() -> str:
    """A user of this terminal alone."""
    return f"terminal-{secrets.token_hex(4)}"


class GatewayClient:
    """Talks to one gateway."""

    def __init__(self, url: str, token: str | None = None) -> None:
        """`token`: an API key, a JWT or a session's token; without one, a session is asked for where the flow wants
        it."""
        parts = urlsplit(url if "://" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise CommandFailed(f"{url!r} is no URL of a gateway; write for example http://127.0.0.1:8080")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._connection_type = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port = parts.hostname, parts.port
        self._token = token

    def user(self, wanted: str | None) -> str | None:
        """Whom to speak as: the wanted uid, else a new one, or None for the one whom the token names."""
        if wanted is not None or self._token is not None:
            return wanted
        if not self._json("GET", "/v1/config").get("has_sessions"):
            return new_uid()
        self._token = str(self._json("POST", "/v1/sessions")["token"])
        return None

    def ask(self, uid: str | None, text: str) -> Iterator[Event]:
        """The reply to a message: deltas as they come, the reply last. GatewayUnreachable says what went wrong."""
        message = {"message_id": secrets.token_hex(8), "text": text} | ({} if uid is None else {"uid": uid})
        yield from self._events("POST", "/v1/chat", json.dumps(message).encode())

    def events(self, uid: str | None) -> Iterator[Event]:
        """What the bot says to a user from now on, until the connection ends."""
        query = "" if uid is None else f"?uid={quote(uid, safe='')}"
        yield from self._events("GET", f"/v1/events{query}", None)

    def _json(self, method: str, path: str) -> Mapping[str, Any]:
        with self._response(method, path, None, {}) as response:
            content: Mapping[str, Any] = json.load(response)
            return content

    def _events(self, method: str, path: str, body: bytes | None) -> Iterator[Event]:
        headers = {"Accept": "text/event-stream", "Content-Type": "application/json"}
        with self._response(method, path, body, headers) as response:
            yield from _parsed(response)

    @contextmanager
    def _response(
        self, method: str, path: str, body: bytes | None, headers: dict[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        if self._token is not None:
            headers = {**headers, "Authorization": f"Bearer {self._token}"}
        with closing(self._connection_type(self._host, self._port, timeout=_TIMEOUT_S)) as connection:
            try:
                connection.request(method, path, body, headers)
                response = connection.getresponse()
                if response.status not in (http.client.OK, http.client.CREATED):
                    raise GatewayUnreachable(f"{self.url}: {_problem(response.status, response.read(65536))}")
                yield response
            except (OSError, http.client.HTTPException) as error:
                raise GatewayUnreachable(
                    f"{self.url}: no answer ({error}); see that the flow is up: chatflow up FILE"
                ) from error


def _parsed(response: http.client.HTTPResponse) -> Iterator[Event]:
    """Server-sent events, as the HTML standard frames them."""
    kind, event_id = "message", None
    data: list[str] = []
    for raw in response:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line:
            if data:
                yield Event(kind, json.loads("\n".join(data)), event_id)
            kind, event_id, data = "message", None, []
            continue
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "event":
            kind = value
        elif name == "data":
            data.append(value)
        elif name == "id":
            event_id = value


def _problem(status: int, body: bytes) -> str:
    """An error response in one line; RFC 9457 objects have title and detail."""
    try:
        content = json.loads(body)
        return f"{content['title']} ({status}): {content.get('detail') or 'no detail'}"
    except (ValueError, KeyError, TypeError):
        return f"status {status}; this is no ChatFlow gateway, or one behind a proxy that failed"

"""`/v1/handoffs`: the side of the agent desk, whose people answer in the place of the bot. Behind the fast path, since
people write less often than a bot; every request needs one of the desk's own keys."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
from fastapi import FastAPI, Request, Response

from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.ports import Handoffs, Word
from chatflow_runtime.web import wire
from chatflow_runtime.web.exchange import too_large
from chatflow_runtime.web.gate import Gate
from chatflow_runtime.web.services import Services

NAMELESS = "agent"
"""Of a person whose name the desk does not tell."""
WANTED_WORD = 'an object {"message_id", "text"} of strings, and agent if you like'
WANTED_RETURN = "an object, empty or with message_id, text and agent as strings"

_word_request = msgspec.json.Decoder(wire.AgentMessageRequest)
_return_request = msgspec.json.Decoder(wire.ReturnRequest)


@dataclass(frozen=True, slots=True)
class Desk:
    """What the routes need: the conversations, who may speak in them, and what users are told at the end."""

    handoffs: Handoffs
    gate: Gate
    returned: str


class HandoffRoutes:
    """The routes."""

    def __init__(self, services: Services, desk: Desk) -> None:
        self._services = services
        self._desk = desk

    def add_to(self, app: FastAPI) -> None:
        """Serve them. A uid may hold slashes."""
        for path, method, endpoint in (
            ("/v1/handoffs/{uid:path}/messages", "POST", self.speak),
            ("/v1/handoffs/{uid:path}/return", "POST", self.give_back),
            ("/v1/handoffs/{uid:path}", "GET", self.look),
        ):
            app.add_api_route(path, endpoint, methods=[method], include_in_schema=False)

    async def speak(self, request: Request) -> Response:
        """Say something to the user."""
        self._desk.gate.admit(request.scope)
        body = wire.decode(_word_request, await self._body(request), WANTED_WORD)
        text = wire.checked_text(body.text, self._services.config.gateway.max_text_length)
        message_id = wire.checked_id("message_id", body.message_id)
        agent, at_ms = body.agent or NAMELESS, self._services.clock.now_ms()
        notice = Notice("agent", text, at_ms, message_id, agent)
        return await self._spoken(Word(_uid(request), message_id, text, agent, notice, handoff_id=body.handoff_id))

    async def give_back(self, request: Request) -> Response:
        """Let the bot answer again."""
        self._desk.gate.admit(request.scope)
        given = await self._body(request)
        body = wire.decode(_return_request, given, WANTED_RETURN) if given else wire.ReturnRequest()
        text = body.text or None
        if text is not None:
            wire.checked_text(text, self._services.config.gateway.max_text_length)
        message_id = wire.new_id("r") if body.message_id is None else wire.checked_id("message_id", body.message_id)
        agent = body.agent or NAMELESS
        notice = Notice("returned", text or self._desk.returned, self._services.clock.now_ms(), message_id, agent)
        return await self._spoken(
            Word(_uid(request), message_id, text, agent, notice, ends=True, handoff_id=body.handoff_id)
        )

    async def look(self, request: Request) -> Response:
        """Where the conversation stands, and what was said."""
        self._desk.gate.admit(request.scope)
        uid = _uid(request)
        found = await self._desk.handoffs.look(uid)
        said = tuple(wire.said_by(message) for message in found.history if message.text)
        return _json(wire.HandoffView(uid, found.scene, found.handoff_id, said))

    async def _spoken(self, word: Word) -> Response:
        return _json(wire.AgentMessageKept(await self._desk.handoffs.speak(word)))

    async def _body(self, request: Request) -> bytes:
        limit, body = self._services.max_body_bytes, b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise too_large(len(body), limit)
        return body


def _uid(request: Request) -> str:
    return wire.checked_id("uid", request.path_params["uid"])


def _json(value: msgspec.Struct) -> Response:
    return Response(wire.encode(value), media_type="application/json")

"""The OpenAPI 3.2 document: paths written out here, schemas made from the wire types, examples from `examples`.

Merged by `pages` into what FastAPI serves at /openapi.json and /docs; the chat routes never pass through FastAPI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import msgspec

from chatflow_runtime import errors
from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.web import completion_types as completions
from chatflow_runtime.web import problems, webhooks, wire
from chatflow_runtime.web.docs import examples

Node = dict[str, Any]
"""A piece of the document; its shape is OpenAPI's."""

TITLE = "ChatFlow"
VERSION = version("chatflow")
DESCRIPTION = """\
The customer-service chat of one ChatFlow. Every example is given in Chinese and English.

**Messages take effect once.** A client gives each message an id (`message_id`) and repeats the request with the same id
whenever it is not sure that the reply came; it gets the one reply, however often it asks.

**Errors** are problem objects (RFC 9457), `application/problem+json`. `code` is stable; `retryable` tells whether the
same request may succeed later. Before any route sees it, a request that is no HTTP is refused with 400, one whose head
is longer than 64 KiB with 431, and one that takes too long to come with 408.

**Credentials.** `POST /v1/sessions` gives a visitor a token for a conversation of their own; send it as
`Authorization: Bearer`, and leave `uid` out. A flow may also take JSON Web Tokens of its identity provider, and API
keys for backends, which name the user by `uid`. Where browsers can send no header, the parameter `access_token` does.
"""

_LANGUAGES = {"zh": "中文", "en": "English"}
_TYPES: Sequence[Any] = (
    wire.ChatRequest,
    wire.ChatReply,
    wire.AcceptedMessage,
    wire.DeltaEvent,
    wire.NoticeEvent,
    wire.RatingRequest,
    wire.Rated,
    wire.Session,
    wire.WidgetConfig,
    wire.ClientFrame,
    wire.ServerFrame,
    completions.CompletionRequest,
    completions.Completion,
    completions.Chunk,
    completions.ModelList,
    problems.Problem,
    webhooks.Payload,
    wire.AgentMessageRequest,
    wire.ReturnRequest,
    wire.AgentMessageKept,
    wire.HandoffView,
)
_REFERENCE = "#/components/schemas/{name}"


def document() -> Node:
    """The whole document."""
    return {
        "openapi": "3.2.0",
        "info": {"title": TITLE, "version": VERSION, "description": DESCRIPTION, "license": _LICENSE},
        "tags": _TAGS,
        "paths": _paths(),
        "webhooks": _webhooks(),
        "components": {"schemas": schemas(), "securitySchemes": {"bearer": _BEARER, "parameter": _PARAMETER}},
    }


def schemas() -> Node:
    """JSON Schemas of the wire types, by name."""
    _, components = msgspec.json.schema_components(_TYPES, ref_template=_REFERENCE)
    components["OpenAIError"] = _OPENAI_ERROR
    return components


_QUERY = "the query is not in UTF-8; write other characters as percent signs and bytes"
_UID: Node = {"minLength": 1, "maxLength": 128, "pattern": r"^\S+$"}
_EVENT_ID: Node = {"pattern": "^([0-9]{1,19}(-[0-9]{1,19})?)?$"}
"""Empty is as good as none: a browser that has seen no event may say so."""
_LICENSE: Node = {"name": "Apache-2.0", "identifier": "Apache-2.0"}
_BEARER: Node = {"type": "http", "scheme": "bearer", "description": "A session's token, a JWT, or an API key."}
_PARAMETER: Node = {"type": "apiKey", "in": "query", "name": "access_token", "description": "The same, for streams."}
_BY_HEADER: list[Node] = [{"bearer": []}]
_BY_EITHER: list[Node] = [{"bearer": []}, {"parameter": []}]
_TAGS: list[Node] = [
    {"name": "chat", "description": "Messages, replies and ratings."},
    {
        "name": "openai",
        "description": "The same chat in OpenAI's protocol; use the `openai` client with this base URL.",
    },
    {"name": "widget", "description": "The web component and the page."},
    {
        "name": "handoff",
        "description": "Agents answer in the place of the bot, where the manifest has `dialogue.handoff`. The bearer"
        " token is one of the desk's own keys.",
    },
    {"name": "webhooks", "description": "What the flow posts to addresses of yours that the manifest names."},
]
_OPENAI_ERROR: Node = {
    "title": "OpenAIError",
    "description": "An error as OpenAI's clients expect it, with the problem object beside it.",
    "type": "object",
    "properties": {
        "error": {
            "type": "object",
            "properties": {
                "message": {"type": "string"},
                "type": {"enum": ["invalid_request_error", "server_error"]},
                "param": {"type": "null"},
                "code": {"type": "string"},
            },
            "required": ["message", "type", "param", "code"],
        },
        "chatflow": {"$ref": _REFERENCE.format(name="Problem")},
    },
    "required": ["error", "chatflow"],
}


def _paths() -> Node:
    return {
        "/v1/sessions": {"post": _sessions()},
        "/v1/chat": {"post": _chat()},
        "/v1/messages": {"post": _messages()},
        "/v1/events": {"get": _events()},
        "/v1/ws": {"get": _websocket()},
        "/v1/ratings": {"post": _ratings()},
        "/v1/chat/completions": {"post": _completions()},
        "/v1/handoffs/{uid}": {"get": _handoff()},
        "/v1/handoffs/{uid}/messages": {
            "post": _agent("agentMessage", "Say something", "AgentMessageRequest", examples.AGENT_MESSAGE)
        },
        "/v1/handoffs/{uid}/return": {
            "post": _agent("agentReturn", "Let the bot answer again", "ReturnRequest", examples.AGENT_RETURN)
        },
        "/v1/models": {"get": _get("models", "openai", "The flow, as a model", "ModelList", examples.MODELS)},
        "/v1/config": {
            "get": _get("config", "widget", "What the widget shows", "WidgetConfig", examples.WIDGET_CONFIG)
        },
        "/widget.js": {"get": _file("widget", "The web component <chatflow-widget>", "text/javascript")},
        "/": {"get": _file("page", "A page with the widget", "text/html")},
    }


def _handoff() -> Node:
    return {
        "operationId": "handoff",
        "tags": ["handoff"],
        "summary": "Where a conversation stands, and what was said",
        "security": _BY_HEADER,
        "parameters": [_parameter("uid", "path", "The user.", "u-1001", _UID, required=True)],
        "responses": {
            "200": {
                "description": "Also of conversations that the bot answers.",
                "content": {"application/json": _content("HandoffView", examples.HANDOFF_VIEW)},
            },
            **_problems(*_DESK),
        },
    }


def _agent(operation: str, summary: str, schema: str, pair: examples.Pair) -> Node:
    return {
        "operationId": operation,
        "tags": ["handoff"],
        "summary": summary,
        "description": "It stands in the history and comes to the user like a reply of the bot, as a notice of the kind"
        " `agent` or `returned`. Sent again with the same `message_id` it takes effect once.",
        "security": _BY_HEADER,
        "parameters": [_parameter("uid", "path", "The user.", "u-1001", _UID, required=True)],
        "requestBody": _body(schema, pair),
        "responses": {
            "200": {
                "description": "It is kept, under this id of the outbox.",
                "content": {"application/json": _content("AgentMessageKept", examples.AGENT_KEPT)},
            },
            **_problems(
                *_DESK,
                errors.NotHandedOver("answer"),
                errors.InvalidMessage("the text '' is empty; send the user's words"),
            ),
        },
    }


def _webhooks() -> Node:
    return {
        "message.answered": {"post": _webhook("MessageAnsweredPayload", examples.MESSAGE_ANSWERED)},
        "message.failed": {"post": _webhook("MessageFailedPayload", examples.MESSAGE_FAILED)},
        "handoff.requested": {"post": _webhook("HandoffRequestedPayload", examples.HANDOFF_REQUESTED)},
        "handoff.message": {"post": _webhook("HandoffMessagePayload", examples.HANDOFF_MESSAGE)},
        "handoff.ended": {"post": _webhook("HandoffEndedPayload", examples.HANDOFF_ENDED)},
    }


def _webhook(schema: str, pair: examples.Pair) -> Node:
    return {
        "operationId": schema,
        "tags": ["webhooks"],
        "summary": f"To the webhook: {next(iter(pair.values())).__struct_config__.tag}",
        "description": "Sent again, with the same `webhook-id`, until it is answered with 2xx or 410, for a day. Verify"
        " the signature before anything else: docs/how-to/webhooks.md.",
        "parameters": [
            _parameter("webhook-id", "header", "Of the delivery.", "5f0c1e9a.17.1785000000000-0", required=True),
            _parameter("webhook-timestamp", "header", "Unix time of this attempt.", "1785000001", required=True),
            _parameter(
                "webhook-signature",
                "header",
                "`v1,` and the base64 of HMAC-SHA256 over id, timestamp and body, joined by dots; one for each secret,"
                " with a space between them.",
                "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
                required=True,
            ),
        ],
        "requestBody": _body(schema, pair),
        "responses": {"2XX": {"description": "Taken."}, "410": {"description": "Never to be sent again."}},
    }


def _sessions() -> Node:
    return {
        "operationId": "session",
        "tags": ["chat"],
        "summary": "Get a token for a conversation of one's own",
        "description": "For visitors without a name. With a session's token it gives a fresh one for the same user.",
        "security": [{}, {"bearer": []}],
        "responses": {
            "201": {
                "description": "The user, and the token that proves to be that user.",
                "content": {"application/json": _content("Session", examples.SESSION)},
            },
            **_problems(
                errors.CredentialInvalid("the session has expired; get a new one by POST /v1/sessions"),
                errors.SessionsRefused("this flow gives no anonymous sessions"),
                problems.BodyTooLarge("the request body has at least 2000 bytes; send at most 1024"),
                errors.StateUnavailable(),
            ),
        },
    }


def _chat() -> Node:
    stream = {
        language: _event("delta", wire.DeltaEvent(reply.text[:6])) + _event("reply", reply, reply.id)
        for language, reply in examples.CHAT_REPLY.items()
    }
    return {
        "operationId": "chat",
        "security": _BY_HEADER,
        "tags": ["chat"],
        "summary": "Send a message, get the reply",
        "description": "As JSON; or, with `Accept: text/event-stream`, as events: `delta` (a piece of the text, no id),"
        " then `reply` (the whole reply, its id is what `GET /v1/events` resumes from), or `error` (a problem) when it"
        " breaks off. An error before the first event is an ordinary problem response. A client that leaves cancels"
        " the turn; sent again with the same `message_id`, the message is answered anew.",
        "requestBody": _body("ChatRequest", examples.CHAT_REQUEST),
        "responses": {
            "200": {
                "description": "The reply.",
                "content": {
                    "application/json": _content("ChatReply", examples.CHAT_REPLY),
                    "text/event-stream": _stream_content(
                        stream, delta="DeltaEvent", reply="ChatReply", error="Problem"
                    ),
                },
            },
            **_problems(
                *_ACCESS,
                problems.MalformedRequest("the request is no JSON in UTF-8; send an object"),
                errors.ConversationBusy("the last message of this conversation is still being answered"),
                errors.MessageTooLong("the text has 2400 characters; send at most 2000"),
                errors.InvalidMessage("the request does not fit: Expected `str`, got `int` - at `$.uid`"),
                errors.Shed("5210 turns are under way; new conversations wait, try again in a few seconds"),
            ),
        },
    }


def _messages() -> Node:
    return {
        "operationId": "accept",
        "security": _BY_HEADER,
        "tags": ["chat"],
        "summary": "Leave a message, get the reply later",
        "description": "The gateway keeps the message and a worker answers it, after those that the user has left"
        " before. The reply comes on `GET /v1/events` (with the `last_event_id` of this response, also after a break"
        " of any length within the conversation's time) and on open WebSockets. A message that cannot be answered"
        " brings a notice of the kind `failed`. Where the manifest names `gateway.messages.webhook`, that is told of"
        " either as well. Sent again with the same `message_id` it is kept once.",
        "requestBody": _body("ChatRequest", examples.CHAT_REQUEST),
        "responses": {
            "202": {
                "description": "The message is kept and will be answered.",
                "content": {"application/json": _content("AcceptedMessage", examples.ACCEPTED)},
            },
            **_problems(
                *_ACCESS,
                problems.MalformedRequest("the request is no JSON in UTF-8; send an object"),
                errors.ConversationBusy("64 messages of this user wait already; send this one after a reply"),
                errors.MessageTooLong("the text has 2400 characters; send at most 2000"),
                errors.InvalidMessage("the request does not fit: Expected `str`, got `int` - at `$.uid`"),
                errors.InboxFull("1000 messages wait to be answered; send this one again in a few seconds"),
            ),
        },
    }


def _events() -> Node:
    stream = {
        language: _event("reply", reply, reply.id) + _event("notice", notice, notice.id)
        for language, reply, notice in (
            (language, examples.CHAT_REPLY[language], examples.NOTICE[language]) for language in _LANGUAGES
        )
    }
    return {
        "operationId": "events",
        "security": _BY_EITHER,
        "tags": ["chat"],
        "summary": "What the bot says to a user, as events",
        "description": "Replies, whatever channel asked for them, and notices. Without a last event id only what is new"
        " from now on; with one, everything after it that is kept (`0` for all). Browsers' `EventSource` resumes by"
        " itself. Comments keep the connection alive.",
        "parameters": [
            _parameter("uid", "query", "The user, where the credential does not say.", "u-1001", _UID),
            _parameter("last_event_id", "query", "For the first connection.", "1785000000000-0", _EVENT_ID),
            _parameter("Last-Event-ID", "header", "Wins over the parameter.", "1785000000000-0", _EVENT_ID),
        ],
        "responses": {
            "200": {
                "description": "A stream that ends when the client leaves, or the gateway stops.",
                "content": {
                    "text/event-stream": _stream_content(stream, reply="ChatReply", notice="NoticeEvent"),
                },
            },
            **_problems(
                problems.MalformedRequest(_QUERY),
                *_ACCESS,
                errors.InvalidMessage("uid is missing; give 1 to 128 visible characters"),
                errors.StateUnavailable(),
                problems.Draining("this gateway is about to stop; connect again"),
            ),
        },
    }


def _websocket() -> Node:
    frames = {
        "client": {"anyOf": _references("MessageFrame", "ResumeFrame", "RatingFrame", "PingFrame")},
        "server": {
            "anyOf": _references("DeltaFrame", "ReplyFrame", "NoticeFrame", "RatedFrame", "PongFrame", "ErrorFrame")
        },
    }
    return {
        "operationId": "websocket",
        "security": _BY_EITHER,
        "tags": ["chat"],
        "summary": "The same over a WebSocket, in JSON frames",
        "description": "The client sends `message`, `resume`, `rating` and `ping`; the gateway sends `delta`, `reply`,"
        " `notice`, `rated`, `pong` and `error`, each told apart by `type` (`x-frames` has the schemas). A connection"
        " also brings replies to messages of other channels and tabs, each reply once. A page's origin must be the"
        " gateway's own or stand in `spec.gateway.allowedOrigins`. Close code 1012 or 1013: connect again.",
        "parameters": [_parameter("uid", "query", "The user, where the credential does not say.", "u-1001", _UID)],
        "x-frames": frames,
        "responses": {
            "101": {"description": "The connection is a WebSocket now."},
            **_problems(
                problems.MalformedRequest(_QUERY),
                *_ACCESS,
                problems.UpgradeNeeded("/v1/ws is a WebSocket's; connect with a WebSocket client"),
                problems.OriginRefused("pages of 'https://evil.example' may not use this chat"),
                errors.InvalidMessage("uid is missing; give 1 to 128 visible characters"),
            ),
        },
    }


def _ratings() -> Node:
    return {
        "operationId": "rate",
        "security": _BY_HEADER,
        "tags": ["chat"],
        "summary": "Rate the conversation",
        "description": "From 1 to the flow's `rating_scale`. A conversation that had asked for it ends.",
        "requestBody": _body("RatingRequest", examples.RATING_REQUEST),
        "responses": {
            "200": {
                "description": "The rating is kept.",
                "content": {"application/json": _content("Rated", examples.RATED)},
            },
            **_problems(
                *_ACCESS,
                problems.MalformedRequest("the request is no JSON in UTF-8; send an object"),
                errors.InvalidMessage("score 9 lies outside this flow's scale; send a whole number from 1 to 5"),
            ),
        },
    }


def _completions() -> Node:
    stream = {
        language: "".join(f"data: {_text(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        for language, chunks in examples.CHUNKS.items()
    }
    error = problems.OPENAI_STYLE.body(examples.problem(errors.InvalidMessage("the last message has role 'assistant'")))
    return {
        "operationId": "completions",
        "security": _BY_HEADER,
        "tags": ["openai"],
        "summary": "The chat in OpenAI's protocol",
        "description": "Works with OpenAI's own clients, streamed or whole. `user` is the uid; without it the messages"
        " sent along stand in as history. The header `Idempotency-Key` is the message id. `chatflow` holds what the"
        " protocol has no place for: citations, rung, intent.",
        "requestBody": _body("CompletionRequest", examples.COMPLETION_REQUEST),
        "responses": {
            "200": {
                "description": "The answer.",
                "content": {
                    "application/json": _content("Completion", examples.COMPLETION),
                    "text/event-stream": _stream_content(stream, data="Chunk"),
                },
            },
            "default": {
                "description": "An error in OpenAI's shape; the statuses are those of `POST /v1/chat`.",
                "content": {
                    "application/json": {"schema": _reference("OpenAIError"), "example": msgspec.json.decode(error)}
                },
            },
        },
    }


_DESK = (
    errors.CredentialInvalid("the credential is not known here"),
    problems.RouteUnknown("this flow hands no conversation over"),
)
"""What every route of a desk says; without `spec.dialogue.handoff` there is none."""

_ACCESS = (
    errors.CredentialMissing("send Authorization: Bearer with a token; POST /v1/sessions may give one"),
    errors.CredentialInvalid("the session has expired; get a new one by POST /v1/sessions"),
    errors.UserRefused("the credential is of another user; leave uid out, or give the one that it names"),
)
"""What every route says that has a user."""


def _get(operation: str, tag: str, summary: str, schema: str, pair: examples.Pair) -> Node:
    return {
        "operationId": operation,
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": summary, "content": {"application/json": _content(schema, pair)}}},
    }


def _file(operation: str, summary: str, media_type: str) -> Node:
    content = {media_type: {"schema": {"type": "string"}}}
    return {
        "operationId": operation,
        "tags": ["widget"],
        "summary": summary,
        "responses": {"200": {"description": summary, "content": content}},
    }


def _reference(name: str) -> Node:
    return {"$ref": _REFERENCE.format(name=name)}


def _references(*names: str) -> list[Node]:
    return [_reference(name) for name in names]


def _parameter(
    name: str, place: str, description: str, example: str, schema: Node | None = None, *, required: bool = False
) -> Node:
    return {
        "name": name,
        "in": place,
        "description": description,
        "required": required,
        "schema": {"type": "string", **(schema or {})},
        "example": example,
    }


def _content(schema: str, pair: examples.Pair) -> Node:
    return {"schema": _reference(schema), "examples": _examples({key: msgspec.to_builtins(pair[key]) for key in pair})}


def _body(schema: str, pair: examples.Pair) -> Node:
    return {"required": True, "content": {"application/json": _content(schema, pair)}}


def _stream_content(stream: Mapping[str, str], **events: str) -> Node:
    return {
        "itemSchema": {"anyOf": [_event_schema(name, schema) for name, schema in events.items()]},
        "x-events": {name: _reference(schema) for name, schema in events.items()},
        "examples": _examples(stream),
    }


def _event_schema(name: str, schema: str) -> Node:
    """One kind of event. Events of OpenAI's protocol have no name, and the last of them is no JSON."""
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": _reference(schema)}
    if name == "data":
        return {"properties": {"data": {"anyOf": [data, {"const": "[DONE]"}]}}, "required": ["data"]}
    return {"properties": {"event": {"const": name}, "data": data}, "required": ["event", "data"]}


def _examples(values: Mapping[str, Any]) -> Node:
    return {key: {"summary": _LANGUAGES[key], "value": value} for key, value in values.items()}


def _problems(*given: ChatFlowError) -> Node:
    responses: Node = {}
    for error in given:
        problem = examples.problem(error)
        response = responses.setdefault(
            str(problem.status),
            {
                "description": problem.title,
                "content": {"application/problem+json": {"schema": _reference("Problem"), "examples": {}}},
            },
        )
        content = response["content"]["application/problem+json"]
        content["examples"][problem.code] = {"value": msgspec.to_builtins(problem)}
    return responses


def _event(name: str, value: msgspec.Struct, event_id: str | None = None) -> str:
    identity = "" if event_id is None else f"id: {event_id}\n"
    return f"event: {name}\n{identity}data: {_text(value)}\n\n"


def _text(value: msgspec.Struct) -> str:
    return msgspec.json.encode(value).decode()

"""Errors as HTTP: one table from error class to status and title, RFC 9457 problem objects, OpenAI's error shape.

Used by every route and by the WebSocket. The table's own texts replace the message of an error whose cause lies inside
the gateway, so that no address or file name of the cluster leaves it; the full message goes to the log.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from chatflow_runtime import errors
from chatflow_runtime.domain.texts import Texts
from chatflow_runtime.errors import ChatFlowError, InvalidMessage

TYPE_BASE = "https://chatflow.dev/problems/"


class MalformedRequest(InvalidMessage):
    """The body is no JSON at all, or the request no HTTP."""

    code = "malformed_request"


class BodyTooLarge(InvalidMessage):
    """The body exceeds the gateway's limit."""

    code = "body_too_large"


class RouteUnknown(ChatFlowError):
    """No such path."""

    code = "route_unknown"


class MethodRefused(ChatFlowError):
    """The path exists, but not with this method."""

    code = "method_refused"


class OriginRefused(ChatFlowError):
    """A page of an origin that the manifest does not allow."""

    code = "origin_refused"


class HeadTooLarge(InvalidMessage):
    """The request line and the headers exceed the gateway's limit."""

    code = "head_too_large"


class RequestLate(ChatFlowError):
    """The request did not come whole in time."""

    code = "request_late"
    is_retryable = True


class UpgradeNeeded(ChatFlowError):
    """The route is a WebSocket's."""

    code = "upgrade_needed"


class TooManyConnections(ChatFlowError):
    """The gateway takes no further connection."""

    code = "too_many_connections"
    is_retryable = True


class Draining(ChatFlowError):
    """This gateway is about to stop; another one takes over."""

    code = "draining"
    is_retryable = True


@dataclass(frozen=True, slots=True)
class Entry:
    """One row: `detail` stands in for the error's message where that is not meant for clients."""

    status: int
    title: str
    detail: str | None = None
    retry_after_s: int | None = None


_INSIDE = "The gateway could not answer; its log names the cause under this request id."
_MODEL = "No language model answered in time. Send the message again with the same message_id."

TABLE: dict[type[ChatFlowError], Entry] = {
    ChatFlowError: Entry(500, "Internal error", _INSIDE),
    InvalidMessage: Entry(422, "Invalid message"),
    errors.MessageTooLong: Entry(413, "Message too long"),
    MalformedRequest: Entry(400, "Malformed request"),
    BodyTooLarge: Entry(413, "Body too large"),
    RouteUnknown: Entry(404, "No such route"),
    MethodRefused: Entry(405, "Method not allowed"),
    OriginRefused: Entry(403, "Origin not allowed"),
    HeadTooLarge: Entry(431, "Request head too large"),
    RequestLate: Entry(408, "Request came too slowly"),
    UpgradeNeeded: Entry(426, "WebSocket needed"),
    TooManyConnections: Entry(503, "Too many connections", retry_after_s=5),
    Draining: Entry(503, "Gateway is stopping", retry_after_s=1),
    errors.CredentialMissing: Entry(401, "Credential is missing"),
    errors.CredentialInvalid: Entry(401, "Credential is not accepted"),
    errors.UserRefused: Entry(403, "Not your conversation"),
    errors.SessionsRefused: Entry(403, "No anonymous sessions"),
    errors.KeysUnavailable: Entry(503, "Issuer is unavailable", _INSIDE, retry_after_s=5),
    errors.RateLimited: Entry(429, "Too many requests"),
    errors.ConversationBusy: Entry(409, "Conversation is busy", retry_after_s=1),
    errors.NotHandedOver: Entry(409, "Not handed over"),
    errors.InboxFull: Entry(503, "Too many messages wait", retry_after_s=5),
    errors.LeaseLost: Entry(500, "Partition was taken over", _INSIDE),
    errors.ClaimLost: Entry(409, "Turn was taken over", retry_after_s=1),
    errors.Overtaken: Entry(409, "Turn was taken over", retry_after_s=1),
    errors.Interrupted: Entry(409, "Turn was interrupted"),
    errors.StateError: Entry(500, "Conversation state failed", _INSIDE),
    errors.StateUnavailable: Entry(
        503,
        "Conversation state is unavailable",
        "The conversation cannot be read just now. Send the message again with the same message_id.",
        retry_after_s=2,
    ),
    errors.StateSchemaTooNew: Entry(
        503,
        "Conversation is of a newer release",
        "A newer gateway has written this conversation; it answers once the rollout is over. Nothing was changed.",
    ),
    errors.Shed: Entry(503, "Too busy", retry_after_s=5),
    errors.ModelError: Entry(502, "Language model failed", _MODEL, retry_after_s=2),
    errors.ModelUnavailable: Entry(502, "Language model is unavailable", _MODEL, retry_after_s=2),
    errors.ModelAbsent: Entry(503, "Language model is not running", _MODEL, retry_after_s=30),
    errors.PromptRefused: Entry(502, "Language model refused the prompt", _MODEL, retry_after_s=2),
    errors.ModelOverloaded: Entry(503, "Language model has too much to do", _MODEL, retry_after_s=5),
    errors.FirstTokenLate: Entry(504, "Language model was too late", _MODEL, retry_after_s=2),
    errors.TokenGapTooLong: Entry(504, "Language model fell silent", _MODEL, retry_after_s=2),
    errors.AnswerTooLong: Entry(504, "Language model did not come to an end", _MODEL, retry_after_s=2),
    errors.ClassifierUnavailable: Entry(503, "Intent server is unavailable", _INSIDE, retry_after_s=2),
    errors.ActionFailed: Entry(502, "Business call failed", "The shop's own service gave no answer.", retry_after_s=2),
    errors.DeliveryFailed: Entry(502, "Webhook failed", _INSIDE),
    errors.WebhookGone: Entry(502, "Webhook is gone", _INSIDE),
    errors.ArtefactInvalid: Entry(500, "Model or index cannot be used", _INSIDE),
    errors.WordListInvalid: Entry(500, "Word list cannot be used", _INSIDE),
    errors.SourcesInvalid: Entry(500, "Knowledge sources cannot be read", _INSIDE),
}
"""Every public error class; one that a part keeps to itself takes the nearest ancestor's row."""


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """An RFC 9457 problem object. `type` names the kind of problem, `code` is its last part."""

    type: str
    title: str
    status: int
    detail: str
    """What is wrong, with which value, and what to do about it."""
    code: str
    retryable: bool
    """Whether the same request may succeed later; a message keeps its message_id then."""
    request_id: str
    retry_after_s: int | None = None
    user_text: str | None = None
    """What a chat may show to its user, in the flow's language; without it the chat has words of its own."""


def entry_of(kind: type[ChatFlowError]) -> Entry:
    """The table's row for a class of errors."""
    return next(TABLE[ancestor] for ancestor in kind.__mro__ if ancestor in TABLE)


def problem_of(error: ChatFlowError, request_id: str, user_text: str | None = None) -> Problem:
    """What a client is told of an error."""
    entry = entry_of(type(error))
    return Problem(
        type=TYPE_BASE + error.code,
        title=entry.title,
        status=entry.status,
        detail=entry.detail or str(error) or entry.title,
        code=error.code,
        retryable=error.is_retryable,
        request_id=request_id,
        retry_after_s=(error.retry_after_s or entry.retry_after_s) if error.is_retryable else None,
        user_text=user_text,
    )


class Problems:
    """Makes problem objects; knows what the flow says to its users about some of them."""

    def __init__(self, texts: Texts) -> None:
        self._spoken = {
            errors.Shed: texts.shed,
            errors.Interrupted: texts.interrupted,
            errors.RateLimited: texts.too_fast,
            errors.StateUnavailable: texts.busy,
        }

    def of(self, error: ChatFlowError, request_id: str) -> Problem:
        """What a client is told of an error."""
        return problem_of(error, request_id, self._spoken.get(type(error)))


@dataclass(frozen=True, slots=True)
class ErrorStyle:
    """How a route writes problems: as a body of its own, and inside a stream that has begun."""

    content_type: bytes

    def body(self, problem: Problem) -> bytes:
        """The whole response body."""
        return msgspec.json.encode(problem)

    def frame(self, problem: Problem) -> bytes:
        """A server-sent event, the last of its stream."""
        return b"event: error\ndata: " + self.body(problem) + b"\n\n"


class OpenAIErrorStyle(ErrorStyle):
    """The shape that OpenAI's clients turn into their exceptions."""

    __slots__ = ()

    def body(self, problem: Problem) -> bytes:
        """An `error` object with the problem beside it."""
        return msgspec.json.encode(
            {
                "error": {
                    "message": problem.detail,
                    "type": "invalid_request_error" if problem.status < 500 else "server_error",
                    "param": None,
                    "code": problem.code,
                },
                "chatflow": problem,
            }
        )

    def frame(self, problem: Problem) -> bytes:
        """A data line, as OpenAI's streams have it."""
        return b"data: " + self.body(problem) + b"\n\n"


PROBLEM_STYLE = ErrorStyle(b"application/problem+json")
OPENAI_STYLE = OpenAIErrorStyle(b"application/json")

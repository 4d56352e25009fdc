"""OpenAI's chat-completions protocol, as far as a customer-service chat takes part in it.

Source of the names and shapes: OpenAI's published API reference. Fields that this gateway does not act on (temperature,
tools, ...) are accepted and ignored, as other servers of the protocol do.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from chatflow_runtime.web.wire import ChatReply


class TextPart(msgspec.Struct, frozen=True, tag="text"):
    """A part of a message's content; only text is understood."""

    text: str


class CompletionMessage(msgspec.Struct, frozen=True):
    """A message of the conversation so far."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = None

    @property
    def text(self) -> str:
        """The content as one text."""
        if isinstance(self.content, list):
            return "\n".join(part.text for part in self.content)
        return self.content or ""


class StreamOptions(msgspec.Struct, frozen=True):
    """Options of a streamed answer."""

    include_usage: bool = False


class CompletionRequest(msgspec.Struct, frozen=True):
    """The last message must be the user's; it is answered."""

    messages: Annotated[list[CompletionMessage], Meta(min_length=1, max_length=1000)]
    model: Annotated[str, Meta(description="Any name; the flow answers with the models it is configured for.")] = ""
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: Annotated[
        str | None,
        Meta(
            description="The uid of the conversation, whose stored history then counts. Without it the messages sent"
            " along stand in as history."
        ),
    ] = None
    n: Annotated[int | None, Meta(description="1 at most: a turn has one answer.")] = None


class CompletionUsage(msgspec.Struct, frozen=True):
    """Tokens; zero when no language model was asked."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


FinishReason = Literal["stop", "length"]


class AssistantMessage(msgspec.Struct, frozen=True):
    """The answer."""

    content: str
    role: Literal["assistant"] = "assistant"
    refusal: None = None


class Choice(msgspec.Struct, frozen=True):
    """The one choice."""

    message: AssistantMessage
    finish_reason: FinishReason
    index: int = 0
    logprobs: None = None


class Completion(msgspec.Struct, frozen=True):
    """A whole answer. `chatflow` is the reply as `POST /v1/chat` gives it: citations, rung, intent and so on."""

    id: str
    created: int
    model: str
    choices: tuple[Choice, ...]
    usage: CompletionUsage
    chatflow: ChatReply
    object: Literal["chat.completion"] = "chat.completion"


class ChunkDelta(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a chunk adds."""

    role: Literal["assistant"] | None = None
    content: str | None = None


class ChunkChoice(msgspec.Struct, frozen=True):
    """The one choice of a chunk."""

    delta: ChunkDelta
    finish_reason: FinishReason | None = None
    index: int = 0
    logprobs: None = None


class Chunk(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A piece of a streamed answer; the last one with a choice carries `chatflow`."""

    id: str
    created: int
    model: str
    object: Literal["chat.completion.chunk"]
    choices: tuple[ChunkChoice, ...]
    usage: CompletionUsage | None = None
    chatflow: ChatReply | None = None


class Model(msgspec.Struct, frozen=True):
    """The flow, as a model."""

    id: str
    created: int
    owned_by: str = "chatflow"
    object: Literal["model"] = "model"


class ModelList(msgspec.Struct, frozen=True):
    """The one model."""

    data: tuple[Model, ...]
    object: Literal["list"] = "list"

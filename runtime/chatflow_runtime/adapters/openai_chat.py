"""Language models behind an OpenAI-compatible API: vLLM, Ollama, hosted models. Implements the LanguageModel port.

Wired by `bootstrap`, one for `llm` and one for `backup`. Protocol: POST {base_url}/chat/completions with `stream`,
https://platform.openai.com/docs/api-reference/chat-streaming. GET {base_url}/models tells whether it answers at all.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable, Sequence

import aiohttp
import msgspec
from chatflow_api.runtime_config import LanguageModelConfig
from yarl import URL

from chatflow_runtime.adapters.event_stream import EventStream, EventTooLong
from chatflow_runtime.domain.prompt import ChatMessage
from chatflow_runtime.domain.reply import Usage
from chatflow_runtime.errors import (
    AnswerTooLong,
    FirstTokenLate,
    ModelAbsent,
    ModelError,
    ModelOverloaded,
    ModelUnavailable,
    PromptRefused,
    TokenGapTooLong,
)
from chatflow_runtime.ports import Delta

AFTERMATH_S = 1.0
"""How long usage is waited for once the answer is complete."""
LINGER_S = 0.05
"""How long the end of the response is waited for after [DONE]; a connection that reaches it is used again."""
MAX_ERROR_BYTES = 64 * 1024
CHECK_S = 3.0
"""How long a server may take to show that it answers at all."""

_REMEDIES = {
    400: "the prompt may exceed the model's context: lower contextTokens or maxTokens",
    401: "check the key in apiKeySecretRef",
    403: "check the key in apiKeySecretRef and what it may use",
    404: "check baseURL (it ends with the version, as in /v1) and the model's name",
    413: "lower contextTokens",
    422: "the prompt may exceed the model's context: lower contextTokens or maxTokens",
    429: "the service limits requests: raise its limit, or set a backup",
}
_KINDS: dict[int, type[ModelUnavailable]] = {
    400: PromptRefused,
    413: PromptRefused,
    422: PromptRefused,
    429: ModelOverloaded,
    503: ModelAbsent,
}
_SEE_LOG = "see that server's log"
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


class _Delta(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Tokens(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Chunk(msgspec.Struct):
    """What is read of a chunk; roles, reasoning and everything else is passed over."""

    choices: list[_Choice] | None = None
    usage: _Tokens | None = None
    error: object = None


_CHUNK = msgspec.json.Decoder(_Chunk)


class OpenAIChat:
    """A streaming chat model. `name` is what metrics and replies call it: the model's own name where none is given."""

    def __init__(
        self,
        config: LanguageModelConfig,
        session: aiohttp.ClientSession,
        api_key: str | None,
        name: str | None = None,
        *,
        keeps_connections: bool | None = None,
    ) -> None:
        """`keeps_connections`: where nothing is said, those by TLS. A Service spreads connections, not requests: a kept
        one leads to the same server for ever, past those that were added, until the end of one that leaves. Beside an
        answer's seconds a new connection costs nothing; a handshake does."""
        base = URL(config.base_url)
        self._config = config
        self._session = session
        self._url = (base / "chat" / "completions").with_query(base.query)
        self._models_url = (base / "models").with_query(base.query)
        self._name = name or config.model
        self._where = f"model {config.model!r} at {base.with_user(None).with_query(None)}"
        self._headers = {
            "Content-Type": "application/json",
            "Accept": "text/event-stream",
            "Accept-Encoding": "identity",  # A compressing proxy would hold tokens back.
        }
        if not (base.scheme == "https" if keeps_connections is None else keeps_connections):
            self._headers["Connection"] = "close"
        if api_key:
            self._url, self._models_url = self._url.with_user(None), self._models_url.with_user(None)
            self._headers["Authorization"] = f"Bearer {api_key}"

    @property
    def name(self) -> str:
        """What replies and metrics call the model."""
        return self._name

    async def stream(self, messages: Sequence[ChatMessage]) -> AsyncGenerator[Delta | Usage, None]:
        """The answer, piece by piece, then the usage if the server counts it.

        The first text comes within `first_token_deadline_s` of the call, connecting included, or FirstTokenLate is
        raised; each further one within `token_gap_deadline_s`, or TokenGapTooLong; the last within `answer_deadline_s`
        of the call, or AnswerTooLong. Roles, empty pieces, comments and reasoning are no text: the user sees nothing of
        them. Everything else that goes wrong raises ModelUnavailable, or ModelAbsent where no server runs at all.
        Closing the iterator closes the connection, which ends the generation there.
        """
        now_s = asyncio.get_running_loop().time
        end_s = now_s() + self._config.answer_deadline_s
        deadline_s = min(end_s, now_s() + self._config.first_token_deadline_s)
        answer = _Answer(self._failure)
        try:
            async with asyncio.timeout_at(deadline_s):
                answer.response = await self._post(messages)
                await self._require_stream(answer.response)
            while not answer.is_complete:
                async with asyncio.timeout_at(deadline_s):
                    text = await answer.next_text(answer.response)
                if text:
                    yield Delta(text)
                    deadline_s = min(end_s, now_s() + self._config.token_gap_deadline_s)
                if now_s() >= end_s and not answer.is_complete:
                    # A timeout strikes where something is waited for; a model in full flow gives no occasion.
                    raise TimeoutError
            if not answer.has_begun:
                raise self._failure("finished without a word of answer", _SEE_LOG)
            await answer.drain(answer.response)
            if answer.usage is not None:
                yield answer.usage
        except TimeoutError as error:
            raise self._late(has_begun=answer.has_begun, is_over=now_s() >= end_s) from error
        except (aiohttp.ClientError, OSError) as error:
            kind = ModelAbsent if _is_absent(error) else ModelUnavailable
            raise self._failure(_reason(error), "check that it runs and that baseURL leads to it", kind) from error
        finally:
            answer.close()

    async def check(self) -> None:
        """ModelUnavailable unless the server answers at all: any status below 500 will do, since not every server
        lists its models, or lists them to everyone."""
        headers = {name: value for name, value in self._headers.items() if name == "Authorization"}
        try:
            async with (
                asyncio.timeout(CHECK_S),
                self._session.get(self._models_url, headers=headers, allow_redirects=False) as response,
            ):
                if response.status >= 500:
                    raise self._failure(f"answered with status {response.status}", _SEE_LOG)
        except TimeoutError as error:
            raise self._failure(f"gave no answer in {CHECK_S:g} s", "see its load") from error
        except (aiohttp.ClientError, OSError) as error:
            raise self._failure(_reason(error), "check that it runs and that baseURL leads to it") from error

    def _failure(self, what: str, remedy: str, kind: type[ModelUnavailable] = ModelUnavailable) -> ModelUnavailable:
        return kind(f"{self._where} {what}; {remedy}")

    def _late(self, *, has_begun: bool, is_over: bool) -> ModelError:
        if has_begun and is_over:
            whole_s = self._config.answer_deadline_s
            return AnswerTooLong(
                f"{self._where} was still answering after {whole_s:g} s; lower maxTokens, or raise answerDeadline"
            )
        if has_begun:
            silence_s = self._config.token_gap_deadline_s
            return TokenGapTooLong(
                f"{self._where} fell silent for {silence_s:g} s in an answer; see its load, or raise tokenGapDeadline"
            )
        first_s = min(self._config.first_token_deadline_s, self._config.answer_deadline_s)
        return FirstTokenLate(
            f"{self._where} gave no token in {first_s:g} s; see its load, or raise firstTokenDeadline"
        )

    async def _post(self, messages: Sequence[ChatMessage]) -> aiohttp.ClientResponse:
        body = msgspec.json.encode(
            {
                "model": self._config.model,
                "messages": [{"role": message.role, "content": message.content} for message in messages],
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": self._config.max_tokens,
                "temperature": self._config.temperature,
            }
        )
        try:
            return await self._session.post(self._url, data=body, headers=self._headers, allow_redirects=False)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            # A kept connection was most likely closed by the server just as it was used; a new one tells.
            return await self._session.post(self._url, data=body, headers=self._headers, allow_redirects=False)

    async def _require_stream(self, response: aiohttp.ClientResponse) -> None:
        status, media = response.status, response.content_type
        if status == 200 and media not in ("application/json", "text/html"):
            return
        if 300 <= status < 400:
            raise self._failure(f"redirects (status {status})", "write the final address as baseURL")
        code = _error_code(await _beginning(response, MAX_ERROR_BYTES))
        if status == 200:
            raise self._failure(
                f"answered {media}{code} where a stream was asked for",
                "check that baseURL leads to an OpenAI-compatible API that can stream",
            )
        kind = _KINDS.get(status, ModelUnavailable)
        raise self._failure(f"answered with status {status}{code}", _REMEDIES.get(status, _SEE_LOG), kind)


class _Answer:
    """One answer as it comes in."""

    def __init__(self, failure: Callable[[str, str], ModelUnavailable]) -> None:
        self._failure = failure
        self._events = EventStream()
        self._is_done = False
        """The server has said that nothing follows."""
        self.response: aiohttp.ClientResponse | None = None
        self.usage: Usage | None = None
        self.has_begun = False
        self.is_complete = False

    async def next_text(self, response: aiohttp.ClientResponse) -> str:
        """The text of the bytes that arrive next; empty when there is none in them."""
        chunk = await response.content.readany()
        text = self._take(chunk)
        if not chunk and not self.is_complete:
            raise self._failure("broke off before the end of its answer", _SEE_LOG)
        return text

    async def drain(self, response: aiohttp.ClientResponse) -> None:
        """Read on to the usage and the end of the response. The answer is complete: nothing fails it any more."""
        with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError, ModelUnavailable):
            async with asyncio.timeout(AFTERMATH_S) as waiting:
                while not response.content.at_eof():
                    if self._is_done:
                        waiting.reschedule(asyncio.get_running_loop().time() + LINGER_S)
                    self._take(await response.content.readany())

    def close(self) -> None:
        """Close the connection, unless the response was read to its end."""
        if self.response is not None:
            self.response.close()

    def _take(self, chunk: bytes) -> str:
        """The text of the events that a chunk completes; no bytes are the end."""
        try:
            events = self._events.feed(chunk) if chunk else self._events.finish()
            text = "".join([self._read(event) for event in events])
        except EventTooLong as error:
            raise self._failure(f"sent {error}", _SEE_LOG) from error
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise self._failure("sent a chunk that is not the protocol's JSON", _SEE_LOG) from error
        self.has_begun = self.has_begun or bool(text)
        return text

    def _read(self, event: bytes) -> str:
        if event.strip() == b"[DONE]":
            self.is_complete = self._is_done = True
            return ""
        chunk = _CHUNK.decode(event)
        if chunk.error is not None:
            raise self._failure(f"sent an error{_error_code(event)} in the middle of its answer", _SEE_LOG)
        if chunk.usage is not None:
            self.usage = Usage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
        if not chunk.choices:
            return ""
        choice = chunk.choices[0]
        self.is_complete = self.is_complete or choice.finish_reason is not None
        return (choice.delta.content or "") if choice.delta is not None else ""


async def _beginning(response: aiohttp.ClientResponse, size: int) -> bytes:
    """The first `size` bytes of a body, or all of it."""
    parts = bytearray()
    while len(parts) < size and (chunk := await response.content.read(size - len(parts))):
        parts += chunk
    return bytes(parts)


def _error_code(body: bytes) -> str:
    """An error body's type and code in brackets. Never its message: that may repeat the prompt, or part of the key."""
    try:
        content = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return ""
    error = content.get("error", content) if isinstance(content, dict) else None
    if not isinstance(error, dict):
        return ""
    names = [
        value for value in (error.get("type"), error.get("code")) if isinstance(value, str) and _CODE.fullmatch(value)
    ]
    return f" ({', '.join(names)})" if names else ""


def _is_absent(error: Exception) -> bool:
    """Whether no server is there at all: a Service without pods refuses connections, or has no address."""
    return isinstance(error, aiohttp.ClientConnectorError) and not isinstance(error, aiohttp.ClientSSLError)


def _reason(error: Exception) -> str:
    """What happened, without the texts of foreign errors."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "has a host name that cannot be resolved"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | aiohttp.ClientSSLError):
        return "has no certificate that can be trusted"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"cannot be reached ({error.os_error.strerror or type(error.os_error).__name__})"
    if isinstance(error, aiohttp.ClientPayloadError | aiohttp.ServerDisconnectedError | aiohttp.ClientOSError):
        return "broke off before the end of its answer"
    return f"cannot be asked ({type(error).__name__})"

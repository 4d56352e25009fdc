"""Examples of every request and response, in Chinese and English, as the wire types themselves: they cannot drift.

The shop and the service in them are invented, and so are all numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from chatflow_api.runtime_config import derive
from chatflow_api.v1alpha1 import API_VERSION, KIND, ChatFlow

from chatflow_runtime.domain.conversation import Scene
from chatflow_runtime.domain.reply import Citation, Origin, Rung, Usage
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.errors import ChatFlowError
from chatflow_runtime.web import completion_types as completions
from chatflow_runtime.web import webhooks, wire
from chatflow_runtime.web.problems import Problem, Problems

Pair = Mapping[str, Any]
"""One example a language: `zh` and `en`."""

_FLOW = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "shop-support"}}
_problems = Problems(texts_for(derive(ChatFlow.model_validate(_FLOW))))
_AT_MS = 1_785_000_000_000
_ZH_QUESTION = "七天无理由退货怎么申请？"
_EN_QUESTION = "How do I get a refund?"

CHAT_REQUEST: Pair = {
    "zh": wire.ChatRequest(_ZH_QUESTION, "u-1001", "m-1"),
    "en": wire.ChatRequest(_EN_QUESTION, "u-1002", "m-1"),
}

_ZH_REPLY = wire.ChatReply(
    id="1785000000000-0",
    message_id="m-1",
    text="签收后 7 天内，在“我的订单”里点“申请退货”，我们会安排上门取件。",
    rung=Rung.L0,
    origin=Origin.KNOWLEDGE,
    scene=Scene.ANSWER,
    intent="return_policy",
    confidence=0.9731,
    citations=(Citation("returns-3", _ZH_QUESTION, 0.912, "https://shop.example.com/help/returns"),),
    slot=None,
    rating_scale=None,
    usage=None,
    model=None,
    is_partial=False,
    retry_after_s=None,
    at_ms=_AT_MS,
)
_EN_REPLY = wire.ChatReply(
    id="1785000000000-0",
    message_id="m-1",
    text="Open Billing, pick the invoice and choose **Request a refund**. It takes up to five working days.",
    rung=Rung.L1,
    origin=Origin.LLM,
    scene=Scene.ANSWER,
    intent=None,
    confidence=None,
    citations=(Citation("billing-7", "Refunds for monthly plans", 0.874, "https://docs.example.com/billing#refunds"),),
    slot=None,
    rating_scale=None,
    usage=Usage(612, 27),
    model="qwen3-8b",
    is_partial=False,
    retry_after_s=None,
    at_ms=_AT_MS,
)
CHAT_REPLY: Pair = {"zh": _ZH_REPLY, "en": _EN_REPLY}

ACCEPTED: Pair = dict.fromkeys(("zh", "en"), wire.AcceptedMessage("m-1", 3, "1785000000000-0"))

NOTICE: Pair = {
    "zh": wire.NoticeEvent(
        "1785000570000-0", "closing", "您还在吗？如果没有别的问题，本次对话将在 30 秒后结束。", _AT_MS + 570_000
    ),
    "en": wire.NoticeEvent(
        "1785000570000-0", "closing", "Are you still there? This chat closes in 30 seconds.", _AT_MS + 570_000
    ),
}

_AT = datetime.fromtimestamp(_AT_MS / 1000, UTC)
MESSAGE_ANSWERED: Pair = {
    language: webhooks.MessageAnsweredPayload(_AT, webhooks.AnsweredMessage(uid, "m-1", reply.id, reply))
    for language, uid, reply in (("zh", "u-1001", _ZH_REPLY), ("en", "u-1002", _EN_REPLY))
}


def _failed(uid: str, text: str) -> webhooks.MessageFailedPayload:
    notice = wire.NoticeEvent("1785000000000-0", "failed", text, _AT_MS, "m-1")
    return webhooks.MessageFailedPayload(_AT, webhooks.FailedMessage(uid, "m-1", notice.id, notice))


MESSAGE_FAILED: Pair = {
    "zh": _failed("u-1001", "抱歉，您的一条消息没能得到回答，请再发一次。"),
    "en": _failed("u-1002", "Sorry, one of your messages could not be answered. Please send it again."),
}

_HANDOFF_ID = "h-0f7d1c2b9a8e4d3c5b6a7988"


def _transcript(asked: str, said: str, name: str, answer: str) -> tuple[wire.TranscriptMessage, ...]:
    return (
        wire.TranscriptMessage("user", asked, _AT_MS - 9_000, "m-1"),
        wire.TranscriptMessage("assistant", answer, _AT_MS - 8_000, "m-1"),
        wire.TranscriptMessage("user", said, _AT_MS, "m-2"),
        wire.TranscriptMessage("agent", "…", _AT_MS + 30_000, "a-1", name),
    )


_TRANSCRIPTS = {
    "zh": _transcript(_ZH_QUESTION, "转人工", "小周", _ZH_REPLY.text),
    "en": _transcript(_EN_QUESTION, "talk to a human", "Ann", _EN_REPLY.text),
}
_USERS = {"zh": "u-1001", "en": "u-1002"}
HANDOFF_REQUESTED: Pair = {
    language: webhooks.HandoffRequestedPayload(
        _AT,
        webhooks.RequestedHandoff(
            _HANDOFF_ID, _USERS[language], "m-2", "phrase", Scene.ANSWER, {}, said[:3], is_cut=False
        ),
    )
    for language, said in _TRANSCRIPTS.items()
}
HANDOFF_MESSAGE: Pair = {
    language: webhooks.HandoffMessagePayload(
        _AT,
        webhooks.HandoffWord(_HANDOFF_ID, _USERS[language], wire.TranscriptMessage("user", text, _AT_MS, "m-3")),
    )
    for language, text in (("zh", "订单号是 QH20260001"), ("en", "My invoice is INV-2026-0001"))
}
HANDOFF_ENDED: Pair = {
    language: webhooks.HandoffEndedPayload(_AT, webhooks.EndedHandoff(_HANDOFF_ID, uid, "returned"))
    for language, uid in _USERS.items()
}
AGENT_MESSAGE: Pair = {
    "zh": wire.AgentMessageRequest("a-1", "您好，我是客服小周，正在为您查询。", "小周"),
    "en": wire.AgentMessageRequest("a-1", "Hello, this is Ann. I am looking into it.", "Ann"),
}
AGENT_RETURN: Pair = {
    "zh": wire.ReturnRequest("a-2", "已为您处理完毕，祝您生活愉快。", "小周"),
    "en": wire.ReturnRequest("a-2", "That is settled. Have a nice day!", "Ann"),
}
AGENT_KEPT: Pair = dict.fromkeys(("zh", "en"), wire.AgentMessageKept("1785000030000-0"))
HANDOFF_VIEW: Pair = {
    language: wire.HandoffView(_USERS[language], Scene.HANDOFF, _HANDOFF_ID, said)
    for language, said in _TRANSCRIPTS.items()
}

RATING_REQUEST: Pair = {
    "zh": wire.RatingRequest(5, "u-1001", "很快就解决了", "m-3"),
    "en": wire.RatingRequest(4, "u-1002", "Quick and to the point", "m-3"),
}
RATED: Pair = {"zh": wire.Rated(Scene.END), "en": wire.Rated(Scene.END)}

WIDGET_CONFIG: Pair = {
    "zh": wire.WidgetConfig("青禾商城客服", "您好，请问有什么可以帮您？", "zh-CN", 5, 2000, has_sessions=True),
    "en": wire.WidgetConfig("Spruce support", "Hello! How can I help you?", "en", 5, 2000, has_sessions=True),
}

SESSION: Pair = dict.fromkeys(
    ("zh", "en"), wire.Session("anon-8sB1XzJrPz5rX3nTn2dC9w", "eyJhbGciOiJIUzI1NiJ9.e30.c2ln", _AT_MS + 86_400_000)
)

COMPLETION_REQUEST: Pair = {
    "zh": completions.CompletionRequest(
        [completions.CompletionMessage("user", _ZH_QUESTION)], model="shop-support", user="u-1001"
    ),
    "en": completions.CompletionRequest(
        [
            completions.CompletionMessage("user", "I was charged twice."),
            completions.CompletionMessage("assistant", "I am sorry. Which invoices are they?"),
            completions.CompletionMessage("user", _EN_QUESTION),
        ],
        model="saas-support",
        stream=True,
        stream_options=completions.StreamOptions(include_usage=True),
    ),
}


def _completion(reply: wire.ChatReply, model: str) -> completions.Completion:
    usage = reply.usage or Usage()
    return completions.Completion(
        id=f"chatcmpl-{reply.message_id}",
        created=_AT_MS // 1000,
        model=model,
        choices=(completions.Choice(completions.AssistantMessage(reply.text), "stop"),),
        usage=completions.CompletionUsage(
            usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens + usage.completion_tokens
        ),
        chatflow=reply,
    )


COMPLETION: Pair = {"zh": _completion(_ZH_REPLY, "shop-support"), "en": _completion(_EN_REPLY, "saas-support")}


def _chunk(model: str, delta: completions.ChunkDelta, reply: wire.ChatReply | None = None) -> completions.Chunk:
    return completions.Chunk(
        id="chatcmpl-m-1",
        created=_AT_MS // 1000,
        model=model,
        object="chat.completion.chunk",
        choices=(completions.ChunkChoice(delta, None if reply is None else "stop"),),
        chatflow=reply,
    )


CHUNKS: Mapping[str, tuple[completions.Chunk, ...]] = {
    "zh": (
        _chunk("shop-support", completions.ChunkDelta("assistant", _ZH_REPLY.text)),
        _chunk("shop-support", completions.ChunkDelta(), _ZH_REPLY),
    ),
    "en": (
        _chunk("saas-support", completions.ChunkDelta("assistant", "Open Billing, ")),
        _chunk("saas-support", completions.ChunkDelta(content=_EN_REPLY.text.removeprefix("Open Billing, "))),
        _chunk("saas-support", completions.ChunkDelta(), _EN_REPLY),
    ),
}
MODELS: Pair = {
    "zh": completions.ModelList((completions.Model("shop-support", _AT_MS // 1000),)),
    "en": completions.ModelList((completions.Model("saas-support", _AT_MS // 1000),)),
}


def problem(error: ChatFlowError) -> Problem:
    """What a client would be told of an error."""
    return _problems.of(error, "5f3a1c09b2d4-1a")

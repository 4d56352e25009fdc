"""The messages that a language model gets: system prompt with the passages, a window of the history, the question.

Called by `answerers.dispatch`, once for each model that may be asked, since each has its own budget and template.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from chatflow_api.runtime_config import LanguageModelConfig
from chatflow_api.system_prompt import places_of_passages, system_prompt
from chatflow_api.v1alpha1 import Locale

from chatflow_runtime.domain.conversation import Message

PASSAGES_SHARE = 0.6
"""Share of what template and question leave of the budget that passages may take; the history gets the rest."""
SHORTEST_PASSAGE_TOKENS = 40
"""A passage that does not fit whole is cut, but not below this."""
MESSAGE_TOKENS = 4
"""Estimated tokens that a chat template puts around one message: role, separators, line ends."""

_HIDDEN = "[\u200b-\u200f\u2060\ufeff]*"
_TAG = re.compile(f"[<＜﹤](?={_HIDDEN}(?:\\s*[/／]|[A-Za-zＡ-Ｚａ-ｚ|｜!?▁<＜﹤]))")
_BRACKET = re.compile(f"[\\[［](?={_HIDDEN}(?:/{_HIDDEN})?[A-Z][A-Z_]+{_HIDDEN}[\\]］])")
_LETTERS = (string.ascii_letters + " ").encode()


@dataclass(frozen=True, slots=True)
class ChatMessage:
    """One message of a prompt, as the OpenAI protocol has it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Quotable(Protocol):
    """What the prompt needs of a passage."""

    @property
    def title(self) -> str: ...
    @property
    def text(self) -> str: ...


def build_prompt(
    model: LanguageModelConfig,
    persona: str | None,
    locale: Locale,
    passages: Sequence[Quotable],
    history: Sequence[Message],
    text: str,
) -> list[ChatMessage]:
    """The messages, system prompt first and the question last, users and assistant in turn between them.

    They are estimated to fit into `context_tokens - max_tokens`. Where they do not, the oldest messages go first, then
    passages from the last one on; template, persona and question are never cut, even if they alone are too long.
    Passages are numbered from 1 in the order given. Nothing in passages, history or question can pass for the
    delimiters or for a chat template's control tokens.
    """
    question = escape(text)
    system, places = system_prompt(model.prompt, persona, locale), places_of_passages(model.prompt)
    budget = model.context_tokens - model.max_tokens
    budget -= _cost(system) + _cost(question)
    if places and (quoted := _quote(passages, math.floor(budget * PASSAGES_SHARE / places))):
        budget -= places * estimate_tokens(quoted)
        system = system_prompt(model.prompt, persona, locale, quoted)
    window = [(message.role, escape(message.text)) for message in _window(history, budget)]
    return [ChatMessage("system", system), *_alternating([*window, ("user", question)])]


def estimate_tokens(text: str) -> int:
    """Tokens that a model makes of a text, estimated to the safe side.

    An English letter or space counts 0.3, every other character 1. DeepSeek's documentation ("Token & Token Usage")
    gives 0.3 for an English and 0.6 for a Chinese character, and tokenizers with digit splitting make one token of each
    digit. Limits: tokenizers with little Chinese in their vocabulary need up to 3 tokens a character, rare scripts and
    emoji as many as they have bytes; set contextTokens lower for such models.
    """
    plain = text.encode("ascii", "ignore")
    letters = len(plain) - len(plain.translate(None, _LETTERS))
    return math.ceil(0.3 * letters) + len(text) - letters


def escape(text: str) -> str:
    """The text with no tag and no control token of a chat template in it.

    `<` before a name, a slash or a bar becomes `‹`, and `[` before an upper-case name becomes `⟦`: <passages>, <s>,
    <|im_start|>, <｜User｜>, <<SYS>> and [INST] lose their meaning, while "<100" and [1] stay. The substitutes have no
    compatibility form, so tokenizers that apply NFKC do not turn them back.
    """
    return _BRACKET.sub("⟦", _TAG.sub("‹", text))


def _cost(content: str) -> int:
    return estimate_tokens(content) + MESSAGE_TOKENS


def _quote(passages: Sequence[Quotable], budget: int) -> str:
    """The passages as numbered blocks within `budget` tokens; the first that does not fit is cut and is the last."""
    blocks: list[str] = []
    for number, passage in enumerate(passages, start=1):
        head = f'<passage number="{number}">\n{escape(passage.title.strip())}\n'
        tail = "\n</passage>"
        body = escape(passage.text.strip())
        room = budget - estimate_tokens(head) - estimate_tokens(tail) - 1
        cost = estimate_tokens(body)
        if cost > room:
            if room >= SHORTEST_PASSAGE_TOKENS:
                blocks.append(f"{head}{_cut(body, room)}{tail}")
            break
        blocks.append(f"{head}{body}{tail}")
        budget = room - cost
    return "\n".join(blocks)


def _cut(text: str, budget: int) -> str:
    """The longest beginning of a text, with an ellipsis, that costs at most `budget` tokens."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if estimate_tokens(text[:middle]) < budget else (low, middle - 1)
    return text[:low].rstrip() + "…"


def _window(history: Sequence[Message], budget: int) -> list[Message]:
    """The last messages that cost at most `budget` tokens, beginning with one of the user."""
    spoken = [message for message in history if message.text.strip()]
    first = len(spoken)
    while first > 0:
        budget -= _cost(escape(spoken[first - 1].text))
        if budget < 0:
            break
        first -= 1
    while first < len(spoken) and spoken[first].role != "user":
        first += 1
    return spoken[first:]


def _alternating(turns: Sequence[tuple[Literal["user", "assistant"], str]]) -> list[ChatMessage]:
    """Messages in turn: some chat templates refuse two of one role in a row, so that those become one."""
    messages: list[ChatMessage] = []
    for role, content in turns:
        if messages and messages[-1].role == role:
            messages[-1] = ChatMessage(role, f"{messages[-1].content}\n{content}")
        else:
            messages.append(ChatMessage(role, content))
    return messages

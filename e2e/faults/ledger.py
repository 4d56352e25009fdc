"""What users have sent and heard, and the audit of it against what the bot has kept. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

MARK = re.compile(r"#u\d+-\d+#")
"""Names a message within its own text; whoever answers by quoting the text hands it on."""


WRONGS = ("lost", "duplicated", "reordered", "leaked", "given_up")
"""What an Audit counts beside the messages."""
SHOWN = 20


def mark(user: int, number: int) -> str:
    """The mark of a user's message."""
    return f"#u{user}-{number}#"


@dataclass
class Sent:
    """One message of one user. `heard`: the texts of all replies to it that reached the user on any way."""

    message_id: str
    text: str
    is_accepted: bool = False
    """Whether the bot has answered it, or said that it will."""
    heard: list[str] = field(default_factory=list)
    took_s: float = 0.0
    """From the first attempt to the first reply."""
    refusal: str = ""
    """Why the user gave it up."""


@dataclass(frozen=True)
class Kept:
    """A reply in a user's outbox, in the order of the outbox."""

    message_id: str
    text: str


@dataclass(frozen=True)
class Audit:
    """Counts over all users. All but `messages` should be 0; `findings` names the first ones."""

    messages: int
    lost: int
    """Accepted, and no reply in the outbox."""
    duplicated: int
    """Answered twice in the outbox, or with two different texts."""
    reordered: int
    """Answered before a message that the same user had sent earlier."""
    leaked: int
    """Replies that quote another message than their own, or answer one that their user has not sent."""
    given_up: int
    """Not accepted for as long as their user tried."""
    findings: tuple[str, ...] = ()

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return not any(getattr(self, kind) for kind in WRONGS)


def audit(sent: Mapping[str, Sequence[Sent]], kept: Mapping[str, Sequence[Kept]]) -> Audit:
    """Compare what each user has sent, in the order of sending, with the user's outbox."""
    counts, findings = Counter[str](), list[str]()
    for uid, messages in sent.items():
        for kind, what in _wrongs(messages, kept.get(uid, ())):
            counts[kind] += 1
            findings.append(f"{kind}: {uid} {what}")
    return Audit(
        messages=sum(map(len, sent.values())),
        findings=tuple(findings[:SHOWN]),
        **{kind: counts[kind] for kind in WRONGS},
    )


def _wrongs(messages: Sequence[Sent], outbox: Sequence[Kept]) -> Iterator[tuple[str, str]]:
    texts: dict[str, list[str]] = {one.message_id: [] for one in messages}
    for reply in outbox:
        if reply.message_id in texts:
            texts[reply.message_id].append(reply.text)
        else:
            yield "leaked", f"has a reply to {reply.message_id!r}, which it never sent"
    for one in messages:
        replies = texts[one.message_id]
        if not one.is_accepted:
            yield "given_up", f"{one.message_id}: {one.refusal}"
        elif not replies:
            yield "lost", one.message_id
        if len(replies) > 1 or len({*replies, *one.heard}) > 1:
            yield "duplicated", f"{one.message_id}: {[*replies, *one.heard]}"
        own = set(MARK.findall(one.text))
        for text in {*replies, *one.heard}:
            if set(MARK.findall(text)) - own:
                yield "leaked", f"{one.message_id}: {text!r}"
    yield from _reordered(messages, outbox)


def _reordered(messages: Sequence[Sent], outbox: Sequence[Kept]) -> Iterator[tuple[str, str]]:
    place = {one.message_id: number for number, one in enumerate(messages)}
    latest = -1
    for message_id in dict.fromkeys(reply.message_id for reply in outbox if reply.message_id in place):
        if place[message_id] < latest:
            yield "reordered", message_id
        latest = max(latest, place[message_id])

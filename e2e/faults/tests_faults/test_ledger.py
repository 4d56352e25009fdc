"""The audit finds what is wrong: a scenario that passes proves something only if it could have failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given

from e2e.faults.ledger import WRONGS, Kept, Sent, audit, mark


class Talk(NamedTuple):
    """What one user has sent, and the user's outbox."""

    sent: list[Sent]
    kept: list[Kept]


def talk(user: int, count: int) -> Talk:
    """Messages that were all answered, each by quoting it."""
    sent = [Sent(f"m{number}", f"question {mark(user, number)}", is_accepted=True) for number in range(count)]
    kept = [Kept(one.message_id, f"answer to {one.text}") for one in sent]
    for one, reply in zip(sent, kept, strict=True):
        one.heard.append(reply.text)
    return Talk(sent, kept)


@given(st.lists(st.integers(0, 20), max_size=5))
def test_what_went_well_is_clean(counts: list[int]) -> None:
    talks = {f"u{user}": talk(user, count) for user, count in enumerate(counts)}
    found = audit({uid: one.sent for uid, one in talks.items()}, {uid: one.kept for uid, one in talks.items()})
    assert found.is_clean
    assert found.messages == sum(counts)


def lose(talked: Talk) -> None:
    del talked.kept[1]


def repeat(talked: Talk) -> None:
    talked.kept.append(talked.kept[1])


def answer_differently(talked: Talk) -> None:
    talked.sent[1].heard.append(f"another answer to {talked.sent[1].text}")


def swap(talked: Talk) -> None:
    talked.kept[1], talked.kept[2] = talked.kept[2], talked.kept[1]


def quote_another_user(talked: Talk) -> None:
    talked.sent[1].heard.clear()
    talked.kept[1] = Kept("m1", f"answer to question {mark(8, 1)}")


def answer_a_stranger(talked: Talk) -> None:
    talked.kept.append(Kept("not-mine", "hello"))


def refuse(talked: Talk) -> None:
    talked.sent[1].is_accepted = False
    talked.sent[1].heard.clear()
    del talked.kept[1]


@pytest.mark.parametrize(
    ("harm", "kind"),
    [
        (lose, "lost"),
        (repeat, "duplicated"),
        (answer_differently, "duplicated"),
        (swap, "reordered"),
        (quote_another_user, "leaked"),
        (answer_a_stranger, "leaked"),
        (refuse, "given_up"),
    ],
)
def test_each_wrong_is_found_and_counted_once(harm: Callable[[Talk], None], kind: str) -> None:
    talked = talk(7, 4)
    harm(talked)
    found = audit({"u7": talked.sent}, {"u7": talked.kept})
    assert not found.is_clean
    assert {name: getattr(found, name) for name in WRONGS} == {**dict.fromkeys(WRONGS, 0), kind: 1}
    assert found.findings[0].startswith(f"{kind}: u7 ")

"""What a person is told: ids that tell handoffs apart, and transcripts within their bound."""

from __future__ import annotations

from chatflow_runtime.domain.conversation import Message
from chatflow_runtime.domain.handoff import TRANSCRIPT_CHARACTERS, handoff_id, transcript
from hypothesis import given
from hypothesis import strategies as st

LENGTHS = st.lists(st.sampled_from([0, 1, 500, 20_000, TRANSCRIPT_CHARACTERS, TRANSCRIPT_CHARACTERS + 1]), max_size=12)


@given(LENGTHS)
def test_a_transcript_holds_the_last_messages_that_fit_and_tells_of_the_others(lengths: list[int]) -> None:
    messages = [Message("user", "x" * length, number, f"m{number}") for number, length in enumerate(lengths)]
    spoken = [message for message in messages if message.text]
    kept, is_cut = transcript(messages)
    assert list(kept) == spoken[len(spoken) - len(kept) :]
    assert is_cut == (len(kept) < len(spoken))
    size = sum(len(message.text) for message in kept)
    assert size <= TRANSCRIPT_CHARACTERS
    if is_cut:
        assert size + len(spoken[-len(kept) - 1].text) > TRANSCRIPT_CHARACTERS


def test_handoffs_of_other_users_messages_revisions_and_times_have_other_ids() -> None:
    named = [("u", "m", 1, 5), ("v", "m", 1, 5), ("u", "n", 1, 5), ("u", "m", 2, 5), ("u", "m", 1, 6), ("um", "", 1, 5)]
    assert len({handoff_id(*one) for one in named}) == len(named)
    assert handoff_id(*named[0]) == handoff_id("u", "m", 1, 5)

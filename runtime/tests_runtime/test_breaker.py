"""Circuit breakers, on a clock of their own."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from chatflow_runtime.domain.breaker import Breaker, BreakerRules, Permit, State, Verdict
from hypothesis import given
from hypothesis import strategies as st

RULES = BreakerRules()


def breaker(rules: BreakerRules = RULES, seed: int = 1) -> Breaker:
    return Breaker(rules, random.Random(seed).random)  # noqa: S311  Not a secret.


def calls(one: Breaker, verdicts: Iterable[Verdict], now_s: float = 0.0, rate: float = 100.0) -> tuple[int, float]:
    """Calls one after another until the breaker opens: how many, and when the last one ended."""
    number = 0
    for verdict in verdicts:
        number += 1
        now_s += 1 / rate
        permit = one.admit(now_s)
        assert permit is not None
        one.settle(permit, verdict, now_s)
        if one.state(now_s) is not State.CLOSED:
            break
    return number, now_s


def chance(share: float, count: int, seed: int) -> Iterable[Verdict]:
    found = random.Random(seed)  # noqa: S311  Not a secret.
    return (Verdict.BAD if found.random() < share else Verdict.GOOD for _ in range(count))


@pytest.mark.parametrize("rate", [0.5, 1.0, 100.0], ids=lambda rate: f"{rate:g} calls a second")
@pytest.mark.parametrize("seed", range(5))
def test_a_backend_of_which_one_call_in_twenty_is_bad_is_never_given_up(rate: float, seed: int) -> None:
    one = breaker()
    assert calls(one, chance(0.05, 100_000, seed), rate=rate)[0] == 100_000
    assert one.openings == 0


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_backend_of_which_half_the_calls_are_bad_is_given_up_within_fifty(share: float) -> None:
    needed = []
    for seed in range(2000):
        one = breaker(seed=seed)
        _, now_s = calls(one, chance(0.05, 200, seed))
        needed.append(calls(one, chance(share, 1000, seed + 1), now_s)[0])
    needed.sort()
    assert needed[int(len(needed) * 0.99)] <= 50
    assert needed[0] >= 2, "one bad call alone never opens it"


def test_three_slow_calls_in_a_row_open_it_where_the_manifest_says_so() -> None:
    one = breaker(BreakerRules(in_a_row=3))
    bad, good = Verdict.BAD, Verdict.GOOD
    assert calls(one, [bad, bad, good, bad, bad, good])[0] == 6
    assert calls(one, [bad, bad, bad, bad], now_s=1.0)[0] == 3


def test_it_closes_within_five_seconds_of_recovery_however_often_it_had_opened() -> None:
    for seed in range(50):
        one = breaker(seed=seed)
        now_s, recovers_s = 0.0, 40.0
        while not (now_s > recovers_s and one.state(now_s) is State.CLOSED):
            now_s += 0.05
            permit = one.admit(now_s)
            if permit is not None:
                one.settle(permit, Verdict.GOOD if now_s > recovers_s else Verdict.BAD, now_s + 0.01)
        assert now_s - recovers_s <= 5.0
        assert one.openings > 8, "it had opened again and again until then"


def test_while_it_is_open_nothing_goes_out_and_then_only_a_few_calls() -> None:
    one = breaker()
    _, now_s = calls(one, [Verdict.BAD] * 100)
    assert one.admit(now_s) is None
    later_s = now_s + RULES.open_s
    probes = [one.admit(later_s) for _ in range(10)]
    sent = [permit for permit in probes if permit is not None]
    assert len(sent) == RULES.probes
    one.settle(sent[0], Verdict.NOTHING, later_s)
    assert one.admit(later_s) is not None, "a caller who left makes way for another probe"
    for permit in sent[1:]:
        one.settle(permit, Verdict.GOOD, later_s)
    assert one.state(later_s) is State.HALF_OPEN


def test_what_was_under_way_when_it_opened_tells_nothing_of_what_came_later() -> None:
    one = breaker()
    stale = one.admit(0.0)
    assert stale is not None
    _, now_s = calls(one, [Verdict.BAD] * 100)
    later_s = now_s + RULES.open_s
    for _ in range(RULES.probes):
        one.settle(stale, Verdict.GOOD, later_s)
    assert one.state(later_s) is State.HALF_OPEN


@given(
    st.lists(
        st.tuples(
            st.floats(0, 3), st.sampled_from(["admit", "settle"]), st.sampled_from(list(Verdict)), st.integers(0, 50)
        ),
        max_size=200,
    )
)
def test_whatever_happens_it_never_stays_shut(steps: list[tuple[float, str, Verdict, int]]) -> None:
    one = breaker(BreakerRules(calls=5, minimum_calls=2, in_a_row=3))
    now_s, held = 0.0, list[Permit]()
    for passed_s, what, verdict, place in steps:
        now_s += passed_s
        if what == "admit":
            permit = one.admit(now_s)
            held += [] if permit is None else [permit]
        elif held:
            one.settle(held.pop(place % len(held)), verdict, now_s)
        found = one.snapshot(now_s)
        assert 0 <= found.bad <= found.calls <= 5
        assert found.opens_for_s <= RULES.most_open_s
    for permit in held:
        one.settle(permit, Verdict.NOTHING, now_s)
    for _ in range(RULES.probes):
        permit = one.admit(now_s + RULES.most_open_s)
        assert permit is not None
        one.settle(permit, Verdict.GOOD, now_s + RULES.most_open_s)
    assert one.state(now_s + RULES.most_open_s) is State.CLOSED

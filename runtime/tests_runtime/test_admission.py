"""Who is turned away when there is too much to do: a steady share of the new, by the flow's backlog and the process'
own lag; and it ends with the overload."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from chatflow_runtime.domain.admission import SAMPLE_S, TARGET_S, Admission, Pressure
from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.overload import share_backlog, watch_loop
from chatflow_runtime.state.link import link_to
from chatflow_runtime.state.redis_backlog import RedisBacklog
from hypothesis import given
from hypothesis import strategies as st
from tests_runtime.state_cases import PATIENT, RULES, ManualClock, new_flow
from tests_runtime.state_servers import ServerKind, Servers, installed

LATE, IN_TIME = TARGET_S * 2, TARGET_S / 10


@given(st.text(min_size=1, max_size=30), st.integers(0, 10_000), st.integers(0, 10_000))
def test_a_backlog_turns_the_same_users_away_as_long_as_it_lasts(uid: str, here: int, elsewhere: int) -> None:
    admission = Admission(5000, 0.3, under_way=here, elsewhere=elsewhere)
    above = Admission(5000, 0.3, under_way=5001)
    assert admission.turns_away(uid) == (here + elsewhere > 5000 and above.turns_away(uid))


def test_shedding_takes_about_the_share_it_is_told() -> None:
    admission = Admission(1, 0.3, under_way=2)
    shed = sum(admission.turns_away(f"user-{number}") for number in range(4000))
    assert 0.27 < shed / 4000 < 0.33


@given(st.lists(st.floats(0, 5), max_size=200))
def test_the_share_is_a_share_and_single_peaks_do_not_count(lags_s: list[float]) -> None:
    pressure = Pressure()
    for lag_s in lags_s:
        pressure.sampled(lag_s)
        assert 0 <= pressure.share <= 1
    pressure.share = 0.0
    for _ in range(10):
        for lag_s in (LATE, LATE, LATE, LATE, IN_TIME):
            pressure.sampled(lag_s)
    assert pressure.share == 0


def test_a_lasting_lag_turns_all_new_ones_away_and_none_three_seconds_after_its_end() -> None:
    pressure = Pressure()
    for _ in range(round(2.0 / SAMPLE_S)):
        pressure.sampled(LATE)
    assert pressure.share == 1
    for _ in range(round(3.0 / SAMPLE_S)):
        pressure.sampled(IN_TIME)
    assert pressure.share == 0


def test_a_steady_overload_finds_a_steady_share() -> None:
    """A process that is late whenever it lets in more than 60 % of the new: the share must settle, not swing."""
    pressure, shares = Pressure(), []
    for _ in range(600):
        pressure.sampled(LATE if 1 - pressure.share > 0.6 else IN_TIME)
        shares.append(pressure.share)
    assert all(0.1 < share < 0.7 for share in shares[100:])


async def test_a_blocked_loop_is_noticed() -> None:
    seen: list[float] = []

    class Noted(Pressure):
        def sampled(self, lag_s: float) -> None:
            seen.append(lag_s)

    task = asyncio.create_task(watch_loop(Noted()))
    await asyncio.sleep(0)
    deadline = asyncio.get_running_loop().time() + 10
    while not any(lag_s > 0.2 for lag_s in seen) and asyncio.get_running_loop().time() < deadline:
        end = asyncio.get_running_loop().time() + 0.5
        while asyncio.get_running_loop().time() < end:
            pass
        await asyncio.sleep(SAMPLE_S)
    task.cancel()
    assert any(lag_s > 0.2 for lag_s in seen)


@pytest.mark.parametrize("kind", installed())
async def test_processes_hear_of_each_other_s_turns_until_they_are_gone(
    kind: ServerKind, state_servers: Servers
) -> None:
    time, flow = ManualClock(), new_flow()
    link = link_to(state_servers(kind).url, patience=PATIENT)
    await link.open()
    try:
        first, second = (RedisBacklog(link, flow, name, RULES, time.clock) for name in ("first", "second"))
        assert await first.tell(3) == 0
        assert await second.tell(5) == 3
        assert await first.tell(0) == 5
        assert await second.tell(5) == 0
        time.advance(RULES.backlog_ms)
        assert await first.tell(1) == 5
        time.advance(1)
        assert await first.tell(1) == 0
        other = RedisBacklog(link, new_flow(), "other", replace(RULES), time.clock)
        assert await other.tell(9) == 0
    finally:
        await link.close()


async def test_without_the_state_server_a_process_knows_its_own_turns_alone() -> None:
    admission, told = Admission(10, 0.5, under_way=2, elsewhere=7), asyncio.Event()

    async def tell(turns: int) -> int:
        assert turns == 2
        told.set()
        raise StateUnavailable("away")

    task = asyncio.create_task(share_backlog(admission, tell))
    await told.wait()
    await asyncio.sleep(0)
    task.cancel()
    assert admission.backlog == 2

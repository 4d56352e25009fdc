"""Partitions and the workers that have them: the leases on every kind of store, the sharing on the twin."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import hypothesis.strategies as st
from chatflow_api.names import PARTITIONS
from chatflow_runtime.domain.shares import share_of
from chatflow_runtime.errors import StateUnavailable
from chatflow_runtime.ownership import Ownership
from chatflow_runtime.ports import Attendance, LeaseStore
from hypothesis import given
from tests_runtime.state_cases import RULES, Open, memory_case

WORKERS = ("ant", "bee", "cow")


async def test_a_lease_has_one_holder_and_each_holder_a_greater_token(open_case: Open) -> None:
    async with open_case(RULES) as case:
        leases = case.leases
        ant, bee = await leases.attend("ant"), await leases.attend("bee")
        assert await leases.lease(7, "ant", ant) == 1
        assert await leases.lease(7, "bee", bee) is None
        case.time.advance(RULES.partition_lease_ms - 1)
        ant = await leases.attend("ant")
        assert await leases.lease(7, "ant", ant, 1) == 1
        case.time.advance(RULES.partition_lease_ms - 1)
        assert await leases.lease(7, "bee", await leases.attend("bee")) is None
        case.time.advance(1)
        bee = await leases.attend("bee")
        assert await leases.lease(7, "bee", bee) == 2
        assert await leases.lease(7, "bee", bee, 2) == 2
        await leases.free(7, "ant", 1)
        await leases.free(7, "bee", 1)
        ant = await leases.attend("ant")
        assert await leases.lease(7, "ant", ant, 1) is None
        await leases.free(7, "bee", 2)
        assert await leases.lease(7, "ant", ant, 1) == 3
        assert await leases.lease(7, "ant", ant) == 4, "it does not say that it has it: an ownership of its own"
        assert await leases.lease(8, "bee", bee) == 1


async def test_old_tidings_take_nothing_from_a_worker_that_came_back(open_case: Open) -> None:
    async with open_case(RULES) as case:
        leases = case.leases
        assert await leases.lease(7, "ant", await leases.attend("ant")) == 1
        case.time.advance(RULES.partition_lease_ms)
        old = await leases.attend("bee")
        assert old.workers == ("bee",)
        case.time.advance(1)
        back = await leases.attend("ant")
        assert back.is_new
        assert await leases.lease(7, "ant", back) == 2
        assert await leases.lease(7, "bee", old) is None
        # Nor from one of whom they cannot know.
        await leases.free(7, "ant", 2)
        case.time.advance(1)
        assert await leases.lease(7, "cow", await leases.attend("cow")) == 3
        assert await leases.lease(7, "bee", old) is None


async def test_a_server_clock_that_is_put_back_keeps_nobody_alive(open_case: Open) -> None:
    async with open_case(RULES) as case:
        leases = case.leases
        assert await leases.lease(7, "ant", await leases.attend("ant")) == 1
        case.time.advance(-3_600_000)
        bee = await leases.attend("bee")
        assert bee.workers == ("bee",)
        assert await leases.lease(7, "bee", bee) == 2
        assert (await leases.attend("ant")).is_new


async def test_workers_are_known_while_they_tell_that_they_live(open_case: Open) -> None:
    async with open_case(RULES) as case:
        attend = case.leases.attend
        begun_ms = case.time.at_ms
        assert await attend("ant") == Attendance(begun_ms, ("ant",), is_new=True)
        assert await attend("ant") == Attendance(begun_ms, ("ant",), is_new=False)
        case.time.advance(RULES.partition_lease_ms - 1)
        assert sorted((await attend("bee")).workers) == ["ant", "bee"]
        case.time.advance(1)
        assert await attend("bee") == Attendance(case.time.at_ms, ("bee",), is_new=False)
        await case.leases.leave("bee")
        assert await attend("ant") == Attendance(case.time.at_ms, ("ant",), is_new=True)


async def settled(*workers: Ownership) -> list[set[int]]:
    """What each has, once all have heard of each other and let go of what is not theirs."""
    for _ in range(3):
        for worker in workers:
            await worker.refresh()
    return [set(worker.tokens) for worker in workers]


async def test_workers_share_all_partitions_and_take_over_those_of_one_that_is_gone(open_case: Open) -> None:
    async with open_case(replace(RULES, partition_lease_ms=10_000)) as case:
        ant, bee, cow = map(case.ownership, WORKERS)
        assert await settled(ant) == [set(range(PARTITIONS))]
        shares = await settled(ant, bee, cow)
        assert sorted(number for share in shares for number in share) == list(range(PARTITIONS))
        assert min(map(len, shares)) > PARTITIONS / 3 / 2
        first = dict(bee.tokens)
        # bee dies; within its lease nobody has its partitions, after it the others do.
        case.time.advance(9_999)
        both = await settled(ant, cow)
        assert not first.keys() & (both[0] | both[1])
        case.time.advance(1)
        assert not bee.tokens
        both = await settled(ant, cow)
        assert sorted([*both[0], *both[1]]) == list(range(PARTITIONS))
        tokens = {**ant.tokens, **cow.tokens}
        assert all(tokens[number] > token for number, token in first.items())
        await cow.leave()
        assert not cow.tokens
        assert await settled(ant) == [set(range(PARTITIONS))]


async def test_a_worker_that_was_not_heard_of_for_too_long_begins_anew(open_case: Open) -> None:
    async with open_case(replace(RULES, partition_lease_ms=10_000)) as case:
        ant = case.ownership("ant")
        before = dict(await ant.refresh())
        case.time.advance(9_999)
        assert dict(await ant.refresh()) == before
        case.time.advance(10_000)
        assert not ant.tokens
        # It told that it lives, and the answer was lost on its way.
        await case.leases.attend("ant")
        assert dict(await ant.refresh()) == {number: token + 1 for number, token in before.items()}


async def test_a_lease_that_the_server_lost_is_missed_within_half_its_time(open_case: Open) -> None:
    async with open_case(replace(RULES, partition_lease_ms=10_000)) as case:
        ant, bee = case.ownership("ant"), case.ownership("bee")
        mine, _ = await settled(ant, bee)
        number = min(mine)
        token = ant.tokens[number]
        # As after a failover: another has it, by a lease that came later.
        await case.leases.free(number, "ant", token)
        stolen = await case.leases.lease(number, "bee", await case.leases.attend("bee"))
        case.time.advance(5_000)
        await ant.refresh()
        assert number not in ant.tokens
        assert stolen is not None
        await case.leases.free(number, "bee", stolen)
        assert (await ant.refresh())[number] == stolen + 1


@given(st.lists(st.tuples(st.sampled_from(["refresh", "wait", "leave"]), st.integers(0, 2), st.integers(0, 6_000))))
async def test_no_partition_ever_has_two_owners_and_tokens_only_rise(steps: list[tuple[str, int, int]]) -> None:
    async with memory_case() as case:
        workers = [Ownership(case.leases, name, lambda: case.time.at_ms / 1000, range(8)) for name in WORKERS]
        owners: dict[int, tuple[int, str]] = {}
        for step, number, ms in steps:
            if step == "wait":
                case.time.advance(ms)
            elif step == "leave":
                await workers[number].leave()
            else:
                await workers[number].refresh()
            held = [(partition, one) for one, worker in enumerate(workers) for partition in worker.tokens]
            assert len({partition for partition, _ in held}) == len(held)
            for partition, one in held:
                token, before = workers[one].tokens[partition], owners.get(partition, (0, ""))
                assert token > before[0] or (token, WORKERS[one]) == before
                owners[partition] = token, WORKERS[one]


@given(st.sets(st.text(), min_size=1, max_size=5), st.text())
def test_shares_are_disjoint_cover_everything_and_move_only_to_who_comes(workers: set[str], newcomer: str) -> None:
    partitions = range(64)
    shares = {worker: share_of(worker, workers, partitions) for worker in workers}
    assert sorted(number for share in shares.values() for number in share) == list(partitions)
    for worker in workers - {newcomer}:
        assert share_of(worker, workers | {newcomer}, partitions) <= shares[worker]


class _Unheard:
    """The case's leases, of which every partition fails to be given up once."""

    def __init__(self, leases: LeaseStore) -> None:
        self._leases = leases
        self._failed: set[int] = set()
        self.lease_s = leases.lease_s
        self.attend, self.leave, self.lease = leases.attend, leases.leave, leases.lease

    async def free(self, partition: int, worker: str, token: int | None = None) -> None:
        if partition not in self._failed:
            self._failed.add(partition)
            raise StateUnavailable("no answer")
        await self._leases.free(partition, worker, token)


async def test_a_partition_that_could_not_be_given_up_is_given_up_later() -> None:
    async with memory_case() as case:
        ant = Ownership(_Unheard(case.leases), "ant", lambda: case.time.at_ms / 1000)
        bee = case.ownership("bee")
        await ant.refresh()
        await bee.refresh()
        for _ in range(30):
            case.time.advance(1000)
            with contextlib.suppress(StateUnavailable):
                await ant.refresh()
            await bee.refresh()
        assert len(ant.tokens) + len(bee.tokens) == PARTITIONS
        assert not ant.tokens.keys() & bee.tokens.keys()


async def test_a_lease_that_a_failover_brought_back_to_who_had_given_it_up_goes_to_whose_it_is(open_case: Open) -> None:
    async with open_case(RULES) as case:
        ant, bee = case.ownership("ant"), case.ownership("bee")
        for _ in range(3):
            await ant.refresh()
            await bee.refresh()
            case.time.advance(1000)
        number, token = next(iter(bee.tokens.items()))
        await case.leases.free(number, "bee", token)
        assert await case.leases.lease(number, "ant", await case.leases.attend("ant")) is not None
        for _ in range(15):
            case.time.advance(1000)
            await ant.refresh()
            await bee.refresh()
        assert number in bee.tokens
        assert len(ant.tokens) + len(bee.tokens) == PARTITIONS

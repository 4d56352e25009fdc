"""Partitions and the workers that have them: the leases on every kind of store, the sharing on the twin."""

from __future__ import annotations

from dataclasses import replace

import hypothesis.strategies as st
from chatflow_api.names import PARTITIONS
from chatflow_runtime.domain.shares import share_of
from chatflow_runtime.ownership import Ownership
from hypothesis import given
from tests_runtime.state_cases import RULES, Open, memory_case

WORKERS = ("ant", "bee", "cow")


async def test_a_lease_has_one_holder_and_each_holder_a_greater_token(open_case: Open) -> None:
    async with open_case(RULES) as case:
        leases = case.leases
        assert await leases.lease(7, "ant") == 1
        assert await leases.lease(7, "bee") is None
        case.time.advance(RULES.partition_lease_ms - 1)
        assert await leases.lease(7, "ant") == 1
        case.time.advance(RULES.partition_lease_ms - 1)
        assert await leases.lease(7, "bee") is None
        case.time.advance(1)
        assert await leases.lease(7, "bee") == 2
        await leases.free(7, "ant", 1)
        await leases.free(7, "bee", 1)
        assert await leases.lease(7, "ant") is None
        await leases.free(7, "bee", 2)
        assert await leases.lease(7, "ant") == 3
        assert await leases.lease(8, "bee") == 1


async def test_workers_are_known_while_they_tell_that_they_live(open_case: Open) -> None:
    async with open_case(RULES) as case:
        assert list(await case.leases.attend("ant")) == ["ant"]
        case.time.advance(RULES.partition_lease_ms - 1)
        assert sorted(await case.leases.attend("bee")) == ["ant", "bee"]
        case.time.advance(1)
        assert list(await case.leases.attend("bee")) == ["bee"]
        await case.leases.leave("bee")
        assert list(await case.leases.attend("ant")) == ["ant"]


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

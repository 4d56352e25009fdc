"""The scenarios: what is done to the parts while users talk. The pauses are their pace: how long a fault lasts, and how
long all is well between two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from tests_runtime.state_servers import Replicated, wait_until

from e2e.faults.models import LARGE, SMALL, Mode
from e2e.faults.plant import Layout, Member, Plant
from e2e.faults.proxy import Network

FAILOVER_S = 60.0
FIRST_TOKEN_DEADLINE_S = 0.8
RECOVERY_S = 10.0
"""Without any answer, when the primary of the state servers is lost."""
Fault = Callable[[Plant], Awaitable[None]]


@dataclass(frozen=True)
class Scenario:
    """One fault, repeated for as long as the users talk."""

    name: str
    about: str
    fault: Fault
    layout: Layout = field(default_factory=Layout)
    bars: Mapping[str, float] = field(default_factory=dict)
    """What figures may be at most."""
    beside_calm: Mapping[str, float] = field(default_factory=dict)
    """How much more they may be than when nothing happens; not looked at where that was not measured."""

    def misses(self, figures: Mapping[str, float], calm: Mapping[str, float] | None) -> list[str]:
        """The bars that are not held, in words."""
        bars = dict(self.bars)
        if calm is not None:
            bars |= {name: calm[name] + more for name, more in self.beside_calm.items()}
        return [
            f"{name} is {figures[name]:.2f}, more than {most:.2f}"
            for name, most in bars.items()
            if figures[name] > most
        ]


async def nothing(_: Plant) -> None:
    """For comparison."""
    await asyncio.sleep(1)


async def gateways_killed(plant: Plant) -> None:
    """One gateway after the other."""
    for gateway in plant.gateways:
        await asyncio.sleep(2)
        await _replaced(gateway)


async def workers_killed(plant: Plant) -> None:
    """One worker after the other; each time the partitions are free ten seconds later."""
    for worker in plant.workers:
        await asyncio.sleep(5)
        await _replaced(worker)


async def _replaced(member: Member) -> None:
    await member.kill()
    await member.start()


async def rolled(plant: Plant) -> None:
    """Gateways and workers are asked to end and start anew, one after the other."""
    for member in (*plant.gateways, *plant.workers):
        await asyncio.sleep(1)
        await member.stop()
        await member.start()


async def state_paused(plant: Plant) -> None:
    """The state server answers nothing for five seconds."""
    assert plant.state is not None
    # Longer than a claim lasts: what was sent before a pause is carried out after it, for clients that have given it
    # up.
    await asyncio.sleep(8)
    plant.state.freeze()
    await asyncio.sleep(5)
    plant.state.thaw()


async def state_full(plant: Plant) -> None:
    """The state server takes no more writes for three seconds."""
    assert plant.state is not None
    await asyncio.sleep(3)
    await asyncio.to_thread(plant.state.ask, "CONFIG", "SET", "maxmemory", "1mb")
    await asyncio.sleep(3)
    await asyncio.to_thread(plant.state.ask, "CONFIG", "SET", "maxmemory", "0")


async def primary_killed(plant: Plant) -> None:
    """The primary of three state servers is killed; it comes back once another has taken its place."""
    assert plant.replicated is not None
    await asyncio.sleep(5)
    await asyncio.to_thread(_replaced_primary, plant.replicated)


def _replaced_primary(replicated: Replicated) -> None:
    lost = replicated.primary()
    lost.kill()
    wait_until(lambda: replicated.primary() is not lost, FAILOVER_S)
    lost.start()


async def partitioned(plant: Plant) -> None:
    """One gateway and one worker lose the state server: at first silently, then with every connection reset."""
    assert plant.proxy is not None
    for state in (Network.SILENT, Network.CUT):
        await asyncio.sleep(4)
        plant.proxy.set(state)
        await asyncio.sleep(4)
        plant.proxy.set(Network.UP)


async def intent_server_away(plant: Plant) -> None:
    """The intent server says nothing for three seconds, and later cannot be reached for three more."""
    assert plant.intents is not None
    for state in (Network.SILENT, Network.CUT):
        await asyncio.sleep(3)
        plant.intents.set(state)
        await asyncio.sleep(3)
        plant.intents.set(Network.UP)


async def clock_jumped(plant: Plant) -> None:
    """The wall clock of one gateway and one worker is an hour ahead, and later an hour behind."""
    for ahead_s in (3600.0, -3600.0):
        await asyncio.sleep(3)
        plant.clock.set(ahead_s)
        await asyncio.sleep(3)
        plant.clock.set(0.0)


def model(mode: Mode, *names: str) -> Fault:
    """Models behave in a way for three seconds of every six."""

    async def fault(plant: Plant) -> None:
        await asyncio.sleep(3)
        for name in names:
            plant.models.modes[name] = mode
        await asyncio.sleep(3)
        plant.models.heal()

    return fault


SCENARIOS = (
    Scenario("calm", "nothing happens", nothing),
    Scenario("gateway-killed", "kill -9 of a gateway, with streams open", gateways_killed),
    Scenario("worker-killed", "kill -9 of a worker, with messages in its hands", workers_killed),
    Scenario("rolling-restart", "gateways and workers are replaced one after the other", rolled),
    Scenario("state-paused", "the state server stands still for 5 s", state_paused),
    Scenario("state-full", "the state server refuses writes: out of memory", state_full),
    Scenario(
        "failover",
        "the primary of three state servers is killed",
        primary_killed,
        Layout(is_replicated=True),
        {"longest_gap_s": RECOVERY_S},
    ),
    Scenario("partition", "a gateway and a worker cannot reach the state server", partitioned),
    Scenario(
        "llm-stalled",
        "the language model says nothing",
        model(Mode.STALLED, LARGE),
        beside_calm={"first_delta_p99_s": FIRST_TOKEN_DEADLINE_S + 0.05},
    ),
    Scenario("llm-dripping", "it says a third of its answer each second", model(Mode.DRIPPING, LARGE)),
    Scenario("llm-failing", "it answers 500", model(Mode.FAILING, LARGE)),
    Scenario("llm-garbage", "it sends what is no event", model(Mode.GARBAGE, LARGE)),
    Scenario("llm-breaking", "it breaks off in the middle", model(Mode.BREAKING, LARGE)),
    Scenario(
        "intents-away",
        "the intent server is silent, then gone: retrieval alone, else the language model",
        intent_server_away,
        Layout(has_intent_server=True),
    ),
    Scenario("clock-jump", "the clock of a gateway and a worker jumps by an hour, both ways", clock_jumped),
    Scenario("models-failing", "both models answer 500", model(Mode.FAILING, LARGE, SMALL)),
)

"""A simulation of model servers under a load profile: who waits how long, and what it costs. Pure, seeded.

A Service hands each request to a server at random, as kube-proxy does; each server is first come, first served. Metrics
are as old as Prometheus and the autoscaler make them, a server that is ordered answers after its start time, one that
is sent away finishes what it has. Nobody gives up waiting.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import inf

from chatflow_operator.scaling.profile import Arrivals
from chatflow_operator.scaling.rule import SCRAPE_S
from chatflow_operator.scaling.scalers import Replicas, Scaler, Scrape
from chatflow_operator.scaling.servers import Server, ServerModel

_FIRST_SCRAPE_S, _FIRST_LOOK_S = 3.0, 7.0
"""Prometheus and the autoscaler keep their own time."""


@dataclass(frozen=True, slots=True)
class Sample:
    """How it stood when Prometheus looked."""

    time_s: float
    ready: int
    ordered: int
    running: int
    waiting: int
    """Requests in servers' queues, and those that gateways hold."""


@dataclass(slots=True)
class Outcome:
    """What came of it."""

    length_s: float
    samples: list[Sample] = field(default_factory=list)
    queue_s: list[float] = field(default_factory=list)
    """How long each request waited for a slot, in the order of arrival."""
    latency_s: list[float] = field(default_factory=list)
    """How long it took as a whole."""
    paid_s: float = 0.0
    """Time of all servers together, from the order to the last answer."""


class Simulation:
    """One run."""

    def __init__(self, arrivals: Arrivals, model: ServerModel, scaler: Scaler, first: int) -> None:
        self._arrivals = arrivals
        self._model = model
        self._scaler = scaler
        self._ready = [Server(model, 0.0, 0.0) for _ in range(first)]
        self._starting: deque[Server] = deque()
        self._all = list(self._ready)
        self._held: list[int] = []
        self._next = 0
        self._scrape = Scrape()
        self._outcome = Outcome(arrivals.length_s)

    def run(self) -> Outcome:
        """Every request up to the profile's end."""
        end_s, scrape_s, look_s = self._arrivals.length_s, _FIRST_SCRAPE_S, _FIRST_LOOK_S
        while True:
            start_s = self._starting[0].ready_s if self._starting else inf
            now_s = min(scrape_s, look_s, start_s, end_s)
            self._arrive(now_s)
            if now_s >= end_s:
                break
            if start_s <= now_s:
                self._ready.append(self._starting.popleft())
                self._release(now_s)
            if scrape_s <= now_s:
                scrape_s += SCRAPE_S
                self._look(now_s)
            if look_s <= now_s:
                look_s += self._scaler.every_s
                self._scale(now_s)
        # Who is held to the end has waited for that long, at least.
        waited_s = [end_s - self._arrivals.times_s[at] for at in self._held]
        self._outcome.queue_s += waited_s
        self._outcome.latency_s += waited_s
        self._outcome.paid_s = sum(server.paid_s(end_s) for server in self._all)
        return self._outcome

    def _arrive(self, until_s: float) -> None:
        """Requests up to a time. The one loop that is run for each of them."""
        times_s, tokens, lots = self._arrivals.times_s, self._arrivals.tokens, self._arrivals.lots
        queue_s, latency_s = self._outcome.queue_s, self._outcome.latency_s
        at, count, ready = self._next, len(times_s), self._ready
        number = len(ready)
        while at < count and times_s[at] < until_s:
            if number:
                now_s = times_s[at]
                start_s, end_s = ready[int(lots[at] * number)].take(now_s, tokens[at])
                queue_s.append(start_s - now_s)
                latency_s.append(end_s - now_s)
            else:
                self._held.append(at)
            at += 1
        self._next = at

    def _release(self, now_s: float) -> None:
        """What gateways held goes to the servers."""
        arrivals, number = self._arrivals, len(self._ready)
        for at in self._held:
            server = self._ready[int(arrivals.lots[at] * number)]
            start_s, end_s = server.take(now_s, arrivals.tokens[at])
            self._outcome.queue_s.append(start_s - arrivals.times_s[at])
            self._outcome.latency_s.append(end_s - arrivals.times_s[at])
        self._held.clear()

    def _look(self, now_s: float) -> None:
        loads = [server.load(now_s) for server in self._ready]
        running, waiting = sum(load[0] for load in loads), sum(load[1] for load in loads)
        cpu = sum(server.cpu(load[0]) for server, load in zip(self._ready, loads, strict=True))
        self._scrape = Scrape(
            running, waiting, running / self._model.cache_slots, len(self._held), cpu / max(len(loads), 1)
        )
        ordered = len(self._ready) + len(self._starting)
        sample = Sample(now_s, len(self._ready), ordered, running, waiting + len(self._held))
        self._outcome.samples.append(sample)

    def _scale(self, now_s: float) -> None:
        ordered = len(self._ready) + len(self._starting)
        wanted = self._scaler.decide(now_s, Replicas(len(self._ready), ordered), self._scrape)
        for _ in range(wanted - ordered):
            server = Server(self._model, now_s, now_s + self._model.start_s)
            self._starting.append(server)
            self._all.append(server)
        for _ in range(ordered - wanted):
            # A ReplicaSet lets go of pods that are not ready first, then of the youngest.
            (self._starting if self._starting else self._ready).pop().go(now_s)

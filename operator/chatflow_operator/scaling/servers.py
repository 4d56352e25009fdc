"""Model servers as the simulator sees them: how many requests one answers at a time, how fast, and what it costs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from heapq import heappop, heappush, heapreplace


@dataclass(frozen=True, slots=True)
class ServerModel:
    """A server with continuous batching. The more requests it answers at once, the slower each of them gets on."""

    slots: int = 32
    """Requests at a time (vLLM's --max-num-seqs); the others wait."""
    token_gap_s: float = 0.025
    """Time between two tokens of the only request."""
    slowdown: float = 1.6
    """The same with all slots taken, as a multiple."""
    cache_slots: float = 48.0
    """Requests of usual length that would fill its KV cache."""
    start_s: float = 120.0
    """From the order to the first answer: node, image, weights, warm-up."""
    busy_cores: float = 1.0
    """CPU of the process that steps the GPU: it spins while anything runs, however little."""
    request_cores: float = 0.03
    """CPU of one running request: its tokens are made text and sent."""
    requested_cores: float = 4.0
    """CPU that its pod requests; utilisation is a share of it."""

    def gaps_s(self) -> list[float]:
        """Time between two tokens, by how many other requests run."""
        steps = max(self.slots - 1, 1)
        return [self.token_gap_s * (1.0 + (self.slowdown - 1.0) * others / steps) for others in range(self.slots)]


class Server:
    """One server: first come, first served. Times are in seconds and only grow.

    An answer keeps the pace at which it begins, that of as many others as run then.
    """

    __slots__ = ("_ends_s", "_gaps_s", "_model", "_starts_s", "gone_s", "ordered_s", "ready_s")

    def __init__(self, model: ServerModel, ordered_s: float, ready_s: float) -> None:
        self._model = model
        self._gaps_s = model.gaps_s()
        self._ends_s: list[float] = []
        """When each slot becomes free, requests that still wait for it included."""
        self._starts_s: deque[float] = deque()
        self.ordered_s = ordered_s
        self.ready_s = ready_s
        self.gone_s: float | None = None
        """When it had answered its last request after it was told to go; None before."""

    def take(self, now_s: float, tokens: float) -> tuple[float, float]:
        """A request comes in: when its answer begins, and when it ends."""
        ends_s, gaps_s = self._ends_s, self._gaps_s
        while ends_s and ends_s[0] <= now_s:
            heappop(ends_s)
        others = len(ends_s)
        if others < len(gaps_s):
            end_s = now_s + tokens * gaps_s[others]
            heappush(ends_s, end_s)
            return now_s, end_s
        start_s = ends_s[0]
        end_s = start_s + tokens * gaps_s[-1]
        heapreplace(ends_s, end_s)
        self._starts_s.append(start_s)
        return start_s, end_s

    def load(self, now_s: float) -> tuple[int, int]:
        """Requests that run, and that wait."""
        starts_s, ends_s = self._starts_s, self._ends_s
        while starts_s and starts_s[0] <= now_s:
            starts_s.popleft()
        while ends_s and ends_s[0] <= now_s:
            heappop(ends_s)
        return len(ends_s), len(starts_s)

    def cpu(self, running: int) -> float:
        """CPU utilisation of its pod, as a share of what it requests."""
        model = self._model
        used = (model.busy_cores if running else 0.0) + model.request_cores * running
        return used / model.requested_cores

    def go(self, now_s: float) -> None:
        """Take nothing more; what is here is answered first."""
        self.gone_s = max([now_s, *self._ends_s])

    def paid_s(self, end_s: float) -> float:
        """How long its GPUs were taken until `end_s`."""
        return min(self.gone_s if self.gone_s is not None else end_s, end_s) - self.ordered_s

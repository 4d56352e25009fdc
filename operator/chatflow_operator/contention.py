"""Who takes a field back again and again: remembered for ten minutes, answered by waiting longer and longer."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from chatflow_operator.objects import FlowName, Name
from chatflow_operator.observation import Contest

WINDOW_S = 600.0
TIMES = 5
FIRST_WAIT_S, LONGEST_WAIT_S = 60.0, 600.0


@dataclass
class _Repairs:
    """When one field was put right."""

    at_s: deque[float] = field(default_factory=deque)
    until_s: float = 0.0
    waits: int = 0


class Contention:
    """The repairs of all flows. Times are in seconds of the clock that plans are made by."""

    def __init__(self) -> None:
        self._repairs: dict[FlowName, dict[tuple[Name, str], _Repairs]] = {}

    def note(self, flow: FlowName, name: Name, paths: tuple[str, ...], now_s: float) -> None:
        """Fields of an object were put right although the plan had not changed."""
        for path in paths:
            repairs = self._repairs.setdefault(flow, {}).setdefault((name, path), _Repairs())
            repairs.at_s.append(now_s)
            _forget(repairs, now_s)
            if len(repairs.at_s) > TIMES:
                wait_s = min(FIRST_WAIT_S * 2**repairs.waits, LONGEST_WAIT_S)
                repairs.until_s, repairs.waits = now_s + wait_s, repairs.waits + 1

    def contests(self, flow: FlowName, now_s: float) -> Mapping[Name, Contest]:
        """The fields of a flow's objects that were taken back more than TIMES times within the window."""
        found: dict[Name, Contest] = {}
        known = self._repairs.get(flow, {})
        for key, repairs in list(known.items()):
            _forget(repairs, now_s)
            if not repairs.at_s and repairs.until_s <= now_s:
                del known[key]
            elif len(repairs.at_s) > TIMES or repairs.until_s > now_s:
                name, path = key
                found[name] = Contest(path, len(repairs.at_s), repairs.until_s, _clears_s(repairs))
        return found

    def forget(self, flow: FlowName) -> None:
        """The flow is gone."""
        self._repairs.pop(flow, None)


def _clears_s(repairs: _Repairs) -> float:
    """When no more than TIMES repairs are left in the window."""
    last = repairs.at_s[-TIMES - 1] + WINDOW_S if len(repairs.at_s) > TIMES else repairs.until_s
    return max(last, repairs.until_s) + 1.0


def _forget(repairs: _Repairs, now_s: float) -> None:
    while repairs.at_s and repairs.at_s[0] <= now_s - WINDOW_S:
        repairs.at_s.popleft()

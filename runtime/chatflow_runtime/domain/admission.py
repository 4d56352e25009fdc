"""Whether a new conversation may begin, by how much is under way in the whole flow and how late this process is. Pure;
`turn` asks, `overload` keeps it up to date. Conversations under way are never turned away by it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from dataclasses import dataclass, field

SAMPLE_S = 0.1
"""How often the lag is sampled."""
TARGET_S = 0.05
"""A process whose lag is above this for a while has more to do than it can; short peaks are in order."""
SAMPLES = 5
RISE, FALL = 0.08, 0.04
"""By how much the share of new conversations that are turned away moves with each sample: it grows from none to all
within two seconds of overload and is back at none in three, too slowly to swing."""


class Pressure:
    """The share of new conversations that a process turns away because it cannot keep up: controlled by the least of
    the last lags, as in CoDel (Nichols and Jacobson, ACM Queue 10/5, 2012), since a queue that empties now and then is
    a good one."""

    def __init__(self) -> None:
        self.share = 0.0
        self._lags_s: deque[float] = deque(maxlen=SAMPLES)

    def sampled(self, lag_s: float) -> None:
        """The event loop came to something so long after its time."""
        self._lags_s.append(lag_s)
        if len(self._lags_s) == SAMPLES and min(self._lags_s) > TARGET_S:
            self.share = min(1.0, self.share + RISE)
        else:
            self.share = max(0.0, self.share - FALL)


@dataclass
class Admission:
    """Lets new conversations in."""

    backlog_limit: int
    """Turns under way in the flow above which `shed_fraction` of the new conversations are turned away."""
    shed_fraction: float
    pressure: Pressure = field(default_factory=Pressure)
    under_way: int = 0
    """Turns of this process."""
    elsewhere: int = 0
    """Those of the others, as they said last."""

    @property
    def backlog(self) -> int:
        """Turns under way in the flow."""
        return self.under_way + self.elsewhere

    def turns_away(self, uid: str) -> bool:
        """Whether a user without a conversation has to wait. The share is taken by a hash of the user, so that a retry
        meets the same answer while the overload lasts."""
        share = self.pressure.share
        if self.backlog > self.backlog_limit:
            share = max(share, self.shed_fraction)
        return share > 0 and _fraction(uid) < share


def _fraction(uid: str) -> float:
    digest = hashlib.blake2b(uid.encode(), digest_size=8, person=b"chatflow-shed").digest()
    return int.from_bytes(digest, "big") / 2**64

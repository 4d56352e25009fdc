"""Which worker should have which partition: by rendezvous hashing, one that comes or goes moves its own share alone."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence


def share_of(worker: str, workers: Iterable[str], partitions: Sequence[int]) -> frozenset[int]:
    """The partitions that `worker` should have among all `workers`, itself included. Those of all workers are disjoint
    and cover `partitions`, as long as they see the same workers."""
    everyone = {worker, *workers}
    return frozenset(number for number in partitions if worker == max(everyone, key=lambda one: _weight(one, number)))


def _weight(worker: str, partition: int) -> tuple[bytes, str]:
    name = f"{partition} {worker}".encode()
    return hashlib.blake2b(name, digest_size=8, person=b"chatflow-share").digest(), worker

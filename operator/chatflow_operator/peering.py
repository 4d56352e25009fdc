"""Whether another operator stands in this one's place. kopf stops watching then; `handlers` has the work wait too.

kopf keeps its peers in the status of a (Cluster)KopfPeering: identity -> priority, lifetime in seconds, lastseen.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

PRIORITY = 0
"""Of every operator that the chart installs."""


def rivals(peers: Mapping[str, Mapping[str, Any]], identity: str, now: datetime) -> list[str]:
    """The live peers for whom an operator pauses: whoever has its priority, or a higher one."""
    return sorted(
        name
        for name, peer in peers.items()
        if name != identity and _ends(peer) > now and int(peer.get("priority", 0)) >= PRIORITY
    )


def _ends(peer: Mapping[str, Any]) -> datetime:
    lifetime = timedelta(seconds=int(peer.get("lifetime", 60)))
    if "lastseen" not in peer:
        return datetime.max.replace(tzinfo=UTC)
    seen = datetime.fromisoformat(peer["lastseen"])
    return (seen if seen.tzinfo is not None else seen.replace(tzinfo=UTC)) + lifetime

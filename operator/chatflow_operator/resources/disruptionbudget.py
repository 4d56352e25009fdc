"""PodDisruptionBudgets: how many pods a drained node may take at once."""

from __future__ import annotations

from chatflow_operator.objects import DISRUPTION_BUDGET, Manifest
from chatflow_operator.resources.frame import Frame, Part


def budget(frame: Frame, part: Part) -> Manifest:
    """One at a time. Pods that are not ready do not hold a node's drain up."""
    spec = {
        "maxUnavailable": 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": frame.selector(part)},
    }
    return frame.object(DISRUPTION_BUDGET, part, spec=spec)

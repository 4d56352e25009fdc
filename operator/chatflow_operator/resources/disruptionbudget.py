"""PodDisruptionBudgets: how many pods a drained node may take at once."""

from __future__ import annotations

from chatflow_api import v1alpha1 as api

from chatflow_operator.objects import DISRUPTION_BUDGET, Manifest
from chatflow_operator.resources.frame import Frame, Part


def budget(frame: Frame, part: Part) -> Manifest:
    """One at a time. Pods that are not ready do not hold a node's drain up. Gateways that share a volume which one node
    can mount leave together: the first to go could not start elsewhere before the last has left."""
    is_tied = part is Part.GATEWAY and frame.spec.storage.access_mode is api.AccessMode.ONE_NODE
    spec = {
        "maxUnavailable": "100%" if is_tied else 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": frame.selector(part)},
    }
    return frame.object(DISRUPTION_BUDGET, part, spec=spec)

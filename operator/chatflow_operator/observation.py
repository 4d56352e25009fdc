"""What the operator knows of a flow when it plans: its children, what it refers to, which APIs there are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chatflow_api.names import LABEL_FLOW, LABEL_MANAGED_BY, MANAGED_BY

from chatflow_operator.objects import FlowName, Manifest, Name
from chatflow_operator.projection import Projected


@dataclass(frozen=True, slots=True)
class Child:
    """An object in the cluster that carries a flow's labels, reduced to what planning needs."""

    name: Name
    uid: str
    version: int
    """Its resourceVersion."""
    owner: str | None
    """UID of its controller."""
    flow: str
    """The flow's name by its label."""
    fields: Projected
    """What the operator wrote and still owns."""
    status: Mapping[str, Any]
    generation: int
    created: str
    """When it was made: RFC 3339, to the second."""
    is_going: bool
    """Deletion has been asked for."""

    @classmethod
    def of(cls, live: Manifest, fields: Projected, *, has_status: bool) -> Child:
        """The child that a live object is."""
        metadata, labels = live["metadata"], live["metadata"].get("labels", {})
        owners = [ref["uid"] for ref in metadata.get("ownerReferences", ()) if ref.get("controller")]
        return cls(
            name=Name(live["kind"], metadata["name"]),
            uid=metadata["uid"],
            version=int(metadata["resourceVersion"]),
            owner=owners[0] if owners else None,
            flow=labels.get(LABEL_FLOW, "") if labels.get(LABEL_MANAGED_BY) == MANAGED_BY else "",
            fields=fields,
            status=live.get("status", {}) if has_status else {},
            generation=metadata.get("generation", 0),
            created=metadata.get("creationTimestamp", ""),
            is_going="deletionTimestamp" in metadata,
        )


@dataclass(frozen=True, slots=True)
class Contest:
    """A field that somebody keeps changing back."""

    path: str
    times: int
    """How often within the window."""
    until_s: float
    """It is left alone until then, in seconds of the clock that plans are made by."""
    clears_s: float
    """When it counts as settled, if nobody takes it back again."""


@dataclass(frozen=True, slots=True)
class Observed:
    """Everything that a plan is made from, besides the flow and the time."""

    children: Mapping[Name, Child] = field(default_factory=dict)
    references: Mapping[Name, Mapping[str, str]] = field(default_factory=dict)
    """The ConfigMaps and Secrets that the flow names and that exist: digests by key."""
    apis: frozenset[str] = frozenset()
    """The optional kinds that the cluster has."""
    runtimes: frozenset[str] = frozenset()
    """KServe's runtimes for all namespaces."""
    foreign: frozenset[Name] = frozenset()
    """Objects that stand where the flow's should, and are not its own."""
    contests: Mapping[Name, Contest] = field(default_factory=dict)
    failures: Mapping[Name, str] = field(default_factory=dict)
    """Objects that could not be written, with the API server's words."""
    build_message: str = ""
    """What the last failed build said."""
    password: str = ""
    """A fresh password, for a Secret that has to be made."""


def flow_name(manifest: Manifest) -> FlowName:
    """Which flow an object is, or belongs to by its label."""
    metadata = manifest["metadata"]
    is_flow = manifest.get("kind") == "ChatFlow"
    return FlowName(
        metadata["namespace"], metadata["name"] if is_flow else metadata.get("labels", {}).get(LABEL_FLOW, "")
    )

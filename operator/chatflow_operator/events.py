"""Kubernetes Events for people: one for each condition that changes. Pure."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from chatflow_api.names import MANAGED_BY

from chatflow_operator.objects import CHATFLOW, EVENT, Manifest
from chatflow_operator.plan import Transition


def event_of(flow: Manifest, transition: Transition, now_s: float) -> Manifest:
    """The Event of a transition, named by what it says and when, so that a repeated attempt makes no second one."""
    metadata = flow["metadata"]
    said = f"{metadata['uid']} {transition.reason} {transition.message} {int(now_s)}"
    when = datetime.fromtimestamp(int(now_s), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": EVENT.api_version,
        "kind": EVENT.kind,
        "metadata": {
            "name": f"{metadata['name']}.{hashlib.sha256(said.encode()).hexdigest()[:16]}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": CHATFLOW.api_version,
            "kind": CHATFLOW.kind,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": "Normal" if transition.is_good else "Warning",
        "reason": transition.reason,
        "message": transition.message[:1024],
        "source": {"component": MANAGED_BY},
        "firstTimestamp": when,
        "lastTimestamp": when,
        "count": 1,
    }

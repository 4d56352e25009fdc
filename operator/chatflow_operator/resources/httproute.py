"""The HTTPRoute that leads users from a Gateway to the chat."""

from __future__ import annotations

from chatflow_api import v1alpha1 as api

from chatflow_operator.objects import HTTP_ROUTE, Manifest
from chatflow_operator.resources.frame import Frame, Part


def route(frame: Frame, wanted: api.Route) -> Manifest:
    """Everything below / goes to the gateways, without a time limit: streams and WebSockets stay open."""
    rule = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/"}}],
        "backendRefs": [{"name": frame.name(Part.GATEWAY), "port": 80}],
        "timeouts": {"request": "0s"},
    }
    parents = [ref.model_dump(by_alias=True, exclude_none=True) for ref in wanted.parent_refs]
    spec: Manifest = {"parentRefs": parents, "rules": [rule]}
    if wanted.hostnames:
        spec["hostnames"] = list(wanted.hostnames)
    return frame.object(HTTP_ROUTE, Part.GATEWAY, spec=spec)

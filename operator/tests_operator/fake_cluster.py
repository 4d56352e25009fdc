"""A cluster in memory that keeps the rules of server-side apply which the operator relies on, and can fail at any call.

The real API server is used by e2e/scenarios; this one is for faults at a chosen call, and for speed.
"""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

from chatflow_api.names import MANAGED_BY
from chatflow_operator.errors import Conflict
from chatflow_operator.objects import KINDS, FlowName, Kind, Manifest, Name

from tests_operator.flows import ALL_APIS


class Crash(BaseException):
    """The operator's process ends here."""


def no_fault(number: int, is_after: bool) -> None:
    """Nothing goes wrong."""


class FakeCluster:
    """Implements `Cluster`. `fault` is called with the number of every call and may raise: before the call takes
    effect, or after it (`is_after`)."""

    def __init__(self, fault: Callable[[int, bool], None]) -> None:
        self.objects: dict[tuple[str, Name], Manifest] = {}
        self.flows: dict[FlowName, Manifest] = {}
        self.events: list[Manifest] = []
        self.writes: list[str] = []
        self.fault = fault
        self.apis = ALL_APIS
        self.runtimes: frozenset[str] | None = frozenset({"kserve-vllmserver"})
        self.time = "2026-11-23T09:00:00Z"
        self._calls = itertools.count(1)
        self._versions = itertools.count(100)
        self._uids = itertools.count(1)

    def stamp(self, live: Manifest) -> Manifest:
        """Give an object its next version."""
        live["metadata"]["resourceVersion"] = str(next(self._versions))
        return live

    def put(self, manifest: Manifest, **metadata: Any) -> Manifest:
        """Somebody else's object."""
        live = copy.deepcopy(manifest)
        live["metadata"] |= {"uid": f"other-{next(self._uids)}", **metadata}
        self.objects[live["metadata"]["namespace"], _name(live)] = self.stamp(live)
        return live

    def edit(self, namespace: str, name: Name, change: Callable[[Manifest], None]) -> None:
        """Somebody else changes fields: they are theirs from then on."""
        live = self.objects[namespace, name]
        before = copy.deepcopy(live)
        change(live)
        for entry in live["metadata"]["managedFields"]:
            entry["fieldsV1"] = _unchanged(entry["fieldsV1"], before, live)
        self.stamp(live)

    async def read(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        number = self._begin()
        found = self.objects.get((namespace, Name(kind.kind, name)))
        self.fault(number, True)
        return copy.deepcopy(found)

    async def apply(self, kind: Kind, manifest: Manifest, *, uid: str | None) -> Manifest:
        number = self._begin()
        assert kind.kind == manifest["kind"]
        key = (manifest["metadata"]["namespace"], _name(manifest))
        found = self.objects.get(key)
        if uid is not None and (found is None or found["metadata"]["uid"] != uid):
            raise Conflict("another object", status=409)
        self.writes.append(f"apply {key[1]}")
        live = _merged(found, manifest)
        live["metadata"].setdefault("uid", f"uid-{next(self._uids)}")
        live["metadata"].setdefault("creationTimestamp", self.time)
        live["metadata"]["managedFields"] = [
            {"manager": MANAGED_BY, "operation": "Apply", "fieldsV1": _fields(_without_identity(manifest))}
        ]
        self.objects[key] = self.stamp(live)
        self.fault(number, True)
        return copy.deepcopy(live)

    async def delete(self, kind: Kind, namespace: str, name: str, uid: str) -> None:
        number = self._begin()
        key = (namespace, Name(kind.kind, name))
        if key in self.objects and self.objects[key]["metadata"]["uid"] == uid:
            self.writes.append(f"delete {key[1]}")
            del self.objects[key]
        self.fault(number, True)

    async def write_status(self, flow: FlowName, uid: str, status: Manifest) -> Manifest:
        number = self._begin()
        live = self.flows[flow]
        if live["metadata"]["uid"] != uid:
            raise Conflict("another flow", status=409)
        self.writes.append("status")
        live["status"] = json.loads(json.dumps(status))
        self.stamp(live)
        self.fault(number, True)
        return copy.deepcopy(live)

    async def post_event(self, namespace: str, event: Manifest) -> None:  # noqa: ARG002
        number = self._begin()
        self.events.append(event)
        self.fault(number, True)

    async def uids(self, kind: Kind, namespace: str | None, selector: str) -> set[str]:  # noqa: ARG002
        self._begin()
        return {live["metadata"]["uid"] for (_, name), live in self.objects.items() if name.kind == kind.kind}

    async def all(self, kind: Kind, namespace: str | None, selector: str) -> AsyncIterator[Manifest]:  # noqa: ARG002
        self._begin()
        label, _, value = selector.partition("=")
        for (_, name), live in list(self.objects.items()):
            if name.kind == kind.kind and live["metadata"].get("labels", {}).get(label) == value:
                yield copy.deepcopy(live)

    async def optional_kinds(self) -> frozenset[str]:
        self._begin()
        return self.apis

    async def serving_runtimes(self) -> frozenset[str] | None:
        self._begin()
        return self.runtimes

    async def termination_message(self, namespace: str, job: str) -> str:  # noqa: ARG002
        self._begin()
        return "faq.yaml:3: no answer"

    def _begin(self) -> int:
        number = next(self._calls)
        self.fault(number, False)
        return number


def _name(manifest: Manifest) -> Name:
    assert manifest["kind"] in KINDS
    return Name(manifest["kind"], manifest["metadata"]["name"])


def _without_identity(manifest: Manifest) -> Manifest:
    body = {key: value for key, value in manifest.items() if key not in ("apiVersion", "kind")}
    body["metadata"] = {
        key: value for key, value in manifest["metadata"].items() if key not in ("name", "namespace", "uid")
    }
    return body


def _merged(found: Manifest | None, manifest: Manifest) -> Manifest:
    """Lists count as one value here; the real server's keyed lists are the matter of test_projection."""
    if found is None:
        return copy.deepcopy(manifest)
    entries: list[Manifest] = found["metadata"].get("managedFields", [])
    owned = entries[0]["fieldsV1"] if entries else {}
    return _apply(copy.deepcopy(found), manifest, owned)


def _apply(live: Manifest, wanted: Manifest, owned: Manifest) -> Manifest:
    for field, inner in owned.items():
        key = field[2:]
        if key not in wanted and key in live:
            if inner and isinstance(live[key], dict):
                live[key] = _apply(live[key], {}, inner)
            else:
                del live[key]
    for key, value in wanted.items():
        if isinstance(value, dict) and isinstance(live.get(key), dict):
            live[key] = _apply(live[key], value, owned.get(f"f:{key}", {}))
        else:
            live[key] = copy.deepcopy(value)
    return live


def _fields(value: Any) -> Manifest:
    if not isinstance(value, dict):
        return {}
    return {f"f:{key}": _fields(inner) for key, inner in value.items()}


def _unchanged(fields: Manifest, before: Any, after: Any) -> Manifest:
    """The fields that still have the value that their manager gave them."""
    kept: Manifest = {}
    for field, inner in fields.items():
        key = field[2:]
        if key not in after or (not inner and before[key] != after[key]):
            continue
        if inner and not isinstance(after[key], dict):
            continue
        kept[field] = _unchanged(inner, before[key], after[key]) if inner else inner
    return kept

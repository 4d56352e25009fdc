"""What the watches have told: flows, their children, and digests of ConfigMaps and Secrets. In memory, without I/O.

Children are kept as bytes: five hundred flows are some eight thousand objects, and as nested mappings they would take
most of the operator's memory.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping

from chatflow_api.names import LABEL_MANAGED_BY, MANAGED_BY

from chatflow_operator.objects import CHATFLOW, KINDS, FlowName, Manifest, Name
from chatflow_operator.observation import Child, flow_name
from chatflow_operator.projection import owned_fields

_COMPRESSED = 400
"""Bytes from which it is worth while."""
_REMEMBERED = 10_000
"""Deletions."""


class Cache:
    """The newest that is known of every object. Methods that take an event return the flows that it concerns."""

    def __init__(self) -> None:
        self._flows: dict[FlowName, bytes] = {}
        self._versions: dict[FlowName, int] = {}
        self._children: dict[FlowName, dict[Name, _Packed]] = {}
        self._flow_of: dict[str, FlowName] = {}
        """Where a child is kept, by its UID."""
        self._contents: dict[tuple[str, Name], dict[str, str]] = {}
        self._users: dict[tuple[str, Name], set[FlowName]] = {}
        self._used: dict[FlowName, frozenset[tuple[str, Name]]] = {}
        self._gone: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._flows)

    def flows(self) -> list[FlowName]:
        """Every flow that is known."""
        return list(self._flows)

    def flow(self, name: FlowName) -> Manifest | None:
        """A flow as it was last seen."""
        packed = self._flows.get(name)
        return None if packed is None else _unpack(packed)

    def children(self, name: FlowName) -> dict[Name, Child]:
        """The objects that carry the flow's labels."""
        return {child: packed.child() for child, packed in self._children.get(name, {}).items()}

    def references(self, name: FlowName) -> Mapping[Name, Mapping[str, str]]:
        """Digests of what the flow refers to, as far as it exists."""
        wanted = self._used.get(name, frozenset())
        return {one: self._contents[namespace, one] for namespace, one in wanted if (namespace, one) in self._contents}

    def see_flow(self, body: Manifest, *, is_deleted: bool) -> set[FlowName]:
        """A flow was made, changed or deleted."""
        name, version = flow_name(body), int(body["metadata"]["resourceVersion"])
        if version < self._versions.get(name, 0) or self._is_gone(body, is_deleted=is_deleted):
            return set()
        if is_deleted:
            self._flows.pop(name, None)
            self._versions.pop(name, None)
            self._refer(name, frozenset())
            return {name}
        self._flows[name] = _pack(_slim(body))
        self._versions[name] = version
        return {name}

    def _is_gone(self, body: Manifest, *, is_deleted: bool) -> bool:
        """Whether an object is known to be deleted: the answer to a write may come after the event of the deletion."""
        uid = body["metadata"]["uid"]
        if is_deleted:
            self._gone[uid] = int(body["metadata"]["resourceVersion"])
            if len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)
            return False
        # What is newer than its deletion only lost the label by which it is watched, and has it again.
        return int(body["metadata"]["resourceVersion"]) <= self._gone.get(uid, 0)

    def refer(self, name: FlowName, wanted: frozenset[Name]) -> list[Name]:
        """Remember what a flow refers to, so that a change of it concerns the flow; those of which nothing is known."""
        self._refer(name, frozenset((name.namespace, one) for one in wanted))
        return [one for one in sorted(wanted) if (name.namespace, one) not in self._contents]

    def _refer(self, name: FlowName, wanted: frozenset[tuple[str, Name]]) -> None:
        for gone in self._used.get(name, frozenset()) - wanted:
            self._users[gone].discard(name)
            if not self._users[gone]:
                del self._users[gone]
                self._contents.pop(gone, None)
        for new in wanted:
            self._users.setdefault(new, set()).add(name)
        if wanted:
            self._used[name] = wanted
        else:
            self._used.pop(name, None)

    def forget_contents(self) -> None:
        """Forget what ConfigMaps and Secrets hold, so that it is read anew."""
        self._contents.clear()

    def flow_uids(self) -> set[str]:
        """The UIDs of all flows."""
        return {body["metadata"]["uid"] for name in self.flows() if (body := self.flow(name)) is not None}

    def drop_flows(self, uids: set[str]) -> None:
        """Forget flows that were deleted without an event of it."""
        for name in self.flows():
            body = self.flow(name)
            if body is not None and body["metadata"]["uid"] in uids:
                self.see_flow(body, is_deleted=True)

    def see_child(self, body: Manifest, *, is_deleted: bool) -> set[FlowName]:
        """An object with the operator's label was made, changed or deleted. A flow that the label names and that does
        not exist is none of the operator's business."""
        if body["metadata"].get("labels", {}).get(LABEL_MANAGED_BY) != MANAGED_BY:
            return set()
        flow, name = flow_name(body), Name(body["kind"], body["metadata"]["name"])
        if self._is_gone(body, is_deleted=is_deleted):
            return set()
        uid = body["metadata"]["uid"]
        former = self._flow_of.get(uid, flow)
        if former != flow:
            # Somebody has changed the label that says whose it is.
            self._forget(former, name, uid)
            return {former} | self.see_child(body, is_deleted=is_deleted)
        known = self._children.setdefault(flow, {})
        version, last = int(body["metadata"]["resourceVersion"]), known.get(name)
        if last is not None and version < last.version:
            return set()
        if is_deleted:
            self._forget(flow, name, uid)
            return {flow}
        packed = _Packed.of(body)
        if last is not None:
            self._flow_of.pop(last.uid, None)
        known[name] = packed
        self._flow_of[packed.uid] = flow
        is_news = last is None or (packed.uid, packed.data) != (last.uid, last.data)
        return {flow} if is_news else set()

    def keep_child(self, flow: FlowName, body: Manifest) -> None:
        """Remember an object as a flow's, whatever its labels say."""
        packed = _Packed.of(body)
        self._forget(self._flow_of.get(packed.uid, flow), packed.name, packed.uid)
        self._children.setdefault(flow, {})[packed.name] = packed
        self._flow_of[packed.uid] = flow

    def drop_child(self, flow: FlowName, name: Name) -> None:
        """Forget one object: it turned out to be another by now."""
        packed = self._children.get(flow, {}).get(name)
        if packed is not None:
            self._forget(flow, name, packed.uid)

    def _forget(self, flow: FlowName, name: Name, uid: str) -> None:
        """Forget the object with this UID; another one of its name stays."""
        self._flow_of.pop(uid, None)
        known = self._children.get(flow, {})
        packed = known.get(name)
        if packed is not None and packed.uid == uid:
            del known[name]
        if not known:
            self._children.pop(flow, None)

    def drop_children(self, kind: str, namespaces: frozenset[str] | None, living: set[str]) -> set[FlowName]:
        """Forget the objects of a kind that a list of all does not hold; the flows that lost one."""
        lost: set[FlowName] = set()
        for flow, known in list(self._children.items()):
            if namespaces is not None and flow.namespace not in namespaces:
                continue
            for name in [one for one, packed in known.items() if one.kind == kind and packed.uid not in living]:
                self._forget(flow, name, known[name].uid)
                lost.add(flow)
        return lost

    def see_content(self, body: Manifest, *, is_deleted: bool) -> set[FlowName]:
        """A ConfigMap or Secret was made, changed or deleted: the flows that refer to it, if its content is news. Of
        what no flow refers to nothing is kept."""
        key = (body["metadata"]["namespace"], Name(body["kind"], body["metadata"]["name"]))
        if not self._users.get(key):
            return set()
        if is_deleted:
            self._contents.pop(key, None)
            return set(self._users.get(key, ()))
        digests = dict(_digests(body))
        if self._contents.get(key) == digests:
            return set()
        self._contents[key] = digests
        return set(self._users.get(key, ()))


class _Packed:
    """A child in few bytes."""

    __slots__ = ("data", "name", "uid", "version")

    def __init__(self, name: Name, uid: str, version: int, data: bytes) -> None:
        self.name, self.uid, self.version, self.data = name, uid, version, data

    @classmethod
    def of(cls, body: Manifest) -> _Packed:
        kind = KINDS[body["kind"]]
        child = Child.of(body, owned_fields(body, MANAGED_BY), has_status=kind.has_status)
        content = {
            "owner": child.owner,
            "flow": child.flow,
            "fields": child.fields,
            "status": child.status,
            "generation": child.generation,
            "created": child.created,
            "is_going": child.is_going,
        }
        return cls(child.name, child.uid, child.version, _pack(content))

    def child(self) -> Child:
        return Child(name=self.name, uid=self.uid, version=self.version, **_unpack(self.data))


def _slim(body: Manifest) -> Manifest:
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations", {})
    kept = {key: value for key, value in annotations.items() if key.startswith("chatflow.dev/")}
    metadata["annotations"] = kept
    return {**body, "apiVersion": CHATFLOW.api_version, "kind": CHATFLOW.kind, "metadata": metadata}


def _digests(body: Manifest) -> Iterator[tuple[str, str]]:
    for key, value in (body.get("data") or {}).items():
        yield key, hashlib.sha256(value.encode()).hexdigest()[:16]
    for key, value in (body.get("binaryData") or {}).items():
        yield key, hashlib.sha256(base64.b64decode(value)).hexdigest()[:16]


def _pack(value: object) -> bytes:
    data = json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
    return b"z" + zlib.compress(data, 1) if len(data) >= _COMPRESSED else data


def _unpack(data: bytes) -> Manifest:
    text = zlib.decompress(data[1:]) if data[:1] == b"z" else data
    value: Manifest = json.loads(text)
    return value

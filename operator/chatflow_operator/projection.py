"""What of a live object the operator owns, and whether that is what the plan says. Pure.

A live object's `managedFields` list, for every manager, the fields that it applied (FieldsV1, described in
https://kubernetes.io/docs/reference/using-api/server-side-apply/). The part under the operator's name is what it wrote
and still owns: a field that somebody else has changed is theirs by then and is missing here. So an object is as planned
if and only if this part equals the plan.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, DecimalException
from typing import Any

Projected = dict[str, Any]
"""Nested like the object; a list whose elements are told apart by keys is a mapping from `k:{...}` to its elements, and
a mapping that is owned as one value stands below WHOLE."""

WHOLE, SET = "=", "v:"
"""A list that is a set of plain values stands sorted below SET."""

_LONG = 200
"""Texts above this many characters are kept as a digest: a large ConfigMap need not stay in memory."""
_IDENTITY = ("apiVersion", "kind")
_AMOUNTS = frozenset(("requests", "limits", "sizeLimit"))
"""Fields that hold quantities, or are one. The server writes these in its own form: 1000m becomes 1."""
_FACTOR = {
    "m": Decimal("0.001"),
    "": Decimal(1),
    "k": Decimal(10**3),
    "M": Decimal(10**6),
    "G": Decimal(10**9),
    "T": Decimal(10**12),
    "Ki": Decimal(2**10),
    "Mi": Decimal(2**20),
    "Gi": Decimal(2**30),
    "Ti": Decimal(2**40),
}


def owned_fields(live: Mapping[str, Any], manager: str) -> Projected:
    """The fields of a live object that `manager` owns by server-side apply, with their values."""
    for entry in live["metadata"].get("managedFields", ()):
        is_its = entry.get("manager") == manager and entry.get("operation") == "Apply"
        if is_its and not entry.get("subresource"):
            return _mapping(live, entry.get("fieldsV1", {}))
    return {}


def _mapping(live: Mapping[str, Any], fields: Mapping[str, Any]) -> Projected:
    out: Projected = {}
    for field, inner in fields.items():
        name = field[2:]
        if field.startswith("f:") and name in live:
            out[name] = _value(live[name], inner)
    return out


def _value(live: Any, fields: Mapping[str, Any]) -> Any:
    if not fields:
        return _leaf(live)
    if isinstance(live, dict):
        return _mapping(live, fields)
    if isinstance(live, list):
        return _list(live, fields)
    return _leaf(live)


def _list(live: list[Any], fields: Mapping[str, Any]) -> Any:
    if any(field.startswith("v:") for field in fields):
        return {SET: sorted((json.loads(field[2:]) for field in fields if field.startswith("v:")), key=str)}
    out: Projected = {}
    for field, inner in fields.items():
        if not field.startswith("k:"):
            continue
        keys = json.loads(field[2:])
        for element in live:
            if isinstance(element, dict) and all(element.get(key) == value for key, value in keys.items()):
                out[field] = _value(element, inner)
    return out


def _leaf(value: Any) -> Any:
    if isinstance(value, dict):
        return {WHOLE: value}
    if isinstance(value, str) and len(value) > _LONG:
        return "sha256:" + hashlib.sha256(value.encode()).hexdigest()
    return value


def differences(planned: Mapping[str, Any], projected: Mapping[str, Any]) -> list[str]:
    """The paths at which a planned manifest and the owned fields of the live object differ; empty when they agree."""
    return list(_differences(_without_identity(planned), projected, "", is_amount=False))


def _without_identity(planned: Mapping[str, Any]) -> dict[str, Any]:
    """What names the object is in no manager's fields."""
    body = {key: value for key, value in planned.items() if key not in _IDENTITY}
    body["metadata"] = {key: value for key, value in planned["metadata"].items() if key not in ("name", "namespace")}
    return body


def _differences(planned: Any, projected: Any, path: str, *, is_amount: bool) -> Iterator[str]:
    if isinstance(projected, dict) and WHOLE in projected:
        if not _agrees(planned, projected[WHOLE], is_amount=is_amount):
            yield path
    elif isinstance(projected, dict) and SET in projected:
        if not isinstance(planned, list) or sorted(planned, key=str) != projected[SET]:
            yield path
    elif isinstance(planned, dict) and isinstance(projected, dict):
        for key, value in planned.items():
            if key not in projected:
                yield f"{path}.{key}"
            else:
                inner = is_amount or key in _AMOUNTS
                yield from _differences(value, projected[key], f"{path}.{key}", is_amount=inner)
        yield from (f"{path}.{key}" for key in projected if key not in planned)
    elif isinstance(planned, list) and isinstance(projected, dict):
        yield from _keyed(planned, projected, path)
    elif isinstance(planned, list) and isinstance(projected, list):
        if not _agrees(planned, projected, is_amount=is_amount):
            yield path
    elif not _same(planned, projected, is_amount=is_amount):
        yield path


def _keyed(planned: list[Any], projected: Mapping[str, Any], path: str) -> Iterator[str]:
    """A list by keys: each planned element against the one that has its keys."""
    left = dict(projected)
    for number, element in enumerate(planned):
        found = next((field for field in left if _has_keys(element, json.loads(field[2:]))), None)
        if found is None:
            yield f"{path}[{number}]"
        else:
            yield from _differences(element, left.pop(found), f"{path}[{number}]", is_amount=False)
    yield from (f"{path}[{field[2:]}]" for field in left)


def _has_keys(element: Any, keys: Mapping[str, Any]) -> bool:
    # A key with a default (a port's protocol) may be missing from what was planned.
    return isinstance(element, dict) and all(element.get(key, value) == value for key, value in keys.items())


def _agrees(planned: Any, live: Any, *, is_amount: bool) -> bool:
    """Whether a value inside an atomic list, which is kept whole with the server's defaults, says what was planned."""
    if isinstance(planned, dict) and isinstance(live, dict):
        return all(
            key in live and _agrees(value, live[key], is_amount=is_amount or key in _AMOUNTS)
            for key, value in planned.items()
        )
    if isinstance(planned, list) and isinstance(live, list):
        pairs = zip(planned, live, strict=False)
        return len(planned) == len(live) and all(_agrees(one, other, is_amount=is_amount) for one, other in pairs)
    return _same(planned, live, is_amount=is_amount)


def _same(planned: Any, live: Any, *, is_amount: bool) -> bool:
    if isinstance(planned, dict | list):
        return _agrees(planned, live, is_amount=is_amount)
    if planned == live or _leaf(planned) == live:
        return True
    return is_amount and quantity(planned) is not None and quantity(planned) == quantity(live)


def quantity(value: Any) -> Decimal | None:
    """The number that a Kubernetes quantity stands for; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    text = str(value)
    number = text.rstrip("mkMGTi")
    factor = _FACTOR.get(text[len(number) :])
    try:
        return None if factor is None else Decimal(number) * factor
    except DecimalException:
        return None

"""What the parts of the spec are made of: the base class, durations, names, and rules over several fields.

Used by `v1alpha1`, `access` and `placement`, which hold the parts themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler, GetJsonSchemaHandler, StringConstraints
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema, core_schema

_DURATION = re.compile(r"(\d+)(ms|s|m|h)")
_UNIT_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000}


def duration_s(value: str) -> float:
    """Seconds of a duration such as `800ms`, `600s` or `1h30m`; ValueError if it is none."""
    parts = _DURATION.findall(value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f"{value!r} is no duration; write for example 800ms, 30s, 10m or 1h30m")
    return sum(int(number) * _UNIT_MS[unit] for number, unit in parts) / 1000


@dataclass(frozen=True)
class Within:
    """Bounds of a duration, both included; `crdgen` writes them as a CEL rule."""

    lowest: str
    highest: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "x-duration": [self.lowest, self.highest]}

    def _check(self, value: str) -> str:
        if not duration_s(self.lowest) <= duration_s(value) <= duration_s(self.highest):
            raise ValueError(f"{value} lies outside {self.lowest} to {self.highest}")
        return value


Duration = Annotated[str, StringConstraints(pattern=r"^([0-9]+(ms|s|m|h))+$", max_length=32)]
Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9_-]{0,61}[a-z0-9])?$", max_length=63)]
"""Name of an intent, a slot or an action: lower case, digits, `_` and `-`."""
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$", max_length=253)]
DataKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", max_length=253)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=2000)]
LongText = Annotated[str, StringConstraints(min_length=1, max_length=16000)]
Question = Annotated[str, StringConstraints(min_length=1, max_length=500)]


@dataclass(frozen=True)
class Finding:
    """One place at which a rule over several fields is broken."""

    at: tuple[str | int, ...]
    """Path below the part that has the rule, as in the manifest."""
    message: str
    """What is wrong; what to do."""


class RuleBroken(ValueError):
    """Rules over several fields are broken; `validation` gives each finding its own line."""

    def __init__(self, *findings: Finding) -> None:
        super().__init__(". ".join(finding.message for finding in findings))
        self.findings = findings


class Spec(BaseModel):
    """Base of every part of the spec: camelCase in YAML, unknown fields refused, frozen once read."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )
    cel: ClassVar[list[tuple[str, str]]] = []
    """Rules over several fields, as (CEL expression, message), for the CustomResourceDefinition."""


class ConfigMapKeyRef(Spec):
    """One key of a ConfigMap in the flow's namespace."""

    name: ObjectName
    """Name of the ConfigMap."""
    key: DataKey
    """Key inside the ConfigMap."""


class SecretKeyRef(Spec):
    """One key of a Secret in the flow's namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: DataKey
    """Key inside the Secret."""


def secret_refs(part: Spec, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], SecretKeyRef]]:
    """Every Secret key that a part of the spec refers to, with its path as in the manifest."""
    for name, field in type(part).model_fields.items():
        value, where = getattr(part, name), (*path, field.alias or to_camel(name))
        listed = [((*where, index), one) for index, one in enumerate(value)] if isinstance(value, list) else []
        for at, one in listed or [(where, value)]:
            if isinstance(one, SecretKeyRef):
                yield at, one
            elif isinstance(one, Spec):
                yield from secret_refs(one, at)


def exactly_one(model: BaseModel, *names: str) -> None:
    """ValueError unless exactly one of these fields is set."""
    given = [name for name in names if getattr(model, name) is not None]
    if len(given) != 1:
        wanted = " or ".join(to_camel(name) for name in names)
        found = ", ".join(to_camel(name) for name in given) or "none"
        raise ValueError(f"exactly one of {wanted} is needed, and {found} is set; set exactly one")

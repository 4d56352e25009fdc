"""The CustomResourceDefinition's own rules, checked offline as the API server checks them.

`chatflow validate` asks it what a cluster refuses even without ChatFlow's webhook. Pure, but it needs the CEL library
of the `cli` extra, the CEL team's own in C++: rules and patterns (RE2) mean here what they mean in the cluster.

The order is the API server's (apiextensions-apiserver, `registry/customresource/strategy.go`): unknown fields are told
and dropped, defaults filled in, the structural schema checked, and the CEL rules only where types and sizes are right.
`crds/chatflows.yaml` is written from `crdgen.structural_schema`, which is what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from cel_expr_python import cel  # type: ignore[import-untyped]
from cel_expr_python.ext import ext_strings  # type: ignore[import-untyped]

from chatflow_api.crdgen import Schema, structural_schema
from chatflow_api.manifest_source import Path
from chatflow_api.validation import path_text

_BLOCKING = frozenset({"type", "enum", "required", "maxLength", "maxItems", "maxProperties"})
"""Keywords that, where they are broken, keep the API server from looking at the CEL rules at all."""

_SIZES = {
    "string": ("minLength", "maxLength", " characters"),
    "array": ("minItems", "maxItems", " items"),
    "object": ("minProperties", "maxProperties", " keys"),
}
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Violation:
    """One rule of the CustomResourceDefinition that a manifest breaks."""

    path: Path
    """The field at which the API server reports it; for a rule over several fields the one that holds them."""
    rule: str
    """The keyword of the schema, or the CEL expression."""
    message: str


def violations(manifest: Mapping[str, Any]) -> list[Violation]:
    """Everything for which the API server refuses to create this ChatFlow, its webhook aside.

    Of the metadata the name alone is looked at, as in the definition; status is set aside, as it is on creation.
    """
    schema = structural_schema()
    given = {name: value for name, value in manifest.items() if name != "status"}
    found = list(_unknown(given, schema, ()))
    filled = _free_of_nul(completed(given, schema))
    found += _structural(filled, schema, ())
    if not any(one.rule in _BLOCKING for one in found):
        found += _broken_rules(filled, schema, ())
    return found


def violations_beyond(reported: Iterable[str], manifest: Mapping[str, Any]) -> list[Violation]:
    """The violations of which no path in `reported` speaks: neither of the field, nor of its parts or its whole.

    A rule of the types over several fields waits until each of them is right, so the whole counts as well.
    """
    known = list(reported)
    return [one for one in violations(manifest) if not any(_touch(path_text(one.path), path) for path in known)]


def _touch(one: str, other: str) -> bool:
    """Whether one path is, holds or lies within the other; the empty path is the whole manifest."""
    short, long = sorted((one, other), key=len)
    return long.startswith(short) and (not short or long[len(short) :][:1] in ("", ".", "["))


def completed(value: Any, schema: Schema) -> Any:
    """A value as the API server stores it: without unknown fields and nulls, with every default."""
    if isinstance(value, list) and "items" in schema:
        return [completed(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    if "additionalProperties" in schema:
        values = schema["additionalProperties"]
        return {key: completed(inner, values) for key, inner in value.items() if inner is not None}
    fields = schema.get("properties", {})
    out = {}
    for name, field in fields.items():
        inner = value.get(name)
        if inner is None:
            inner = field.get("default")
        if inner is not None:
            out[name] = completed(inner, field)
    return out


def _free_of_nul(value: Any) -> Any:
    """The value with U+0001 for every U+0000, at which the CEL library ends a text; no rule tells the two apart."""
    if isinstance(value, dict):
        return {_free_of_nul(key): _free_of_nul(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_free_of_nul(item) for item in value]
    return value.replace("\x00", "\x01") if isinstance(value, str) else value


def _unknown(value: Any, schema: Schema, path: Path) -> Iterator[Violation]:
    """Fields that the schema does not have; kubectl asks the API server to refuse them."""
    for key, inner, below in _parts(value, schema):
        if below is None:
            yield Violation((*path, key), "properties", "unknown field")
        elif (*path, key) != ("metadata",):
            yield from _unknown(inner, below, (*path, key))


def _parts(value: Any, schema: Schema) -> Iterator[tuple[str | int, Any, Schema | None]]:
    """What a value holds: (key or index, value, its schema); None is the schema of an unknown field."""
    if isinstance(value, list) and "items" in schema:
        yield from ((index, item, schema["items"]) for index, item in enumerate(value))
    elif isinstance(value, dict) and schema["type"] == "object":
        fields = schema.get("properties", {})
        yield from ((key, inner, schema.get("additionalProperties", fields.get(key))) for key, inner in value.items())


def _structural(value: Any, schema: Schema, path: Path) -> Iterator[Violation]:
    if not _is_of_type(value, schema["type"]):
        yield Violation(path, "type", f"must be of type {schema['type']}")
        return
    if "enum" in schema and value not in schema["enum"]:
        yield Violation(path, "enum", f"must be one of {', '.join(map(str, schema['enum']))}")
    yield from _out_of_bounds(value, schema, path)
    if "pattern" in schema and not _holds("self.matches(pattern)", value, schema["pattern"]):
        yield Violation(path, "pattern", f"must match {schema['pattern']}")
    for name in schema.get("required", []):
        if name not in value:
            yield Violation((*path, name), "required", "is required")
    yield from _doubles(value, schema, path)
    for key, inner, below in _parts(value, schema):
        assert below is not None, "unknown fields are gone"  # noqa: S101
        yield from _structural(inner, below, (*path, key))


def _is_of_type(value: Any, name: str) -> bool:
    match name:
        case "object":
            return isinstance(value, dict) and all(isinstance(key, str) and _is_unicode(key) for key in value)
        case "array":
            return isinstance(value, list)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool) and value in _INT64
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            return isinstance(value, str) and _is_unicode(value)
    raise AssertionError(f"crdgen writes no type {name}")


def _is_unicode(text: str) -> bool:
    """Whether a text is without half surrogates, which JSON can write and no program can send on."""
    return not any("\ud800" <= sign <= "\udfff" for sign in text)


def _out_of_bounds(value: Any, schema: Schema, path: Path) -> Iterator[Violation]:
    if isinstance(value, int | float):
        size, low, high, unit = value, "minimum", "maximum", ""
    else:
        size = len(value)
        low, high, unit = _SIZES[schema["type"]]
    # Written so that NaN, which YAML knows, is outside of any bounds.
    if low in schema and not size >= schema[low]:
        yield Violation(path, low, f"must be at least {schema[low]}{unit}")
    if high in schema and not size <= schema[high]:
        yield Violation(path, high, f"must be at most {schema[high]}{unit}")


def _doubles(value: Any, schema: Schema, path: Path) -> Iterator[Violation]:
    keys = schema.get("x-kubernetes-list-map-keys")
    if keys is None:
        return
    seen: list[list[Any]] = []
    for index, item in enumerate(value):
        key = [item.get(name) for name in keys] if isinstance(item, dict) else [item]
        if key in seen:
            message = f"stands twice with the same {', '.join(keys)}"
            yield Violation((*path, index), "x-kubernetes-list-map-keys", message)
        seen.append(key)


def _broken_rules(value: Any, schema: Schema, path: Path) -> Iterator[Violation]:
    for rule in schema.get("x-kubernetes-validations", []):
        # A rule on a change needs the object as it was, which a file does not tell.
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield Violation(path, rule["rule"], rule["message"])
    for key, inner, below in _parts(value, schema):
        if below is not None:
            yield from _broken_rules(inner, below, (*path, key))


def _holds(expression: str, value: Any, pattern: str = "") -> bool:
    """Whether a rule is true of a value. One that cannot be computed is not, as in the API server."""
    return _program(expression).eval(data={"self": value, "pattern": pattern}).value() is True


@cache
def _program(expression: str) -> cel.Expression:
    return _environment().compile(expression)


@cache
def _environment() -> cel.Env:
    """CEL with the string functions that Kubernetes adds.

    `self` has no declared type here: a rule that names a field which does not exist is found by the tests instead.
    """
    variables = {"self": cel.Type.DYN, "pattern": cel.Type.STRING}
    return cel.NewEnv(variables=variables, extensions=[ext_strings.ExtStrings()])

"""What pydantic finds wrong with one field, said in the manifest's own terms: what is wrong and what to do.

Called by `validation`; bounds, descriptions and neighbouring names come from the schema that `crdgen` makes.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any

from pydantic.alias_generators import to_camel
from pydantic_core import ErrorDetails

from chatflow_api import v1alpha1 as api
from chatflow_api.crdgen import Schema, bounds, duration_bounds, fields, structural_schema, type_name
from chatflow_api.manifest_source import Path

_PATTERNS = {
    api.Duration: ("it is no duration", "write for example 800ms, 30s, 10m or 1h30m"),
    api.Name: (
        "it is no valid name",
        "use lower-case letters, digits, '-' and '_', a letter first, at most 63",
    ),
    api.ObjectName: ("it is no valid Kubernetes name", "use lower-case letters, digits, '-' and '.', at most 253"),
    api.DataKey: ("it is no valid key", "use letters, digits, '-', '_' and '.'"),
    api.Origin: ("it is no web origin", "write for example https://shop.example.com, without a path, or *"),
}


def _pattern(kind: Any) -> str:
    return str(kind.__metadata__[0].pattern)


_BY_PATTERN = {_pattern(kind): words for kind, words in _PATTERNS.items()}
_BY_FIELD = {
    "url": ("it is no usable URL", "write http:// or https://, a host without {slot}, then path and query"),
    "baseURL": ("it is no usable URL", "write for example http://vllm:8000/v1"),
    "name": ("it is no valid name for a flow", "use lower-case letters, digits and '-', a letter first, at most 46"),
    "path": ("it is an absolute path", "write it relative to the volume, for example knowledge"),
    "allowedHosts": ("it is no host", "write host or host:port in lower case, for example orders.example.com"),
}
_WRONG_TYPE = frozenset(
    {
        "string_type",
        "int_type",
        "float_type",
        "bool_type",
        "list_type",
        "dict_type",
        "model_type",
        "model_attributes_type",
        "int_from_float",
        "int_parsing",
        "float_parsing",
    }
)
_OUT_OF_BOUNDS = {
    "greater_than_equal": "it is too low",
    "less_than_equal": "it is too high",
    "finite_number": "it is no finite number",
    "string_too_long": "it is too long",
    "string_too_short": "it is empty",
    "too_long": "it has too many elements",
    "too_short": "it is empty",
}


def schema_at(path: Path) -> Schema:
    """The schema of the field at a path; empty for a field that the type does not have."""
    schema: Schema = structural_schema()
    for part in path:
        if isinstance(part, int):
            schema = schema.get("items", {})
        else:
            schema = schema.get("properties", {}).get(part) or schema.get("additionalProperties") or {}
    return schema


def explain(detail: ErrorDetails, path: Path) -> tuple[str, str, bool]:
    """(what is wrong, what to do, whether the value should be shown) for one error."""
    kind = detail["type"]
    schema = schema_at(path)
    if detail["loc"][-1:] == ("[key]",):
        return (*_BY_PATTERN[_pattern(api.Name)], False)
    if kind == "missing":
        return (*_missing(path, schema), False)
    if kind == "extra_forbidden":
        return (*_unknown(path), False)
    if kind in ("enum", "literal_error"):
        return (*_not_listed(detail["input"], schema), True)
    if kind == "string_pattern_mismatch":
        return (*_mismatch(detail, path), True)
    if kind in _WRONG_TYPE:
        return (*_wrong_type(detail["input"], schema, kind), True)
    if kind in _OUT_OF_BOUNDS:
        return _OUT_OF_BOUNDS[kind], f"allowed: {_allowed(schema)}", True
    if kind == "value_error":
        return (*_value_error(str(detail["ctx"]["error"]), schema), True)
    return detail["msg"].lower(), f"see docs/reference/manifest.md for {'.'.join(map(str, path))}", True


def _allowed(schema: Schema) -> str:
    return bounds({key: value for key, value in schema.items() if key != "pattern"})


def _value_error(message: str, schema: Schema) -> tuple[str, str]:
    if span := duration_bounds(schema):
        return "it is out of bounds", f"allowed: {span[0]} to {span[1]}"
    what, _, remedy = message.partition("; ")
    return what, remedy


def _missing(path: Path, schema: Schema) -> tuple[str, str]:
    if path == ("metadata",):
        return "it is missing", "add metadata with a name"
    meaning = str(schema.get("description", "")).rstrip(".")
    what = f"add {path[-1]}: {meaning[:1].lower()}{meaning[1:]}" if meaning else f"add {path[-1]}"
    return "it is missing", what


def _unknown(path: Path) -> tuple[str, str]:
    """An unknown field: a close name at its level, else its right place, else what there is."""
    name = str(path[-1])
    siblings = list(schema_at(path[:-1]).get("properties", {})) or ["apiVersion", "kind", "metadata", "spec"]
    if to_camel(name) in siblings:
        return "unknown field", f"did you mean {to_camel(name)}? Fields are written in camelCase"
    if matches := close_names(name, siblings):
        return "unknown field", f"did you mean {matches[0]}?"
    homes = [found for found, _, _ in fields(structural_schema()["properties"]["spec"], "spec") if _ends(found, name)]
    highest = min((home.count(".") for home in homes), default=0)
    nearest = [home for home in homes if home.count(".") == highest]
    if len(nearest) == 1:
        return "unknown field here", f"did you mean {nearest[0]}?"
    return "unknown field", f"known here: {', '.join(siblings)}"


def _ends(path: str, name: str) -> bool:
    return path.rsplit(".", 1)[-1].lower() == name.lower()


def close_names(name: str, known: Sequence[str]) -> list[str]:
    """The known name that was probably meant, or none."""
    by_lower = {one.lower(): one for one in known}
    return [by_lower[match] for match in difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.6)]


def _not_listed(value: Any, schema: Schema) -> tuple[str, str]:
    known = [str(one) for one in schema.get("enum", [])]
    listed = f"allowed: {', '.join(known)}"
    matches = close_names(str(value), known)
    return "it is none of the allowed values", f"did you mean {matches[0]}? {listed}" if matches else listed


def _mismatch(detail: ErrorDetails, path: Path) -> tuple[str, str]:
    pattern = str(detail["ctx"]["pattern"])
    if pattern in _BY_PATTERN:
        return _BY_PATTERN[pattern]
    names = [part for part in path if isinstance(part, str)]
    return _BY_FIELD.get(names[-1], ("it has the wrong form", f"it must match {pattern}"))


def _wrong_type(value: Any, schema: Schema, kind: str) -> tuple[str, str]:
    wanted = type_name(schema) if schema else kind.removesuffix("_type")
    found = {dict: "a mapping", list: "a list", str: "a text", bool: "true or false", type(None): "nothing"}.get(
        type(value), "a number"
    )
    if wanted in ("string", "duration"):
        example = ' for example "600s"' if wanted == "duration" else ""
        remedy = f"put it in quotes{example}" if isinstance(value, (bool, int, float)) else "write one text"
    elif wanted in ("number", "integer"):
        remedy = "write a number without quotes" if isinstance(value, str) else f"write one {wanted}"
    elif wanted.startswith("list"):
        remedy = "write one element a line, each after '- '"
    else:
        remedy = f"write its fields below it, indented: {', '.join(_names(schema)) or 'name: value'}"
    return f"it must be {_article(wanted)}, found {found}", remedy


def _names(schema: Schema) -> Iterator[str]:
    yield from schema.get("properties", {})


def _article(wanted: str) -> str:
    words = {"string": "a text", "object": "a mapping", "integer": "a whole number"}
    return words.get(wanted, f"a {wanted.replace('string', 'text')}")

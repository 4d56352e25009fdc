"""Hypothesis strategies for specs: what the schema allows, and the same with one thing spoilt."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

from chatflow_api import crdgen
from chatflow_api.crdgen import Schema
from chatflow_api.v1alpha1 import duration_s
from hypothesis import strategies as st


def values(schema: Schema) -> st.SearchStrategy[Any]:
    """Any value that a schema allows, a little beyond the rules that only CEL states."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    if bounds := crdgen.duration_bounds(schema):
        low, high = (int(duration_s(bound) * 1000) for bound in bounds)
        return st.integers(low, high).map(lambda ms: f"{ms}ms")
    match schema["type"]:
        case "object":
            return _objects(schema)
        case "array":
            return st.lists(values(schema["items"]), min_size=schema.get("minItems", 0), max_size=3)
        case "integer":
            return st.integers(schema["minimum"], schema["maximum"])
        case "number":
            return st.floats(schema["minimum"], schema["maximum"], allow_nan=False)
        case "boolean":
            return st.booleans()
        case _:
            return _texts(schema)


def _objects(schema: Schema) -> st.SearchStrategy[Any]:
    if "additionalProperties" in schema:
        return st.dictionaries(_keys(schema), values(schema["additionalProperties"]), max_size=3)
    fields = {name: values(field) for name, field in schema["properties"].items()}
    required = set(schema.get("required", []))
    return st.fixed_dictionaries(
        {name: value for name, value in fields.items() if name in required},
        optional={name: value for name, value in fields.items() if name not in required},
    )


def _keys(schema: Schema) -> st.SearchStrategy[str]:
    """Keys of a map: their pattern stands in its rule, for Kubernetes has no keyword for it."""
    (rule,) = schema["x-kubernetes-validations"]
    return _matching(rule["rule"].split("'")[1])


def _matching(pattern: str) -> st.SearchStrategy[str]:
    # fullmatch: the $ of Python would let a line end follow, which the pattern of the schema does not.
    return st.from_regex(re.compile(pattern.removeprefix("^").removesuffix("$"), re.ASCII), fullmatch=True)


def _texts(schema: Schema) -> st.SearchStrategy[str]:
    if "pattern" in schema:
        return _matching(schema["pattern"]).filter(lambda text: len(text) <= schema["maxLength"])
    alphabet = st.characters(codec="utf-8", exclude_categories=("Cs", "Cc"))
    return st.text(alphabet, min_size=schema.get("minLength", 0), max_size=min(30, schema["maxLength"]))


_JUNK = st.sampled_from([None, True, -1, 0, 1, 10**19, 0.5, 1e9, "", "x", "5s", "..", "退", [], ["x"], {}, {"x": 1}])


@st.composite
def spoilt(draw: st.DrawFn, specs: st.SearchStrategy[dict[str, Any]]) -> dict[str, Any]:
    """A spec in which one value, anywhere, is replaced by another one, taken away, or joined by an unknown field."""
    spec = copy.deepcopy(draw(specs))
    places = list(_places(spec))
    if not places:
        return spec
    holder, key = draw(st.sampled_from(places))
    match draw(st.sampled_from(["replace", "take away", "join"])):
        case "replace":
            holder[key] = draw(_JUNK)
        case "take away":
            del holder[key]
        case _ if isinstance(holder, dict):
            holder["unheardOf"] = draw(_JUNK)
        case _:
            holder.append(copy.deepcopy(holder[key]))
    return spec


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (object or list, key or index) of a value."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in parts:
        yield value, key
        yield from _places(inner)

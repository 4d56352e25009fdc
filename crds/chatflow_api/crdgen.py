"""The CustomResourceDefinition and its reference page, generated from `v1alpha1`.

`python -m chatflow_api.crdgen` writes crds/chatflows.yaml and docs/reference/manifest.md, `--check` tells whether they
are current (the drift test and CI call it). `validation` reads bounds and descriptions from the same schema.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from chatflow_api import v1alpha1 as api
from chatflow_api.status import Status

Schema = dict[str, Any]
"""A JSON schema; Kubernetes' structural schemas are a subset of its draft 4."""

ROOT = Path(__file__).resolve().parents[2]
CRD_FILE = Path("crds/chatflows.yaml")
REFERENCE_FILE = Path("docs/reference/manifest.md")

KEPT = frozenset(
    {
        "default",
        "description",
        "enum",
        "items",
        "maxItems",
        "maxLength",
        "maxProperties",
        "maximum",
        "minItems",
        "minLength",
        "minimum",
        "pattern",
        "properties",
        "required",
        "type",
    }
)
"""Keywords that are taken over as they are; a structural schema refuses or ignores every other one."""

_MAP_KEYS = {
    "dialogue.slots": "name",
    "dialogue.actions": "name",
    "status.conditions": "type",
    "status.models": "role",
}
"""Lists whose elements are told apart by a field, so that server-side apply can merge them."""

COLUMNS = [
    {"name": "Ready", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].status"},
    {"name": "Reason", "type": "string", "jsonPath": ".status.conditions[?(@.type=='Ready')].reason"},
    {"name": "Gateways", "type": "string", "jsonPath": ".status.gateways"},
    {"name": "LLM", "type": "string", "jsonPath": ".status.models[?(@.role=='llm')].state"},
    {"name": "URL", "type": "string", "jsonPath": ".status.url"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Locale", "type": "string", "jsonPath": ".spec.locale", "priority": 1},
    {
        "name": "Message",
        "type": "string",
        "jsonPath": ".status.conditions[?(@.type=='Ready')].message",
        "priority": 1,
    },
]


class _Dumper(yaml.SafeDumper):
    """Writes lists indented below their key, and equal objects out in full instead of as aliases."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:  # noqa: ARG002
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True


def _rules() -> dict[str, list[tuple[str, str]]]:
    """The CEL rules of every part of the spec, by class name."""
    found: dict[str, list[tuple[str, str]]] = {}
    classes: list[type[api.Spec]] = [api.Spec]
    while classes:
        parent = classes.pop()
        found[parent.__name__] = parent.cel
        classes.extend(parent.__subclasses__())
    return found


def _without_null(schema: Schema) -> Schema:
    """The schema of an optional field: leaving it out says None, so the null branch of pydantic's union goes."""
    if "anyOf" not in schema:
        return schema
    (branch,) = (one for one in schema["anyOf"] if one.get("type") != "null")
    rest = {key: value for key, value in schema.items() if key != "anyOf"}
    return {**branch, **{key: value for key, value in rest.items() if not (key == "default" and value is None)}}


def _without_nulls(value: Any) -> Any:
    """A default as a user would write it: nothing stands for what is not set."""
    if isinstance(value, dict):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return value


class _Translation:
    """Pydantic's schema with its definitions, turned into one structural schema."""

    def __init__(self, definitions: dict[str, Schema]) -> None:
        self._definitions = definitions
        self._rules = _rules()

    def translate(self, schema: Schema, path: str) -> Schema:
        """The structural schema of one node; `path` is its place below spec, without indices."""
        schema = _without_null(schema)
        rules: list[tuple[str, str]] = []
        while "$ref" in schema:
            name = schema["$ref"].rsplit("/", 1)[1]
            rules = self._rules.get(name, [])
            schema = {**self._definitions[name], **{key: value for key, value in schema.items() if key != "$ref"}}
        out = {key: value for key, value in schema.items() if key in KEPT}
        if "default" in out:
            out["default"] = _without_nulls(out["default"])
        if "description" in out:
            out["description"] = " ".join(out["description"].split())
        if "properties" in schema:
            own = {key: value["default"] for key, value in schema["properties"].items() if "default" in value}
            if "default" in out and not rules and _without_nulls(own) == out["default"]:
                # The server fills an empty object from the defaults of its fields. Where there are rules the default
                # stays whole: they are checked on it as it stands when the definition is applied.
                out["default"] = {}
            out["properties"] = {
                key: self.translate(value, f"{path}.{key}".lstrip(".")) for key, value in schema["properties"].items()
            }
        if "items" in schema:
            out["items"] = self.translate(schema["items"], path)
        if "patternProperties" in schema:
            rules = [*rules, *self._map(schema, out, path)]
        if "x-duration" in schema:
            rules = [*rules, _duration_rule(*schema["x-duration"])]
        if rules:
            out["x-kubernetes-validations"] = [{"rule": rule, "message": message} for rule, message in rules]
        if path in _MAP_KEYS and out.get("type") == "array":
            out["x-kubernetes-list-type"] = "map"
            out["x-kubernetes-list-map-keys"] = [_MAP_KEYS[path]]
        return out

    def _map(self, schema: Schema, out: Schema, path: str) -> list[tuple[str, str]]:
        """Kubernetes has no patternProperties: values become additionalProperties, the pattern of the keys a rule."""
        ((pattern, values),) = schema["patternProperties"].items()
        out["additionalProperties"] = self.translate(values, path)
        return [(f"self.all(key, key.matches('{pattern}'))", f"every key must match {pattern}")]


def _duration_rule(lowest: str, highest: str) -> tuple[str, str]:
    return (
        f"duration(self) >= duration('{lowest}') && duration(self) <= duration('{highest}')",
        f"must lie within {lowest} and {highest}",
    )


@cache
def structural_schema() -> Schema:
    """The schema of a whole ChatFlow as the API server holds it. Treat it as read-only: it is shared."""
    raw = api.ChatFlow.model_json_schema(by_alias=True)
    translation = _Translation(raw["$defs"])
    name = translation.translate(raw["$defs"]["Metadata"], "metadata")["properties"]["name"]
    spec = translation.translate(raw["properties"]["spec"], "")
    raw_status = Status.model_json_schema(by_alias=True)
    status = _Translation(raw_status["$defs"]).translate(raw_status, "status")
    return {
        "description": "A customer-service chat, declared in one object.",
        "type": "object",
        "required": ["metadata"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # The API server checks the rest of the metadata itself and allows limits on the name alone.
            "metadata": {"type": "object", "properties": {"name": name}},
            "spec": spec,
            "status": status,
        },
    }


def definition() -> Schema:
    """The CustomResourceDefinition, apiextensions.k8s.io/v1."""
    plural = "chatflows"
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{api.GROUP}"},
        "spec": {
            "group": api.GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": api.KIND,
                "listKind": f"{api.KIND}List",
                "plural": plural,
                "singular": "chatflow",
                "shortNames": ["cf"],
                "categories": ["all", "chatflow"],
            },
            "versions": [
                {
                    "name": api.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": COLUMNS,
                    "schema": {"openAPIV3Schema": structural_schema()},
                }
            ],
        },
    }


def crd_text() -> str:
    """crds/chatflows.yaml."""
    head = "# Generated by `python -m chatflow_api.crdgen`; change v1alpha1.py instead.\n"
    return head + yaml.dump(definition(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def fields(schema: Schema, path: str) -> Iterator[tuple[str, Schema, bool]]:
    """Every field below a node in the order of the type: (path, schema, is required). `[]` stands for an element of a
    list, `.<name>` for a key of a map."""
    required = schema.get("required", [])
    for name, field in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        yield here, field, name in required
        if field.get("type") == "array":
            yield from fields(field["items"], f"{here}[]")
        elif "additionalProperties" in field:
            yield from fields(field["additionalProperties"], f"{here}.<name>")
        else:
            yield from fields(field, here)


def type_name(schema: Schema) -> str:
    """The type in words, for the reference and for messages."""
    if schema.get("type") == "array":
        return f"list of {type_name(schema['items'])}"
    if "additionalProperties" in schema:
        return f"map of {type_name(schema['additionalProperties'])}"
    if duration_bounds(schema):
        return "duration"
    return str(schema.get("type", "any"))


def duration_bounds(schema: Schema) -> tuple[str, str] | None:
    """Lowest and highest value of a duration field; None for every other field."""
    for rule in schema.get("x-kubernetes-validations", []):
        if rule["rule"].startswith("duration(self) >="):
            parts = rule["rule"].split("'")
            return parts[1], parts[3]
    return None


def bounds(schema: Schema) -> str:
    """What values are allowed, in words; empty when all are."""
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if span := duration_bounds(schema):
        return f"{span[0]} to {span[1]}"
    parts: list[str] = []
    for low, high, unit in (
        ("minimum", "maximum", ""),
        ("minLength", "maxLength", " characters"),
        ("minItems", "maxItems", " items"),
        ("minProperties", "maxProperties", " keys"),
    ):
        if low in schema and high in schema:
            parts.append(f"{schema[low]} to {schema[high]}{unit}")
        elif high in schema:
            parts.append(f"at most {schema[high]}{unit}")
        elif low in schema:
            parts.append(f"at least {schema[low]}{unit}")
    if "pattern" in schema:
        parts.append(f"`{schema['pattern']}`")
    return "; ".join(parts)


def _default_text(field: Schema, is_required: bool) -> str:
    if is_required:
        return "required"
    if field.get("type") == "object" and "properties" in field:
        return ""
    if "default" not in field:
        return "unset"
    return f"`{yaml.safe_dump(field['default'], default_flow_style=True).splitlines()[0]}`"


def _row(path: str, field: Schema, is_required: bool) -> str:
    cells = (
        f"`{path}`",
        type_name(field),
        _default_text(field, is_required),
        bounds(field),
        field.get("description", ""),
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _rule_lines(schema: Schema, path: str) -> Iterator[str]:
    if not duration_bounds(schema):
        yield from (f"- `{path}`: {rule['message']}." for rule in schema.get("x-kubernetes-validations", []))
    for inner_path, field, _ in fields(schema, path):
        if duration_bounds(field):
            continue
        nodes = [field, field.get("items", {}), field.get("additionalProperties", {})]
        for rule in [rule for node in nodes for rule in node.get("x-kubernetes-validations", [])]:
            yield f"- `{inner_path}`: {rule['message']}."


def reference_text() -> str:
    """docs/reference/manifest.md: a row for every field, a section for every part of the spec."""
    spec = structural_schema()["properties"]["spec"]
    lines = [
        "# The manifest",
        "",
        "Generated by `python -m chatflow_api.crdgen` from the types; do not edit.",
        "",
        f"`apiVersion: {api.API_VERSION}`, `kind: {api.KIND}`. Durations look like `800ms`, `30s`, `10m`, `1h30m`.",
        "`[]` stands for an element of a list, `<name>` for a key of a map. Unknown fields are refused.",
        "",
    ]
    head = ["| field | type | default | allowed | meaning |", "|---|---|---|---|---|"]
    for name, part in spec["properties"].items():
        rows = [_row(path, field, required) for path, field, required in fields(part, f"spec.{name}")]
        if not rows:
            rows = [_row(f"spec.{name}", part, name in spec.get("required", []))]
        lines += [f"## spec.{name}", "", str(part.get("description", "")), "", *head, *rows, ""]
    lines += ["## Rules over several fields", "", *_rule_lines(spec, "spec"), ""]
    return "\n".join(lines)


@cache
def outputs() -> dict[Path, str]:
    """Every generated file, by its path below the project's root. Treat it as read-only: it is shared."""
    return {CRD_FILE: crd_text(), REFERENCE_FILE: reference_text()}


def drift(root: Path) -> list[Path]:
    """Generated files below `root` that are missing or not what the types say."""
    return [
        path
        for path, text in outputs().items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]


def main(arguments: list[str] | None = None) -> int:
    """Write the files, or with --check tell which are out of date; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m chatflow_api.crdgen", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is out of date")
    parser.add_argument("--root", type=Path, default=ROOT, help="the project's root folder")
    options = parser.parse_args(arguments)
    stale = drift(options.root)
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path} is out of date; run python -m chatflow_api.crdgen\n")
        return 1 if stale else 0
    for path in stale:
        target = options.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(outputs()[path], encoding="utf-8")
        sys.stdout.write(f"wrote {path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

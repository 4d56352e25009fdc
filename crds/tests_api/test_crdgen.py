"""The CustomResourceDefinition: current, structural, and it accepts what the type accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import kubernetes_validate
import pytest
import yaml
from chatflow_api import crdgen
from chatflow_api.crd_rules import completed
from chatflow_api.v1alpha1 import ChatFlow, ChatFlowSpec, Spec
from hypothesis import given, settings
from pydantic import ValidationError
from tests_api.spec_strategies import values

SCHEMA = crdgen.structural_schema()
FORBIDDEN = frozenset(
    [
        *("$ref", "$defs", "definitions", "dependencies", "deprecated", "discriminator", "id", "patternProperties"),
        *("propertyNames", "readOnly", "writeOnly", "xml", "uniqueItems", "additionalItems", "contains", "const"),
        *("if", "then", "else", "examples", "title", "anyOf", "oneOf", "allOf", "not", "nullable"),
    ]
)
"""What a structural schema refuses, plus what this one has no use for."""


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema of the tree, with its path."""
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    for keyword in ("items", "additionalProperties"):
        if keyword in schema:
            yield from nodes(schema[keyword], f"{path}[{keyword}]")


def test_the_generated_files_are_current() -> None:
    assert crdgen.drift(crdgen.ROOT) == [], "run python -m chatflow_api.crdgen"


def test_check_tells_which_file_is_out_of_date(tmp_path: Any, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(tmp_path)]
    assert crdgen.main([*arguments, "--check"]) == 1
    assert "crds/chatflows.yaml is out of date" in capsys.readouterr().err
    assert crdgen.main(arguments) == 0
    assert crdgen.main([*arguments, "--check"]) == 0


def test_the_definition_is_a_valid_kubernetes_object() -> None:
    kubernetes_validate.validate(yaml.safe_load(crdgen.crd_text()), "1.33", strict=True)


def test_every_node_is_structural() -> None:
    for path, node in nodes(SCHEMA):
        assert not FORBIDDEN & set(node), path
        assert "type" in node, path
        assert not ("properties" in node and "additionalProperties" in node), path
        assert set(node) <= crdgen.KEPT | {
            "additionalProperties",
            *(key for key in node if key.startswith("x-kubernetes-")),
        }, path


def test_every_field_of_the_spec_is_described_and_bounded() -> None:
    for path, node, _ in crdgen.fields(SCHEMA["properties"]["spec"], "spec"):
        assert node.get("description"), path
    for path, node in nodes(SCHEMA["properties"]["spec"], "spec"):
        limit = {"string": "maxLength", "array": "maxItems", "integer": "maximum", "number": "maximum"}
        wanted = limit.get(node["type"])
        assert wanted is None or wanted in node or "enum" in node, f"{path} has no {wanted}"
        assert "additionalProperties" not in node or "maxProperties" in node, path


def test_every_default_is_valid_where_it_stands() -> None:
    for path, node in nodes(SCHEMA):
        if "default" in node:
            jsonschema.Draft4Validator(node).validate(node["default"])
            if "properties" in node:
                assert set(node["default"]) <= set(node["properties"]), path


def test_defaults_filled_in_by_the_server_are_those_of_the_type() -> None:
    filled = completed({}, SCHEMA["properties"]["spec"])
    assert ChatFlowSpec.model_validate(filled) == ChatFlowSpec()
    assert filled == json.loads(ChatFlowSpec().model_dump_json(by_alias=True, exclude_none=True))


def test_patterns_are_of_the_kind_that_go_understands() -> None:
    for path, node in nodes(SCHEMA):
        pattern = node.get("pattern", "")
        re.compile(pattern)
        assert not re.search(r"\(\?[=!<]|\\[1-9]|\\Z", pattern), f"{path}: RE2 has no look-around, reference or \\Z"


def test_rules_name_only_fields_that_exist() -> None:
    for path, node in nodes(SCHEMA):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"], path
            for name in re.findall(r"self\.([a-zA-Z]+)(?!\w*\()", rule["rule"]):
                assert name in node["properties"], f"{path}: {rule['rule']} uses {name}"


def test_every_rule_over_several_fields_reaches_the_definition() -> None:
    written = {rule["rule"] for _, node in nodes(SCHEMA) for rule in node.get("x-kubernetes-validations", [])}
    declared = {expression for part in Spec.__subclasses__() for expression, _ in part.cel}
    assert declared
    assert declared <= written


def test_bounds_of_a_duration_become_a_rule() -> None:
    (rule,) = crdgen.structural_schema()["properties"]["spec"]["properties"]["knowledge"]["properties"]["cache"][
        "properties"
    ]["ttl"]["x-kubernetes-validations"]
    assert rule["rule"] == "duration(self) >= duration('1s') && duration(self) <= duration('24h')"


def test_lists_of_named_parts_merge_by_name() -> None:
    dialogue = SCHEMA["properties"]["spec"]["properties"]["dialogue"]["properties"]
    for name in ("slots", "actions"):
        assert dialogue[name]["x-kubernetes-list-type"] == "map"
        assert dialogue[name]["x-kubernetes-list-map-keys"] == ["name"]
        assert "name" in dialogue[name]["items"]["required"]


def test_the_reference_has_a_row_for_every_field() -> None:
    text = crdgen.reference_text()
    for path, _, _ in crdgen.fields(SCHEMA["properties"]["spec"], "spec"):
        assert text.count(f"| `{path}` |") + text.count(f"## {path}\n") >= 1, path


@settings(max_examples=60, deadline=None)
@given(values(SCHEMA["properties"]["spec"]))
def test_what_the_type_accepts_the_schema_accepts_and_reads_back_equal(spec: dict[str, Any]) -> None:
    envelope = {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "shop"}, "spec": spec}
    try:
        flow = ChatFlow.model_validate_json(json.dumps(envelope))
    except ValidationError as error:
        refused = {detail["type"] for detail in error.errors()}
    else:
        refused = set()
    # Only what a rule over several fields says may stand against a value that fits the schema.
    assert refused <= {"value_error"}
    if refused:
        return
    dumped = json.loads(flow.model_dump_json(by_alias=True, exclude_none=True))
    jsonschema.Draft4Validator(SCHEMA).validate(dumped)
    assert completed(dumped["spec"], SCHEMA["properties"]["spec"]) == dumped["spec"]
    assert ChatFlow.model_validate_json(json.dumps(dumped)) == flow
    assert ChatFlow.model_validate(yaml.safe_load(yaml.safe_dump(dumped))) == flow

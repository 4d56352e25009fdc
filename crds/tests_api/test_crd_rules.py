"""The CustomResourceDefinition's rules: they refuse what they are meant to, and never what the types accept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import yaml
from chatflow_api.crd_rules import completed, violations, violations_beyond
from chatflow_api.crdgen import ROOT, Schema, structural_schema
from chatflow_api.v1alpha1 import API_VERSION, KIND
from chatflow_api.validation import ManifestInvalid, path_text, read_manifest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from tests_api.malformed_cases import Case, Refuser, read_cases
from tests_api.spec_strategies import spoilt, values

CASES = read_cases()
SPEC = structural_schema()["properties"]["spec"]


def envelope(spec: Any) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "shop"}, "spec": spec}


def broken(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(path_text(one.path), one.rule) for one in violations(manifest)]


def named_by_validate(manifest: Mapping[str, Any]) -> list[str]:
    """The fields that `chatflow validate` names; none when it accepts the manifest."""
    try:
        read_manifest(yaml.safe_dump(dict(manifest), allow_unicode=True), "shop.yaml")
    except ManifestInvalid as error:
        return [problem.path for problem in error.problems]
    return []


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_a_malformed_manifest_is_refused_and_its_field_named(case: Case) -> None:
    assert set(named_by_validate(case.manifest)) == {case.field}
    found = {path for path, _ in broken(case.manifest)}
    assert (case.at in found) == bool(found) == (case.by is Refuser.CRD)
    assert violations_beyond([case.field], case.manifest) == []


def test_every_rule_of_the_definition_is_broken_by_some_case() -> None:
    assert len({case.id for case in CASES}) == len(CASES)
    told = {rule for case in CASES for _, rule in broken(case.manifest)}
    rules = {rule["rule"] for node in nodes(SPEC) for rule in node.get("x-kubernetes-validations", [])}
    # Rules on a change are the matter of the scenarios: a manifest alone breaks none.
    assert {rule for rule in rules if "oldSelf" not in rule} <= told


def nodes(schema: Schema) -> Iterator[Schema]:
    yield schema
    inner = [*schema.get("properties", {}).values()]
    inner += [schema[keyword] for keyword in ("items", "additionalProperties") if keyword in schema]
    for node in inner:
        yield from nodes(node)


@pytest.mark.parametrize("name", ["shop-support", "saas-support"])
def test_the_examples_break_no_rule(name: str) -> None:
    text = (ROOT / "examples" / name / "chatflow.yaml").read_text(encoding="utf-8")
    assert [broken(document) for document in yaml.safe_load_all(text) if document["kind"] == KIND] == [[]]


def parts_of_a_spec() -> st.SearchStrategy[dict[str, Any]]:
    """Specs with one or two of their parts, so that often nothing is wrong with them."""
    one = st.one_of(
        *(values({"type": "object", "properties": {name: part}}) for name, part in SPEC["properties"].items())
    )
    return st.builds(lambda first, second: {**first, **second}, one, one)


@settings(max_examples=150, deadline=None)
@given(st.one_of(parts_of_a_spec(), spoilt(parts_of_a_spec())))
def test_what_the_types_accept_no_rule_refuses_and_a_refusal_names_what_the_rules_do(spec: dict[str, Any]) -> None:
    manifest = envelope(spec)
    named = named_by_validate(manifest)
    event("refused" if named else "accepted")
    beyond = {one.rule for one in violations_beyond(named, manifest)}
    # Pydantic looks for doubles once all else in the dialogue is right; the API server does so at once.
    assert beyond <= ({"x-kubernetes-list-map-keys"} if named else set())


def test_defaults_stand_before_the_rules_are_asked() -> None:
    assert broken(envelope({"gateway": {"replicas": {"min": 21}}})) == [
        ("spec.gateway.replicas", "self.min <= self.max")
    ]
    assert broken(envelope({"state": {"ttl": "20s"}}))[0][0] == "spec.state"


def test_a_null_is_a_field_that_is_not_set() -> None:
    assert completed({"locale": None, "dialogue": {"greeting": None}}, SPEC) == completed({}, SPEC)


def test_rules_wait_until_types_and_sizes_are_right() -> None:
    spec = {"state": {"ttl": "20s"}, "gateway": {"maxTextLength": "2000"}}
    assert broken(envelope(spec)) == [("spec.gateway.maxTextLength", "type")]


def test_a_pattern_ends_where_the_text_ends() -> None:
    assert broken(envelope({"storage": {"size": "1Gi\n"}})) == [("spec.storage.size", "pattern")]


@pytest.mark.parametrize("path", ["\x00", "..\x00", "a..b", "...", "a/..b/c"])
def test_a_path_that_stays_inside_its_volume_breaks_no_rule(path: str) -> None:
    source = {"persistentVolumeClaim": {"claimName": "docs", "path": path}}
    manifest = envelope({"knowledge": {"sources": [source]}})
    assert (named_by_validate(manifest), broken(manifest)) == ([], [])


@pytest.mark.parametrize("path", ["..", "../a", "a/..", "a\x00/../b"])
def test_a_path_that_leaves_its_volume_breaks_one(path: str) -> None:
    source = {"persistentVolumeClaim": {"claimName": "docs", "path": path}}
    manifest = envelope({"knowledge": {"sources": [source]}})
    assert [at for at, _ in broken(manifest)] == ["spec.knowledge.sources[0].persistentVolumeClaim"]
    assert len(named_by_validate(manifest)) == 1


@pytest.mark.parametrize(
    ("url", "is_refused"),
    [
        ("http://orders", False),
        ("https://orders/x", False),
        ("http://orders?x=/y", False),
        ("http://orders:80/x", True),
        ("http://evil.example/x?http://orders/", True),
        ("http://user@orders/", True),
    ],
)
def test_both_read_the_same_host_from_a_url(url: str, is_refused: bool) -> None:
    action = {"name": "a", "intent": "i", "http": {"url": url}, "reply": "ok"}
    manifest = envelope({"dialogue": {"allowedHosts": ["orders"], "actions": [action]}})
    assert bool(named_by_validate(manifest)) == is_refused
    assert bool(broken(manifest)) == is_refused


def test_what_the_server_keeps_for_itself_is_left_alone() -> None:
    manifest = {**envelope({}), "status": {"anything": 1}}
    manifest["metadata"] = {"name": "shop", "labels": {"a": "b"}}
    assert violations(manifest) == []


@pytest.mark.parametrize("text", ["\ud800", 5], ids=ascii)
def test_what_is_no_text_to_the_cluster_is_told_and_breaks_nothing(text: Any) -> None:
    assert broken(envelope({"dialogue": {"greeting": text}})) == [("spec.dialogue.greeting", "type")]
    assert broken(envelope({"models": {"intent": {"examples": {text: ["a"]}}}})) == [
        ("spec.models.intent.examples", "type")
    ]


@pytest.mark.parametrize("spec", [None, [], "x", 5], ids=repr)
def test_a_spec_that_is_no_object_is_told_or_filled_in(spec: Any) -> None:
    assert broken(envelope(spec)) == ([] if spec is None else [("spec", "type")])


@pytest.mark.parametrize(
    ("reported", "is_told"),
    [
        ("", False),
        ("spec", False),
        ("spec.state.ttl", False),
        ("spec.state", False),
        ("spec.stat", True),
        ("spec.gateway", True),
    ],
)
def test_a_violation_is_told_where_nothing_is_said_of_its_field(reported: str, is_told: bool) -> None:
    found = violations_beyond([reported], envelope({"state": {"closingNotice": "30s", "ttl": "20s"}}))
    assert bool(found) == is_told

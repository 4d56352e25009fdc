"""ChatFlow's definition on a real API server: accepted, explained, with the same defaults and refusals as offline.

The cases are those of the unit tests (crds/tests_api/malformed.yaml); `chatflow validate` refuses every one of them
offline. The definition stays on the cluster when the tests end: with it every ChatFlow there would go.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from chatflow_api.crd_rules import completed
from chatflow_api.crdgen import CRD_FILE, structural_schema
from tests_api.malformed_cases import Case, Refuser, read_cases

from e2e.cluster.kubectl import KubectlFailed
from e2e.harness.workspace import Workspace

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def flows(workspace: Workspace) -> Workspace:
    """A namespace on a cluster that serves ChatFlows."""
    workspace.kubectl.run("apply", "--server-side", "--force-conflicts", f"--filename={ROOT / CRD_FILE}")
    workspace.wait_condition("crd", "chatflows.chatflow.dev", "Established")
    workspace.eventually("ChatFlows are served", lambda: workspace.kubectl.succeeds("get", "chatflows"))
    return workspace


def test_malformed_manifests_are_refused_by_the_definition_and_the_field_named(flows: Workspace) -> None:
    assert verdicts_that_are_wrong(flows, has_webhook=False) == []


def verdicts_that_are_wrong(flows: Workspace, *, has_webhook: bool) -> list[str]:
    """What is wrong with the API server's answers to the cases, a line each. Without ChatFlow's webhook the cases that
    it refuses are left out."""
    cases = [case for case in read_cases() if has_webhook or case.by is Refuser.CRD]
    assert cases
    return [line for case in cases if (line := _wrong_verdict(flows, case))]


def _wrong_verdict(flows: Workspace, case: Case) -> str:
    try:
        dry_run(flows, case.manifest)
    except KubectlFailed as error:
        return "" if case.at in error.error else f"{case.id}: refused without a word of {case.at}: {error.error}"
    return f"{case.id}: accepted"


def dry_run(flows: Workspace, manifest: dict[str, Any]) -> dict[str, Any]:
    """A manifest as the API server would store it; KubectlFailed when it refuses it."""
    text = flows.kubectl.run("apply", "--dry-run=server", "--output=json", "--filename=-", stdin=json.dumps(manifest))
    stored: dict[str, Any] = json.loads(text)
    return stored


@pytest.mark.parametrize("name", ["shop-support", "saas-support"])
def test_an_example_is_accepted_and_completed_as_offline(flows: Workspace, name: str) -> None:
    text = (ROOT / "examples" / name / "chatflow.yaml").read_text(encoding="utf-8")
    (manifest,) = (document for document in yaml.safe_load_all(text) if document["kind"] == "ChatFlow")
    assert dry_run(flows, manifest)["spec"] == completed(manifest, structural_schema())["spec"]


def test_the_smallest_flow_is_completed_as_offline(flows: Workspace) -> None:
    manifest = {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "shop"}}
    assert dry_run(flows, manifest).get("spec", {}) == completed(manifest, structural_schema()).get("spec", {})


@pytest.mark.parametrize("field", ["degradation", "state.redis.managed", "gateway.route", "models.llm.kserve"])
def test_a_field_is_explained_on_the_cluster(flows: Workspace, field: str) -> None:
    schema = structural_schema()["properties"]["spec"]
    for name in field.split("."):
        schema = schema["properties"][name]
    text = " ".join(flows.kubectl.run("explain", f"chatflow.spec.{field}").split())
    assert schema["description"] in text
    assert [part["description"] for part in schema["properties"].values() if part["description"] not in text] == []

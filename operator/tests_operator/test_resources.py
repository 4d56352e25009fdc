"""Every object of a flow, beside the YAML it should be. `UPDATE_GOLDEN=1 pytest` writes the files anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from chatflow_operator.objects import KINDS, Manifest
from chatflow_operator.plan import wanted_objects
from chatflow_operator.resources.job import build, content_hash

from tests_operator.flows import ALL_APIS, EXTERNAL, FULL, REFERENCES, SMALL, frame

GOLDEN = Path(__file__).parent / "golden"
CASES = {"full": FULL, "small": SMALL, "external": EXTERNAL}


def manifests(spec: Manifest, apis: frozenset[str] = ALL_APIS) -> list[Manifest]:
    """All objects of a flow."""
    return [planned.manifest for planned in wanted_objects(frame(spec), apis, "password")]


def pod_specs(found: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Every pod template of the objects, with the object's name."""
    for manifest in found:
        template = manifest.get("spec", {}).get("template")
        if template is not None:
            yield f"{manifest['kind']} {manifest['metadata']['name']}", template["spec"]


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_as_its_golden_file_says(case: str) -> None:
    folder = GOLDEN / case
    made = {f"{one['kind'].lower()}-{one['metadata']['name']}.yaml": one for one in manifests(CASES[case])}
    if os.environ.get("UPDATE_GOLDEN") == "1":
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("*.yaml"):
            old.unlink()
        for name, manifest in made.items():
            text = yaml.safe_dump(manifest, sort_keys=False, allow_unicode=True, width=120)
            (folder / name).write_text(text, encoding="utf-8")
    assert sorted(made) == sorted(path.name for path in folder.glob("*.yaml"))
    for name, manifest in made.items():
        assert manifest == yaml.safe_load((folder / name).read_text(encoding="utf-8")), name


@pytest.mark.parametrize("case", CASES)
def test_every_object_of_kubernetes_own_is_valid(case: str) -> None:
    for manifest in manifests(CASES[case]):
        if not KINDS[manifest["kind"]].is_optional:
            kubernetes_validate.validate(manifest, "1.33", strict=True)


@pytest.mark.parametrize("case", CASES)
def test_every_pod_passes_the_restricted_profile_and_asks_for_resources(case: str) -> None:
    for name, spec in pod_specs(manifests(CASES[case])):
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert spec["automountServiceAccountToken"] is False, name
        for container in spec["containers"]:
            context = container["securityContext"]
            assert context["allowPrivilegeEscalation"] is False, name
            assert context["capabilities"] == {"drop": ["ALL"]}, name
            assert context["readOnlyRootFilesystem"] is True, name
            assert set(container["resources"]["requests"]) == {"cpu", "memory"}, name


@pytest.mark.parametrize("case", CASES)
def test_every_object_is_labelled_and_owned_but_for_kept_volumes(case: str) -> None:
    for planned in wanted_objects(frame(CASES[case]), ALL_APIS, "password"):
        metadata = planned.manifest["metadata"]
        assert {"name", "instance", "component", "part-of", "managed-by"} <= {
            label.removeprefix("app.kubernetes.io/") for label in metadata["labels"]
        }
        assert ("ownerReferences" in metadata) == (planned.name.kind != "PersistentVolumeClaim"), planned.name


@pytest.mark.parametrize("case", CASES)
def test_gateways_stay_longer_than_their_longest_answer(case: str) -> None:
    given = frame(CASES[case])
    specs = dict(pod_specs(manifests(CASES[case])))
    assert specs["Deployment shop-gateway"]["terminationGracePeriodSeconds"] > given.config.gateway.drain_s + 5


def test_no_replicas_are_written_where_an_autoscaler_owns_them() -> None:
    gateway = next(
        one for one in manifests(SMALL) if one["metadata"]["name"] == "shop-gateway" and one["kind"] == "Deployment"
    )
    assert "replicas" not in gateway["spec"]


def test_objects_of_absent_apis_are_left_out_and_the_autoscaler_falls_back() -> None:
    kinds = {one["kind"] for one in manifests(FULL, frozenset())}
    assert not kinds & ALL_APIS
    assert "HorizontalPodAutoscaler" in kinds


def _hash(spec: Manifest) -> str:
    return str(
        next(one for one in manifests(spec) if one["kind"] == "Deployment")["spec"]["template"]["metadata"][
            "annotations"
        ]["chatflow.dev/config-hash"]
    )


@pytest.mark.parametrize(
    ("change", "rolls", "builds"),
    [
        pytest.param({"dialogue": {"greeting": "Hello."}}, True, False, id="a text"),
        pytest.param({"models": {"intent": {"examples": {"hours": ["open?"]}}}}, False, True, id="an example"),
        pytest.param({"gateway": {"replicas": {"min": 4, "max": 9}}}, False, False, id="a number of gateways"),
        pytest.param({"models": {"intent": {"confidence": 0.9}}}, True, True, id="the threshold"),
    ],
)
def test_a_change_rolls_and_builds_what_it_must(change: Manifest, rolls: bool, builds: bool) -> None:
    changed = {**SMALL, **change}
    assert (_hash(changed) != _hash(SMALL)) is rolls
    assert (content_hash(frame(changed)) != content_hash(frame(SMALL))) is builds


def test_new_content_and_the_rebuild_annotation_make_another_job() -> None:
    names = {build(frame(FULL))["metadata"]["name"]}
    names.add(build(frame(FULL, annotations={"chatflow.dev/rebuild": "2"}))["metadata"]["name"])
    assert len(names) == 2
    assert frame(FULL).build_references() == {"ConfigMap/faq/faq.yaml"}
    assert set(frame(FULL).content) >= {
        f"{name.kind}/{name.name}/{key}" for name in REFERENCES for key in REFERENCES[name]
    }


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        pytest.param(
            "http://vllm:8000/v1",
            {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "sales"}}}]},
            id="in the flow's namespace",
        ),
        pytest.param(
            "http://vllm.models.svc:8000/v1",
            {"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "models"}}}]},
            id="in another",
        ),
        pytest.param(
            "http://10.1.2.3:8000/v1",
            {"to": [{"ipBlock": {"cidr": "10.1.2.3/32"}}], "ports": [{"protocol": "TCP", "port": 8000}]},
            id="an address",
        ),
    ],
)
def test_gateways_may_reach_what_the_manifest_names(url: str, expected: Any) -> None:
    spec = {**SMALL, "models": {"llm": {"openAI": {"baseURL": url, "model": "m"}}}}
    policy = next(
        one for one in manifests(spec) if one["kind"] == "NetworkPolicy" and one["metadata"]["name"] == "shop-gateway"
    )
    assert expected in policy["spec"]["egress"]

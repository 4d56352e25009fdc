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
from chatflow_operator.observation import Observed
from chatflow_operator.plan import wanted_objects
from chatflow_operator.resources.job import build, content_hash

from tests_operator.flows import ALL_APIS, EXTERNAL, FULL, REFERENCES, SMALL, frame

GOLDEN = Path(__file__).parent / "golden"
CASES = {"full": FULL, "small": SMALL, "external": EXTERNAL}


def observed(apis: frozenset[str] = ALL_APIS, runtimes: frozenset[str] = frozenset()) -> Observed:
    """A cluster with these APIs and KServe runtimes."""
    return Observed(apis=apis, runtimes=runtimes, password="password")


def manifests(spec: Manifest, cluster: Observed | None = None) -> list[Manifest]:
    """All objects of a flow."""
    return [planned.manifest for planned in wanted_objects(frame(spec), cluster or observed())]


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
    for planned in wanted_objects(frame(CASES[case]), observed()):
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
    kinds = {one["kind"] for one in manifests(FULL, observed(frozenset()))}
    assert not kinds & ALL_APIS
    assert "HorizontalPodAutoscaler" in kinds


def test_kserves_own_vllm_is_used_where_there_is_one() -> None:
    def made(*runtimes: str) -> tuple[list[str], str]:
        found = manifests(FULL, observed(runtimes=frozenset(runtimes)))
        llm = next(one for one in found if (one["kind"], one["metadata"]["name"]) == ("InferenceService", "shop-llm"))
        brought = [one["metadata"]["name"] for one in found if one["kind"] == "ServingRuntime"]
        return brought, llm["spec"]["predictor"]["model"]["runtime"]

    assert made("kserve-vllmserver") == (["shop-intent"], "kserve-vllmserver")
    assert made() == (["shop-intent", "shop-llm"], "shop-llm")


@pytest.mark.parametrize(
    ("kserve", "path"),
    [
        pytest.param({}, "/health", id="vLLM"),
        pytest.param({"format": "huggingface"}, "/v2/health/live", id="KServe's own server"),
        pytest.param({"runtime": "mine"}, None, id="a runtime of which it is not known"),
    ],
)
def test_a_silent_server_is_ended_by_what_it_answers_itself(kserve: Manifest, path: str | None) -> None:
    found = manifests({**SMALL, "models": {"llm": {"kserve": {"storageUri": "hf://m/m", **kserve}}}})
    served = next(one for one in found if one["kind"] == "InferenceService")["spec"]["predictor"]
    assert {served["model"][name]["httpGet"]["port"] for name in ("startupProbe", "readinessProbe")} == {8095}
    probe = served["model"].get("livenessProbe")
    assert (probe and probe["httpGet"]) == (path and {"path": path, "port": 8080})
    assert served["containers"][0]["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": 8095}


def predictor(spec: Manifest, role: str, *runtimes: str) -> Manifest:
    """The predictor of a flow's model."""
    found = manifests(spec, observed(runtimes=frozenset(runtimes)))
    name = ("InferenceService", f"shop-{role}")
    return dict(next(one for one in found if (one["kind"], one["metadata"]["name"]) == name)["spec"]["predictor"])


@pytest.mark.parametrize(
    ("more", "runtimes", "expected"),
    [
        pytest.param({}, (), {"requests": {"cpu": "4", "memory": "16Gi"}}, id="the flow's runtime has none"),
        pytest.param(
            {},
            ("kserve-vllmserver",),
            {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"cpu": "16", "memory": "64Gi"}},
            id="KServe's has lower ones",
        ),
        pytest.param(
            {"runtime": "own", "resources": {"requests": {"cpu": "1500m", "memory": "0.5Gi"}}},
            (),
            {"requests": {"cpu": "1500m", "memory": "0.5Gi"}, "limits": {"cpu": "6000m", "memory": "2.0Gi"}},
            id="the user's may have",
        ),
        pytest.param(
            {"runtime": "own", "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}}},
            (),
            {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "2Gi"}},
            id="a small request does not lower them",
        ),
        pytest.param(
            {"format": "huggingface", "resources": {"requests": {"cpu": "2"}, "limits": {"memory": "24Gi"}}},
            (),
            {"requests": {"cpu": "2", "memory": "24Gi"}, "limits": {"cpu": "8", "memory": "24Gi"}},
            id="a limit of one's own stands, and is asked for",
        ),
    ],
)
def test_no_request_of_a_model_is_above_the_limit_of_its_runtime(
    more: Manifest, runtimes: tuple[str, ...], expected: Manifest
) -> None:
    kserve = {"storageUri": "hf://m/m", "gpu": 0, **more}
    found = predictor({**SMALL, "models": {"llm": {"kserve": kserve}}}, "llm", *runtimes)
    assert found["model"]["resources"] == expected


def test_every_gpu_is_request_and_limit() -> None:
    kserve = {"storageUri": "hf://m/m", "gpu": 2, "gpuResource": "amd.com/gpu"}
    resources = predictor({**SMALL, "models": {"llm": {"kserve": kserve}}}, "llm")["model"]["resources"]
    assert (resources["requests"]["amd.com/gpu"], resources["limits"]) == ("2", {"amd.com/gpu": "2"})


@pytest.mark.parametrize("role", ["llm", "intent"])
def test_a_model_server_stays_for_its_last_answers_and_carries_no_token(role: str) -> None:
    found = predictor(FULL, role)
    stays_s = found["model"]["lifecycle"]["preStop"]["sleep"]["seconds"]
    longest_s = {"llm": 60, "intent": 0}[role]
    assert found["terminationGracePeriodSeconds"] > stays_s >= 10 + longest_s
    assert found["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("models", "storage", "mounting"),
    [
        pytest.param({"intent": {"kserve": {"storageUri": "pvc://shop-data/artefacts"}}}, {}, ["intent"], id="its own"),
        pytest.param({"intent": {"kserve": {"storageUri": "pvc://shop-data-2/intent"}}}, {}, [], id="another one"),
        pytest.param(
            {"llm": {"kserve": {"storageUri": "hf://m/m", "cacheClaim": "shop-data"}}}, {}, ["llm"], id="for a cache"
        ),
        pytest.param(
            {"intent": {"kserve": {"storageUri": "pvc://shop-data/artefacts"}}},
            {"accessMode": "ReadWriteMany"},
            None,
            id="on any node",
        ),
    ],
)
def test_servers_go_to_the_node_of_the_volume_that_they_mount(
    models: Manifest, storage: Manifest, mounting: list[str] | None
) -> None:
    spec = {**SMALL, "models": models, "storage": storage}

    def parts(pod: Manifest) -> list[str] | None:
        """The parts that a pod must stand beside; None for any place."""
        if "affinity" not in pod:
            return None
        (term,) = pod["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (found,) = term["labelSelector"]["matchExpressions"]
        return list(found["values"])

    expected = None if mounting is None else ["gateway", "worker", "build", *mounting]
    (role,) = models
    assert parts(predictor(spec, role)) == (expected if mounting else None)
    assert parts(dict(pod_specs(manifests(spec)))["Deployment shop-gateway"]) == expected


def _model(replicas: tuple[int, int], *, prometheus: bool = True) -> Manifest:
    """A flow whose language model KServe serves, with so many servers."""
    least, most = replicas
    kserve = {"storageUri": "hf://m/m", "replicas": {"min": least, "max": most}}
    observability = {"prometheus": {"url": "http://prometheus:9090"}} if prometheus else {}
    return {**SMALL, "models": {"llm": {"kserve": kserve}}, "observability": observability}


@pytest.mark.parametrize(
    ("spec", "apis", "kinds", "by_kserve"),
    [
        pytest.param(_model((1, 4)), ALL_APIS, {"ScaledObject"}, "external", id="KEDA and Prometheus"),
        pytest.param(_model((0, 1)), ALL_APIS, {"ScaledObject"}, "external", id="from zero"),
        pytest.param(
            _model((1, 4)), ALL_APIS - {"ScaledObject"}, {"HorizontalPodAutoscaler"}, "external", id="without KEDA"
        ),
        pytest.param(
            _model((1, 4), prometheus=False), ALL_APIS, {"HorizontalPodAutoscaler"}, "external", id="no Prometheus"
        ),
        pytest.param(_model((0, 1)), ALL_APIS - {"ScaledObject"}, set(), "none", id="one, for nothing would wake it"),
        pytest.param(_model((3, 3)), ALL_APIS, set(), "none", id="a fixed number, which KServe sets"),
    ],
)
def test_one_and_only_one_chooses_the_number_of_servers(
    spec: Manifest, apis: frozenset[str], kinds: set[str], by_kserve: str
) -> None:
    found = manifests(spec, observed(apis))
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop-llm-predictor"}
    scalers = [one for one in found if one.get("spec", {}).get("scaleTargetRef") == target]
    assert {one["kind"] for one in scalers} == kinds
    service = next(one for one in found if one["kind"] == "InferenceService")
    assert service["metadata"]["annotations"]["serving.kserve.io/autoscalerClass"] == by_kserve
    assert service["spec"]["predictor"]["minReplicas"] >= 1


def test_a_model_at_zero_is_looked_at_more_often_and_woken_by_who_asks_it_alone() -> None:
    found = next(
        one
        for one in manifests(_model((0, 4)))
        if one["kind"] == "ScaledObject" and one["metadata"]["name"] == "shop-llm"
    )
    spec = found["spec"]
    assert (spec["minReplicaCount"], spec["pollingInterval"]) == (0, 5)
    # KEDA would take a fallback of none for leave to go to zero.
    assert spec["fallback"]["replicas"] > 0
    queries = {trigger["name"]: trigger["metadata"]["query"] for trigger in spec["triggers"]}
    assert all("or (vector(0) unless" in queries[name] for name in ("running", "waiting", "cache"))
    askers = "(shop-gateway-|shop-worker-)[a-z0-9]*-?[a-z0-9]{5}"
    assert f'chatflow_model_waiting_turns{{namespace="sales",pod=~"{askers}",role="llm"}}' in queries["held"]


INTENT_SERVER: Manifest = {"kserve": {"storageUri": "pvc://shop-data/artefacts"}, "deadline": "80ms"}


def test_gateways_may_reach_the_intent_server() -> None:
    def egress(spec: Manifest) -> Any:
        name = "networkpolicy-shop-gateway"
        return next(one for one in manifests(spec) if f"{one['kind']}-{one['metadata']['name']}".lower() == name)[
            "spec"
        ]["egress"]

    namespace = {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "sales"}}}
    assert {"to": [namespace]} not in egress(SMALL)
    assert {"to": [namespace]} in egress({**SMALL, "models": {"intent": INTENT_SERVER}})


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
        pytest.param({"models": {"intent": INTENT_SERVER}}, True, False, id="a server for the intent model"),
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

"""What the chart renders: snapshots, written anew by UPDATE_GOLDEN=1, and what holds for every choice of values."""

from __future__ import annotations

import os
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from e2e.harness.helm import Helm, HelmFailed, Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
GOLDEN = Path(__file__).parent / "golden"
NAMESPACED = ("operator.watchNamespaces={shop,bank}",)
SELF_MANAGED = ("operator.webhook.enabled=true",)
CERT_MANAGER = ("operator.webhook.enabled=true", "operator.webhook.certificates=certManager")
CASES = {
    "default": (),
    "namespaced": NAMESPACED,
    "webhook-self-managed": SELF_MANAGED,
    "webhook-cert-manager": CERT_MANAGER,
    "namespaced-webhook": (*NAMESPACED, *SELF_MANAGED),
    "everything-set": (
        "operator.fullnameOverride=assistant",
        "operator.image.tag=v9",
        "operator.image.pullSecrets[0].name=registry",
        "operator.flows.images.runtime=registry.example/runtime:9",
        "operator.flows.images.intent=registry.example/intent:9",
        "operator.flows.images.warmUp=registry.example/warm-up:9",
        "operator.flows.images.vllm=registry.example/vllm:9",
        "operator.flows.images.pullSecrets={one,two}",
        "operator.flows.prometheusNamespace=monitoring",
        "operator.peering.name=team",
        "operator.webhook.enabled=true",
        "operator.webhook.certificates=certManager",
        "operator.webhook.certManager.issuerRef.name=company",
        "operator.webhook.certManager.issuerRef.kind=ClusterIssuer",
        "operator.webhook.failurePolicy=Ignore",
        "operator.serviceAccount.annotations.team=chat",
        "operator.podAnnotations.note=hello",
        "operator.podLabels.tier=platform",
        "operator.priorityClassName=system-cluster-critical",
        "operator.nodeSelector.disk=ssd",
        "operator.tolerations[0].operator=Exists",
        "operator.extraEnv[0].name=HTTPS_PROXY",
        "operator.extraEnv[0].value=http://proxy:3128",
    ),
}


@pytest.fixture(params=CASES.values(), ids=list(CASES))
def objects(helm: Helm, request: pytest.FixtureRequest) -> list[Manifest]:
    return helm.objects(*request.param)


def of_kind(objects: list[Manifest], kind: str) -> list[Manifest]:
    return [one for one in objects if one["kind"] == kind]


def environment(objects: list[Manifest]) -> dict[str, str]:
    (deployment,) = of_kind(objects, "Deployment")
    variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"]
    return {one["name"]: one["value"] for one in variables if "value" in one}


@pytest.mark.parametrize("name", CASES)
def test_the_chart_renders_its_snapshot(helm: Helm, name: str) -> None:
    rendered = helm.template(*CASES[name])
    file = GOLDEN / f"{name}.yaml"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        file.write_text(rendered)
    assert rendered == file.read_text(), "UPDATE_GOLDEN=1 writes the snapshots anew"


def test_every_manifest_is_one_that_kubernetes_knows(objects: list[Manifest]) -> None:
    for manifest in objects:
        try:
            kubernetes_validate.validate(manifest, "1.33", strict=True)
        except kubernetes_validate.SchemaNotFoundError:
            assert manifest["apiVersion"].split("/")[0] in ("kopf.dev", "cert-manager.io")


def test_every_object_says_where_it_belongs(objects: list[Manifest]) -> None:
    for manifest in objects:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/managed-by"] == "Helm"
        assert labels["app.kubernetes.io/instance"] == "chatflow"


def test_the_pod_meets_the_restricted_standard(objects: list[Manifest]) -> None:
    (deployment,) = of_kind(objects, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_no_rule_says_all(objects: list[Manifest]) -> None:
    roles = of_kind(objects, "ClusterRole") + of_kind(objects, "Role")
    rules = [rule for role in roles for rule in role["rules"]]
    assert all("*" not in rule[field] for rule in rules for field in ("apiGroups", "resources", "verbs"))


def test_watched_namespaces_need_no_right_beyond_them(helm: Helm) -> None:
    objects = helm.objects(*NAMESPACED)
    assert not [one["kind"] for one in objects if one["kind"].startswith("Cluster")]
    for kind in ("Role", "RoleBinding", "KopfPeering"):
        assert [one["metadata"]["namespace"] for one in of_kind(objects, kind)] == ["shop", "bank"]
    assert environment(objects)["CHATFLOW_OPERATOR_NAMESPACES"] == "shop,bank"


def test_a_webhook_over_watched_namespaces_leaves_the_others_alone(helm: Helm) -> None:
    objects = helm.objects(*NAMESPACED, *SELF_MANAGED)
    (configuration,) = of_kind(objects, "ValidatingWebhookConfiguration")
    (requirement,) = configuration["webhooks"][0]["namespaceSelector"]["matchExpressions"]
    assert requirement == {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["shop", "bank"]}
    (role,) = of_kind(objects, "ClusterRole")
    assert role["rules"] == [
        {
            "apiGroups": ["admissionregistration.k8s.io"],
            "resources": ["validatingwebhookconfigurations"],
            "resourceNames": [configuration["metadata"]["name"]],
            "verbs": ["get", "patch"],
        }
    ]


@pytest.mark.parametrize("settings", [SELF_MANAGED, CERT_MANAGER], ids=["self managed", "cert-manager"])
def test_the_chart_never_sets_the_certificate_that_the_api_server_trusts(helm: Helm, settings: tuple[str, ...]) -> None:
    assert '"caBundle"' not in str(helm.objects(*settings)).replace("'", '"')


def test_a_webhook_leads_to_the_service_that_the_operator_makes_a_certificate_for(helm: Helm) -> None:
    objects = helm.objects(*SELF_MANAGED)
    (configuration,), (service,) = of_kind(objects, "ValidatingWebhookConfiguration"), of_kind(objects, "Service")
    target, variables = configuration["webhooks"][0]["clientConfig"]["service"], environment(objects)
    assert target["name"] == service["metadata"]["name"]
    assert variables["CHATFLOW_OPERATOR_WEBHOOK_SERVICE"] == f"{target['name']}.{target['namespace']}.svc"
    assert variables["CHATFLOW_OPERATOR_WEBHOOK_CONFIGURATION"] == configuration["metadata"]["name"]
    assert variables["CHATFLOW_OPERATOR_WEBHOOK_PORT"] == "9443"


def test_parts_can_be_left_out(helm: Helm) -> None:
    assert helm.objects("operator.enabled=false") == []
    kinds = {
        one["kind"]
        for one in helm.objects(
            "operator.rbac.create=false",
            "operator.peering.enabled=false",
            "operator.serviceAccount.create=false",
            "operator.serviceAccount.name=mine",
        )
    }
    assert kinds == {"Deployment"}


def test_a_release_of_another_name_has_objects_of_its_own(helm: Helm) -> None:
    documents = yaml.safe_load_all(helm.run("template", "desk", "."))
    assert {one["metadata"]["name"] for one in documents if one and one["kind"] == "Deployment"} == {
        "desk-chatflow-operator"
    }


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("operator.watchNamespaces=shop", "at '/operator/watchNamespaces': got string, want array"),
        ("operator.watchNamespaces={Shop}", "at '/operator/watchNamespaces/0': 'Shop' does not match pattern"),
        ("operator.watchNamespaces={a,a}", "at '/operator/watchNamespaces': items at 0 and 1 are equal"),
        ("operator.replicas=2", "at '/operator': additional properties 'replicas' not allowed"),
        ("operator.workers=0", "at '/operator/workers': minimum: got 0, want 1"),
        ("operator.log.format=text", "at '/operator/log/format': value must be one of 'json', 'console'"),
        ("operator.webhook.enabled=yes", "at '/operator/webhook/enabled': got string, want boolean"),
        (
            "operator.webhook.certificates=vault",
            "at '/operator/webhook/certificates': value must be one of 'selfManaged', 'certManager'",
        ),
        ("operator.webhook.timeoutSeconds=31", "at '/operator/webhook/timeoutSeconds': maximum: got 31, want 30"),
        ("operator.webhook.certManager.issuerRef.kind=Issuer", "missing property 'name'"),
        ("operator.flows.images.redis=", "at '/operator/flows/images/redis'"),
        ("operator.extraEnv[0].value=x", "at '/operator/extraEnv/0': missing property 'name'"),
        ("dashboards.enabled=true", "additional properties 'dashboards' not allowed"),
        ("operator.serviceAccount.create=false", "operator.serviceAccount.name names the ServiceAccount to use"),
    ],
)
def test_wrong_values_are_refused_with_their_path(helm: Helm, setting: str, said: str) -> None:
    with pytest.raises(HelmFailed) as refused:
        helm.template(setting)
    assert said in str(refused.value)

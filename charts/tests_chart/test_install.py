"""The chart on a real API server: installed, upgraded, removed, and what the operator may do there."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from e2e.cluster.kubectl import Kubectl, KubectlFailed
from e2e.cluster.processes import wait_until
from e2e.harness.helm import Helm, HelmFailed, Manifest

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
OPERATOR = "chatflow-operator"
CONFIGURATION = "chatflow-operator-webhook"
CRDS = ("chatflows.chatflow.dev", "clusterkopfpeerings.kopf.dev", "kopfpeerings.kopf.dev")
FLOW = {
    "apiVersion": "chatflow.dev/v1alpha1",
    "kind": "ChatFlow",
    "metadata": {"name": "hello"},
    "spec": {"locale": "en", "knowledge": {"sources": [{"configMap": {"name": "hello-knowledge"}}]}},
}


@dataclass(frozen=True, slots=True)
class Release:
    """A release `chatflow` of the chart, in a namespace of its own."""

    helm: Helm
    kubectl: Kubectl

    def install(self, *settings: str) -> None:
        """Install it, or upgrade it to these values."""
        values = [part for setting in settings for part in ("--set", setting)]
        self.helm.run("upgrade", "--install", "--reset-values", "chatflow", ".", *values)

    def may(self, verb: str, resource: str, namespace: str = "") -> bool:
        """Whether the operator's account may do this to `PLURAL[.GROUP][/SUBRESOURCE][:NAME]`, which need not exist."""
        kind, _, name = resource.partition(":")
        kind, _, part = kind.partition("/")
        plural, _, group = kind.partition(".")
        asked = {"verb": verb, "group": group, "resource": plural, "subresource": part, "name": name}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": {
                "user": f"system:serviceaccount:{self.helm.namespace}:{OPERATOR}",
                "resourceAttributes": {**asked, "namespace": namespace},
            },
        }
        answer = self.kubectl.run("create", "--filename=-", "--output=json", stdin=json.dumps(review))
        return bool(json.loads(answer)["status"]["allowed"])


@pytest.fixture
def release(helm: Helm, control_plane: Kubectl) -> Iterator[Release]:
    for name in ("chatflow-system", "shop", "bank", "other"):
        control_plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    made = Release(helm.on(control_plane.kubeconfig, "chatflow-system"), control_plane)
    # A bed that was kept may hold a release.
    made.helm.run("uninstall", "chatflow", "--ignore-not-found", "--wait")
    yield made
    made.helm.run("uninstall", "chatflow", "--ignore-not-found", "--wait")


def read(release: Release, kind: str, name: str) -> Manifest:
    found = release.kubectl.within(release.helm.namespace).get(kind, name)
    assert found is not None, f"no {kind} {name}"
    return found


def trust(release: Release, bundle: str) -> None:
    """Write a caBundle as the operator does."""
    fields = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": CONFIGURATION},
        "webhooks": [{"name": "validate-chatflow.chatflow.dev", "clientConfig": {"caBundle": bundle}}],
    }
    # kubectl's own validation would want whole webhooks; the operator asks the server.
    flags = ("--server-side", f"--field-manager={OPERATOR}", "--force-conflicts", "--validate=false")
    release.kubectl.run("apply", *flags, "--filename=-", stdin=json.dumps(fields))


def test_the_chart_is_installed_upgraded_and_removed_and_its_crds_stay(release: Release) -> None:
    release.helm.run("install", "chatflow", ".")
    flows = release.kubectl.within("shop")
    assert wait_until(lambda: flows.succeeds("get", "chatflows"), 20)
    flows.apply(FLOW)
    release.install("operator.workers=7", "operator.webhook.enabled=true")
    (container,) = read(release, "deployment", OPERATOR)["spec"]["template"]["spec"]["containers"]
    assert {"name": "CHATFLOW_OPERATOR_WORKERS", "value": "7"} in container["env"]
    read(release, "clusterkopfpeering", OPERATOR)
    release.install()
    assert release.kubectl.get("validatingwebhookconfiguration", CONFIGURATION) is None
    release.helm.run("uninstall", "chatflow", "--wait")
    left = release.kubectl.list("deployments,clusterroles,clusterrolebindings", "app.kubernetes.io/part-of=chatflow")
    assert left == []
    assert all(release.kubectl.get("crd", name) is not None for name in CRDS)
    assert flows.get("chatflow", "hello") is not None
    flows.delete("chatflow", "hello")


@pytest.mark.parametrize("settings", [(), ("operator.watchNamespaces={shop,bank}",)], ids=["cluster", "namespaced"])
def test_the_server_accepts_every_object_strictly(release: Release, settings: tuple[str, ...]) -> None:
    release.install()
    rendered = release.helm.template("operator.webhook.enabled=true", *settings)
    flags = ("--server-side", "--dry-run=server", "--validate=strict", "--force-conflicts")
    release.kubectl.run("apply", *flags, "--filename=-", stdin=rendered)


def test_an_operator_of_the_cluster_may_what_it_does_and_no_more(release: Release) -> None:
    release.install("operator.webhook.enabled=true")
    for kind in ("configmaps", "secrets", "deployments.apps", "jobs.batch", "inferenceservices.serving.kserve.io"):
        for verb in ("get", "list", "watch", "create", "patch", "delete"):
            assert release.may(verb, kind), f"{verb} {kind}"
    assert release.may("patch", "chatflows.chatflow.dev/status")
    assert release.may("update", "chatflows.chatflow.dev/finalizers")
    assert release.may("watch", "customresourcedefinitions.apiextensions.k8s.io")
    assert release.may("patch", f"clusterkopfpeerings.kopf.dev:{OPERATOR}")
    assert release.may("patch", f"validatingwebhookconfigurations.admissionregistration.k8s.io:{CONFIGURATION}")
    assert not release.may("patch", "validatingwebhookconfigurations.admissionregistration.k8s.io:another")
    assert not release.may("patch", "clusterkopfpeerings.kopf.dev:another")
    assert not release.may("patch", "chatflows.chatflow.dev")
    assert not release.may("create", "pods")
    assert not release.may("create", "pods/exec")
    assert not release.may("create", "clusterrolebindings.rbac.authorization.k8s.io")


def test_an_operator_of_namespaces_has_no_right_beyond_them(release: Release) -> None:
    release.install("operator.watchNamespaces={shop,bank}")
    for namespace in ("shop", "bank"):
        assert release.may("patch", "deployments.apps", namespace)
        assert release.may("patch", f"kopfpeerings.kopf.dev:{OPERATOR}", namespace)
    for namespace in ("other", "chatflow-system", ""):
        assert not release.may("get", "secrets", namespace)
    assert not release.may("list", "customresourcedefinitions.apiextensions.k8s.io")
    assert not release.may("list", "namespaces")


def test_user_roles_include_flows(release: Release) -> None:
    release.install()

    def verbs(role: str) -> set[str]:
        rules = release.kubectl.get("clusterrole", role)["rules"] or []  # type: ignore[index]
        return {verb for rule in rules if rule["resources"] == ["chatflows"] for verb in rule["verbs"]}

    # The controller manager aggregates them.
    assert wait_until(lambda: verbs("view") == {"get", "list", "watch"}, 20)
    assert wait_until(lambda: {"get", "create", "delete"} <= verbs("edit"), 20)


def test_an_upgrade_leaves_the_webhooks_certificate_alone(release: Release) -> None:
    release.install("operator.webhook.enabled=true")
    # Any certificate will do: the API server wants a PEM that it can read.
    bundle = read(release, "configmap", "kube-root-ca.crt")["data"]["ca.crt"]
    encoded = base64.b64encode(bundle.encode()).decode()
    trust(release, encoded)
    release.install("operator.webhook.enabled=true", "operator.webhook.timeoutSeconds=9")
    (hook,) = read(release, "validatingwebhookconfiguration", CONFIGURATION)["webhooks"]
    assert (hook["timeoutSeconds"], hook["clientConfig"]["caBundle"]) == (9, encoded)


def test_while_the_operator_is_away_only_a_change_of_spec_waits_for_it(release: Release) -> None:
    release.install()
    flows = release.kubectl.within("shop")
    assert wait_until(lambda: flows.succeeds("get", "chatflows"), 20)
    flows.apply(FLOW)
    release.install("operator.webhook.enabled=true")

    def is_refused() -> bool:
        return not flows.succeeds("patch", "chatflow", "hello", "--type=merge", '-p={"spec":{"locale":"zh-CN"}}')

    # The API server takes up a configuration within a second or so.
    assert wait_until(is_refused, 30)
    with pytest.raises(KubectlFailed, match="failed calling webhook"):
        flows.apply({**FLOW, "metadata": {"name": "another"}})
    flows.run("annotate", "chatflow", "hello", "note=kept")
    flows.delete("chatflow", "hello")


def test_a_namespace_that_is_not_there_is_named(release: Release) -> None:
    with pytest.raises(HelmFailed, match="nowhere"):
        release.install("operator.watchNamespaces={nowhere}")

"""What an operator builds on: CRDs with rules, server-side apply, admission webhooks, garbage collection, tokens."""

from __future__ import annotations

import base64
import textwrap
from pathlib import Path

import pytest

from e2e.cluster.certificates import Authority
from e2e.cluster.kubectl import KubectlFailed, Manifest
from e2e.harness.manifests import container, pod, pod_spec, service
from e2e.harness.workspace import Workspace

GROUP = "bed.chatflow.dev"


def widget(name: str, replicas: int = 1, size: str = "s") -> Manifest:
    """An object of the CRD below."""
    spec = {"replicas": replicas, "size": size}
    return {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec}


def crd() -> Manifest:
    """A CRD with a bound, a rule across fields, a rule on changes, a default, and a status subresource."""
    spec_schema = {
        "type": "object",
        "properties": {
            "replicas": {"type": "integer", "minimum": 0},
            "limit": {"type": "integer", "default": 5},
            "size": {
                "type": "string",
                "x-kubernetes-validations": [{"rule": "self == oldSelf", "message": "size is fixed"}],
            },
        },
        "x-kubernetes-validations": [{"rule": "self.replicas <= self.limit", "message": "replicas exceed the limit"}],
    }
    status_schema = {"type": "object", "properties": {"ready": {"type": "integer"}}}
    schema = {"type": "object", "properties": {"spec": spec_schema, "status": status_schema}}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
        "additionalPrinterColumns": [{"name": "Ready", "type": "integer", "jsonPath": ".status.ready"}],
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"widgets.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"kind": "Widget", "plural": "widgets", "singular": "widget"},
            "versions": [version],
        },
    }


@pytest.fixture
def widgets(workspace: Workspace) -> Workspace:
    """A namespace on a cluster that serves widgets."""
    workspace.apply(crd())
    workspace.wait_condition("crd", f"widgets.{GROUP}", "Established")
    workspace.eventually("widgets are served", lambda: workspace.kubectl.succeeds("get", "widgets"))
    return workspace


def test_a_crd_holds_its_rules_and_its_status_is_apart(widgets: Workspace) -> None:
    widgets.apply(widget("a", replicas=3))
    with pytest.raises(KubectlFailed, match="replicas exceed the limit"):
        widgets.apply(widget("b", replicas=9))
    with pytest.raises(KubectlFailed, match="size is fixed"):
        widgets.apply(widget("a", replicas=3, size="l"))
    with pytest.raises(KubectlFailed, match="greater than or equal to 0"):
        widgets.apply(widget("c", replicas=-1))
    widgets.kubectl.run(
        "patch", "widget", "a", "--subresource=status", "--type=merge", '--patch={"status":{"ready":2}}'
    )
    widgets.kubectl.run("patch", "widget", "a", "--type=merge", '--patch={"status":{"ready":9}}')
    found = widgets.kubectl.get("widget", "a")
    assert found is not None
    assert found["spec"] == {"replicas": 3, "size": "s", "limit": 5}
    assert found["status"] == {"ready": 2}
    assert widgets.kubectl.run("get", "widget", "a").split()[-1] == "2"


def test_server_side_apply_names_the_other_manager_of_a_field(widgets: Workspace) -> None:
    widgets.kubectl.apply(widget("a", replicas=1), manager="one", force=False)
    with pytest.raises(KubectlFailed, match='conflict with "one"'):
        widgets.kubectl.apply(widget("a", replicas=2), manager="two", force=False)
    widgets.kubectl.apply(widget("a", replicas=2), manager="two", force=True)
    found = widgets.kubectl.get("widget", "a")
    assert found is not None
    assert found["spec"]["replicas"] == 2


def test_what_an_object_owns_goes_with_it(widgets: Workspace) -> None:
    widgets.apply(widget("owner"))
    owner = widgets.kubectl.get("widget", "owner")
    assert owner is not None
    reference = {"apiVersion": f"{GROUP}/v1", "kind": "Widget", "name": "owner", "uid": owner["metadata"]["uid"]}
    metadata = {"name": "owned", "ownerReferences": [reference]}
    widgets.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "b"}})
    widgets.kubectl.delete("widget", "owner")
    widgets.wait_gone("configmap", "owned")


WEBHOOK = textwrap.dedent(
    """
    import base64, http.server, json, ssl

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200); self.end_headers()

        def do_POST(self):
            review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            size = review["request"]["object"]["spec"]["size"]
            allowed = self.path.startswith("/mutate") or size != "forbidden"
            response = {"uid": review["request"]["uid"], "allowed": allowed}
            if self.path.startswith("/mutate"):
                patch = [{"op": "add", "path": "/metadata/annotations", "value": {"hook": "was here"}}]
                response |= {"patchType": "JSONPatch", "patch": base64.b64encode(json.dumps(patch).encode()).decode()}
            elif not allowed:
                response["status"] = {"message": "the hook forbids this size"}
            answer = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}
            body = json.dumps(answer).encode()
            self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
            self.wfile.write(body)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("/tls/tls.crt", "/tls/tls.key")
    server = http.server.ThreadingHTTPServer(("", 8443), Hook)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
    """
)


def test_the_api_server_asks_admission_webhooks_in_pods(widgets: Workspace, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    serving = authority.issue("hook", user="hook", hosts=(f"hook.{widgets.name}.svc",))
    secret = {"tls.crt": serving.certificate.read_text(), "tls.key": serving.key.read_text()}
    hook = container(
        widgets.target.image("base"),
        "python3",
        "-c",
        WEBHOOK,
        readinessProbe={"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}, "periodSeconds": 1},
        volumeMounts=[{"name": "tls", "mountPath": "/tls"}],
    )
    volumes = [{"name": "tls", "secret": {"secretName": "tls"}}]
    widgets.apply(
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "tls"}, "stringData": secret},
        pod("hook", pod_spec(hook, volumes=volumes)),
        service("hook", 443, 8443),
    )
    widgets.wait_condition("pod", "hook", "Ready")
    kinds = {"mutate": "MutatingWebhookConfiguration", "validate": "ValidatingWebhookConfiguration"}
    for path, kind in kinds.items():
        widgets.apply(_configuration(widgets.name, path, kind, authority.bundle))
    try:
        widgets.eventually("the mutating webhook is asked", lambda: _is_annotated(widgets))
        widgets.eventually("the validating webhook is asked", lambda: "the hook forbids this size" in _refusal(widgets))
    finally:
        for kind in kinds.values():
            widgets.kubectl.delete(kind, widgets.name)


def _refusal(widgets: Workspace) -> str:
    """Why a widget of the forbidden size is refused; empty when it is not."""
    widgets.kubectl.delete("widget", "f")
    try:
        widgets.apply(widget("f", size="forbidden"))
    except KubectlFailed as error:
        return str(error)
    return ""


def _configuration(namespace: str, path: str, kind: str, bundle: bytes) -> Manifest:
    hook = {
        "name": f"{path}.{GROUP}",
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "clientConfig": {
            "service": {"name": "hook", "namespace": namespace, "path": f"/{path}"},
            "caBundle": base64.b64encode(bundle).decode(),
        },
        "rules": [
            {
                "apiGroups": [GROUP],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["widgets"],
                "scope": "*",
            }
        ],
    }
    api_version = "admissionregistration.k8s.io/v1"
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": namespace}, "webhooks": [hook]}


def _is_annotated(widgets: Workspace) -> bool:
    widgets.kubectl.delete("widget", "m")
    widgets.apply(widget("m"))
    found = widgets.kubectl.get("widget", "m")
    return found is not None and found["metadata"].get("annotations", {}).get("hook") == "was here"


ASK_API = textwrap.dedent(
    """
    import json, ssl, urllib.error, urllib.request
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    token, namespace = (open(f"{account}/{name}").read() for name in ("token", "namespace"))
    context = ssl.create_default_context(cafile=f"{account}/ca.crt")
    def ask(path):
        url = "https://kubernetes.default.svc" + path
        try:
            request = urllib.request.Request(url, headers={"Authorization": "Bearer " + token})
            return urllib.request.urlopen(request, context=context, timeout=5).status
        except urllib.error.HTTPError as error:
            return error.code
    print(ask(f"/api/v1/namespaces/{namespace}/pods"), ask(f"/api/v1/namespaces/{namespace}/secrets"))
    """
)


def test_a_pod_calls_the_api_with_its_token_and_its_rights_alone(workspace: Workspace) -> None:
    rbac = "rbac.authorization.k8s.io"
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    subject = {"kind": "ServiceAccount", "name": "reader", "namespace": workspace.name}
    spec = pod_spec(container(workspace.target.image("base"), "python3", "-c", ASK_API))
    workspace.apply(
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "reader"}},
        {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "reader"}, "rules": [rule]},
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "reader"},
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "reader"},
            "subjects": [subject],
        },
        pod("asker", {**spec, "serviceAccountName": "reader", "restartPolicy": "Never"}),
    )
    workspace.eventually("the pod has asked", lambda: workspace.kubectl.run("logs", "asker").strip())
    assert workspace.kubectl.run("logs", "asker").split() == ["200", "403"]

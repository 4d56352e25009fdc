"""The image of the gateway and the worker as a cluster runs it: not root, a read-only root, the restricted profile."""

from __future__ import annotations

import base64
import http.client
import json
from pathlib import Path

from chatflow_api.runtime_config import derive
from chatflow_api.v1alpha1 import ChatFlow
from chatflow_runtime.adapters.knowledge import SourceFile, build_index, read_files

from e2e.cluster.kubectl import Manifest
from e2e.harness.manifests import RESTRICTED, container, deployment, pod_spec, service
from e2e.harness.workspace import Workspace

READY_WITHIN_S = 120.0


def flow(namespace: str) -> ChatFlow:
    """A flow that greets and knows nothing."""
    return ChatFlow.model_validate(
        {
            "apiVersion": "chatflow.dev/v1alpha1",
            "kind": "ChatFlow",
            "metadata": {"name": "shop", "namespace": namespace},
            "spec": {
                "locale": "en",
                "gateway": {"auth": {"required": False}},
                "dialogue": {"greeting": "Welcome aboard."},
            },
        }
    )


def artefacts(folder: Path) -> dict[str, bytes]:
    """What a gateway loads: the index of one answer, and no intent model; contents by path."""
    pair = b"- id: hours\n  question: When are you open?\n  answer: From nine to five.\n"
    knowledge = read_files([SourceFile("hours.yaml", pair)])
    index = build_index(knowledge, None, folder / "knowledge")
    (folder / "current.json").write_text(json.dumps({"knowledge": index.version}))
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def role(image: str, name: str, artefact_paths: dict[str, str]) -> Manifest:
    """A pod's spec for one role of the runtime."""
    environment = {
        "CHATFLOW_CONFIG": "/etc/chatflow/config.json",
        "CHATFLOW_REDIS_URL": "redis://redis:6379",
        "CHATFLOW_HOST": "0.0.0.0",  # noqa: S104 - inside a pod
    }
    main = {
        "name": "main",
        "image": image,
        "args": ["--role", name],
        "env": [{"name": key, "value": value} for key, value in environment.items()],
        "securityContext": RESTRICTED,
        "startupProbe": {"httpGet": {"path": "/readyz", "port": 9090}, "periodSeconds": 1, "failureThreshold": 90},
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9090}, "periodSeconds": 2},
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/chatflow"},
            {"name": "artefacts", "mountPath": "/var/lib/chatflow/artefacts"},
            {"name": "records", "mountPath": "/var/lib/chatflow/records"},
            {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - the pod's own
        ],
    }
    items = [{"key": key, "path": path} for key, path in artefact_paths.items()]
    volumes = [
        {"name": "config", "configMap": {"name": "config"}},
        {"name": "artefacts", "configMap": {"name": "artefacts", "items": items}},
        {"name": "records", "emptyDir": {}},
        {"name": "tmp", "emptyDir": {}},
    ]
    return {**pod_spec(main), "volumes": volumes, "terminationGracePeriodSeconds": 30}


def test_the_image_answers_as_a_gateway_without_root_or_a_writable_root(workspace: Workspace, tmp_path: Path) -> None:
    workspace.kubectl.run("label", "namespace", workspace.name, "pod-security.kubernetes.io/enforce=restricted")
    image = workspace.target.image("runtime")
    redis = container(
        workspace.target.image("redis"), "redis-server", "--protected-mode", "no", "--save", "", "--dir", "/data",
        volumeMounts=[{"name": "data", "mountPath": "/data"}],
        readinessProbe={"tcpSocket": {"port": 6379}, "periodSeconds": 1},
    )  # fmt: skip
    config = derive(flow(workspace.name)).model_dump_json(by_alias=True)
    contents = artefacts(tmp_path)
    paths = {f"file-{number}": path for number, path in enumerate(contents)}
    files = {key: base64.b64encode(contents[path]).decode() for key, path in paths.items()}
    workspace.apply(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "artefacts"}, "binaryData": files},
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "config"}, "data": {"config.json": config}},
        deployment("redis", pod_spec(redis, volumes=[{"name": "data", "emptyDir": {}}])),
        service("redis", 6379, 6379),
        deployment("gateway", role(image, "gateway", paths)),
        service("gateway", 8080, 8080),
        deployment("worker", role(image, "worker", paths)),
    )
    for name in ("redis", "gateway", "worker"):
        workspace.wait_rollout("deployment", name, READY_WITHIN_S)
    with workspace.port_forward("service/gateway", 8080) as port:
        assert say(port, "hello")["text"] == "Welcome aboard."
    assert workspace.kubectl.run("exec", "deployment/gateway", "--", "id", "-u").strip() == "10001"
    tools = "import shutil; print([tool for tool in ('gcc', 'cc', 'make', 'pip') if shutil.which(tool)])"
    assert workspace.kubectl.run("exec", "deployment/gateway", "--", "python", "-c", tools).strip() == "[]"


def say(port: int, text: str) -> Manifest:
    """The reply to one message of a new user."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        body = json.dumps({"uid": "u1", "message_id": "m1", "text": text})
        connection.request("POST", "/v1/chat", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        reply: Manifest = json.loads(response.read())
        assert response.status == http.HTTPStatus.OK, reply
        return reply
    finally:
        connection.close()

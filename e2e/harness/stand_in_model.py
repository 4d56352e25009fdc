"""A language model for scenarios: a small server behind KServe in place of vLLM, slow when it is cold."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from e2e.cluster.kubectl import Manifest

from .flows import chat
from .workspace import Workspace

COLD = 5
_SERVER = Path(__file__).with_name("openai_stand_in.py")
_POST = (
    "import contextlib, http.client, sys\n"
    "server = http.client.HTTPConnection('127.0.0.1', 8080)\n"
    "with contextlib.suppress(OSError, http.client.HTTPException):\n"
    "    server.request('POST', sys.argv[1])\n"
    "    server.getresponse()\n"
)


def objects(workspace: Workspace) -> list[Manifest]:
    """What a flow's `kserve` needs beside it: the server's code, its ServingRuntime, and a claim for `storageUri`."""
    container = {
        "name": "kserve-container",
        "image": workspace.target.image("runtime"),
        "imagePullPolicy": "IfNotPresent",
        "command": ["python", "/script/server.py", "8080", "{{.Name}}", str(COLD)],
        "volumeMounts": [{"name": "script", "mountPath": "/script"}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    return [
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "stand-in"},
            "data": {"server.py": _SERVER.read_text(encoding="utf-8")},
        },
        {
            "apiVersion": "serving.kserve.io/v1alpha1",
            "kind": "ServingRuntime",
            "metadata": {"name": "stand-in"},
            "spec": {
                "supportedModelFormats": [{"name": "vLLM", "version": "1"}],
                "volumes": [{"name": "script", "configMap": {"name": "stand-in"}}],
                "containers": [container],
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "models"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
        },
    ]


def model(**more: Any) -> Manifest:
    """`models.llm` of a flow that is served by it."""
    kserve = {
        "storageUri": "pvc://models/tiny",
        "runtime": "stand-in",
        "gpu": 0,
        "sharedMemory": "1Mi",
        "resources": {"requests": {"cpu": "20m", "memory": "64Mi"}, "limits": {"memory": "128Mi"}},
        # Its ten milliseconds are told apart from a busy node's hiccups by more than the default.
        "warmUp": {"ratio": 5},
        **more,
    }
    # A busy node answers late; what is asked here is that it answers.
    return {"kserve": kserve, "firstTokenDeadline": "10s", "answerDeadline": "30s"}


def pods(workspace: Workspace, flow: str) -> list[Manifest]:
    """The pods of a flow's language model that are not going."""
    found = workspace.kubectl.list("pods", f"serving.kserve.io/inferenceservice={flow}-llm")
    return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]


def ready_pods(workspace: Workspace, flow: str) -> list[str]:
    """Names of those that take traffic."""
    return [
        pod["metadata"]["name"]
        for pod in pods(workspace, flow)
        if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))
    ]


def post(workspace: Workspace, pod: str, path: str) -> None:
    """Tell a server something. One that ends takes its container with it, and so the one that told it."""
    workspace.kubectl.succeeds("exec", pod, "--container=kserve-container", "--", "python", "-c", _POST, path)


@contextmanager
def users(workspace: Workspace, flow: str, *names: str) -> Iterator[list[Manifest]]:
    """Users who talk without a pause while the context lasts; their replies, growing. Each question is another one."""
    stop, replies = threading.Event(), list[Manifest]()

    def talk(name: str) -> None:
        with chat(workspace, flow) as reached:
            number = 0
            while not stop.is_set():
                number += 1
                replies.append(
                    reached.ask(f"Tell me story {number} about {name}.", user=f"{name}-{number}", timeout_s=60)
                )

    threads = [threading.Thread(target=talk, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    try:
        yield replies
    finally:
        stop.set()
        for thread in threads:
            thread.join()

"""What scenarios with ChatFlows share: the operator by its chart, the examples on a cluster, questions to the chat."""

from __future__ import annotations

import http.client
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import yaml
from chatflow_operator.objects import CHILDREN

from e2e.cluster.kubectl import Kubectl, Manifest
from e2e.cluster.layout import REPOSITORY

from .helm import Helm, program
from .target import Target
from .workspace import Workspace

NAMESPACE = "chatflow-system"
RELEASE = "chatflow"
OPERATOR = "chatflow-operator"
SELECTOR = "app.kubernetes.io/managed-by=chatflow-operator"
SMALL = {"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}
"""A node of the bed has two cores for everything."""


@dataclass(frozen=True, slots=True)
class Operator:
    """The operator, installed by its chart."""

    kubectl: Kubectl
    helm: Helm
    values: tuple[str, ...]

    def install(self, *more: str) -> None:
        """Install the chart, or upgrade it, and wait until the operator runs."""
        settings = [part for value in (*self.values, *more) for part in ("--set", value)]
        self.helm.run("upgrade", "--install", "--create-namespace", RELEASE, ".", *settings)
        self.kubectl.within(NAMESPACE).run("rollout", "status", f"deployment/{OPERATOR}", "--timeout=120s")

    def pod(self) -> Manifest:
        """Its pod, when one runs and is not going."""
        pods = [
            pod
            for pod in self.kubectl.within(NAMESPACE).list("pods", f"app.kubernetes.io/instance={RELEASE}")
            if "deletionTimestamp" not in pod["metadata"]
        ]
        assert len(pods) == 1, [pod["metadata"]["name"] for pod in pods]
        return pods[0]

    def log(self) -> str:
        """The end of its log."""
        return self.kubectl.within(NAMESPACE).run("logs", f"deployment/{OPERATOR}", "--tail=60")


def operator_on(target: Target) -> Operator:
    """The operator for a cluster, with the images that were built for it; not installed yet."""
    images = {name: target.image(name) for name in ("operator", "runtime", "builder", "redis", "intent", "warm-up")}
    repository, _, tag = images["operator"].rpartition(":")
    flows = "operator.flows.images"
    values = (
        f"operator.image.repository={repository}",
        f"operator.image.tag={tag}",
        *(f"{flows}.{name}={images[name]}" for name in ("runtime", "builder", "redis", "intent")),
        f"{flows}.warmUp={images['warm-up']}",
        "operator.webhook.enabled=true",
        "operator.resources.requests.cpu=20m",
        # A bed that was kept may hold an operator of an older image under the same name.
        f"operator.podAnnotations.chatflow\\.test/image={_imported(target)}",
    )
    helm = Helm(program(), REPOSITORY).on(target.kubectl.kubeconfig, NAMESPACE)
    return Operator(target.kubectl, helm, values)


def _imported(target: Target) -> str:
    """What the operator's image was built from."""
    if target.bed is None:
        return "foreign"
    return (target.bed.layout.state / "imported/operator").read_text().removesuffix(".tar")


def example(name: str, workspace: Workspace, spec: Manifest | None = None) -> tuple[Manifest, list[Manifest]]:
    """(the ChatFlow, its ConfigMaps) of an example, with one state server, sized for the bed, and `spec` merged in."""
    rendered = workspace.kubectl.run("kustomize", str(REPOSITORY / "examples" / name))
    documents = [document for document in yaml.safe_load_all(rendered) if document]
    (flow,) = [one for one in documents if one["kind"] == "ChatFlow"]
    flow["spec"] = merged(flow["spec"], sized(), spec or {})
    return flow, [one for one in documents if one["kind"] == "ConfigMap"]


def sized(replicas: int = 1) -> Manifest:
    """The part of a spec that makes a flow small enough for the bed."""
    redis = {
        "replicas": replicas,
        "resources": {"requests": {"cpu": "50m", "memory": "32Mi"}, "limits": {"memory": "128Mi"}},
    }
    # One user asks without pause while a scenario goes on.
    unlimited = {"perUser": {"messages": 0}}
    return {"gateway": {"resources": SMALL, "rateLimit": unlimited}, "state": {"redis": {"managed": redis}}}


def merged(*parts: Manifest) -> Manifest:
    """Mappings laid over each other, the later ones on top."""
    out: Manifest = {}
    for part in parts:
        for key, value in part.items():
            out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def conditions(workspace: Workspace, name: str) -> dict[str, Manifest]:
    """A flow's conditions by type."""
    found = workspace.kubectl.get("chatflow", name)
    return {} if found is None else {one["type"]: one for one in found.get("status", {}).get("conditions", ())}


def wait_ready(workspace: Workspace, name: str, deadline_s: float = 180.0) -> None:
    """Wait until a flow is ready for its newest spec."""

    def check() -> bool:
        found = workspace.kubectl.get("chatflow", name)
        assert found is not None
        ready = conditions(workspace, name).get("Ready", {})
        return ready.get("status") == "True" and ready["observedGeneration"] == found["metadata"]["generation"]

    try:
        workspace.eventually(f"ChatFlow {name} is ready", check, deadline_s)
    except AssertionError as error:
        raise AssertionError(f"{error}\n--- conditions\n{json.dumps(conditions(workspace, name), indent=1)}") from error


def children(workspace: Workspace, name: str) -> dict[str, Manifest]:
    """Everything that carries the flow's labels, as `Kind name`."""
    served = {line.split("/")[-1] for line in workspace.kubectl.run("api-resources", "--output=name").split()}
    plurals = [kind.plural for kind in CHILDREN if f"{kind.plural}{'.' * bool(kind.group)}{kind.group}" in served]
    found = workspace.kubectl.list(",".join(plurals), f"{SELECTOR},app.kubernetes.io/instance={name}")
    return {f"{one['kind']} {one['metadata']['name']}": one for one in found}


def specs(workspace: Workspace, name: str) -> dict[str, str]:
    """What the operator asks of each object, without what controllers and the server add."""
    return {key: json.dumps(_asked(one), sort_keys=True) for key, one in children(workspace, name).items()}


def _asked(one: Manifest) -> Any:
    if one["kind"] == "PersistentVolumeClaim":
        # Binding fills the rest of its spec in.
        return one["spec"]["resources"]
    return [one.get("spec"), one.get("data"), one["metadata"].get("generation")]


@contextmanager
def chat(workspace: Workspace, name: str, sessions: dict[str, str] | None = None) -> Iterator[Chat]:
    """A way to the chat through its Service, while the context lasts. With the sessions of an earlier one its users are
    the same."""
    with workspace.port_forward(f"service/{name}-gateway", 80) as port:
        yield Chat(port, {} if sessions is None else sessions)


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat on a port of this machine. Every user has a session of their own."""

    port: int
    sessions: dict[str, str] = field(default_factory=dict)
    """Tokens by user."""

    def ask(self, text: str, user: str = "tester", message_id: str | None = None, timeout_s: float = 10.0) -> Manifest:
        """The reply to one message, which may be a repeated one; OSError or HTTPException while nobody answers."""
        body = {"text": text, "message_id": message_id}
        with self._asked("POST", "/v1/chat", body, timeout_s, user) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def leave(self, text: str, user: str = "tester", timeout_s: float = 120.0) -> Manifest:
        """The reply to a message that is answered later, as the user's outbox brings it."""
        with self._asked("POST", "/v1/messages", {"text": text}, timeout_s, user) as answer:
            accepted = json.loads(answer.read())
        path = f"/v1/events?last_event_id={accepted['last_event_id']}"
        with self._asked("GET", path, None, timeout_s, user) as stream:
            for line in stream:
                if line.startswith(b"data: "):
                    found: dict[str, Any] = json.loads(line.removeprefix(b"data: "))
                    if found["message_id"] == accepted["message_id"]:
                        return found
        raise http.client.HTTPException("the stream ended before the reply came")

    def _token(self, user: str, timeout_s: float) -> str:
        if user not in self.sessions:
            with self._asked("POST", "/v1/sessions", None, timeout_s) as answer:
                self.sessions[user] = json.loads(answer.read())["token"]
        return self.sessions[user]

    @contextmanager
    def _asked(
        self, method: str, path: str, body: Manifest | None, timeout_s: float, user: str | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"Content-Type": "application/json"}
            if user is not None:
                headers["Authorization"] = f"Bearer {self._token(user, timeout_s)}"
            connection.request(method, path, content, headers)
            answer = connection.getresponse()
            if answer.status not in (200, 201, 202):
                raise http.client.HTTPException(f"{answer.status}: {answer.read().decode(errors='replace')}")
            yield answer
        finally:
            connection.close()


def first_answer_s(workspace: Workspace, name: str, text: str, began: float, deadline_s: float = 120.0) -> float:
    """Seconds from `began` (monotonic) until the chat has answered a question from its knowledge through its
    Service."""

    def attempt() -> bool:
        try:
            with chat(workspace, name) as reached:
                return reached.ask(text)["origin"] in ("knowledge", "cache")
        except (AssertionError, subprocess.SubprocessError):
            return False

    def has_gateway() -> bool:
        found = workspace.kubectl.get("deployment", f"{name}-gateway")
        return bool(found and found.get("status", {}).get("readyReplicas"))

    workspace.eventually("a gateway is ready", has_gateway, deadline_s)
    workspace.eventually("the first answer", attempt, deadline_s)
    return time.monotonic() - began

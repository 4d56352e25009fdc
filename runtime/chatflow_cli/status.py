"""`chatflow status NAME` (also `kubectl chatflow status NAME`): a flow on a cluster, as a tree."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import click
from chatflow_api.names import LABEL_FLOW, LABEL_MANAGED_BY, MANAGED_BY

from chatflow_cli.errors import CommandFailed

KINDS = (
    "deployments",
    "statefulsets",
    "jobs",
    "pods",
    "services",
    "horizontalpodautoscalers",
    "persistentvolumeclaims",
)
PARTS = ("gateway", "worker", "redis", "build", "data", "pods")
_MARKS = {"True": ("✓", "green"), "False": ("✗", "red"), "Unknown": ("?", "yellow")}


@click.command("status")
@click.argument("name")
@click.option("-n", "--namespace", help="Namespace of the flow; that of your kubectl context without it.")
@click.option("--context", help="Context of your kubeconfig.")
@click.option("-o", "--output", type=click.Choice(["tree", "json"]), default="tree", show_default=True)
def command(name: str, namespace: str | None, context: str | None, output: str) -> None:
    """Show how the ChatFlow NAME is: conditions, models, and its objects.

    It asks your kubectl, with its contexts and logins. The status is 1 when the flow is not ready.
    """
    kubectl = _Kubectl(namespace, context)
    flow = kubectl.json("get", "chatflow", name)
    if output == "json":
        click.echo(json.dumps(flow.get("status", {}), ensure_ascii=False, indent=2))
    else:
        selector = f"{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_FLOW}={name}"
        objects = kubectl.json("get", ",".join(KINDS), f"--selector={selector}")["items"]
        for line in tree(flow, objects):
            click.echo(line)
    if not _is_ready(flow):
        raise SystemExit(1)


class _Kubectl:
    """The user's own kubectl."""

    def __init__(self, namespace: str | None, context: str | None) -> None:
        program = shutil.which("kubectl")
        if program is None:
            raise CommandFailed(
                "kubectl is not on the PATH; install it, or use `kubectl chatflow status` from where it is"
            )
        self._command = [program, *([f"--context={context}"] if context else [])]
        self._scope = [f"--namespace={namespace}"] if namespace else []

    def json(self, *arguments: str) -> dict[str, Any]:
        """What kubectl prints; CommandFailed with its own words."""
        ran = subprocess.run(
            [*self._command, *arguments, *self._scope, "--output=json"], capture_output=True, text=True, check=False
        )
        if ran.returncode:
            raise CommandFailed(ran.stderr.strip() or f"kubectl ended with {ran.returncode}")
        found: dict[str, Any] = json.loads(ran.stdout)
        return found


def _is_ready(flow: Mapping[str, Any]) -> bool:
    conditions = flow.get("status", {}).get("conditions", ())
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def tree(flow: Mapping[str, Any], objects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The lines for a flow and the objects of its label."""
    metadata, status = flow["metadata"], flow.get("status", {})
    url = f"  {status['url']}" if "url" in status else ""
    yield f"ChatFlow {metadata['namespace']}/{metadata['name']}{url}"
    conditions = status.get("conditions", [])
    if not conditions:
        yield "  no status yet; is the operator running?"
    elif status.get("observedGeneration") != metadata.get("generation"):
        yield "  the operator has not seen the newest spec yet"
    for condition in conditions:
        mark, colour = _MARKS[condition["status"]]
        yield f"├─ {click.style(mark, fg=colour)} {condition['type']}: {condition['reason']}. {condition['message']}"
    for model in status.get("models", ()):
        message = f" ({model['message']})" if model.get("message") else ""
        yield f"├─ model {model['role']}: {model['state']}, {model['name']} by {model['source']}{message}"
    yield from _objects(objects)


def _objects(objects: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    by_part: dict[str, list[Mapping[str, Any]]] = {}
    for one in objects:
        by_part.setdefault(one["metadata"]["labels"].get("app.kubernetes.io/component", "other"), []).append(one)
    parts = sorted(by_part, key=lambda part: (PARTS.index(part) if part in PARTS else len(PARTS), part))
    for number, part in enumerate(parts):
        is_last = number == len(parts) - 1
        yield f"{'└' if is_last else '├'}─ {part}"
        stem = " " if is_last else "│"
        found = sorted(by_part[part], key=lambda one: (one["kind"] == "Pod", one["kind"], one["metadata"]["name"]))
        for index, one in enumerate(found):
            branch = "└" if index == len(found) - 1 else "├"
            yield f"{stem}  {branch}─ {one['kind']} {one['metadata']['name']}  {_summary(one)}".rstrip()


def _summary(one: Mapping[str, Any]) -> str:
    status, spec = one.get("status", {}), one.get("spec", {})
    match one["kind"]:
        case "Deployment" | "StatefulSet":
            return f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)} ready"
        case "Job":
            ended = [found["type"] for found in status.get("conditions", ()) if found["status"] == "True"]
            return ended[-1].lower() if ended else "running"
        case "Pod":
            restarts = sum(container.get("restartCount", 0) for container in status.get("containerStatuses", ()))
            return f"{_pod_state(status)}{f', {restarts} restarts' if restarts else ''}"
        case "HorizontalPodAutoscaler":
            bounds = f"{spec['minReplicas']} to {spec['maxReplicas']}"
            return f"{status.get('currentReplicas', 0)} of {bounds}"
        case "PersistentVolumeClaim":
            return str(status.get("phase", "")).lower()
        case _:
            return ""


def _pod_state(status: Mapping[str, Any]) -> str:
    for container in status.get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in (None, "ContainerCreating"):
            return str(waiting["reason"])
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    if status.get("phase") == "Running":
        return "ready" if conditions.get("Ready") == "True" else "not ready"
    return str(status.get("phase", "")).lower()

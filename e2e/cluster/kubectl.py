"""The one way to the API server: the kubectl program, with a kubeconfig."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import BedError

Manifest = dict[str, Any]
"""A Kubernetes object as in JSON."""

FIELD_MANAGER = "chatflow-test-bed"


class KubectlFailed(BedError):
    """kubectl ended with an error; the message is its own."""

    def __init__(self, arguments: Iterable[str], error: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: {error.strip()}")
        self.error = error.strip()


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl bound to a kubeconfig and, where given, to a namespace."""

    program: Path
    kubeconfig: Path
    namespace: str | None = None

    def within(self, namespace: str) -> Kubectl:
        """The same, for one namespace."""
        return Kubectl(self.program, self.kubeconfig, namespace)

    def command(self, *arguments: str) -> list[str]:
        """The full command line."""
        scope = [] if self.namespace is None else [f"--namespace={self.namespace}"]
        return [str(self.program), f"--kubeconfig={self.kubeconfig}", *scope, *arguments]

    def run(self, *arguments: str, stdin: str | None = None, timeout_s: float = 120.0) -> str:
        """kubectl's output; KubectlFailed with its words."""
        try:
            ran = subprocess.run(
                self.command(*arguments), input=stdin, capture_output=True, text=True, timeout=timeout_s
            )
        except subprocess.TimeoutExpired as error:
            raise KubectlFailed(arguments, f"no answer within {timeout_s:.0f} s") from error
        if ran.returncode:
            raise KubectlFailed(arguments, ran.stderr or ran.stdout)
        return ran.stdout

    def succeeds(self, *arguments: str) -> bool:
        """Whether the command ends well, within a few seconds."""
        try:
            self.run(*arguments, timeout_s=10.0)
        except KubectlFailed:
            return False
        return True

    def get(self, kind: str, name: str) -> Manifest | None:
        """One object; None where there is none of that name."""
        found = self.run("get", kind, name, "--ignore-not-found", "--output=json")
        return json.loads(found) if found.strip() else None

    def list(self, kind: str, selector: str = "") -> list[Manifest]:
        """The objects of a kind, chosen by label `selector`."""
        items: list[Manifest] = json.loads(self.run("get", kind, "--selector", selector, "--output=json"))["items"]
        return items

    def apply(self, *manifests: Mapping[str, Any], manager: str = FIELD_MANAGER, force: bool = True) -> None:
        """Server-side apply as `manager`; without `force` a field of another manager is an error."""
        if not manifests:
            return
        bundle = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifests)})
        flags = ["--server-side", f"--field-manager={manager}", *(["--force-conflicts"] if force else [])]
        self.run("apply", *flags, "--filename=-", stdin=bundle)

    def delete(self, kind: str, name: str, *, wait: bool = True) -> None:
        """Delete an object, if it is there."""
        self.run("delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}")

    def exec(self, pod: str, *command: str, container: str | None = None) -> str:
        """Run a command in a pod's container and give its output."""
        chosen = [] if container is None else [f"--container={container}"]
        return self.run("exec", pod, *chosen, "--", *command)

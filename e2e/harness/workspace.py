"""One namespace of a test: apply, wait, reach in; a wait that fails shows what the cluster knew."""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from e2e.cluster.addons.base import is_condition_true
from e2e.cluster.kubectl import Kubectl, KubectlFailed, Manifest

from .target import Target

POLL_S = 0.2
LOG_LINES = 30
_SHOWN = "pods,deployments,statefulsets,jobs,services,horizontalpodautoscalers,persistentvolumeclaims"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A namespace, with the cluster that it is in."""

    name: str
    kubectl: Kubectl
    target: Target

    def apply(self, *manifests: Mapping[str, Any]) -> None:
        """Server-side apply into this namespace."""
        self.kubectl.apply(*manifests)

    def eventually(self, what: str, check: Callable[[], T | None], deadline_s: float = 60.0) -> T:
        """Poll `check` until it gives something true, and give that; AssertionError with a diagnosis at the deadline.

        A kubectl that fails counts as not yet: an API may just be coming up.
        """
        end = time.monotonic() + deadline_s
        last: str = "it was never true"
        while time.monotonic() < end:
            try:
                if found := check():
                    return found
            except (KubectlFailed, OSError, http.client.HTTPException) as error:
                last = str(error)
            time.sleep(POLL_S)
        raise AssertionError(f"{what}: not within {deadline_s:.0f} s ({last})\n{self.diagnosis()}")

    def wait_condition(self, kind: str, name: str, condition: str, deadline_s: float = 60.0) -> Manifest:
        """Wait until `condition` of an object is True; the object."""

        def check() -> Manifest | None:
            found = self.kubectl.get(kind, name)
            return found if is_condition_true(found, condition) else None

        return self.eventually(f"{kind} {name} is {condition}", check, deadline_s)

    def wait_rollout(self, kind: str, name: str, deadline_s: float = 90.0) -> None:
        """Wait until every replica of a Deployment or StatefulSet is updated and ready, and no older one is left."""

        def is_rolled_out() -> bool:
            found = self.kubectl.get(kind, name)
            if found is None:
                return False
            status, wanted = found.get("status", {}), found["spec"]["replicas"]
            counts = [status.get(field, 0) for field in ("replicas", "updatedReplicas", "readyReplicas")]
            return status.get("observedGeneration") == found["metadata"]["generation"] and counts == [wanted] * 3

        self.eventually(f"{kind} {name} is rolled out", is_rolled_out, deadline_s)

    def wait_gone(self, kind: str, name: str, deadline_s: float = 60.0) -> None:
        """Wait until an object is deleted."""
        self.eventually(f"{kind} {name} is gone", lambda: self.kubectl.get(kind, name) is None, deadline_s)

    def pod_names(self, selector: str) -> list[str]:
        """The pods of a selector that run and are not going."""
        return [
            pod["metadata"]["name"]
            for pod in self.kubectl.list("pods", selector)
            if pod["status"].get("phase") == "Running" and "deletionTimestamp" not in pod["metadata"]
        ]

    @contextlib.contextmanager
    def port_forward(self, resource: str, port: int) -> Iterator[int]:
        """A port on this machine's loopback that leads to `port` of a pod or Service, while the block runs."""
        command = self.kubectl.command("port-forward", resource, f":{port}", "--address=127.0.0.1")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stderr is not None
                line = process.stdout.readline()
                # "Forwarding from 127.0.0.1:40001 -> 8080"
                if "->" not in line:
                    raise AssertionError(
                        f"port-forward to {resource} failed: {process.stderr.read()}\n{self.diagnosis()}"
                    )
                yield int(line.split(" -> ")[0].rpartition(":")[2])
            finally:
                process.terminate()

    def diagnosis(self) -> str:
        """The namespace's objects, its last events, and the end of each container's log."""
        parts = [
            f"--- objects in {self.name}\n{self._say('get', _SHOWN, '--output=wide')}",
            f"--- events\n{self._say('get', 'events', '--sort-by=.lastTimestamp')}",
        ]
        with contextlib.suppress(KubectlFailed):
            for pod in self.kubectl.list("pods"):
                name = pod["metadata"]["name"]
                text = self._say("logs", name, "--all-containers", "--prefix", f"--tail={LOG_LINES}")
                parts.append(f"--- log of {name}\n{text}")
        return "\n".join(parts)

    def _say(self, *arguments: str) -> str:
        try:
            return self.kubectl.run(*arguments, timeout_s=20.0).rstrip()
        except KubectlFailed as error:
            return str(error)

"""Helm, as tests call it; `python -m e2e.harness.helm` builds it beforehand."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from e2e.cluster.layout import Layout
from e2e.cluster.toolchain import Toolchain

Manifest = dict[str, Any]
KUBERNETES = "1.34.0"
"""What `template` renders for, so that snapshots do not follow Helm's own default."""


class HelmFailed(Exception):
    """Helm ended with an error; the message is its own."""


@dataclass(frozen=True, slots=True)
class Helm:
    """The program, bound to a chart and, where given, to a cluster and a namespace."""

    program: Path
    chart: Path
    kubeconfig: Path | None = None
    namespace: str = "chatflow-system"

    def on(self, kubeconfig: Path, namespace: str) -> Helm:
        """The same, for a namespace of a cluster."""
        return replace(self, kubeconfig=kubeconfig, namespace=namespace)

    def run(self, *arguments: str) -> str:
        """Helm's output; HelmFailed with its words."""
        scope = [f"--namespace={self.namespace}"]
        if self.kubeconfig is not None:
            scope.append(f"--kubeconfig={self.kubeconfig}")
        ran = subprocess.run(
            [self.program, *scope, *arguments],
            cwd=self.chart,
            env={**os.environ, "HELM_NO_PLUGINS": "1"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        if ran.returncode:
            raise HelmFailed(ran.stderr.strip() or ran.stdout.strip())
        return ran.stdout

    def template(self, *settings: str) -> str:
        """The rendered manifests of a release called chatflow."""
        values = [part for setting in settings for part in ("--set", setting)]
        return self.run("template", "chatflow", ".", f"--kube-version={KUBERNETES}", *values)

    def objects(self, *settings: str) -> list[Manifest]:
        """The same, parsed."""
        return [document for document in yaml.safe_load_all(self.template(*settings)) if document]


def program() -> Path:
    """Helm's program, built once into the test bed's cache."""
    tools = Toolchain(Layout.read(os.environ, "default"), lambda text: print(text, file=sys.stderr))
    return tools.folder("helm") / "helm"


if __name__ == "__main__":
    program()

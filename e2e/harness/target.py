"""The cluster under test: the bed of this machine, or the one that CHATFLOW_E2E_KUBECONFIG names."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from e2e.cluster.bed import Bed
from e2e.cluster.images import tag
from e2e.cluster.kubectl import Kubectl
from e2e.cluster.layout import REPOSITORY
from e2e.cluster.prerequisites import find

# What a cluster with a registry runs instead of the bed's own images.
PUBLIC_IMAGES = {"busybox": "busybox:1.37", "base": "python:3.12-slim-bookworm", "redis": "redis:7-bookworm"}
# What tells that a cluster has an addon already.
ADDON_SIGNS = {
    "contour": ("get", "crd", "httproutes.gateway.networking.k8s.io"),
    "keda": ("get", "crd", "scaledobjects.keda.sh"),
    "kserve": ("get", "crd", "inferenceservices.serving.kserve.io"),
    "metrics-server": ("get", "apiservice", "v1beta1.metrics.k8s.io"),
    "prometheus": ("get", "service", "--namespace=monitoring", "prometheus"),
}


class Target:
    """A cluster with a node: ours, or another's."""

    def __init__(self, kubectl: Kubectl, bed: Bed | None) -> None:
        self.kubectl, self.bed = kubectl, bed
        self._images: dict[str, str] = {}

    def image(self, name: str) -> str:
        """The full name of image `name`, loaded onto the bed's node if need be."""
        if self.bed is None:
            variable = f"CHATFLOW_E2E_IMAGE_{name.upper().replace('-', '_')}"
            found = os.environ.get(variable) or PUBLIC_IMAGES.get(name)
            if found is None:
                pytest.skip(f"{variable} names no image for this cluster")
            return found
        if name not in self._images:
            self._images[name] = tag(name)
            if name != "busybox":
                command(self.bed.layout.name, "load-image", name)
        return self._images[name]

    def require(self, addon: str) -> None:
        """Install an addon on the bed; elsewhere the test is left out when the cluster lacks it."""
        if self.bed is not None:
            settings = self.bed.settings()
            if settings is None or addon not in settings.addons:
                command(self.bed.layout.name, "addon", addon)
        elif not self.kubectl.succeeds(*ADDON_SIGNS[addon]):
            pytest.skip(f"this cluster has no {addon}")

    def bed_port(self, name: str) -> int:
        """The port on this machine's loopback of what an addon offers; tests that use it run on the bed alone."""
        if self.bed is None:
            pytest.skip(f"reaching {name} from outside is known for the bed alone")
        settings = self.bed.settings()
        assert settings is not None
        return {forwarded: here for forwarded, here, _ in settings.forwards}[name]


def command(bed: str, *arguments: str) -> None:
    """Run `python -m e2e.cluster` for a bed, in a process of its own: what it starts is no child of the tests."""
    ran = subprocess.run(
        [sys.executable, "-m", "e2e.cluster", f"--name={bed}", *arguments], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    )
    assert ran.returncode == 0, f"`python -m e2e.cluster {' '.join(arguments)}` ended with {ran.returncode}"


def foreign_kubectl(environ: Mapping[str, str]) -> Kubectl | None:
    """kubectl for the cluster of CHATFLOW_E2E_KUBECONFIG; None when it is not set."""
    path = environ.get("CHATFLOW_E2E_KUBECONFIG")
    if not path:
        return None
    program = shutil.which("kubectl") or find("kubectl")
    if program is None or not Path(path).is_file():
        pytest.exit(f"CHATFLOW_E2E_KUBECONFIG={path}: needs that file and `kubectl` on the PATH", returncode=2)
    return Kubectl(Path(program), Path(path))

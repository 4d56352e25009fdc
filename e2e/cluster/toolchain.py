"""The Go tools of the bed, each family built once into the cache, keyed by its sources and the Go version."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from .errors import BuildFailed, PrerequisiteMissing
from .layout import SOURCE, Layout

PROGRESS_EVERY_S = 15.0


@dataclass(frozen=True, slots=True)
class Family:
    """Programs that share one go.mod, a folder of `tools/`."""

    name: str
    module: str = ""
    """The module whose version is stamped and whose manifests the addons read."""
    renames: dict[str, str] = field(default_factory=dict)
    """What `go build` calls a program -> what the bed calls it."""
    stamps: tuple[str, ...] = ()
    """Linker variables that take the module's version."""
    tags: str = ""
    """Build tags, separated by commas."""
    package: str = "tool"
    """What to build: every `tool` line of go.mod, or the folder's own main package."""

    @property
    def folder(self) -> Path:
        """Where go.mod lies."""
        return SOURCE / "tools" / self.name

    @property
    def version(self) -> str:
        """The pinned version of `module`, as go.mod has it."""
        found = re.search(
            rf"^(?:require |\t){re.escape(self.module)} (v\S+)", (self.folder / "go.mod").read_text(), re.M
        )
        if found is None:
            raise BuildFailed(f"{self.folder / 'go.mod'} does not require {self.module}")
        return found[1]


_COMPONENT = "k8s.io/component-base/version"
_CLIENT = "k8s.io/client-go/pkg/version"
FAMILIES = {
    family.name: family
    for family in (
        Family("kubernetes", "k8s.io/kubernetes", stamps=(f"{_COMPONENT}.gitVersion", f"{_CLIENT}.gitVersion")),
        Family("etcd", "go.etcd.io/etcd/server/v3", {"server": "etcd"}),
        Family("containerd", "github.com/containerd/containerd/v2"),
        Family("cni", "github.com/containernetworking/plugins"),
        Family("coredns", "github.com/coredns/coredns", package="."),
        Family("local-path", "github.com/rancher/local-path-provisioner"),
        Family("network-policies", "sigs.k8s.io/kube-network-policies", {"standard": "kube-network-policies"}),
        Family("pause", package="."),
        Family("metrics-server", "sigs.k8s.io/metrics-server"),
        Family("contour", "github.com/projectcontour/contour"),
        Family("kserve", "github.com/kserve/kserve", {"manager": "kserve-manager"}),
        # Discovery in every cloud but Kubernetes is left out: half of the build.
        Family("prometheus", "github.com/prometheus/prometheus", tags="remove_all_sd,enable_kubernetes_sd"),
        Family("keda", "github.com/kedacore/keda/v2", {"operator": "keda-operator", "adapter": "keda-adapter"}),
        # No part of a bed: what installs the chart in its tests.
        Family("helm", "helm.sh/helm/v4", stamps=("helm.sh/helm/v4/internal/version.version",)),
    )
}


class Toolchain:
    """Builds families and says where their programs are."""

    def __init__(self, layout: Layout, say: Callable[[str], None]) -> None:
        self._root = layout.cache / "tools"
        self._say = say

    def folder(self, name: str) -> Path:
        """The folder with the programs of family `name`, built first if need be; BuildFailed with Go's own words."""
        family = FAMILIES[name]
        target = self._root / f"{name}-{_key(family)}"
        if not target.is_dir():
            self._build(family, target)
        return target

    def source(self, name: str) -> Path:
        """The unpacked module of family `name` (verified by go.sum), for the manifests that it ships."""
        family = FAMILIES[name]
        listed = _go(family, "list", "-m", "-f", "{{.Dir}}", family.module).strip()
        if not listed:
            _go(family, "mod", "download", family.module)
            listed = _go(family, "list", "-m", "-f", "{{.Dir}}", family.module).strip()
        return Path(listed)

    def module_source(self, name: str, module: str) -> Path:
        """The unpacked `module` that family `name` depends on."""
        family = FAMILIES[name]
        _go(family, "mod", "download", module)
        return Path(_go(family, "list", "-m", "-f", "{{.Dir}}", module).strip())

    def _build(self, family: Family, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(prefix=f".{family.name}-", dir=target.parent))
        begin = time.monotonic()
        try:
            self._compile(family, building)
            for built, wanted in family.renames.items():
                (building / built).rename(building / wanted)
            building.rename(target)
        except BaseException:
            shutil.rmtree(building, ignore_errors=True)
            raise
        self._say(f"built {family.name} in {time.monotonic() - begin:.0f} s")

    def _compile(self, family: Family, into: Path) -> None:
        flags = " ".join(["-s -w", *(f"-X {stamp}={family.version}" for stamp in family.stamps)])
        command = ["go", "build", "-v", "-trimpath", f"-tags={family.tags}", "-ldflags", flags, "-o", f"{into}/"]
        command.append(family.package)
        self._say(f"building {family.name} (once, then cached) ...")
        with subprocess.Popen(
            command, cwd=family.folder, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            assert process.stdout is not None
            lines: list[str] = []
            told = time.monotonic()
            for line in process.stdout:
                lines.append(line)
                if time.monotonic() - told > PROGRESS_EVERY_S:
                    told = time.monotonic()
                    self._say(f"  {family.name}: {len(lines)} packages, now {line.strip()}")
        if process.returncode:
            raise BuildFailed(
                f"{family.name} could not be built: `{' '.join(command)}` in {family.folder} ended with "
                f"{process.returncode}\n{''.join(lines[-20:])}"
            )


def _key(family: Family) -> str:
    digest = hashlib.sha256(_go_version().encode())
    for file in sorted(family.folder.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    digest.update(repr((family.renames, family.stamps, family.tags, family.package)).encode())
    return digest.hexdigest()[:16]


@cache
def _go_version() -> str:
    if shutil.which("go") is None:
        raise PrerequisiteMissing(
            "`go` is not on the PATH; install Go 1.26.6 or newer (the bed builds Kubernetes with it)"
        )
    return subprocess.run(["go", "env", "GOVERSION"], check=True, capture_output=True, text=True).stdout.strip()


def _go(family: Family, *arguments: str) -> str:
    ran = subprocess.run(["go", *arguments], cwd=family.folder, env=_environment(), capture_output=True, text=True)
    if ran.returncode:
        raise BuildFailed(f"`go {' '.join(arguments)}` in {family.folder} failed:\n{ran.stderr.strip()}")
    return ran.stdout


def _environment() -> dict[str, str]:
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false -mod=readonly"}

"""Where the test bed keeps its things: a cache that outlives it, and one state folder a bed that `down` removes."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from .errors import BedError

SOURCE = Path(__file__).parent
REPOSITORY = SOURCE.parent.parent
NAME_PATTERN = re.compile(r"[a-z][a-z0-9-]{0,19}")


@dataclass(frozen=True, slots=True)
class Layout:
    """The folders of one bed."""

    name: str
    cache: Path
    state: Path

    @classmethod
    def read(cls, environ: Mapping[str, str], name: str = "default") -> Layout:
        """From CHATFLOW_E2E_CACHE and CHATFLOW_E2E_STATE, else below the user's cache and state folders."""
        if not NAME_PATTERN.fullmatch(name):
            raise BedError(f"bed name {name!r}: use up to 20 lower-case letters, digits and dashes, a letter first")
        home = Path(environ.get("HOME") or Path.home())
        cache = (
            environ.get("CHATFLOW_E2E_CACHE") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "chatflow-e2e"
        )
        state = (
            environ.get("CHATFLOW_E2E_STATE")
            or Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "chatflow-e2e"
        )
        return cls(name, Path(cache).absolute(), Path(state).absolute() / name)

    @property
    def run(self) -> Path:
        """Process records."""
        return self.state / "run"

    @property
    def logs(self) -> Path:
        """One file a process."""
        return self.state / "logs"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.state / "pki"

    @property
    def kubeconfig(self) -> Path:
        """For a client on this machine."""
        return self.state / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens (below 100 characters: a Unix socket's path has no room for more)."""
        return self.state / "containerd.sock"

    @property
    def cgroup(self) -> str:
        """The bed's own cgroup, a path below each hierarchy's root."""
        return f"/chatflow-e2e-{self.name}"


BED_VARIABLE = "CHATFLOW_E2E_BED"


def marked_environment(layout: Layout) -> dict[str, str]:
    """The machine's environment, marked with the bed's name: every process of a bed carries it."""
    return {**os.environ, BED_VARIABLE: layout.name}


def user_environment(layout: Layout, tools: Path) -> dict[str, str]:
    """The environment of the bed's processes: the machine's, with the bed's tools first."""
    sbin = "/usr/local/sbin:/usr/sbin:/sbin"
    return {
        **marked_environment(layout),
        "PATH": f"{tools}:{sbin}:{os.environ.get('PATH', '/usr/bin:/bin')}",
        "CONTAINERD_ADDRESS": str(layout.containerd_socket),
        "CONTAINERD_NAMESPACE": "k8s.io",
    }

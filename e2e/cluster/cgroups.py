"""The bed's own control groups, below each hierarchy's root: made before the kubelet, removed at the end."""

from __future__ import annotations

from pathlib import Path

from .errors import PrerequisiteMissing
from .processes import wait_until

ROOT = Path("/sys/fs/cgroup")
CONTROLLERS_V2 = "cpu cpuset hugetlb io memory pids"
REMOVAL_DEADLINE_S = 5.0


def is_version_1() -> bool:
    """Whether this machine has one hierarchy a controller (v1) instead of a unified one."""
    return not (ROOT / "cgroup.controllers").exists()


def create(path: str) -> None:
    """Make the cgroup `path` (with a slash first) in every hierarchy that the kubelet uses."""
    for hierarchy in _hierarchies():
        folder = hierarchy / path.strip("/")
        folder.mkdir(exist_ok=True)
        for setting in ("cpuset.cpus", "cpuset.mems"):
            if is_version_1() and (hierarchy / setting).exists():
                (folder / setting).write_text((hierarchy / setting).read_text())
    if not is_version_1():
        offered, enabled = (
            (ROOT / f"cgroup.{file}").read_text().split() for file in ("controllers", "subtree_control")
        )
        try:
            for controller in CONTROLLERS_V2.split():
                if controller in offered and controller not in enabled:
                    (ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
        except OSError as error:
            raise PrerequisiteMissing(f"cgroup controllers cannot be enabled in {ROOT}: {error.strerror}") from error


def remove(path: str) -> list[Path]:
    """Remove the cgroup `path` with all below it; what is still busy after some seconds is returned."""
    left: list[Path] = []

    def is_gone() -> bool:
        left[:] = [folder for folder in existing(path) if not _remove_tree(folder)]
        return not left

    wait_until(is_gone, REMOVAL_DEADLINE_S)
    return left


def existing(path: str) -> list[Path]:
    """The folders of cgroup `path` that exist."""
    folders = [hierarchy / path.strip("/") for hierarchy in _hierarchies()]
    return [folder for folder in folders if folder.is_dir()]


def _hierarchies() -> list[Path]:
    if not is_version_1():
        return [ROOT]
    # Two names may lead to one hierarchy (cpu and cpu,cpuacct).
    return sorted({folder.resolve() for folder in ROOT.iterdir() if folder.is_dir()})


def _remove_tree(folder: Path) -> bool:
    children = [child for child in folder.iterdir() if child.is_dir()]
    removed = [_remove_tree(child) for child in children]
    if not all(removed):
        return False
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True

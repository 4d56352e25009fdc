"""Debian's packages for the bed: single files unpacked into the cache, and a base system made by debootstrap."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from . import prerequisites
from .errors import BuildFailed, PrerequisiteMissing
from .layout import Layout

BASE_PACKAGES = ("ca-certificates", "python3", "python3-venv")
# What containers never read: the largest part of a minimal system.
NEEDLESS = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/info",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def unpack(layout: Layout, package: str) -> Path:
    """The files of Debian `package` alone, of the version that apt knew when the cache was filled."""
    for unpacked in sorted((layout.cache / "debian").glob(f"{package}-[0-9]*")):
        return unpacked
    version = _candidate(package)
    target = layout.cache / "debian" / f"{package}-{version.replace(':', '_')}"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        _run("apt-get", "download", f"{package}={version}", cwd=folder)
        (archive,) = Path(folder).glob("*.deb")
        unpacked = Path(folder) / "unpacked"
        _run("dpkg-deb", "--extract", str(archive), str(unpacked), cwd=folder)
        unpacked.rename(target)
    return target


def base_system(layout: Layout, say: Callable[[str], None]) -> Path:
    """A tar archive of a minimal Debian with Python, of this machine's own release and mirror."""
    release = _os_release("VERSION_CODENAME")
    target = layout.cache / "debian" / f"base-{release}.tar"
    if target.exists():
        return target
    say(f"making a base system of Debian {release} (once, then cached) ...")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        root = Path(folder) / "root"
        _run(
            "debootstrap",
            "--variant=minbase",
            f"--include={','.join(BASE_PACKAGES)}",
            release,
            str(root),
            _mirror(),
            cwd=folder,
        )
        made = Path(folder) / "base.tar"
        left_out = [f"--exclude=./{needless}/*" for needless in NEEDLESS]
        _run(
            "tar", "--create", f"--file={made}", f"--directory={root}", "--one-file-system", *left_out, ".", cwd=folder
        )
        made.rename(target)
    return target


def _candidate(package: str) -> str:
    policy = subprocess.run(["apt-cache", "policy", package], capture_output=True, text=True).stdout
    found = re.search(r"Candidate: (\S+)", policy)
    if found is None or found[1] == "(none)":
        raise PrerequisiteMissing(f"apt knows no package {package}; run `apt-get update`")
    return found[1]


def _mirror() -> str:
    """Where this machine's apt takes its main packages from."""
    listed = subprocess.run(["apt-get", "indextargets", "--format", "$(SITE)"], capture_output=True, text=True).stdout
    sites = [line for line in listed.splitlines() if line.rstrip("/").endswith("debian")]
    if not sites:
        raise PrerequisiteMissing("apt names no Debian mirror; see /etc/apt/sources.list.d, then run `apt-get update`")
    return sites[0]


def _os_release(field: str) -> str:
    found = re.search(rf'^{field}="?([^"\n]+)', Path("/etc/os-release").read_text(), re.M)
    if found is None:
        raise PrerequisiteMissing(f"/etc/os-release names no {field}; images are built on Debian")
    return found[1]


def _run(command: str, *arguments: str, cwd: str) -> None:
    program = prerequisites.find(command)
    if program is None:
        raise PrerequisiteMissing(f"`{command}` is missing; see `python -m e2e.cluster doctor`")
    ran = subprocess.run([program, *arguments], cwd=cwd, capture_output=True, text=True)
    if ran.returncode:
        said = (ran.stderr.strip() or ran.stdout.strip())[-2000:]
        raise BuildFailed(f"`{command} {' '.join(arguments)}` ended with {ran.returncode}:\n{said}")

"""What a bed needs of the machine, checked before anything starts; each missing thing is named with how to get it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from .errors import PrerequisiteMissing

SBIN = ("/usr/sbin", "/sbin", "/usr/local/sbin")
# Command -> Debian package.
FOR_A_NODE = {
    "runc": "runc",
    "nft": "nftables",
    "iptables": "iptables",
    "ip": "iproute2",
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "mount": "mount",
    "curl": "curl",
    "ps": "procps",
}
FOR_IMAGES = {"buildah": "buildah", "debootstrap": "debootstrap", "apt-get": "apt", "dpkg-deb": "dpkg"}


def find(command: str) -> str | None:
    """The path of `command`, searched for in the administrator's folders too."""
    return shutil.which(command, path=os.pathsep.join((os.environ.get("PATH", ""), *SBIN)))


def missing(*, node: bool) -> list[str]:
    """What is missing, one sentence each."""
    needed = {**FOR_A_NODE, **FOR_IMAGES} if node else {}
    reasons = []
    if node and os.geteuid() != 0:
        reasons.append("a node needs root (namespaces, mounts, cgroups); without it use `up --control-plane`")
    lacking = sorted({package for command, package in needed.items() if find(command) is None})
    if lacking:
        reasons.append(
            f"missing commands; install them with: apt-get install --no-install-recommends {' '.join(lacking)}"
        )
    if find("go") is None:
        reasons.append("`go` is missing; install Go 1.26.6 or newer")
    return reasons


def check(*, node: bool) -> None:
    """PrerequisiteMissing naming everything that is missing, at once."""
    reasons = missing(node=node)
    if reasons:
        raise PrerequisiteMissing(_joined(reasons))


def _joined(reasons: Iterable[str]) -> str:
    return "the test bed cannot start here:\n" + "\n".join(f"- {reason}" for reason in reasons)

"""The bed leaves nothing behind, and `up` repairs whatever was killed: part of `make e2e`, as it needs root."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from e2e.cluster import cgroups
from e2e.cluster.bed import Bed
from e2e.cluster.layout import BED_VARIABLE, REPOSITORY, Layout
from e2e.cluster.namespaces import COVERED, HOLDER
from e2e.cluster.prerequisites import missing
from e2e.cluster.processes import Record, is_alive, wait_until
from e2e.cluster.status import total_resident_bytes
from e2e.harness.manifests import deployment, pod_spec, web_container
from e2e.harness.target import Target
from e2e.harness.workspace import Workspace

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
CYCLES = 10
GONE_WITHIN_S = 30.0
"""Six times what `down` takes; a busy machine is given time, a bed that hangs is not."""
RESIDENT_AT_MOST = 1.2 * 1024**3


def run(*arguments: str) -> None:
    """The tool as a user calls it, for a bed of these tests' own."""
    subprocess.run([sys.executable, "-m", "e2e.cluster", "--name=lifecycle", *arguments], cwd=REPOSITORY, check=True)


@pytest.fixture
def bed() -> Iterator[Bed]:
    if reasons := missing(node=True):
        pytest.skip(f"no test bed here: {'; '.join(reasons)}")
    made = Bed(Layout.read(os.environ, "lifecycle"), print)
    made.down()
    yield made
    made.down()


def traces(bed: Bed) -> dict[str, list[str]]:
    """What a bed could leave on this machine."""
    mark = f"{BED_VARIABLE}={bed.layout.name}".encode()
    marked = []
    for process in Path("/proc").iterdir():
        try:
            if process.name.isdigit() and mark in (process / "environ").read_bytes().split(b"\0"):
                marked.append(f"{process.name} {(process / 'cmdline').read_bytes()!r}")
        except OSError:
            continue
    return {
        "processes": marked,
        "mounts": sorted(Path("/proc/mounts").read_text().splitlines()),
        "interfaces": sorted(entry.name for entry in Path("/sys/class/net").iterdir()),
        "namespaces": sorted(entry.name for entry in Path("/run/netns").glob("*")),
        "cgroups": [str(folder) for folder in cgroups.existing(bed.layout.cgroup)],
        "folders": sorted(str(file) for folder in COVERED for file in Path(folder).glob("*/*") if _is_ours(file)),
        "state": [str(bed.layout.state)] if bed.layout.state.exists() else [],
    }


def _is_ours(file: Path) -> bool:
    """Whether containerd, the kubelet or a CNI plugin would write there."""
    return any(part in str(file) for part in ("cni", "containerd", "kube", "local-path"))


def serve(bed: Bed) -> Workspace:
    """A Deployment of one web server in the bed, ready."""
    kubectl = bed.kubectl()
    workspace = Workspace("default", kubectl.within("default"), Target(kubectl, bed))
    workspace.apply(deployment("web", pod_spec(web_container(workspace.target.image("busybox"), "up"))))
    workspace.wait_rollout("deployment", "web")
    return workspace


def assert_gone(bed: Bed, before: dict[str, list[str]]) -> None:
    """Nothing of the bed is left. The kernel takes a namespace's interfaces away after its last process has ended."""
    wait_until(lambda: traces(bed) == before, GONE_WITHIN_S)
    assert traces(bed) == before


def test_ten_cycles_in_a_row_leave_nothing_behind(bed: Bed) -> None:
    before = traces(bed)
    took = list[float]()
    for cycle in range(CYCLES):
        run("up", "--node")
        if cycle == 0:
            serve(bed)
            assert total_resident_bytes(bed) < RESIDENT_AT_MOST
        begin = time.monotonic()
        run("down")
        took.append(time.monotonic() - begin)
        assert_gone(bed, before)
    print(f"down: median {median(took):.1f} s, at most {max(took):.1f} s")
    assert max(took) < GONE_WITHIN_S


def test_up_repairs_the_kill_of_any_one_process(bed: Bed) -> None:
    run("up", "--node", "--addon=prometheus", "--addon=contour")
    workspace = serve(bed)
    for name in bed.processes.names():
        record = bed.processes.alive(name)
        assert record is not None, name
        os.kill(record.pid, signal.SIGKILL)
        assert wait_until(partial(_is_dead, record), 10)
        run("up")
        workspace.wait_rollout("deployment", "web", deadline_s=120)
        workspace.eventually(
            f"a pod runs commands after {name} was killed",
            lambda: workspace.kubectl.run("exec", "deployment/web", "--", "cat", "/www/index.html") == "up",
        )


def _is_dead(record: Record) -> bool:
    return not is_alive(record)


def test_a_control_plane_without_a_node_serves_and_goes(bed: Bed) -> None:
    before = traces(bed)
    run("up", "--control-plane")
    assert bed.processes.alive(HOLDER) is None
    kubectl = bed.kubectl()
    objects = [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c{index}"}, "data": {"a": "b"}}
        for index in range(300)
    ]
    kubectl.within("default").apply(*objects)
    assert len(kubectl.within("default").list("configmaps")) == len(objects) + 1
    run("down")
    assert_gone(bed, before)

"""The operator as a process against a real API server that refuses, loses answers and falls silent.

A control plane is enough: what the operator writes is counted, no pod has to run.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from chatflow_operator.certificates import self_signed
from chatflow_operator.objects import CHILDREN as KINDS

from e2e.cluster.bed import Bed
from e2e.cluster.kubectl import Kubectl
from e2e.cluster.layout import REPOSITORY, Layout
from e2e.harness.api_proxy import Fault, api_proxy
from e2e.harness.operator_process import free_port, operator
from e2e.harness.target import command

BED = "operator-faults"
FAULTS, NOTICED_S = 200, 75.0
CHILDREN = ",".join(kind.plural for kind in KINDS if not kind.is_optional)
SELECTOR = "app.kubernetes.io/managed-by=chatflow-operator"


@pytest.fixture(scope="module")
def bed() -> Iterator[Bed]:
    """A control plane with the CRD."""
    found = Bed(Layout.read(os.environ, BED), lambda text: print(text, file=sys.stderr))
    command(BED, "up", "--control-plane")
    try:
        found.kubectl().run("apply", "--server-side", f"--filename={REPOSITORY / 'crds/chatflows.yaml'}")
        yield found
    finally:
        command(BED, "down")


@pytest.fixture
def kubectl(bed: Bed, request: pytest.FixtureRequest) -> Iterator[Kubectl]:
    """A namespace of the test's own; the flows in it are gone afterwards."""
    name = f"faults-{abs(hash(request.node.name)) % 10**6}"
    whole = bed.kubectl()
    whole.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield whole.within(name)
    whole.within(name).run("delete", "chatflows", "--all", "--wait=false")


def flow(name: str, greeting: str = "Hello.") -> dict[str, Any]:
    """A flow that refers to nothing."""
    return {
        "apiVersion": "chatflow.dev/v1alpha1",
        "kind": "ChatFlow",
        "metadata": {"name": name},
        "spec": {
            "locale": "en",
            "dialogue": {"greeting": greeting},
            "state": {"redis": {"managed": {"replicas": 1}}},
        },
    }


def eventually(what: str, check: Callable[[], bool], deadline_s: float, log: Path) -> float:
    """Seconds until `check` holds."""
    began = time.monotonic()
    while not check():
        if time.monotonic() - began > deadline_s:
            raise AssertionError(f"{what}: not within {deadline_s:.0f} s\n{log.read_text()[-4000:]}")
        time.sleep(0.2)
    return time.monotonic() - began


def greeting_of(kubectl: Kubectl, name: str) -> str | None:
    """The greeting that a flow's gateways are given."""
    found = kubectl.get("configmap", f"{name}-config")
    return None if found is None else str(json.loads(found["data"]["runtime.json"])["dialogue"]["greeting"])


def is_applied(kubectl: Kubectl, name: str) -> bool:
    """Whether the status says that every object of the newest spec is there."""
    found = kubectl.get("chatflow", name)
    assert found is not None
    status = found.get("status", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions", ())}
    is_newest = status.get("observedGeneration") == found["metadata"]["generation"]
    return is_newest and conditions.get("ObjectsApplied") == "True"


def children(kubectl: Kubectl, name: str) -> Counter[str]:
    """How many objects of each kind and name a flow has."""
    found = kubectl.list(CHILDREN, f"{SELECTOR},app.kubernetes.io/instance={name}")
    return Counter(f"{one['kind']} {one['metadata']['name'].replace(name, 'FLOW', 1)}" for one in found)


def test_two_hundred_faults_leave_neither_duplicates_nor_lost_updates(
    bed: Bed, kubectl: Kubectl, tmp_path: Path
) -> None:
    log = tmp_path / "operator.log"
    chance = random.Random(7)  # noqa: S311  Faults, not secrets.
    flows = [f"flow-{number}" for number in range(6)]
    # A conflict is an answer of the server's to a write.
    writes, reads = list(Fault), [fault for fault in Fault if fault is not Fault.CONFLICT]
    with api_proxy(bed.layout.kubeconfig) as proxy, operator(proxy.kubeconfig(tmp_path), log):
        kubectl.apply(flow("whole"))
        eventually("a flow without faults is applied", lambda: is_applied(kubectl, "whole"), 30, log)

        def choose(method: str, path: str) -> Fault | None:
            if len(proxy.injected) >= FAULTS or "peering" in path or "events" in path or chance.random() > 0.3:
                return None
            late = sum(fault is Fault.LATE for fault, _, _ in proxy.injected)
            fault = chance.choice(reads if method == "GET" else writes)
            # The operator waits ten seconds for an answer: a few of these are enough.
            return Fault.BROKEN if fault is Fault.LATE and late >= 5 else fault

        proxy.choose = choose
        rounds = 0
        while len(proxy.injected) < FAULTS:
            rounds += 1
            assert rounds < 60, f"only {len(proxy.injected)} faults in {rounds} rounds"
            kubectl.apply(*(flow(name, f"Round {rounds}.") for name in flows))
            proxy.cut()
            time.sleep(2)
        for name in flows:
            eventually(f"{name} is applied", lambda name=name: is_applied(kubectl, name), 120, log)  # type: ignore[misc]
            eventually(
                f"{name} has its last greeting",
                lambda name=name: greeting_of(kubectl, name) == f"Round {rounds}.",  # type: ignore[misc]
                60,
                log,
            )
            assert children(kubectl, name) == children(kubectl, "whole")
    assert Counter(fault for fault, _, _ in proxy.injected).keys() == set(Fault)
    assert "Traceback" not in log.read_text()


def test_a_watch_that_falls_silent_is_noticed_within_75_seconds(bed: Bed, kubectl: Kubectl, tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    with api_proxy(bed.layout.kubeconfig) as proxy, operator(proxy.kubeconfig(tmp_path), log):
        kubectl.apply(flow("quiet", "Before."))
        eventually("the flow is applied", lambda: greeting_of(kubectl, "quiet") == "Before.", 30, log)
        # From here on open watches tell nothing, bookmarks included; those that are opened later work.
        before = proxy.watches
        proxy.is_silent = True
        kubectl.apply(flow("quiet", "After."))
        began = time.monotonic()
        eventually("the operator opens its watches anew", lambda: proxy.watches > before, 90, log)
        proxy.is_silent = False
        eventually("the edit is acted on", lambda: greeting_of(kubectl, "quiet") == "After.", 90, log)
        noticed_s = time.monotonic() - began
        print(f"noticed {noticed_s:.1f} s after the edit")
        assert noticed_s <= NOTICED_S


def test_an_operator_that_is_killed_in_the_middle_leaves_nothing_half_done(
    bed: Bed, kubectl: Kubectl, tmp_path: Path
) -> None:
    log = tmp_path / "operator.log"
    with operator(bed.layout.kubeconfig, log) as running:
        kubectl.apply(flow("first"))
        eventually("it has begun", lambda: bool(children(kubectl, "first")), 30, log)
        running.kill()
    with operator(bed.layout.kubeconfig, log) as running:
        eventually("it is finished", lambda: is_applied(kubectl, "first"), 30, log)
        kubectl.apply(flow("second"))
        eventually("another one is too", lambda: is_applied(kubectl, "second"), 30, log)
        assert children(kubectl, "first") == children(kubectl, "second")


def test_a_restart_with_nothing_changed_writes_nothing(bed: Bed, kubectl: Kubectl, tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    with operator(bed.layout.kubeconfig, log):
        kubectl.apply(flow("still"))
        eventually("it is applied", lambda: is_applied(kubectl, "still"), 30, log)
        # The autoscaler finds no metrics here and says so after its first look; statuses follow.
        eventually("its status has settled", lambda: _is_settled(kubectl, "still"), 60, log)
    with operator(bed.layout.kubeconfig, log) as running:
        count = len(bed.kubectl().run("get", "chatflows", "--all-namespaces", "--output=name").split())
        assert count >= 1
        reconciles = "chatflow_operator_reconciles_total"
        eventually("all flows were looked at", lambda: running.total(reconciles) >= count, 30, log)
        assert running.total("chatflow_operator_flows") == count
        assert running.writes() == 0


def test_an_operator_whose_certificate_was_renewed_ends_to_be_started_anew(bed: Bed, tmp_path: Path) -> None:
    log = tmp_path / "operator.log"
    _put_certificate(tmp_path)
    settings = {
        "WEBHOOK_PORT": str(free_port()),
        "WEBHOOK_SERVICE": "hook.ns.svc",
        "WEBHOOK_CONFIGURATION": "hook",
        "WEBHOOK_CERTIFICATES": str(tmp_path),
    }
    with operator(bed.layout.kubeconfig, log, **settings) as running:
        _put_certificate(tmp_path)
        assert running.process.wait(timeout=60) == 0
        assert "certificate_renewed" in log.read_text()


def _put_certificate(folder: Path) -> None:
    pair = self_signed("hook.ns.svc")
    (folder / "ca.crt").write_bytes(pair.certificate_file.read_bytes())
    (folder / "tls.key").write_bytes(pair.key_file.read_bytes())
    (folder / "tls.crt").write_bytes(pair.certificate_file.read_bytes())


def test_an_operator_that_finds_a_peer_at_work_writes_nothing_until_that_has_gone(
    bed: Bed, kubectl: Kubectl, tmp_path: Path
) -> None:
    bed.kubectl().run("apply", "--server-side", f"--filename={REPOSITORY / 'crds/kopfpeerings.yaml'}")
    bed.kubectl().run("wait", "--for=condition=Established", "crd/clusterkopfpeerings.kopf.dev", "--timeout=30s")
    peering = {"apiVersion": "kopf.dev/v1", "kind": "ClusterKopfPeering", "metadata": {"name": "shared"}}
    bed.kubectl().apply(peering)
    log = tmp_path / "operator.log"
    with operator(bed.layout.kubeconfig, log, PEERING="shared") as running:
        kubectl.apply(flow("held"))
        eventually("it works", lambda: is_applied(kubectl, "held"), 60, log)
        before = children(kubectl, "held")
        another = {"priority": 7, "lifetime": 30, "lastseen": datetime.now(UTC).isoformat()}
        patch = json.dumps({"status": {"another": another}})
        bed.kubectl().run("patch", "clusterkopfpeering", "shared", "--type=merge", f"--patch={patch}")
        eventually("it is held", lambda: "held_by_peers" in log.read_text(), 10, log)
        written = running.writes()
        kubectl.delete("service", "held-gateway")
        kubectl.apply(flow("held", "While it was held."))
        kubectl.apply(flow("held", "After it was held."))

        def works_again() -> bool:
            now = running.writes()
            has_said_so = '"works"' in log.read_text().split("held_by_peers")[1]
            assert has_said_so or now == written, "it wrote while it was held"
            return has_said_so

        eventually("the other one is gone", works_again, 60, log)
        eventually("what it missed is done", lambda: is_applied(kubectl, "held"), 60, log)
        assert children(kubectl, "held") == before
        assert greeting_of(kubectl, "held") == "After it was held."


def _is_settled(kubectl: Kubectl, name: str) -> bool:
    found = kubectl.get("chatflow", name)
    assert found is not None
    reasons = {one["type"]: one["reason"] for one in found["status"]["conditions"]}
    return reasons["Autoscaling"] not in ("Pending",) and found["status"].get("gateways") == "0/2"

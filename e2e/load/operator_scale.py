"""How the operator carries many flows: time, memory, writes after a restart, and how soon an edit is acted on.

`python -m e2e.load.operator_scale [--flows 500]` brings up a control plane without a node, so no pod runs: what is
measured is the operator and the API server with its controllers. Bars are printed beside the figures; the status is 1
where one is missed.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from e2e.cluster.bed import Bed
from e2e.cluster.kubectl import Kubectl
from e2e.cluster.layout import REPOSITORY, Layout
from e2e.harness.api_proxy import upstream_of
from e2e.harness.operator_process import OperatorProcess, operator
from e2e.harness.target import command

BED = "operator-scale"
NAMESPACES = 10
EXAMPLE = REPOSITORY / "examples/saas-support/chatflow.yaml"


def flow(number: int) -> dict[str, Any]:
    """The English example under another name, with one state server, and no content to wait for."""
    body: dict[str, Any] = yaml.safe_load(EXAMPLE.read_text())
    body["metadata"] = {"name": f"flow-{number:03}", "namespace": f"team-{number % NAMESPACES}"}
    body["spec"].setdefault("state", {})["redis"] = {"managed": {"replicas": 1}}
    body["spec"]["knowledge"].pop("sources", None)
    body["spec"]["models"]["intent"].pop("exampleSources", None)
    body["spec"].pop("moderation", None)
    return body


def applied(kubectl: Kubectl) -> int:
    """How many flows have all their objects."""
    condition = '{.status.conditions[?(@.type=="ObjectsApplied")].status}'
    row = "{.metadata.generation}/{.status.observedGeneration}/" + condition + '{"\\n"}'
    path = "{range .items[*]}" + row + "{end}"
    lines = kubectl.run("get", "chatflows", "--all-namespaces", f"--output=jsonpath={path}").split()
    return sum(1 for line in lines if line.split("/")[0] == line.split("/")[1] and line.endswith("/True"))


def until_applied(kubectl: Kubectl, running: OperatorProcess, count: int, limit_s: float) -> None:
    """Wait until so many flows are applied. The operator's own figures are asked until it rests: a list of all flows
    costs the API server as much as several flows do."""
    began = time.monotonic()
    while True:
        figures = running.metrics()
        if figures["chatflow_operator_flows"] == count and figures["chatflow_operator_queue"] == 0:
            if (done := applied(kubectl)) == count:
                return
            print(f"{done} of {count} are applied", file=sys.stderr)
        if time.monotonic() - began > limit_s:
            raise SystemExit(f"only {applied(kubectl)} of {count} flows were applied after {limit_s:.0f} s")
        time.sleep(1)


class ChildWatch(threading.Thread):
    """Notes when the ConfigMap of a flow changes."""

    def __init__(self, kubectl: Kubectl) -> None:
        super().__init__(daemon=True)
        # The greeting tells which edit a version belongs to.
        path = '{.metadata.name} {.data.runtime\\.json}{"\\n"}'
        self.process = subprocess.Popen(
            kubectl.command(
                "get", "configmaps", "--all-namespaces", "--watch-only",
                "--selector=app.kubernetes.io/component=config", f"--output=jsonpath={path}",
            ),
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        self.seen: dict[str, float] = {}

    def run(self) -> None:
        """Read until the watch ends."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            name, _, config = line.partition(" ")
            if config.strip():
                greeting = json.loads(config)["dialogue"]["greeting"] or ""
                self.seen.setdefault(f"{name} {greeting}", time.monotonic())


class Editor:
    """Patches flows without kubectl, whose own start takes longer than what is measured."""

    def __init__(self, kubeconfig: Path) -> None:
        server, context = upstream_of(kubeconfig)
        self._connection = http.client.HTTPSConnection(urlsplit(server).netloc, context=context, timeout=30)

    def greet(self, namespace: str, name: str, greeting: str) -> None:
        """Give a flow another greeting."""
        path = f"/apis/chatflow.dev/v1alpha1/namespaces/{namespace}/chatflows/{name}"
        patch = json.dumps({"spec": {"dialogue": {"greeting": greeting}}})
        self._connection.request("PATCH", path, patch, {"Content-Type": "application/merge-patch+json"})
        answer = self._connection.getresponse()
        said = answer.read()
        if answer.status != 200:
            raise SystemExit(f"PATCH {path}: {answer.status} {said[:300]!r}")


def edit_latencies(kubectl: Kubectl, kubeconfig: Path, count: int, flows: int) -> list[float]:
    """Seconds from sending an edit until the flow's ConfigMap has changed, one after another."""
    editor = Editor(kubeconfig)
    watch = ChildWatch(kubectl)
    watch.start()
    time.sleep(3)  # The watch has no sign of its own that it has begun.
    took_s: list[float] = []
    for index in range(count):
        number = (index * 37) % flows
        greeting = f"Greeting {index}."
        body = flow(number)["metadata"]
        began = time.monotonic()
        editor.greet(body["namespace"], body["name"], greeting)
        key = f"{body['name']}-config {greeting}"
        while key not in watch.seen:
            if time.monotonic() - began > 30:
                found = kubectl.within(body["namespace"]).get("configmap", f"{body['name']}-config")
                is_written = found is not None and greeting in found["data"]["runtime.json"]
                why = "its ConfigMap has it, but no watch told" if is_written else "its ConfigMap is the old one"
                raise SystemExit(f"edit {index}, of {body['name']}, was not seen within 30 s: {why}")
            time.sleep(0.005)
        took_s.append(watch.seen[key] - began)
    watch.process.terminate()
    return sorted(took_s)


def rest(running: OperatorProcess, seconds: float = 20.0, limit_s: float = 240.0) -> None:
    """Wait until the operator has written nothing for a while: controllers go on reporting after the last edit."""
    began, last, since = time.monotonic(), running.writes(), time.monotonic()
    while time.monotonic() - since < seconds and time.monotonic() - began < limit_s:
        time.sleep(1)
        if (writes := running.writes()) != last:
            last, since = writes, time.monotonic()


def line(what: str, figure: str, remark: str = "") -> None:
    """One row."""
    print(f"{what:<58} {figure:>12}   {remark}", flush=True)


class Bars:
    """Rows with a bar, and whether all were met."""

    are_met = True

    def row(self, what: str, figure: float, unit: str, most: float) -> None:
        """One row."""
        is_met = figure <= most
        self.are_met &= is_met
        places = 0 if unit != "s" or figure > 10 else 2
        line(what, f"{figure:.{places}f} {unit}", f"at most {most:g}{'' if is_met else '  MISSED'}")


def measure(kubectl: Kubectl, kubeconfig: Path, flows: int, edits: int) -> bool:
    """All figures; whether every bar is met."""
    bars = Bars()
    kubectl.run("apply", "--server-side", f"--filename={REPOSITORY / 'crds/chatflows.yaml'}")
    names = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": f"team-{n}"}} for n in range(NAMESPACES)]
    kubectl.apply(*names)
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "operator.log"
        with operator(kubeconfig, log) as running:
            idle = running.resident_mib
            began = time.monotonic()
            for start in range(0, flows, 50):
                kubectl.apply(*(flow(number) for number in range(start, min(start + 50, flows))))
            until_applied(kubectl, running, flows, 900)
            total_s = time.monotonic() - began
            writes = running.writes()
            bars.row(f"{flows} flows applied and their objects made", total_s, "s", 250 * flows / 500)
            line("  objects and statuses written", str(writes))
            line("  the operator's CPU time", f"{running.cpu_s:.0f} s", f"{running.cpu_s / flows * 1000:.0f} ms a flow")
            rest(running)
            bars.row(f"  the operator's memory ({idle:.0f} before)", running.resident_mib, "MiB", 200)
            found = edit_latencies(kubectl, kubeconfig, edits, flows)
            line(f"{edits} edits: to the first object written, median", f"{found[len(found) // 2]:.2f} s")
            bars.row("  99th percentile", found[int(len(found) * 0.99)], "s", 2)
            rest(running)
            bars.row("  the operator's memory", running.resident_mib, "MiB", 200)
        log.unlink()
        with operator(kubeconfig, log) as running:
            began = time.monotonic()
            while running.total("chatflow_operator_reconciles_total") < flows or running.total(
                "chatflow_operator_queue"
            ):
                if time.monotonic() - began > 300:
                    raise SystemExit("the operator has not looked at every flow 300 s after its restart")
                time.sleep(0.5)
            assert running.total("chatflow_operator_flows") == flows
            line("restart: until every flow was looked at", f"{time.monotonic() - began:.0f} s")
            time.sleep(30)
            bars.row("  writes with nothing changed, and 30 s later", running.writes(), "", 0)
            for sample, value in running.metrics().items():
                if sample.startswith("chatflow_operator_api_calls_total") and 'verb="apply' in sample:
                    print(f"    {sample} {value:.0f}")
            bars.row("  the operator's memory", running.resident_mib, "MiB", 200)
            line("  its CPU time", f"{running.cpu_s:.0f} s")
    return bars.are_met


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and take the control plane down."""
    parser = argparse.ArgumentParser(prog="python -m e2e.load.operator_scale", description=__doc__.splitlines()[0])
    parser.add_argument("--flows", type=int, default=500)
    parser.add_argument("--edits", type=int, default=100)
    options = parser.parse_args(arguments)
    bed = Bed(Layout.read(os.environ, BED), lambda text: print(text, file=sys.stderr))
    command(BED, "up", "--control-plane")
    try:
        are_met = measure(bed.kubectl(), bed.layout.kubeconfig, options.flows, options.edits)
    finally:
        command(BED, "down")
    return 0 if are_met else 1


if __name__ == "__main__":
    sys.exit(main())

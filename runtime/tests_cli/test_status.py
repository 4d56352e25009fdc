"""`chatflow status`: a flow on a cluster as a tree, through the user's kubectl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chatflow_cli.main import main
from click.testing import CliRunner, Result

READY = {"type": "Ready", "status": "True", "reason": "Ready", "message": "the chat answers"}
FLOW: dict[str, Any] = {
    "metadata": {"name": "shop", "namespace": "sales", "generation": 2},
    "status": {
        "observedGeneration": 2,
        "url": "http://shop-gateway.sales.svc",
        "conditions": [READY],
        "models": [{"role": "intent", "name": "intent", "source": "InProcess", "state": "Ready", "message": ""}],
    },
}


def _object(kind: str, name: str, part: str, status: dict[str, Any], **spec: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/component": part}
    return {"kind": kind, "metadata": {"name": name, "labels": labels}, "spec": spec, "status": status}


OBJECTS = [
    _object("Pod", "shop-redis-0", "redis", {"phase": "Pending"}),
    _object("Deployment", "shop-gateway", "gateway", {"readyReplicas": 1}, replicas=2),
    _object(
        "Pod",
        "shop-gateway-x",
        "gateway",
        {
            "phase": "Running",
            "containerStatuses": [{"restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}],
        },
    ),
    _object("Job", "shop-build-1", "build", {"conditions": [{"type": "Complete", "status": "True"}]}),
]


def status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flow: dict[str, Any], *arguments: str) -> Result:
    """The command with a kubectl that knows this flow."""
    (tmp_path / "flow.json").write_text(json.dumps(flow))
    (tmp_path / "objects.json").write_text(json.dumps({"items": OBJECTS}))
    kubectl = tmp_path / "kubectl"
    kubectl.write_text(
        f'#!/bin/sh\ncase "$*" in *"get chatflow shop"*) cat {tmp_path}/flow.json ;;'
        f' *selector*) cat {tmp_path}/objects.json ;; *) echo "Error from server (NotFound)" >&2; exit 1 ;; esac\n'
    )
    kubectl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return CliRunner().invoke(main, ["status", *arguments])


def test_a_flow_is_shown_part_by_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = status(tmp_path, monkeypatch, FLOW, "shop", "--namespace", "sales")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines() == [
        "ChatFlow sales/shop  http://shop-gateway.sales.svc",
        "├─ ✓ Ready: Ready. the chat answers",
        "├─ model intent: Ready, intent by InProcess",
        "├─ gateway",
        "│  ├─ Deployment shop-gateway  1/2 ready",
        "│  └─ Pod shop-gateway-x  CrashLoopBackOff, 3 restarts",
        "├─ redis",
        "│  └─ Pod shop-redis-0  pending",
        "└─ build",
        "   └─ Job shop-build-1  complete",
    ]


def test_a_flow_that_is_not_ready_sets_the_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = status(tmp_path, monkeypatch, {**FLOW, "status": {}}, "shop")
    assert result.exit_code == 1
    assert "is the operator running?" in result.output


def test_kubectl_s_own_words_are_passed_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = status(tmp_path, monkeypatch, FLOW, "other")
    assert result.exit_code == 2
    assert "Error from server (NotFound)" in result.output

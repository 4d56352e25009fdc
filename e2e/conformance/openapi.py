"""schemathesis against a served gateway, from its own /openapi.json: examples, coverage, fuzzing, sequences of
requests; data that fits the document and data that does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from e2e.conformance.served import AUTHORIZATION

STREAM_S = 0.3
"""`GET /v1/events` ends when the client leaves: it is read for this long."""
HOOKS = "e2e.conformance.openapi_hooks"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a run has found."""

    cases: int
    failures: int
    report: str
    """What schemathesis has printed."""


def run(url: str, examples: int, seed: int) -> Outcome:
    """All phases and all checks over all routes, so many examples an operation."""
    with tempfile.TemporaryDirectory(prefix="chatflow-schemathesis-") as given:
        folder = Path(given)
        config, report = folder / "schemathesis.toml", folder / "report.json"
        config.write_text(CONFIG, encoding="utf-8")
        command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(config), "run", f"{url}/openapi.json"]
        command += ["--mode=all", f"--header=Authorization: {AUTHORIZATION}", "--no-color"]
        command += [f"--max-examples={examples}", f"--seed={seed}", "--generation-database=none", "--no-shrink"]
        command += ["--continue-on-failure", "--report=json", f"--report-json-path={report}"]
        command += ["--generation-with-security-parameters=false"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if not report.exists():
            raise RuntimeError(f"schemathesis ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        found = json.loads(report.read_text(encoding="utf-8"))
    cases, is_complete = found["test_cases"], found["complete"] and done.returncode in (0, 1)
    unclear = cases["errored"] + len(found["errors"]) + (not is_complete)
    return Outcome(cases["generated"], cases["unique_failures"] + unclear, done.stdout)


CONFIG = f"""
hooks = "{HOOKS}"

[[operations]]
include-path = "/v1/events"
request-timeout = {STREAM_S}

# A WebSocket's route: an HTTP request, good or bad, is told how to connect.
[[operations]]
include-path = "/v1/ws"
checks.positive_data_acceptance.enabled = false
checks.negative_data_rejection.enabled = false
"""

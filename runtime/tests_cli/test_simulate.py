"""`chatflow simulate`: what it prints and writes, and what it says of input that cannot be used."""

from __future__ import annotations

import csv
from pathlib import Path
from xml.etree import ElementTree

import pytest
from chatflow_cli.main import main
from click.testing import CliRunner, Result

RAMP = "time_s,requests_per_s\n0,1\n1800,1\n2400,8\n3300,8\n"
MANIFEST = """\
apiVersion: chatflow.dev/v1alpha1
kind: ChatFlow
metadata: {name: shop}
spec:
  models:
    llm:
      kserve:
        storageUri: hf://Qwen/Qwen3-8B
        replicas: {min: 2, max: 6}
        autoscaling: {concurrency: 24}
"""


def simulate(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["simulate", *arguments])


@pytest.fixture
def ramp(tmp_path: Path) -> Path:
    file = tmp_path / "ramp.csv"
    file.write_text(RAMP)
    return file


def test_it_prints_every_rule_beside_the_oracle_and_writes_chart_and_table(ramp: Path, tmp_path: Path) -> None:
    chart, table = tmp_path / "chart.svg", tmp_path / "table.csv"
    found = simulate("--profile", str(ramp), "--svg", str(chart), "--csv", str(table))
    assert found.exit_code == 0, found.output
    for words in ("ChatFlow's rule", "CPU at 40 %", "CPU at 70 %", "1.00x", "PASS p95 of the queue time"):
        assert words in found.output
    assert ElementTree.parse(chart).getroot().tag.endswith("svg")  # noqa: S314  Our own file.
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert {row["rule"] for row in rows} == {"ChatFlow's rule", "CPU at 40 %", "CPU at 70 %", "oracle"}
    assert all(int(row["servers_ready"]) <= int(row["servers_ordered"]) for row in rows)


def test_replicas_and_concurrency_come_from_the_manifest(ramp: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "chatflow.yaml"
    manifest.write_text(MANIFEST)
    found = simulate("--profile", str(ramp), "--manifest", str(manifest))
    assert "2 to 6 servers of 24 requests, meant to have 75% of 24" in found.output


def test_servers_that_cannot_keep_up_fail_the_bar(ramp: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "chatflow.yaml"
    manifest.write_text(MANIFEST.replace("{min: 2, max: 6}", "{min: 1, max: 1}"))
    found = simulate("--profile", str(ramp), "--manifest", str(manifest))
    assert "FAIL p95 of the queue time" in found.output


@pytest.mark.parametrize(
    ("text", "words"),
    [
        pytest.param("time_s,rate\n0,1\n1,1\n", "no column requests_per_s", id="a column is missing"),
        pytest.param("time_s,requests_per_s\n0,0\n60,0\n", "0 requests; give 1 to 2,000,000", id="no load"),
        pytest.param("time_s,requests_per_s\n0,1000\n86400,1000\n", "86,400,000 requests", id="too much load"),
        pytest.param("time_s,requests_per_s\n0,1\n9e9,1\n", "days; give at most 14", id="too long"),
    ],
)
def test_a_profile_that_cannot_be_used_is_told(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "profile.csv"
    file.write_text(text)
    found = simulate("--profile", str(file))
    assert found.exit_code == 2
    assert words in found.output


def test_a_manifest_without_servers_of_its_own_is_told(tmp_path: Path) -> None:
    manifest = tmp_path / "chatflow.yaml"
    manifest.write_text(MANIFEST.split("spec:")[0] + "spec: {}\n")
    found = simulate("--manifest", str(manifest))
    assert found.exit_code == 2
    assert "spec.models.llm.kserve is not there" in found.output

"""What goes into the package, and what Helm's linter says of it."""

from __future__ import annotations

import tarfile
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from e2e.harness.helm import Helm

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]
WANTED = (
    "Chart.yaml",
    "LICENSE",
    "README.md",
    "values.schema.json",
    "values.yaml",
    "templates/NOTES.txt",
    "crds/*.yaml",
    "charts/operator/Chart.yaml",
    "charts/operator/values.yaml",
    "charts/operator/templates/*.yaml",
    "charts/operator/templates/_helpers.tpl",
)


def test_the_linter_has_nothing_to_say(helm: Helm, tmp_path: Path) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump(yaml.safe_load((helm.chart / "values.yaml").read_text())["operator"]))
    assert "0 chart(s) failed" in helm.run("lint", "--strict", f"--values={values}", "charts/operator")
    assert "0 chart(s) failed" in helm.run("lint", "--strict", ".")


def test_the_package_holds_the_chart_and_nothing_else(helm: Helm, tmp_path: Path) -> None:
    helm.run("package", ".", f"--destination={tmp_path}")
    (package,) = tmp_path.iterdir()
    with tarfile.open(package) as archive:
        files = [name.removeprefix("chatflow/") for name in archive.getnames()]
    # A wildcard of fnmatch runs over slashes: these patterns have to have as many as the file.
    strangers = [
        file
        for file in files
        if not any(fnmatch(file, pattern) and file.count("/") == pattern.count("/") for pattern in WANTED)
    ]
    assert strangers == [], "add them to .helmignore"
    for pattern in WANTED:
        assert any(fnmatch(file, pattern) for file in files), f"{pattern} is not in the package"


def test_versions_agree(helm: Helm) -> None:
    charts = [yaml.safe_load((helm.chart / folder / "Chart.yaml").read_text()) for folder in ("", "charts/operator")]
    umbrella, operator = charts
    assert umbrella["version"] == operator["version"]
    assert umbrella["appVersion"] == operator["appVersion"]
    assert [(one["name"], one["version"]) for one in umbrella["dependencies"]] == [("operator", operator["version"])]

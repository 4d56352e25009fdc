"""Helm, built once into the test bed's cache, and a control plane to install the chart on."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from e2e.cluster.bed import Bed
from e2e.cluster.kubectl import Kubectl
from e2e.cluster.layout import REPOSITORY, Layout
from e2e.cluster.prerequisites import missing
from e2e.harness.fixtures import KEEP_VARIABLE
from e2e.harness.helm import Helm, program
from e2e.harness.target import command

BED = "chart"


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")


@pytest.fixture(scope="session")
def helm() -> Helm:
    """Helm without a cluster."""
    return Helm(program(), REPOSITORY)


@pytest.fixture(scope="session")
def control_plane() -> Iterator[Kubectl]:
    """An API server with its controllers and no node, down afterwards unless CHATFLOW_E2E_KEEP=1."""
    if reasons := missing(node=False):
        pytest.skip(f"no control plane here: {'; '.join(reasons)}")
    bed = Bed(Layout.read(os.environ, BED), _say)
    try:
        command(BED, "up", "--control-plane")
        yield bed.kubectl()
    finally:
        if os.environ.get(KEEP_VARIABLE) != "1":
            command(BED, "down")

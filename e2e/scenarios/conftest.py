"""Scenarios run on a real cluster: see docs/how-to/test-bed.md."""

from pathlib import Path

import pytest

from e2e.harness.fixtures import cluster, flows, installed_operator, workspace

__all__ = ["cluster", "flows", "installed_operator", "workspace"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every scenario wants a cluster: `make test` leaves them out, `make e2e` runs them."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)

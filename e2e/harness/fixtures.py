"""pytest fixtures: one cluster a session, one namespace a test."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterator

import pytest

from e2e.cluster.bed import Bed
from e2e.cluster.layout import Layout
from e2e.cluster.prerequisites import missing

from .flows import Operator, operator_on
from .target import Target, command, foreign_kubectl
from .workspace import Workspace

KEEP_VARIABLE = "CHATFLOW_E2E_KEEP"


@pytest.fixture(scope="session")
def cluster() -> Iterator[Target]:
    """The cluster of CHATFLOW_E2E_KUBECONFIG, else the bed `scenarios`, kept afterwards if CHATFLOW_E2E_KEEP=1."""
    kubectl = foreign_kubectl(os.environ)
    if kubectl is not None:
        yield Target(kubectl, None)
        return
    if reasons := missing(node=True):
        pytest.skip(f"no test bed here: {'; '.join(reasons)}")
    bed = Bed(Layout.read(os.environ, "scenarios"), lambda text: print(text, file=sys.stderr))
    try:
        command(bed.layout.name, "up", "--node")
        yield Target(bed.kubectl(), bed)
    finally:
        if os.environ.get(KEEP_VARIABLE) != "1":
            command(bed.layout.name, "down")


@pytest.fixture
def workspace(cluster: Target) -> Iterator[Workspace]:
    """A fresh namespace, deleted when the test ends."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.kubectl.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    yield Workspace(name, cluster.kubectl.within(name), cluster)
    cluster.kubectl.delete("namespace", name, wait=False)


@pytest.fixture(scope="session")
def installed_operator(cluster: Target) -> Operator:
    """The operator, installed by its chart as a platform team would."""
    found = operator_on(cluster)
    found.install()
    return found


@pytest.fixture
def flows(installed_operator: Operator, workspace: Workspace) -> Workspace:  # noqa: ARG001  It has to be there.
    """A namespace that lets only restricted pods in, on a cluster with the operator."""
    label = "pod-security.kubernetes.io/enforce=restricted"
    workspace.kubectl.run("label", "namespace", workspace.name, label, "--overwrite")
    return workspace

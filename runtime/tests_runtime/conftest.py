"""Fixtures of the runtime's tests: real state servers, started once a session and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests_runtime.state_cases import Open, memory_case, server_case
from tests_runtime.state_servers import (
    Cluster,
    ServerKind,
    Servers,
    StateServer,
    installed,
    running_cluster,
    running_server,
)


@pytest.fixture(scope="session")
def state_servers() -> Iterator[Servers]:
    """Gives a running server of a kind, the same all session long; flows keep the tests apart."""
    running: dict[ServerKind, StateServer] = {}
    with ExitStack() as stack:

        def server(kind: ServerKind) -> StateServer:
            if kind not in running:
                running[kind] = stack.enter_context(running_server(kind))
            return running[kind]

        yield server


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """Three primaries."""
    with running_cluster() as running:
        yield running


@pytest.fixture(params=["memory", *installed(), "cluster"])
def open_case(request: pytest.FixtureRequest, state_servers: Servers) -> Open:
    """Opens the store under test with rules of one's choice."""
    if request.param == "memory":
        return memory_case
    if request.param == "cluster":
        url = request.getfixturevalue("cluster").url
        return lambda rules: server_case(url, rules)
    server = state_servers(ServerKind(request.param))
    return lambda rules: server_case(server.url, rules)

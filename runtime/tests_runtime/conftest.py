"""Fixtures of the runtime's tests: real state servers, started once a session and only when asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from tests_runtime.state_servers import ServerKind, Servers, StateServer, running_server


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

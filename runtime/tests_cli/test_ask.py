"""`chatflow ask` and `chatflow chat`, against a flow that runs, one that is started for them, and none."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest
from chatflow_api.v1alpha1 import Metadata
from chatflow_cli.local.data_folder import DataFolder
from chatflow_cli.local.sockets import free_port

PROGRAM = [sys.executable, "-c", "from chatflow_cli.main import main; main()"]
QUESTION = "when do i get my money back"


async def chatflow(*arguments: str, folder: Path, stdin: str | None = None) -> tuple[int, str, str]:
    """Status, output and errors of a command."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        cwd=folder,
        env={**os.environ, "PYTHONUTF8": "1"},
    )
    output, errors = await process.communicate((stdin or "").encode())
    assert process.returncode is not None
    return process.returncode, output.decode(), errors.decode()


@asynccontextmanager
async def up(file: Path) -> AsyncIterator[str]:
    """The URL of a running `chatflow up`, stopped by SIGTERM at the end."""
    process = await asyncio.create_subprocess_exec(
        *PROGRAM, "up", str(file), "--port", str(free_port()), stdout=asyncio.subprocess.PIPE, cwd=file.parent
    )
    assert process.stdout is not None
    folder = DataFolder.below(file.parent / ".chatflow", Metadata(name="tiny"))
    lines: list[str] = []
    try:
        async with asyncio.timeout(90):
            while (running := folder.running()) is None:
                line = await process.stdout.readline()
                assert line, "".join(lines)
                lines.append(line.decode())
        drain = asyncio.create_task(process.stdout.read())
        yield running.url
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            assert await process.wait() == 0
        await drain
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.timeout(300)
async def test_a_file_without_an_up_is_started_for_the_question(tiny: Path) -> None:
    status, output, errors = await chatflow("ask", str(tiny), QUESTION, folder=tiny.parent)
    assert (status, errors) == (0, "")
    first, origin, citation = output.splitlines()[:3]
    assert first == "A refund takes three working days."
    assert origin.startswith("[L0 knowledge · intent refund · confidence ")
    assert citation.startswith("  1. How long does a refund take? (refund-time, ")
    assert citation.endswith("  https://shop.example.com/refund")
    assert DataFolder.below(tiny.parent / ".chatflow", Metadata(name="tiny")).running() is None


@pytest.mark.timeout(300)
async def test_commands_find_the_flow_that_runs(tiny: Path) -> None:
    async with up(tiny) as url:
        async with aiohttp.ClientSession() as client, client.post(f"{url}/v1/sessions") as given:
            token = (await given.json())["token"]
        for target in (url, str(tiny)):
            status, output, _ = await chatflow("ask", target, QUESTION, "--token", token, "--json", folder=tiny.parent)
            assert status == 0
            reply = json.loads(output)
            assert (reply["origin"], reply["intent"]) in {("knowledge", "refund"), ("cache", "refund")}
        # The second question belongs to the conversation that the first one began.
        assert reply["id"].count("-") == 1
        assert reply["scene"] == "answer"

        typed = f"hello\n\n{QUESTION}\n/quit\nnever asked\n"
        status, output, _ = await chatflow("chat", str(tiny), folder=tiny.parent, stdin=typed)
        assert status == 0
        assert output.index("Welcome to the tiny shop.") < output.index("A refund takes three working days.")
        assert "never asked" not in output

        status, output, _ = await chatflow("up", str(tiny), "--port", str(free_port()), folder=tiny.parent)
        assert status == 2

        status, _, errors = await chatflow("ask", url, "x" * 5000, folder=tiny.parent)
        assert status == 1
        assert "Message too long (413)" in errors
    status, _, errors = await chatflow("ask", url, QUESTION, folder=tiny.parent)
    assert status == 1
    assert errors.startswith(f"chatflow: {url}: no answer (")
    assert errors.count("\n") == 1


async def test_a_url_that_is_none_is_refused(tmp_path: Path) -> None:
    status, _, errors = await chatflow("ask", "http://", "hello", folder=tmp_path)
    assert status == 2
    assert "is no URL of a gateway" in errors

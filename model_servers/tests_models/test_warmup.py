"""The warm-up sidecar as a process beside a server that is really killed and started again."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
from chatflow_models.warmup.settings import Settings, SettingsInvalid
from chatflow_models.warmup.warmer import Metrics, Warmer
from chatflow_models.warmup.warmth import Goal, Warmth
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

COLD = 4
"""Answers of the planted server that are slow; fewer than the sidecar's own prompts."""


def test_a_model_that_was_never_seen_warm_has_to_show_it_for_longer() -> None:
    warmth = Warmth(Goal(prompts=5, in_a_row=2, ratio=1.5))

    def after(*first_tokens_s: float) -> list[bool]:
        found = []
        for first_token_s in first_tokens_s:
            warmth.note(first_token_s)
            found.append(warmth.is_warm)
        return found

    assert after(0.5, 0.5, 0.1, 0.1, 0.12) == [False, False, False, False, True]
    warmth.restarted()
    # The best that this model ever had is what the new process has to come back to.
    assert after(0.16, 0.15, 0.1) == [False, False, True]


@given(st.lists(st.floats(0.001, 10), max_size=40), st.integers(1, 6), st.integers(1, 4), st.floats(1, 3))
def test_what_counts_as_warm_is_fast_at_the_end(times: list[float], prompts: int, in_a_row: int, ratio: float) -> None:
    warmth = Warmth(Goal(prompts, in_a_row, ratio))
    for first_token_s in times:
        warmth.note(first_token_s)
    if warmth.is_warm:
        assert len(times) >= in_a_row
        assert all(one <= ratio * min(times) for one in times[-in_a_row:])


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("URL", "https://elsewhere", "http://127.0.0.1:8080/v1"),
        ("URL", "", "is missing"),
        ("MODEL", "", "is missing"),
        ("RATIO", "0.5", "a number from 1"),
        ("DEADLINE_S", "soon", "a number from 0"),
        ("HEALTH_PERIOD_S", "0", "a number from 0.1"),
        ("PROMPTS_FILE", "/no/such/file", "cannot be read"),
    ],
)
def test_settings_that_cannot_be_used_are_named(name: str, value: str, said: str) -> None:
    environ = {"CHATFLOW_WARMUP_URL": "http://127.0.0.1:1/v1", "CHATFLOW_WARMUP_MODEL": "m"}
    with pytest.raises(SettingsInvalid, match=f"CHATFLOW_WARMUP_{name}.*{said}"):
        Settings.read({**environ, f"CHATFLOW_WARMUP_{name}": value})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def eventually(check: Callable[[], bool], within_s: float = 30.0) -> None:
    end = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < end, "not in time"
        time.sleep(0.005)


class Pod:
    """A server with its sidecar."""

    def __init__(self, folder: Path, cold: int = COLD, **settings: str) -> None:
        self.port, self._probe_port = free_port(), free_port()
        self.log, self._cold = folder / "traffic", cold
        self.log.touch()
        self.server: subprocess.Popen[bytes] | None = None
        environ = {
            "CHATFLOW_WARMUP_URL": f"http://127.0.0.1:{self.port}/v1",
            "CHATFLOW_WARMUP_MODEL": "m",
            "CHATFLOW_WARMUP_HOST": "127.0.0.1",
            "CHATFLOW_WARMUP_PORT": str(self._probe_port),
            "CHATFLOW_WARMUP_RATIO": "3",
            **{f"CHATFLOW_WARMUP_{name}": value for name, value in settings.items()},
        }
        self.sidecar = subprocess.Popen([sys.executable, "-m", "chatflow_models.warmup"], env={**os.environ, **environ})

    def start(self, *options: str) -> None:
        """Start the server, cold. `options` are the planted server's."""
        arguments = [str(self.port), str(self._cold), str(self.log), *options]
        self.server = subprocess.Popen([sys.executable, "-m", "tests_models.planted_server", *arguments])

    def kill(self) -> None:
        """End the server as a crash would."""
        if self.server is not None:
            self.server.kill()
            self.server.wait()

    def freeze(self, *, is_frozen: bool) -> None:
        """Stop the server as a hanging one stops: its connections stay open."""
        assert self.server is not None
        self.server.send_signal(signal.SIGSTOP if is_frozen else signal.SIGCONT)

    def plant(self, status: int) -> None:
        """Have the server give this status to everything; 0 ends it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("POST", f"/plant?status={status}")
            assert connection.getresponse().status == 200
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, str]:
        """The sidecar's answer; (0, reason) while it does not listen."""
        connection = http.client.HTTPConnection("127.0.0.1", self._probe_port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            return 0, str(error)
        finally:
            connection.close()

    def is_ready(self) -> bool:
        """What a kubelet would find."""
        return self.get("/readyz")[0] == 200

    def metric(self, name: str) -> float:
        """One sample."""
        lines = self.get("/metrics")[1].splitlines()
        return float(next(line for line in lines if line.startswith(f"chatflow_warmup_{name} ")).split()[1])

    def ask(self) -> None:
        """Traffic: one question, if the pod is ready. A server that dies meanwhile is no matter here. A connection
        belongs to one process: if the pod is ready after it was made, that process is the warm one, or dead."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.connect()
            if not self.is_ready():
                return
            body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": True})
            connection.request("POST", "/v1/chat/completions", body, {"X-Traffic": "1"})
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return
        finally:
            connection.close()

    def served(self) -> list[str]:
        """How the server was when traffic came, request by request."""
        return self.log.read_text().split()


@contextmanager
def pod(folder: Path, cold: int = COLD, **settings: str) -> Iterator[Pod]:
    """A pod while the context lasts."""
    made = Pod(folder, cold, **settings)
    try:
        yield made
        made.sidecar.send_signal(signal.SIGTERM)
        assert made.sidecar.wait(10) == 0
    finally:
        made.sidecar.kill()
        made.sidecar.wait()
        made.kill()


def test_no_request_reaches_a_cold_server_however_often_it_is_killed(tmp_path: Path) -> None:
    with pod(tmp_path) as found:
        stop = threading.Event()

        def traffic() -> None:
            while not stop.wait(0.01):
                found.ask()

        users = [threading.Thread(target=traffic) for _ in range(2)]
        for user in users:
            user.start()
        try:
            for number in range(1, 5):
                found.start()
                eventually(found.is_ready)
                served = len(found.served())
                eventually(lambda before=served: len(found.served()) >= before + 5)  # type: ignore[misc]
                assert found.metric("server_starts_total") == number
                found.kill()
                eventually(lambda: not found.is_ready())
        finally:
            stop.set()
            for user in users:
                user.join()
        assert set(found.served()) == {"warm"}
        assert found.metric("ready") == 0


def test_a_server_that_stays_slow_takes_traffic_after_the_deadline(tmp_path: Path) -> None:
    with pod(tmp_path, DEADLINE_S="0", PROMPTS_AT_LEAST="1000") as found:
        eventually(lambda: "does not accept connections" in found.get("/readyz")[1])
        found.start()
        eventually(found.is_ready)
        assert found.metric("deadlines_missed_total") == 1


def test_without_a_warm_up_the_first_requests_meet_a_cold_server(tmp_path: Path) -> None:
    with pod(tmp_path, PROMPTS_AT_LEAST="1", PROMPTS_IN_A_ROW="1") as found:
        found.start()
        eventually(found.is_ready)
        found.ask()
        assert found.served() == ["cold"]


QUICK = {"HEALTH_PERIOD_S": "0.1", "HEALTH_TIMEOUT_S": "0.5", "HEALTH_FAILURES": "2"}
SELDOM = {"HEALTH_PERIOD_S": "60"}


@pytest.mark.parametrize("kind", ["hanging", "broken"])
def test_a_server_that_goes_silent_takes_no_traffic_until_it_answers_again(tmp_path: Path, kind: str) -> None:
    def silence(pod: Pod, *, is_silent: bool) -> None:
        if kind == "hanging":
            pod.freeze(is_frozen=is_silent)
        else:
            pod.plant(500 if is_silent else 0)

    with pod(tmp_path, COLD, **QUICK) as found:
        found.start()
        eventually(found.is_ready)
        silence(found, is_silent=True)
        eventually(lambda: found.get("/readyz")[1].startswith("the server is silent"))
        assert found.get("/healthz")[0] == 200
        silence(found, is_silent=False)
        eventually(found.is_ready)
        # The same process is as warm as before.
        assert found.metric("server_starts_total") == 1


@pytest.mark.parametrize(
    "delta",
    [{"reasoning": "Hm"}, {"reasoning_content": "Hm"}, {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}],
    ids=["reasoning", "older-reasoning", "tool"],
)
def test_a_model_that_begins_with_something_else_than_content_gets_warm(tmp_path: Path, delta: object) -> None:
    with pod(tmp_path) as found:
        found.start(f"--delta={json.dumps(delta)}")
        eventually(found.is_ready)
        assert found.metric("deadlines_missed_total") == 0


def test_a_server_whose_answers_have_no_token_takes_traffic_after_the_deadline(tmp_path: Path) -> None:
    with pod(tmp_path, DEADLINE_S="0.5") as found:
        found.start("--delta={}")
        eventually(lambda: "without a single token" in found.get("/readyz")[1])
        eventually(found.is_ready)
        assert found.metric("deadlines_missed_total") == 1


def test_an_answer_that_breaks_off_is_none(tmp_path: Path) -> None:
    with pod(tmp_path, DEADLINE_S="0") as found:
        found.start("--breaks-off")
        eventually(lambda: "the answer broke off" in found.get("/readyz")[1])
        assert found.metric("server_starts_total") == 0


def test_the_deadline_counts_from_the_first_answer_not_from_the_first_connection(tmp_path: Path) -> None:
    with pod(tmp_path, DEADLINE_S="2", RATIO="1000") as found:
        found.start("--loading-s=2.5")
        eventually(lambda: "status 503" in found.get("/readyz")[1])
        eventually(found.is_ready)
        assert found.metric("deadlines_missed_total") == 0
        assert found.metric("seconds") > 2


def test_other_prompts_are_not_held_against_the_times_of_earlier_ones(tmp_path: Path) -> None:
    def prompt(text: str) -> str:
        return json.dumps([[{"role": "user", "content": text}]])

    file = tmp_path / "prompts.json"
    file.write_text(prompt("short"))
    with pod(tmp_path, PROMPTS_FILE=str(file)) as found:
        found.start()
        eventually(found.is_ready)
        assert found.metric("best_first_token_seconds") < 0.1
        found.kill()
        eventually(lambda: "does not accept connections" in found.get("/readyz")[1])
        file.write_text(prompt("long" * 1000))
        found.start()
        eventually(found.is_ready)
        assert found.metric("best_first_token_seconds") >= 0.1
        assert found.metric("deadlines_missed_total") == 0


@pytest.mark.parametrize(("options", "starts"), [((), 1), (("--no-metrics",), 2)], ids=["told", "not-told"])
def test_a_process_is_known_again_by_the_time_at_which_it_began(
    tmp_path: Path, options: tuple[str, ...], starts: int
) -> None:
    with pod(tmp_path, COLD, **SELDOM) as found:
        found.start("--idle-s=0.5", *options)
        eventually(found.is_ready)
        eventually(lambda: not found.is_ready())
        eventually(found.is_ready)
        assert found.metric("server_starts_total") == starts
        found.kill()
        found.start("--idle-s=0.5", *options)
        eventually(lambda: found.metric("server_starts_total") > starts)


def test_a_server_that_closes_idle_connections_stays_ready(tmp_path: Path) -> None:
    with pod(tmp_path, COLD, **QUICK) as found:
        found.start("--idle-s=1", "--no-metrics")
        eventually(found.is_ready)
        end = time.monotonic() + 2
        while time.monotonic() < end:
            assert found.is_ready()
        assert found.metric("server_starts_total") == 1


async def test_a_server_that_closes_each_connection_at_once_is_not_asked_without_a_pause() -> None:
    taken, paused = 0, asyncio.Event()

    def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal taken
        taken += 1
        writer.close()

    async def pause(_: float) -> None:
        paused.set()
        await asyncio.Event().wait()

    listener = await asyncio.start_server(close, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    settings = Settings.read({"CHATFLOW_WARMUP_URL": url, "CHATFLOW_WARMUP_MODEL": "m"})
    async with listener, aiohttp.ClientSession() as session:
        work = asyncio.create_task(Warmer(settings, session, Metrics(CollectorRegistry()), pause).run())
        await asyncio.wait_for(paused.wait(), 10)
        work.cancel()
        # The held one, and those that asked for metrics.
        assert taken <= 5

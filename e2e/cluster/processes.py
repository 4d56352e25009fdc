"""The bed's processes: started apart from the tool, recorded with their start time, ended only by that record."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from .errors import NotReady

POLL_S = 0.05
LOG_TAIL_LINES = 20


@dataclass(frozen=True, slots=True)
class Component:
    """One process of the bed."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    is_ready: Callable[[], bool]
    deadline_s: float = 60.0
    pass_fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a started process."""

    pid: int
    started: int
    """Clock ticks after boot, from /proc: a pid that was given anew has another."""
    command: tuple[str, ...]
    wrapper: tuple[int, int] | None = None
    """The pid and start time of the command that entered the namespaces, which ends a moment after its child."""


def start_time(pid: int) -> int | None:
    """When process `pid` started, in clock ticks after boot; None where there is none, or only its remains."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def is_alive(record: Record) -> bool:
    """Whether the recorded process still runs."""
    return start_time(record.pid) == record.started


def wait_until(condition: Callable[[], bool], deadline_s: float) -> bool:
    """Poll `condition` until it holds; False when it does not within `deadline_s`."""
    end = time.monotonic() + deadline_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(POLL_S)
    return True


class Processes:
    """The records of one bed, a file each, and the processes behind them."""

    def __init__(self, run: Path, logs: Path) -> None:
        self._run, self._logs = run, logs
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def record(self, name: str) -> Record | None:
        """The record of process `name`, alive or not."""
        try:
            fields = json.loads((self._run / f"{name}.json").read_text())
        except FileNotFoundError:
            return None
        wrapper = fields["wrapper"]
        return Record(
            fields["pid"], fields["started"], tuple(fields["command"]), None if wrapper is None else tuple(wrapper)
        )

    def names(self) -> list[str]:
        """Every process that was started, sorted."""
        return sorted(file.stem for file in self._run.glob("*.json"))

    def alive(self, name: str) -> Record | None:
        """The record of process `name` if it runs."""
        record = self.record(name)
        return record if record is not None and is_alive(record) else None

    def start(self, component: Component, prefix: tuple[str, ...] = ()) -> bool:
        """Start `component` unless it runs with this very command; True when it was started.

        `prefix` is a command that enters namespaces and forks (nsenter): the process recorded is its child.
        """
        running = self.alive(component.name)
        if running is not None and running.command == component.command:
            return False
        if running is not None:
            self.stop(component.name)
        self._reap(component.name)
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / f"{component.name}.log").open("ab") as log:
            outer = subprocess.Popen(
                [*prefix, *component.command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=dict(component.environment),
                start_new_session=True,
                pass_fds=component.pass_fds,
            )
        self._children[component.name] = outer
        outer_started = start_time(outer.pid)
        pid = _child(outer) if prefix else outer.pid
        started = None if pid is None else start_time(pid)
        if pid is None or started is None:
            raise NotReady(f"{component.name} ended at once; its log says:\n{self.tail(component.name)}")
        wrapper = (outer.pid, outer_started) if prefix and outer_started is not None else None
        self._remember(component.name, Record(pid, started, component.command, wrapper))
        return True

    def await_ready(self, component: Component) -> None:
        """Wait for the component's own readiness; NotReady with the end of its log when it ends or stays silent."""

        def settled() -> bool:
            return component.is_ready() or self.alive(component.name) is None

        if not wait_until(settled, component.deadline_s) or self.alive(component.name) is None:
            fate = "runs but is not ready" if self.alive(component.name) else "has ended"
            raise NotReady(
                f"{component.name} {fate} after {component.deadline_s:.0f} s; "
                f"the end of {self._logs / component.name}.log:\n"
                f"{self.tail(component.name)}"
            )

    def stop(self, name: str, number: signal.Signals = signal.SIGTERM, patience_s: float = 5.0) -> None:
        """End process `name` if it runs, by `number` and after `patience_s` by SIGKILL, and forget it."""
        record = self.record(name)
        if record is not None and is_alive(record):
            _signal(record.pid, number)
            if not wait_until(lambda: not is_alive(record), patience_s):
                _signal(record.pid, signal.SIGKILL)
                if not wait_until(lambda: not is_alive(record), patience_s):
                    raise NotReady(f"{name} (pid {record.pid}) does not end; it may wait for a disk")
        self._reap(name)
        if record is not None and record.wrapper is not None:
            pid, started = record.wrapper
            wait_until(lambda: start_time(pid) != started, patience_s)
        (self._run / f"{name}.json").unlink(missing_ok=True)

    def tail(self, name: str) -> str:
        """The last lines of a process's log."""
        try:
            text = (self._logs / f"{name}.log").read_text(errors="replace")
        except FileNotFoundError:
            return "(no log)"
        return "\n".join(text.splitlines()[-LOG_TAIL_LINES:])

    def _reap(self, name: str) -> None:
        """Collect an ended child of this very process; others' children are not ours to wait for."""
        if (child := self._children.pop(name, None)) is not None:
            child.wait()

    def _remember(self, name: str, record: Record) -> None:
        self._run.mkdir(parents=True, exist_ok=True)
        file = self._run / f"{name}.json"
        new = file.with_suffix(".new")
        new.write_text(json.dumps(asdict(record)))
        new.replace(file)


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


def _child(outer: subprocess.Popen[bytes]) -> int | None:
    """The one child of `outer`, once it has forked; None when `outer` ended without."""
    children = Path(f"/proc/{outer.pid}/task/{outer.pid}/children")
    found: list[int] = []

    def forked() -> bool:
        if outer.poll() is not None:
            return True
        found[:] = [int(pid) for pid in children.read_text().split()]
        return bool(found)

    wait_until(forked, 10.0)
    return found[0] if found else None

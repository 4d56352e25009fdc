"""Where `up` keeps a flow's data: ./.chatflow/FLOW, or a temporary folder that goes at the end.

artefacts/    intent models and knowledge indexes by version, current.json
configmaps/   NAME/KEY          secrets/   NAME/KEY, for the owner alone
training/     the last model of `chatflow train`, with its report
redis/        append-only file and socket     records/   labelling candidates and ratings
runtime.json  what gateway and worker read     up.json    pid and URL of the `up` that runs     lock
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from chatflow_api.v1alpha1 import Metadata
from chatflow_models.intent.durable_files import sync

from chatflow_cli.errors import CommandFailed


@dataclass(frozen=True)
class Running:
    """An `up` that is running."""

    pid: int
    url: str
    admin_url: str


class DataFolder:
    """One flow's folder, held by at most one `up` at a time."""

    def __init__(self, root: Path, *, is_ephemeral: bool = False) -> None:
        self.root = root
        self._is_ephemeral = is_ephemeral
        self._lock: IO[str] | None = None

    @classmethod
    def below(cls, data: Path, flow: Metadata) -> DataFolder:
        """The folder of a flow under `data`, which is kept."""
        return cls(data / _folder_name(flow))

    @classmethod
    def temporary(cls) -> DataFolder:
        """A new folder that `close` removes."""
        return cls(Path(tempfile.mkdtemp(prefix="chatflow-")), is_ephemeral=True)

    @property
    def artefacts(self) -> Path:
        """Intent models and knowledge indexes."""
        return self.root / "artefacts"

    @property
    def training(self) -> Path:
        """The last model of `chatflow train`, with its report."""
        return self.root / "training"

    @property
    def configmaps(self) -> Path:
        """ConfigMaps as folders."""
        return self.root / "configmaps"

    @property
    def secrets(self) -> Path:
        """Secrets as folders."""
        return self.root / "secrets"

    @property
    def records(self) -> Path:
        """Where the worker's sink writes."""
        return self.root / "records"

    @property
    def redis(self) -> Path:
        """The state server's files."""
        return self.root / "redis"

    @property
    def config(self) -> Path:
        """The runtime's configuration."""
        return self.root / "runtime.json"

    def open(self) -> None:
        """Make and lock it; CommandFailed when another `up` holds it, or it cannot be written."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            if not self._is_ephemeral:
                # Whoever keeps the manifest in a repository does not want the data there.
                ignore = self.root.parent / ".gitignore"
                if not ignore.exists():
                    ignore.write_text("*\n")
            self._lock = (self.root / "lock").open("w")
        except OSError as error:
            raise CommandFailed(
                f"cannot write to {self.root} ({error.strerror}); give another folder with --data"
            ) from error
        if not _is_free(self._lock):
            self._lock.close()
            self._lock = None
            running = self.running()
            where = f" on {running.url} (pid {running.pid})" if running else ""
            raise CommandFailed(
                f"this flow is up already{where}, with its data in {self.root};"
                " stop it, or give another folder with --data, or --ephemeral"
            )

    def announce(self, url: str, admin_url: str) -> None:
        """Tell `ask` and `chat` where the flow is."""
        content = {"pid": os.getpid(), "url": url, "admin_url": admin_url}
        write_whole(self.root / "up.json", json.dumps(content))

    def running(self) -> Running | None:
        """The `up` that holds the folder; None when there is none."""
        with suppress(OSError, ValueError, KeyError), (self.root / "lock").open("r") as lock:
            if not _is_free(lock):
                content = json.loads((self.root / "up.json").read_text())
                return Running(int(content["pid"]), str(content["url"]), str(content["admin_url"]))
        return None

    def close(self) -> None:
        """Give it free; a temporary one is removed."""
        (self.root / "up.json").unlink(missing_ok=True)
        if self._lock is not None:
            self._lock.close()
            self._lock = None
        if self._is_ephemeral:
            shutil.rmtree(self.root, ignore_errors=True)


def write_whole(path: Path, text: str) -> None:
    """Replace a file in one step: a reader sees the old text or the new one, also when two write at once."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        sync(fresh)
        fresh.replace(path)
        sync(path.parent)
    finally:
        fresh.unlink(missing_ok=True)


def _folder_name(flow: Metadata) -> str:
    return flow.name if flow.namespace == "default" else f"{flow.namespace}.{flow.name}"


def _is_free(lock: IO[str]) -> bool:
    """Whether nobody holds the lock; it is ours then, until the file is closed."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

"""Builds a flow's artefacts in a child process, and skips it when nothing that goes into them has changed.

Called by `stack`. Training holds the processor for seconds and brings libraries of its own, so it stays out of the
supervisor.
"""

from __future__ import annotations

import sys
from pathlib import Path

from chatflow_cli.errors import ManifestUnusable
from chatflow_cli.local.build_request import KINDS, BuildRequest, is_current
from chatflow_cli.local.children import Child, Command
from chatflow_cli.local.console import Console
from chatflow_cli.local.preparation import Prepared


class Artefacts:
    """The artefacts of one running flow. Only one build runs at a time."""

    def __init__(self, folder: Path, console: Console, cache: Path | None = None) -> None:
        """`cache`: artefacts of an `up`, to find and leave models in. What is in force stands in `folder` alone."""
        self.folder = folder
        self._console = console
        self._built: str | None = None
        folder.mkdir(parents=True, exist_ok=True)
        if cache is not None:
            for kind in KINDS:
                (cache / kind).mkdir(parents=True, exist_ok=True)
                (folder / kind).symlink_to((cache / kind).resolve(), target_is_directory=True)

    async def build(self, prepared: Prepared) -> bool:
        """Make the artefacts fit the manifest and put them in force; True when they changed.

        ManifestUnusable with the builder's words when the content cannot be used; the old ones stay in force.
        """
        request = BuildRequest.of(prepared.config, prepared.content)
        fingerprint = request.fingerprint()
        if fingerprint == self._built:
            return False
        if is_current(self.folder, fingerprint):
            self._console.say("intent model and knowledge index are up to date")
            self._built = fingerprint
            return False
        status = await self._run(request)
        if status != 0:
            lines = self._console.tail("build", 12)
            raise ManifestUnusable("\n".join(["the artefacts could not be built:", *lines]))
        self._built = fingerprint
        return True

    async def _run(self, request: BuildRequest) -> int:
        """The exit status of the process that builds."""
        folder = self.folder.resolve()
        path = folder / "request.msgpack"
        path.write_bytes(request.encode())
        arguments = [sys.executable, "-m", "chatflow_cli.local.build", str(path), str(folder)]
        child = await Child.start(Command("build", arguments, {"OMP_NUM_THREADS": "1"}), self._console)
        try:
            return await child.wait()
        finally:
            await child.stop()
            path.unlink(missing_ok=True)

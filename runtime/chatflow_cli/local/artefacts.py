"""Builds a flow's artefacts in a child process, and skips it when nothing that goes into them has changed.

Called by `stack`. Training holds the processor for seconds and brings libraries of its own, so it stays out of the
supervisor.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from chatflow_cli.errors import ManifestUnusable
from chatflow_cli.local.artefact_store import ArtefactStore, Pair
from chatflow_cli.local.build_request import BuildRequest
from chatflow_cli.local.children import Child, Command
from chatflow_cli.local.console import Console
from chatflow_cli.local.preparation import Prepared


class Artefacts:
    """The artefacts of one running flow. Only one build runs at a time."""

    def __init__(self, path: Path, console: Console, cache: Path | None = None) -> None:
        """`cache`: the folder of an `up`, to find and leave models in."""
        self.folder = ArtefactStore(path)
        self.folder.make(cache)
        self._console = console
        self._in_force: Pair | None = None

    async def build(self, prepared: Prepared) -> bool:
        """Make the artefacts fit the manifest and put them in force; True when that changed something.

        ManifestUnusable with the builder's words when the content cannot be used; the old ones stay in force.
        """
        request = BuildRequest.of(prepared.config, prepared.content)
        pair = await self._found(request) or await self._built(request)
        if pair == self._in_force:
            return False
        self.folder.put_in_force(pair)
        self._in_force = pair
        return True

    async def _found(self, request: BuildRequest) -> Pair | None:
        return await asyncio.to_thread(self.folder.built, request.fingerprint())

    async def _built(self, request: BuildRequest) -> Pair:
        status = await self._run(request)
        pair = await self._found(request)
        if status != 0 or pair is None:
            lines = self._console.tail("build", 12)
            raise ManifestUnusable("\n".join(["the artefacts could not be built:", *lines]))
        return pair

    async def _run(self, request: BuildRequest) -> int:
        """The exit status of the process that builds."""
        folder = self.folder.path.resolve()
        path = folder / "request.msgpack"
        path.write_bytes(request.encode())
        arguments = [sys.executable, "-m", "chatflow_cli.local.build", str(path), str(folder)]
        child = await Child.start(Command("build", arguments, {"OMP_NUM_THREADS": "1"}), self._console)
        try:
            return await child.wait()
        finally:
            await child.stop()
            path.unlink(missing_ok=True)

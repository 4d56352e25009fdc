"""`python -m chatflow_models.serving --model_name intent --model_dir DIR`: the intent model server."""

from __future__ import annotations

import os
import signal
import sys

# Small matrices: more BLAS threads cost many times what they save. numpy reads this when it is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

from chatflow_models.intent import IntentError  # noqa: E402
from chatflow_models.serving.settings import Settings  # noqa: E402


def main() -> int:
    """Serve until told to stop; 1 when the model cannot be used."""
    settings = Settings.parse(sys.argv[1:])
    # The first process of a container ignores signals that it does not handle; uvicorn takes over when it serves.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    # The SDK reads the command line when it is imported, and takes seconds for it.
    from chatflow_models.serving.server import run

    try:
        run(settings)
    except IntentError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

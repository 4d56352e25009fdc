"""The runtime's entry point: `python -m chatflow_runtime --role gateway | worker`."""

from __future__ import annotations

import argparse
import os
import sys

# A turn's matrices are small: more BLAS threads cost many times what they save. numpy reads this when it is imported.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(variable, "1")

import uvloop  # noqa: E402

from chatflow_runtime import bootstrap, logs  # noqa: E402
from chatflow_runtime.errors import ChatFlowError  # noqa: E402
from chatflow_runtime.settings import Settings, SettingsInvalid  # noqa: E402


def main() -> int:
    """Run one role; 2 when it cannot start."""
    parser = argparse.ArgumentParser(prog="chatflow_runtime", description=__doc__)
    parser.add_argument("--role", choices=("gateway", "worker"), required=True)
    role = parser.parse_args().role
    try:
        settings = Settings.read(os.environ)
        logs.configure(settings.log_format, role)
        run = bootstrap.run_gateway if role == "gateway" else bootstrap.run_worker
        uvloop.run(run(settings))
    except (SettingsInvalid, ChatFlowError) as error:
        sys.stderr.write(f"{role}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

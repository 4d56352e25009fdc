"""What an idle flow with one worker costs its state server: commands and writes a second.

`python -m e2e.load.idle_cost [--seconds 30]` runs a real worker beside a server of its own. `writes` are changes to the
data set (rdb_changes_since_last_save), which replicas and append-only files have to take up.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from pathlib import Path

from chatflow_api.runtime_config import derive
from chatflow_api.v1alpha1 import ChatFlow
from tests_runtime.state_servers import StateServer, free_ports, running_server

from e2e.faults.plant import Member

SETTLED_S = 12.0
"""The partitions are taken, and looked into once, by then."""
FLOW = {
    "apiVersion": "chatflow.dev/v1alpha1",
    "kind": "ChatFlow",
    "metadata": {"name": "idle"},
    "spec": {"locale": "en", "models": {"intent": {"encoder": "none", "examples": {"hours": ["opening hours"]}}}},
}


def _counts(server: StateServer) -> dict[str, int]:
    """Calls by command, those of scripts included, and changes to the data set under `writes`."""
    told = [server.ask("INFO", section) for section in ("commandstats", "persistence")]
    rows = dict(line.split(":", 1) for line in "\n".join(told).splitlines() if ":" in line)
    calls = {
        name.removeprefix("cmdstat_"): int(value.split(",")[0].removeprefix("calls="))
        for name, value in rows.items()
        if name.startswith("cmdstat_")
    }
    return {**calls, "writes": int(rows["rdb_changes_since_last_save"])}


async def measure(server: StateServer, seconds: float) -> dict[str, float]:
    """What happens in a second."""
    with tempfile.TemporaryDirectory(prefix="chatflow-idle-") as name:
        folder = Path(name)
        (folder / "runtime.json").write_text(derive(ChatFlow.model_validate(FLOW)).model_dump_json(), encoding="utf-8")
        environment = {
            "CHATFLOW_CONFIG": str(folder / "runtime.json"),
            "CHATFLOW_ARTEFACTS_DIR": str(folder / "artefacts"),
            "CHATFLOW_REDIS_URL": f"redis://127.0.0.1:{server.port}",
        }
        worker = Member("worker", environment, folder / "worker")
        try:
            await worker.start()
            await asyncio.sleep(SETTLED_S)
            before, began_s = _counts(server), time.monotonic()
            await asyncio.sleep(seconds)
            after, took_s = _counts(server), time.monotonic() - began_s
        finally:
            await worker.kill()
    return {name: (count - before.get(name, 0)) / took_s for name, count in after.items()}


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    arguments.add_argument("--seconds", type=float, default=30.0)
    chosen = arguments.parse_args()
    with running_server(port=free_ports(1)[0]) as server:
        rates = asyncio.run(measure(server, chosen.seconds))
    for name, rate in sorted(rates.items(), key=lambda row: -row[1]):
        if rate >= 0.05:
            print(f"{name:<24}{rate:>8.1f} a second")


if __name__ == "__main__":
    main()

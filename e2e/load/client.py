"""A lean HTTP/1.1 load client for one JSON route: fixed connections, each sending its next request on the last answer.

Used by the benchmarks of this folder; a process of its own, so that its CPU time is never counted as the server's.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import functools
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator


class Load:
    """What all connections share: where the requests go and what came back."""

    def __init__(self, path: str, host: str, until_s: float) -> None:
        self.head = (
            f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: ".encode()
        )
        self.until_s = until_s
        self.latencies_s: list[float] = []
        self.statuses: collections.Counter[int] = collections.Counter()
        self.origins: collections.Counter[str] = collections.Counter()


class Connection(asyncio.Protocol):
    """One keep-alive connection with one request under way."""

    def __init__(self, load: Load, bodies: Iterator[bytes], done: asyncio.Future[None]) -> None:
        self._load = load
        self._bodies = bodies
        self._done = done
        self._buffer = b""
        self._sent_s = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._send()

    def data_received(self, data: bytes) -> None:
        """Take an answer that is whole, and send the next request."""
        self._buffer += data
        head, separator, body = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        length = next(
            int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        if len(body) < length:
            return
        self._buffer = b""
        now_s = time.perf_counter()
        self._load.latencies_s.append(now_s - self._sent_s)
        self._load.statuses[int(head[9:12])] += 1
        origin = json.loads(body).get("origin") if body[:1] == b"{" else None
        self._load.origins[origin or "none"] += 1
        if now_s < self._load.until_s:
            self._send()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the run that this connection is over."""
        if not self._done.done():
            self._done.set_result(None) if exc is None else self._done.set_exception(exc)

    def _send(self) -> None:
        body = next(self._bodies)
        self._sent_s = time.perf_counter()
        self._transport.write(self._load.head + str(len(body)).encode() + b"\r\n\r\n" + body)


def bodies(questions: list[str], connection: int, run: str, *, is_varied: bool) -> Iterator[bytes]:
    """Requests without end: users of this connection's own, five turns each and, when varied, no text twice."""
    for number in itertools.count():
        question = questions[(number * 7919 + connection) % len(questions)]
        name = f"{run}-{connection}-{number}"
        text = f"{question} {connection:02d}{number:05d}" if is_varied else question
        uid = f"{run}-{connection}-{number // 5}"
        yield json.dumps({"uid": uid, "message_id": name, "text": text}, ensure_ascii=False).encode()


async def drive(load: Load, port: int, sources: list[Iterator[bytes]]) -> None:
    """Run the load, a connection for each source, until its time is over."""
    loop = asyncio.get_running_loop()
    ends: list[asyncio.Future[None]] = []
    for source in sources:
        end: asyncio.Future[None] = loop.create_future()
        ends.append(end)
        await loop.create_connection(functools.partial(Connection, load, source, end), "127.0.0.1", port)
    await asyncio.gather(*ends)


def main() -> None:
    """Read the questions from standard input, one a line; print what was measured as one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/chat")
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--run", default="r")
    parser.add_argument("--same", action="store_true", help="ask the questions as they are, again and again")
    options = parser.parse_args()
    questions = [line.strip() for line in sys.stdin if line.strip()]
    sources = [
        bodies(questions, number, options.run, is_varied=not options.same) for number in range(options.connections)
    ]
    load = Load(options.path, f"127.0.0.1:{options.port}", time.perf_counter() + options.seconds)
    asyncio.run(drive(load, options.port, sources))
    quantiles = statistics.quantiles(load.latencies_s, n=100)
    json.dump(
        {
            "requests": len(load.latencies_s),
            "p50_ms": round(quantiles[49] * 1000, 2),
            "p99_ms": round(quantiles[98] * 1000, 2),
            "statuses": load.statuses,
            "origins": load.origins,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()

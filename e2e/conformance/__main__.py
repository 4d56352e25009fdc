"""`make conformance`: WebSocket cases, abuse and schemathesis against a served gateway. Ends with 1 unless all is
clean.

--examples are schemathesis' cases an operation; --only names some of the parts.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time

from e2e.conformance import abuse, openapi, websocket
from e2e.conformance.served import served
from e2e.faults.plant import Member

LEAST_CASES = 5_000
EXAMPLES = 310
"""Enough for as many cases."""
PARTS = ("websocket", "abuse", "openapi")


async def check(options: argparse.Namespace) -> bool:
    """Whether all parts are clean."""
    are_right = []
    for part in options.only:
        began_s = time.monotonic()
        # Each has a gateway of its own: what one part leaves behind would be in the other's figures.
        async with served() as gateway:
            match part:
                case "websocket":
                    are_right.append(await _websocket(gateway))
                case "abuse":
                    are_right.append(await _abuse(gateway))
                case _:
                    are_right.append(await asyncio.to_thread(_openapi, gateway, options.examples, options.seed))
        print(f"{part}: {'clean' if are_right[-1] else 'FAILED'}, {time.monotonic() - began_s:.0f} s", flush=True)
    return all(are_right)


async def _websocket(gateway: Member) -> bool:
    results = await websocket.run(gateway.port)
    wrong = [result for result in results if not result.is_right]
    for result in wrong:
        print(f"    {result.id} {result.about}: heard {result.heard!r} instead of {result.wanted!r}")
    print(f"WebSocket, RFC 6455: {len(results)} cases, {len(wrong)} failures")
    return not wrong


async def _abuse(gateway: Member) -> bool:
    rows = await abuse.run(gateway)
    for row in rows:
        print(f"    {'ok' if row.is_right else 'WRONG':5s} {row.name}: {row.outcome}")
    return all(row.is_right for row in rows)


def _openapi(gateway: Member, examples: int, seed: int) -> bool:
    outcome = openapi.run(gateway.url, examples, seed)
    if outcome.failures:
        print(outcome.report)
    print(f"OpenAPI, schemathesis: {outcome.cases} cases, {outcome.failures} failures")
    if examples >= EXAMPLES and outcome.cases < LEAST_CASES:
        print(f"    fewer than {LEAST_CASES} cases: raise EXAMPLES")
        return False
    return not outcome.failures


def main() -> int:
    """Run what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=PARTS, default=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--examples", type=int, default=EXAMPLES)
    parser.add_argument("--seed", type=int, default=1)
    return 0 if asyncio.run(check(parser.parse_args())) else 1


if __name__ == "__main__":
    sys.exit(main())

"""The gateway's WebSocket held to RFC 6455, case by case, in the order of Autobahn's testsuite, which needs Python 2.

A case is a list of steps: bytes are sent, words must be heard (`frames.Peer.heard`). At the end of a case that does not
close the connection, the client does, which shows that it still works. A text that is no JSON is answered by an error.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

from e2e.conformance import frames
from e2e.conformance.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, close, frame, opening

MAX_BYTES = 256 * 1024
"""Longest message that the gateway takes."""
ASK, ANSWER = b'{"type":"ping"}', "text pong"
REFUSED = "text error malformed_request"
AT_ONCE = 16
PROTOCOL_ERROR, NO_TEXT, TOO_BIG = "close 1002", "close 1007", "close 1009"
VALID_CODES = (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
INVALID_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
VALID_TEXTS = (
    "κόσμε",
    "\x00",
    "\x7f",
    "\x80",
    "߿",
    "ࠀ",
    "\ud7ff",
    "\ue000",
    "\ufffd",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
)
_INVALID = (
    "80", "bf", "80bf80", "c020", "c0af", "c1bf", "e080af", "e09fbf", "f08080af", "f08fbfbf", "f887bfbfbf",
    "f888808080", "fc8480808080", "fe", "ff", "fefeffff", "eda080", "edbfbf", "eda080edb080", "f4908080", "f5808080",
    "ce", "e180", "f09080", "cebae1bdb9cf83cebcceb5eda080656469746564",
)  # fmt: skip
INVALID_TEXTS = tuple(map(bytes.fromhex, _INVALID))


@dataclass(frozen=True)
class Case:
    """What is sent and what must be heard."""

    id: str
    about: str
    steps: tuple[bytes | str, ...]


@dataclass(frozen=True)
class Handshake:
    """An opening that must be answered with a status."""

    id: str
    about: str
    sent: bytes
    status: int


@dataclass(frozen=True)
class Result:
    """What came of a case: `heard` is empty where all was as it must be."""

    id: str
    about: str
    wanted: str
    heard: str

    @property
    def is_right(self) -> bool:
        """Whether the gateway did as it must."""
        return self.wanted == self.heard


def cases() -> list[Case]:
    """All but the handshakes."""
    groups = (_framing, _pings, _reserved, _opcodes, _fragments, _texts, _closes, _masks, _sizes, _slow)
    return [
        Case(f"{number}.{position}", about, steps)
        for number, group in enumerate(groups, 1)
        for position, (about, steps) in enumerate(group(), 1)
    ]


Rows = Iterator[tuple[str, tuple[bytes | str, ...]]]


def _padded(length: int) -> bytes:
    return ASK + b" " * (length - len(ASK))


def _framing() -> Rows:
    for name, opcode in (("text", TEXT), ("binary", BINARY)):
        yield f"{name} of no bytes", (frame(opcode), REFUSED)
        for length in (15, 125, 126, 127, 128, 65535, 65536, MAX_BYTES):
            yield f"{name} of {length} bytes", (frame(opcode, _padded(length)), ANSWER)
    for count in (2, 64):
        yield f"{count} texts at once", (frame(TEXT, ASK) * count, *[ANSWER] * count)
    yield "a length of 64 bits with the highest set", (frame(TEXT, length=2**63, length_bytes=8), TOO_BIG)


def _pings() -> Rows:
    for payload in (b"", b"Hello", bytes(range(100, 225)), b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"):
        yield f"ping of {len(payload)} bytes", (frame(PING, payload), frames.pong_of(payload))
    yield "ping of 126 bytes", (frame(PING, bytes(126)), PROTOCOL_ERROR)
    for payload in (b"", b"unasked"):
        yield f"unasked pong of {len(payload)} bytes", (frame(PONG, payload) + frame(TEXT, ASK), ANSWER)
    yield "unasked pong, then a ping", (frame(PONG, b"unasked") + frame(PING, b"asked"), frames.pong_of(b"asked"))
    ten = [b"payload-%d" % number for number in range(10)]
    yield "ten pings at once", (b"".join(frame(PING, one) for one in ten), *map(frames.pong_of, ten))


def _reserved() -> Rows:
    for bits in range(1, 8):
        yield f"reserved bits {bits:03b} with text", (frame(TEXT, ASK, reserved=bits), PROTOCOL_ERROR)
    for name, opcode in (("a ping", PING), ("a pong", PONG), ("a close", CLOSE), ("binary", BINARY)):
        yield f"reserved bits with {name}", (frame(opcode, reserved=4), PROTOCOL_ERROR)


def _opcodes() -> Rows:
    for opcode, payload in itertools.product((3, 4, 5, 6, 7, 11, 12, 13, 14, 15), (b"", b"payload")):
        yield f"opcode {opcode} with {len(payload)} bytes", (frame(opcode, payload), PROTOCOL_ERROR)


def _pieces(payload: bytes, size: int, opcode: int = TEXT) -> list[bytes]:
    """A message in fragments of some bytes each."""
    parts = [payload[at : at + size] for at in range(0, len(payload), size)]
    return [
        frame(CONTINUATION if number else opcode, part, fin=number == len(parts) - 1)
        for number, part in enumerate(parts)
    ]


def _fragments() -> Rows:
    for name, opcode in (("ping", PING), ("pong", PONG), ("close", CLOSE)):
        yield f"a {name} in fragments", (frame(opcode, fin=False), PROTOCOL_ERROR)
    for size in (14, 8, 5, 1):
        yield f"text in fragments of {size} bytes", (b"".join(_pieces(ASK, size)), ANSWER)
        yield f"binary in fragments of {size} bytes", (b"".join(_pieces(ASK, size, BINARY)), ANSWER)
    asked = frames.pong_of(b"between")
    between = [part for piece in _pieces(ASK, 4) for part in (frame(PING, b"between"), asked, piece)]
    yield "pings between fragments, one by one", (*between, ANSWER)
    yield (
        "pings between fragments, at once",
        (b"".join(x for x in between if isinstance(x, bytes)), *[asked] * 4, ANSWER),
    )
    one, two = _pieces(ASK, 8)
    yield "a pong between fragments", (one + frame(PONG, b"unasked") + two, ANSWER)
    empty = frame(CONTINUATION, fin=False)
    yield "fragments without a byte", (frame(TEXT, fin=False) + empty + frame(CONTINUATION, ASK), ANSWER)
    yield "only fragments without a byte", (frame(TEXT, fin=False) + empty + frame(CONTINUATION), REFUSED)
    for fin in (True, False):
        yield f"a continuation of nothing, fin {fin}", (frame(CONTINUATION, ASK, fin=fin), PROTOCOL_ERROR)
    yield "a continuation after a whole text", (frame(TEXT, ASK), ANSWER, frame(CONTINUATION, ASK), PROTOCOL_ERROR)
    for name, opcode in (("text", TEXT), ("binary", BINARY)):
        yield f"{name} inside a message in fragments", (one, frame(opcode, ASK), PROTOCOL_ERROR)
    # The message can no longer end: the websockets library takes that for an error, and RFC 6455 does not say.
    yield "a close inside a message in fragments", (one + close(1000), PROTOCOL_ERROR)
    yield "two messages in fragments", ((one + two) * 2, ANSWER, ANSWER)


def _texts() -> Rows:
    for text in VALID_TEXTS:
        data = text.encode()
        yield f"valid {data.hex()}", (frame(TEXT, data), REFUSED)
        yield f"valid {data.hex()}, byte by byte", (b"".join(_pieces(data, 1)), REFUSED)
    for data in INVALID_TEXTS:
        yield f"invalid {data.hex()}", (frame(TEXT, data), NO_TEXT)
        yield f"invalid {data.hex()}, byte by byte", (b"".join(_pieces(data, 1)), NO_TEXT)
        yield f"invalid {data.hex()} as binary", (frame(BINARY, data), REFUSED)
    yield "invalid, before the message ends", (frame(TEXT, b"\xce\xba\xed\xa0\x80", fin=False), NO_TEXT)
    split = (frame(TEXT, b"\xf4", fin=False), frame(CONTINUATION, b"\x90", fin=False), NO_TEXT)
    yield "invalid across fragments, before the message ends", split


def _closes() -> Rows:
    yield "close without a code", (frame(CLOSE), "close", "end")
    yield "close of one byte", (frame(CLOSE, b"\x03"), PROTOCOL_ERROR)
    for code in VALID_CODES:
        yield f"close {code}", (close(code), f"close {code}", "end")
        yield f"close {code} with a reason", (close(code, b"because"), f"close {code}", "end")
    for code in INVALID_CODES:
        yield f"close {code}, which nobody may send", (close(code), PROTOCOL_ERROR)
        yield f"close {code}, which nobody may send, with a reason", (close(code, b"because"), PROTOCOL_ERROR)
    yield "a reason of 123 bytes", (close(1000, b"*" * 123), "close 1000", "end")
    yield "a reason of 124 bytes", (close(1000, b"*" * 124), PROTOCOL_ERROR)
    yield "a reason that is no UTF-8", (close(1000, b"\xce\xba\xed\xa0\x80"), NO_TEXT)
    for name, late in (("text", frame(TEXT, ASK)), ("ping", frame(PING)), ("close", close(1000))):
        yield f"{name} after the close", (close(1000) + late, "close 1000", "end")


def _masks() -> Rows:
    for name, opcode, payload in (("text", TEXT, ASK), ("ping", PING, b""), ("close", CLOSE, b"\x03\xe8")):
        yield f"{name} without a mask", (frame(opcode, payload, masked=False), PROTOCOL_ERROR)


def _sizes() -> Rows:
    for over in (1, MAX_BYTES, 3 * MAX_BYTES):
        yield f"{MAX_BYTES + over} bytes in one frame", (frame(TEXT, _padded(MAX_BYTES + over)), TOO_BIG)
    for length in (MAX_BYTES + 1, 2**62):
        yield f"{length} bytes announced", (frame(TEXT, length=length), TOO_BIG)
    yield "too much in fragments", (b"".join(_pieces(_padded(MAX_BYTES + 1), 4096)), TOO_BIG)
    yield "as much as may be, in fragments", (b"".join(_pieces(_padded(MAX_BYTES), 4096)), ANSWER)
    yield (
        "frames without a byte, without end",
        (frame(TEXT, fin=False) + frame(CONTINUATION, fin=False) * 5000, TOO_BIG),
    )


def _slow() -> Rows:
    def bytewise(data: bytes, size: int = 1) -> list[bytes]:
        return [data[at : at + size] for at in range(0, len(data), size)]

    yield "text byte by byte", (*bytewise(frame(TEXT, ASK)), ANSWER)
    yield "a ping byte by byte", (*bytewise(frame(PING, b"slow")), frames.pong_of(b"slow"))
    yield "fragments byte by byte", (*bytewise(b"".join(_pieces(ASK, 4))), ANSWER)
    yield "a close byte by byte", (*bytewise(close(1000, b"slow")), "close 1000", "end")
    for size in (997, 64 * 1024 - 1):
        yield f"64 KiB in pieces of {size} bytes", (*bytewise(frame(TEXT, _padded(65536)), size), ANSWER)


def handshakes() -> list[Handshake]:
    """Openings, good and bad (section 4)."""
    path = "/v1/ws?uid=handshake"
    rows = (
        ("as it must be", opening(path), 101),
        ("names in other letters", opening(path, Upgrade="WebSocket", Connection="keep-alive, upgrade"), 101),
        ("with an extension that is not granted", opening(path, Sec_WebSocket_Extensions="permessage-deflate"), 101),
        ("with a protocol that is not chosen", opening(path, Sec_WebSocket_Protocol="chat, superchat"), 101),
        ("without a key", opening(path, "Sec-WebSocket-Key"), 400),
        ("with a short key", opening(path, Sec_WebSocket_Key="c2hvcnQ="), 400),
        ("with a key that is no base64", opening(path, Sec_WebSocket_Key="!" * 24), 400),
        ("without a version", opening(path, "Sec-WebSocket-Version"), 426),
        ("with version 8", opening(path, Sec_WebSocket_Version="8"), 426),
        ("with version 14", opening(path, Sec_WebSocket_Version="14"), 426),
        ("without upgrade", opening(path, "Upgrade"), 426),
        ("without connection", opening(path, "Connection"), 426),
        ("to another protocol", opening(path, Upgrade="h2c"), 426),
        ("by HTTP/1.0", opening(path, version="1.0"), 426),
        ("by POST", opening(path, method="POST"), 405),
        ("without a host", opening(path, "Host"), 400),
        ("of a foreign page", opening(path, Origin="https://evil.example"), 403),
        ("without a credential", opening(path, "Authorization"), 401),
        ("without a uid", opening("/v1/ws"), 422),
        ("with a uid that is no UTF-8", opening("/v1/ws?uid=%ff"), 400),
        ("where no WebSocket is", opening("/v1/chat?uid=handshake"), 404),
        ("with a long URL", opening(path + "u" * 9000), 431),
        ("with many headers", opening(path, **{f"X-{number}": "x" for number in range(200)}), 431),
    )
    return [Handshake(f"11.{number}", *row) for number, row in enumerate(rows, 1)]


async def run(port: int) -> list[Result]:
    """All cases, in their order."""
    slots = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case | Handshake) -> Result:
        async with slots:
            peer = await frames.Peer.connected(port)
            try:
                return await (_shaken(peer, case) if isinstance(case, Handshake) else _held(peer, case))
            finally:
                peer.leave()

    everything: list[Case | Handshake] = [*cases(), *handshakes()]
    return await asyncio.gather(*map(one, everything))


async def _shaken(peer: frames.Peer, case: Handshake) -> Result:
    await peer.send(case.sent)
    head = (await peer.head()).lower()
    heard = f"HTTP/1.1 {head.split()[1]}"
    if case.status == 101:
        heard += "" if f"sec-websocket-accept: {frames.ACCEPT.decode().lower()}\r\n" in head else " with a wrong accept"
        heard += "".join(
            f" with {name}" for name in ("sec-websocket-extensions", "sec-websocket-protocol") if name in head
        )
    elif case.status == 426:
        heard += "" if "\r\nupgrade: websocket\r\n" in head else " without upgrade"
    return Result(case.id, case.about, f"HTTP/1.1 {case.status}", heard)


async def _held(peer: frames.Peer, case: Case) -> Result:
    wanted = [step for step in case.steps if isinstance(step, str)]
    heard: list[str] = []
    await peer.send(opening(f"/v1/ws?uid=case-{case.id}"))
    assert " 101 " in await peer.head()
    for step in case.steps:
        if isinstance(step, bytes):
            await peer.send(step)
        else:
            heard.append(await peer.heard())
    if not wanted[-1].startswith(("close", "end")):
        await peer.send(close(1000))
        wanted += ["close 1000"]
        heard.append(await peer.heard())
    if wanted[-1] != "end":
        wanted.append("end")
        heard.append(await peer.heard())
    return Result(case.id, case.about, ", ".join(wanted), ", ".join(heard))

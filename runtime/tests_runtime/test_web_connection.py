"""What a connection may send before a route sees it: heads, lengths, line ends, deadlines, WebSocket frames.
Raw bytes, since no client library would send most of this."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from chatflow_runtime.web import connection
from chatflow_runtime.web.connection import MAX_HEAD_BYTES, HttpConnection
from chatflow_runtime.web.server import server_config
from chatflow_runtime.web.socket_connection import MAX_CONTROLS, MAX_FRAGMENTS
from starlette.types import Receive, Scope, Send
from tests_runtime.web_clients import new_user
from tests_runtime.web_gateway import Gateway, running_gateway
from uvicorn.server import ServerState

HOST = b"host: shop\r\n"
KEY = b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
VERSION = b"sec-websocket-version: 13\r\n"
UPGRADE = b"connection: upgrade\r\nupgrade: websocket\r\n"
CHAT = json.dumps({"uid": "raw", "message_id": "m", "text": "退款多久到账"}).encode()
LENGTH = b"content-length: %d\r\n" % len(CHAT)
CHUNKED = b"transfer-encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n0\r\n\r\n" % (len(CHAT), CHAT)


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


async def exchanged(port: int, *pieces: bytes) -> bytes:
    """All that comes back until the server closes; the client ends its side after the last piece."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for piece in pieces:
        writer.write(piece)
        await writer.drain()
    async with asyncio.timeout(10):
        said = await reader.read()
    writer.close()
    return said


def statuses(said: bytes) -> list[int]:
    return [int(found) for found in re.findall(rb"HTTP/1\.1 (\d{3})", said)]


def code_of(said: bytes) -> str:
    code: str = json.loads(said.partition(b"\r\n\r\n")[2])["code"]
    return code


def get(path: bytes = b"/v1/config", headers: bytes = HOST, version: bytes = b"1.1") -> bytes:
    return b"GET %s HTTP/%s\r\n%s\r\n" % (path, version, headers)


def post(headers: bytes, body: bytes = CHAT) -> bytes:
    return b"POST /v1/chat HTTP/1.1\r\n%s%s\r\n%s" % (HOST, headers, body)


LAST = get(headers=HOST + b"connection: close\r\n")
"""A request after which the server closes."""


@pytest.mark.parametrize(
    ("request_bytes", "status", "code"),
    [
        pytest.param(post(b"content-length: abc\r\n"), 400, "malformed_request", id="a length that is no number"),
        pytest.param(post(b"content-length: -5\r\n"), 400, "malformed_request", id="a negative length"),
        pytest.param(post(b"content-length: 1_0\r\n"), 400, "malformed_request", id="a length as Python has it"),
        pytest.param(post(b"content-length: %d\r\n" % 10**30), 400, "malformed_request", id="a huge length"),
        pytest.param(post(LENGTH + b"content-length: 5\r\n"), 400, "malformed_request", id="two lengths"),
        pytest.param(post(LENGTH + CHUNKED, CHUNKS), 400, "malformed_request", id="a length beside chunks"),
        pytest.param(post(CHUNKED + LENGTH, CHUNKS), 400, "malformed_request", id="chunks beside a length"),
        pytest.param(post(b"transfer-encoding : chunked\r\n"), 400, "malformed_request", id="a space before the colon"),
        pytest.param(post(b"transfer-encoding: gzip, chunked\r\n"), 400, "malformed_request", id="another encoding"),
        pytest.param(post(b"transfer-encoding: xchunked\r\n"), 400, "malformed_request", id="an unknown encoding"),
        pytest.param(post(CHUNKED, b"zz\r\n"), 400, "malformed_request", id="a chunk without a size"),
        pytest.param(post(CHUNKED, b"F" * 17 + b"\r\n"), 400, "malformed_request", id="a chunk of any size"),
        pytest.param(post(CHUNKED, b"2\r\nabc\r\n"), 400, "malformed_request", id="a chunk that is longer"),
        pytest.param(get(headers=HOST + b"x: a\x00b\r\n"), 400, "malformed_request", id="NUL in a header"),
        pytest.param(get(headers=HOST + b"x: a\r\n b\r\n"), 400, "malformed_request", id="a folded header"),
        pytest.param(b"GET /v1/config HTTP/1.1\nhost: shop\n\n", 400, "malformed_request", id="bare line feeds"),
        pytest.param(get(headers=b""), 400, "malformed_request", id="no host"),
        pytest.param(get(headers=HOST * 2), 400, "malformed_request", id="two hosts"),
        pytest.param(get(b"/v1/events?uid=\xe5\xbc\xa0"), 400, "malformed_request", id="raw UTF-8 in the target"),
        pytest.param(get(version=b"9.9"), 400, "malformed_request", id="another HTTP"),
        pytest.param(b"CONNECT shop:80 HTTP/1.1\r\n%s\r\n" % HOST, 400, "malformed_request", id="a proxy's method"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request", id="TLS"),
        pytest.param(get(headers=HOST + b"x: %s\r\n" % (b"a" * MAX_HEAD_BYTES)), 431, "head_too_large", id="a header"),
        pytest.param(get(headers=HOST + b"x: y\r\n" * 20_000), 431, "head_too_large", id="headers"),
        pytest.param(get(headers=HOST + b"x: " + b"a" * 2**20), 431, "head_too_large", id="a header without end"),
        pytest.param(
            post(CHUNKED, CHUNKS[:-2] + b"x: " + b"a" * 2**20), 431, "head_too_large", id="a trailer without end"
        ),
        pytest.param(
            get(b"/v1/ws?uid=u", HOST + UPGRADE + KEY), 426, "upgrade_needed", id="no WebSocket version"
        ),
        pytest.param(
            get(b"/v1/ws?uid=u", HOST + UPGRADE + KEY + b"sec-websocket-version: 8\r\n"),
            426,
            "upgrade_needed",
            id="an old WebSocket version",
        ),
        pytest.param(
            get(b"/v1/ws?uid=" + b"u" * 9000, HOST + UPGRADE + KEY + VERSION), 431, "head_too_large", id="a long uid"
        ),
        pytest.param(
            get(b"/v1/ws?uid=u", HOST + UPGRADE + KEY + VERSION + b"content-length: 2\r\n") + b"{}",
            400,
            "malformed_request",
            id="a WebSocket handshake with a body",
        ),
        pytest.param(
            get(b"/v1/nowhere", HOST + UPGRADE + KEY + VERSION), 404, "route_unknown", id="no WebSocket there"
        ),
    ],
)  # fmt: skip
async def test_a_request_that_is_none_is_refused_with_a_problem_and_ends_the_connection(
    gateway: Gateway, request_bytes: bytes, status: int, code: str
) -> None:
    said = await exchanged(gateway.port, request_bytes)
    assert (statuses(said), code_of(said)) == ([status], code)
    assert b"content-type: application/problem+json\r\n" in said
    assert b"\r\nx-request-id: " in said


@pytest.mark.parametrize("piece", [1, 7, 4096])
async def test_a_head_is_as_long_as_it_may_be_however_it_is_cut(gateway: Gateway, piece: int) -> None:
    filler = b"x: %s\r\n" % (b"a" * (1000 if piece == 1 else MAX_HEAD_BYTES - 200))
    head = get(headers=HOST + b"connection: close\r\n" + filler)
    said = await exchanged(gateway.port, *(head[at : at + piece] for at in range(0, len(head), piece)))
    assert statuses(said) == [200]


async def test_trailers_do_not_join_the_headers(gateway: Gateway) -> None:
    trailers = CHUNKS[:-2] + b"x-request-id: trailer\r\norigin: https://shop.example.com\r\n\r\n"
    said = await exchanged(gateway.port, post(CHUNKED + b"x-request-id: header\r\n", trailers) + LAST)
    assert statuses(said) == [200, 200]
    assert b"x-request-id: header" in said
    assert b"trailer" not in said
    assert b"access-control" not in said


async def test_an_offer_of_http_2_is_passed_over(gateway: Gateway) -> None:
    offer = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n"
    said = await exchanged(gateway.port, post(offer + LENGTH), get(headers=HOST + offer), LAST)
    assert statuses(said) == [200, 200, 200]


async def test_the_websockets_route_says_how_it_is_reached(gateway: Gateway) -> None:
    closing = HOST + b"connection: close\r\n"
    said = await exchanged(gateway.port, get(b"/v1/ws?uid=u", closing))
    assert (statuses(said), code_of(said)) == ([426], "upgrade_needed")
    assert b"\r\nupgrade: websocket\r\n" in said
    said = await exchanged(gateway.port, get(b"/v1/ws", closing).replace(b"GET", b"POST"))
    assert (statuses(said), code_of(said)) == ([405], "method_refused")
    assert b"\r\nallow: GET\r\n" in said
    old = get(b"/v1/ws?uid=u", closing + UPGRADE + KEY + VERSION, version=b"1.0")
    assert statuses(await exchanged(gateway.port, old)) == [426]


@pytest.mark.parametrize("query", ["uid=%ff", "uid=u&last_event_id=%e5%bc", "uid=%ed%a0%80"])
async def test_a_query_that_is_no_utf_8_is_refused(gateway: Gateway, query: str) -> None:
    closing = HOST + b"connection: close\r\n"
    said = await exchanged(gateway.port, get(b"/v1/events?" + query.encode(), closing))
    assert (statuses(said), code_of(said)) == ([400], "malformed_request")


async def test_what_follows_a_request_that_is_being_answered_is_never_written_into_its_answer(
    gateway: Gateway,
) -> None:
    uid = new_user().encode()
    said = await exchanged(gateway.port, get(b"/v1/events?uid=" + uid), b"no HTTP\r\n\r\n")
    assert statuses(said) in ([], [200])


async def nothing(_: Scope, receive: Receive, send: Send) -> None:
    """An application that reads the body and says so."""
    while (await receive()).get("more_body", False):
        pass
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


class Hasty(HttpConnection):
    head_s = 0.2
    body_s = 0.3


@asynccontextmanager
async def hasty() -> AsyncIterator[int]:
    """The port of a server with short deadlines."""
    config, state = server_config(nothing, "127.0.0.1", 0), ServerState()
    server = await asyncio.get_running_loop().create_server(lambda: Hasty(config, state, {}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "begun",
    [
        pytest.param(b"GET /v1/con", id="half a head"),
        pytest.param(post(LENGTH, CHAT[:5]), id="half a body"),
        pytest.param(post(CHUNKED, b"5\r\nabc"), id="half a chunk"),
        pytest.param(post(CHUNKED, CHUNKS[:-2]), id="no end of the chunks"),
    ],
)
async def test_a_request_that_does_not_come_whole_is_ended(begun: bytes) -> None:
    async with hasty() as port:
        said = await exchanged(port, begun)
        assert (statuses(said), code_of(said)) == ([408], "request_late")
        kept = await exchanged(port, get(), begun)
        assert statuses(kept) == [204, 408]


@pytest.mark.parametrize("sent", [pytest.param(b"", id="nothing"), pytest.param(b"\r\n" * 20, id="empty lines")])
async def test_a_connection_without_a_request_is_closed_silently(sent: bytes) -> None:
    async with hasty() as port:
        assert await exchanged(port, sent) == b""


async def test_a_request_that_keeps_coming_slowly_is_ended_too() -> None:
    async with hasty() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        reading = asyncio.ensure_future(reader.read())
        for byte in get(headers=HOST + b"x: " + b"a" * 100):
            writer.write(bytes([byte]))
            if (await asyncio.wait([reading], timeout=0.02))[0]:
                break
        assert (statuses(await reading), code_of(await reading)) == ([408], "request_late")
        writer.close()


async def test_more_connections_than_the_process_may_have_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 1)
    async with hasty() as port:
        _, first = await asyncio.open_connection("127.0.0.1", port)
        said = await exchanged(port, b"")
        assert (statuses(said), code_of(said)) == ([503], "too_many_connections")
        first.close()


def frame(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """A masked frame of at most 125 bytes, masked with zeros."""
    return bytes([(0x80 if fin else 0) | opcode, 0x80 | len(payload)]) + bytes(4) + payload


async def closed_with(gateway: Gateway, frames: bytes) -> int:
    """The code that a WebSocket is closed with after some frames."""
    shake = get(b"/v1/ws?uid=" + new_user().encode(), HOST + UPGRADE + KEY + VERSION)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(shake)
    async with asyncio.timeout(10):
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        writer.write(frames)
        last = await reader.read()
    writer.close()
    while last[0] == 0x8A:
        last = last[2 + last[1] :]
    assert last[0] == 0x88
    return int.from_bytes(last[2:4])


async def test_text_that_is_no_utf_8_fails_as_soon_as_that_shows(gateway: Gateway) -> None:
    assert await closed_with(gateway, frame(1, b"\xce\xba\xed\xa0\x80")) == 1007
    assert await closed_with(gateway, frame(1, b"\xce", fin=False) + frame(0, b"\xce", fin=False)) == 1007
    assert await closed_with(gateway, frame(1, b"\xce", fin=False) + frame(0, b"")) == 1007


async def test_a_message_in_endless_empty_frames_is_ended(gateway: Gateway) -> None:
    endless = frame(1, b"{", fin=False) + frame(0, b"", fin=False) * (MAX_FRAGMENTS + 1)
    assert await closed_with(gateway, endless) == 1009


async def test_a_flood_of_pings_or_pongs_is_ended(gateway: Gateway) -> None:
    for opcode in (9, 10):
        assert await closed_with(gateway, frame(opcode, b"") * (MAX_CONTROLS + 1)) == 1008


async def test_why_a_long_message_is_refused_reaches_a_client_that_is_still_sending(gateway: Gateway) -> None:
    long = bytes([0x81, 0xFF]) + (2**20).to_bytes(8) + bytes(4) + b" " * 2**20
    assert await closed_with(gateway, long) == 1009


def test_a_process_takes_as_many_clients_as_it_may_open_files() -> None:
    """In a process of its own, since the limit lasts."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = 2000 if hard == resource.RLIM_INFINITY else min(2000, hard)
    program = f"""
import resource
from chatflow_runtime.serving import allow_files
from chatflow_runtime.web.connection import RESERVED_FILES, most_connections
resource.setrlimit(resource.RLIMIT_NOFILE, (512, {most}))
assert most_connections() == 512 - RESERVED_FILES
allow_files()
assert most_connections() == {most} - RESERVED_FILES
"""
    subprocess.run([sys.executable, "-c", program], check=True)

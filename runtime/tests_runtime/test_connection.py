"""The multiplexed connection against real servers, and against a silent one where a fault is wanted."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chatflow_runtime.errors import StateError, StateUnavailable
from chatflow_runtime.state.connection import Connection, Patience
from chatflow_runtime.state.url import StateUrlInvalid, site_of
from chatflow_runtime.state.wakeups import Wakeups
from hypothesis import given
from hypothesis import strategies as st
from tests_runtime.state_cases import PATIENT
from tests_runtime.state_servers import ServerKind, Servers, StateServer, installed, running_server

HASTY = Patience(timeout_s=0.4, keepalive_s=0.1, first_retry_s=0.01, last_retry_s=0.1)
"""For tests in which a server falls silent."""


@pytest.fixture(params=installed())
def server(request: pytest.FixtureRequest, state_servers: Servers) -> StateServer:
    """A server that all tests share."""
    return state_servers(ServerKind(request.param))


@pytest.fixture
def own_server() -> Iterator[StateServer]:
    """A server to be mistreated."""
    with running_server() as server:
        yield server


@asynccontextmanager
async def connected(url: str, patience: Patience = PATIENT, name: str = "test") -> AsyncIterator[Connection]:
    connection = Connection(url, name=name, patience=patience)
    try:
        await connection.open()
        yield connection
    finally:
        await connection.close()


async def ping_once_back(connection: Connection) -> None:
    """Ping until the server answers; a hasty connection on a busy machine may break once more."""
    while True:
        await connection.connected()
        try:
            assert await connection.call("PING") == b"PONG"
        except StateUnavailable:
            continue
        return


async def ping_until_lost(connection: Connection) -> None:
    """Ping until it fails."""
    while True:
        await connection.call("PING")


async def test_the_calls_of_one_tick_leave_in_one_write_and_come_back_in_order(server: StateServer) -> None:
    async with connected(server.url) as connection:
        before = connection.writes
        echoes = await asyncio.gather(*(connection.call("ECHO", number) for number in range(500)))
        assert echoes == [str(number).encode() for number in range(500)]
        assert connection.writes == before + 1


async def test_a_cancelled_call_leaves_the_others_matched(server: StateServer) -> None:
    async with connected(server.url) as connection:
        calls = [connection.call("ECHO", number) for number in range(100)]
        for call in calls[::3]:
            call.cancel()
        for number, call in enumerate(calls):
            if number % 3:
                assert await call == str(number).encode()
        waiting = asyncio.create_task(ping_once_back(connection))
        asyncio.get_running_loop().call_soon(waiting.cancel)
        await asyncio.gather(waiting, return_exceptions=True)
        assert waiting.cancelled()
        assert await connection.call("ECHO", "after") == b"after"


async def test_large_and_binary_values_pass_through(server: StateServer) -> None:
    async with connected(server.url) as connection:
        value = bytes(range(256)) * 4096
        await connection.call("SET", "large", value)
        assert await asyncio.gather(*(connection.call("GET", "large") for _ in range(4))) == [value] * 4
        assert await connection.call("GET", "no such key") is None


async def test_a_refused_command_is_a_state_error_and_harms_no_other(server: StateServer) -> None:
    async with connected(server.url) as connection:
        wrong, right = connection.call("NO-SUCH-COMMAND"), connection.call("PING")
        with pytest.raises(StateError, match="unknown command"):
            await wrong
        assert await right == b"PONG"


async def test_password_database_and_name_come_from_the_url() -> None:
    with running_server(arguments=("--requirepass", "p@ss/word")) as server:
        url = f"unix://:p%40ss%2Fword@{server.socket}?db=3"
        async with connected(url, name="chatflow-gateway") as connection:
            client = (await connection.call("CLIENT", "LIST")).decode()
            assert "name=chatflow-gateway" in client
            assert "db=3" in client
            await connection.call("ACL", "SETUSER", "bot", "on", ">bot-pass", "~*", "+@all")
        async with connected(f"unix://bot:bot-pass@{server.socket}") as connection:
            assert await connection.call("ACL", "WHOAMI") == b"bot"
        for wrong in (server.url, f"unix://:not-it@{server.socket}"):
            with pytest.raises(StateUnavailable, match=r"cannot connect.*(NOAUTH|WRONGPASS)") as raised:
                async with connected(wrong):
                    pass
            assert "not-it" not in str(raised.value)


@pytest.mark.skipif(ServerKind.REDIS not in installed(), reason="redis-server with TLS is not installed")
async def test_tls_is_used_and_the_certificate_checked(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    request = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    extension = ("-addext", "subjectAltName=DNS:localhost")
    files = ("-keyout", str(key), "-out", str(certificate))
    openssl = await asyncio.create_subprocess_exec(*request.split(), *extension, *files, stderr=subprocess.DEVNULL)
    assert await openssl.wait() == 0
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    tls = (
        *("--bind", "127.0.0.1", "--tls-port", str(port), "--tls-auth-clients", "no"),
        *("--tls-cert-file", str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate)),
    )
    with running_server(ServerKind.REDIS, tls):
        async with connected(f"rediss://localhost:{port}/0?ssl_ca_certs={certificate}") as connection:
            assert await connection.call("PING") == b"PONG"
        with pytest.raises(StateUnavailable, match="certificate"):
            async with connected(f"rediss://localhost:{port}"):
                pass


async def test_calls_fail_at_once_while_the_server_is_down_and_work_when_it_is_back(own_server: StateServer) -> None:
    async with connected(own_server.url, HASTY) as connection:
        under_way = [connection.call("BLPOP", "nothing", 0), connection.call("PING")]
        own_server.kill()
        for call in under_way:
            with pytest.raises(StateUnavailable, match=r"closed the connection|connection broke"):
                await call
        with pytest.raises(StateUnavailable, match="try again"):
            connection.call("PING")
        own_server.start()
        await ping_once_back(connection)


async def test_a_server_that_falls_silent_is_given_up_after_the_timeout(own_server: StateServer) -> None:
    async with connected(own_server.url, HASTY) as connection:
        own_server.freeze()
        begun_s = asyncio.get_running_loop().time()
        with pytest.raises(StateUnavailable, match=r"no answer within 0\.4 s"):
            await connection.call("PING")
        assert asyncio.get_running_loop().time() - begun_s >= HASTY.timeout_s
        own_server.thaw()
        await ping_once_back(connection)


async def test_an_idle_connection_to_a_silent_server_is_noticed_and_made_again(tmp_path: Path) -> None:
    connections: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()

    async def greet_and_fall_silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"SETNAME")
        writer.write(b"+OK\r\n")
        connections.put_nowait(writer)

    server = await asyncio.start_unix_server(greet_and_fall_silent, tmp_path / "s")
    async with server, connected(f"unix://{tmp_path}/s", HASTY):
        writers = [await connections.get(), await connections.get()]
    for writer in writers:
        writer.close()


async def test_what_breaks_the_protocol_breaks_the_connection(tmp_path: Path) -> None:
    async def answer_nonsense(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"SETNAME")
        writer.write(b"+OK\r\n+A reply that nobody asked for\r\n")
        await reader.read()
        writer.close()

    server = await asyncio.start_unix_server(answer_nonsense, tmp_path / "s")
    async with server, connected(f"unix://{tmp_path}/s", HASTY) as connection:
        with pytest.raises(StateUnavailable, match="broke the protocol"):
            await ping_until_lost(connection)


async def test_a_subscription_is_made_again_after_a_loss(own_server: StateServer) -> None:
    wakeups = Wakeups(own_server.url, "f[*]", patience=HASTY)
    await wakeups.open()
    with wakeups.watch("用户") as watch, wakeups.watch("other") as other:
        own_server.kill()
        own_server.start()
        assert await watch.wait(60), "a subscription that begins wakes everyone"
        assert await other.wait(60)
        async with connected(own_server.url) as connection:
            await connection.call("PUBLISH", "wake:{f*.1}", "用户")
            await connection.call("PUBLISH", "wake:{f[*].255}", "用户")
            assert await watch.wait(60)
            assert not await watch.wait(0)
            assert not await other.wait(0)
    await wakeups.close()


async def test_opening_without_a_server_fails_at_once_but_goes_on_trying(own_server: StateServer) -> None:
    own_server.kill()
    connection = Connection(own_server.url, patience=HASTY)
    with pytest.raises(StateUnavailable, match="cannot connect"):
        await connection.open()
    own_server.start()
    await ping_once_back(connection)
    await connection.close()
    with pytest.raises(StateUnavailable, match="closed"):
        connection.call("PING")


@given(failures=st.integers(0, 10_000), jitter=st.floats(0, 1))
def test_pauses_grow_to_their_bound_and_are_spread(failures: int, jitter: float) -> None:
    patience = Patience()
    pause_s = patience.pause_s(failures, jitter)
    assert patience.first_retry_s / 2 <= pause_s <= patience.last_retry_s
    assert patience.pause_s(failures + 1, jitter) >= pause_s
    assert patience.pause_s(failures, 0) == patience.pause_s(failures, 1) / 2


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://", "redis://127.0.0.1:6379/0"),
        ("redis://user:secret@state:6380/2", "redis://state:6380/2"),
        ("redis://state?db=4", "redis://state:6379/4"),
        ("rediss://:secret@state", "rediss://state:6379/0"),
        ("redis://[::1]:7", "redis://[::1]:7/0"),
        ("unix:///run/state.sock?db=1", "unix:///run/state.sock"),
        ("redis+sentinel://:secret@a,b:7/primary", "redis+sentinel://a:26379,b:7/primary/0"),
        ("rediss+sentinel://u:secret@a:1/p/3?sentinel_password=secret", "rediss+sentinel://a:1/p/3"),
        ("redis+sentinel://a/p?sentinel_password=secret+%26secret", "redis+sentinel://a:26379/p/0"),
        ("redis+cluster://u:secret@a:1,[::1]/0", "redis+cluster://a:1,[::1]:6379"),
        ("rediss+cluster://:secret@a", "rediss+cluster://a:6379"),
    ],
)
def test_an_endpoint_shows_where_it_is_and_no_password(url: str, shown: str) -> None:
    assert str(site_of(url)) == shown


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("http://state:6379", "scheme is 'http'"),
        ("state:6379", "scheme is 'state'"),
        ("redis://:secret@state:port", "'state:port' has no usable port"),
        ("redis://state/first", "database 'first' is no number"),
        ("redis://state?timeout=3", "option 'timeout' is not known"),
        ("redis://:secret/secret@state", "password as %2F"),
        ("redis://:secret?secret@state", "password as %2F"),
        ("redis://:secret[secret@state", "cannot be read"),
        ("redis+sentinel://state:26379", "primary's name is missing"),
        ("redis+sentinel://:secret@a:1,b:port/primary", "'b:port' has no usable port"),
        ("redis+sentinel://a/primary/first", "database 'first' is no number"),
        ("redis+sentinel://a,,b/primary", "a host is missing"),
        ("redis+sentinel://a/primary?sentinel_password=a&secret", "%26"),
        ("redis+sentinel://a/primary?sentinel_tls=1", "sentinel_tls is '1'"),
        ("redis+cluster://a/2", "database 2 in a cluster"),
        ("redis+cluster://a?sentinel_password=secret", "an option is not known; there are db and ssl_ca_certs"),
        ("rediss://state?ssl_ca_certs=/no/such/file", "cannot read ssl_ca_certs=/no/such/file"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_with_the_reason(url: str, complaint: str) -> None:
    with pytest.raises(StateUrlInvalid, match=complaint) as raised:
        site_of(url)
    assert "secret" not in str(raised.value)

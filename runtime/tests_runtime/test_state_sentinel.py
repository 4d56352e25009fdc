"""The stores behind Sentinel: real servers and sentinels that fail over, and scripted sentinels that tell little."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path

import pytest
from chatflow_runtime.domain.reply import Reply
from chatflow_runtime.errors import ChatFlowError, ClaimLost, StateUnavailable
from chatflow_runtime.ports import ConversationStore, Turn
from chatflow_runtime.state.connection import Connection, Patience
from chatflow_runtime.state.endpoint import Endpoint
from chatflow_runtime.state.redis_store import RedisStore, open_redis_store
from chatflow_runtime.state.sentinel import Sentinels
from chatflow_runtime.state.url import site_of
from chatflow_runtime.state.wakeups import Wakeups
from chatflow_runtime.state.wire import Wire
from tests_runtime.state_cases import PATIENT, new_flow
from tests_runtime.state_servers import (
    Replicated,
    ServerKind,
    installed,
    replicated_server,
    running_server,
    wait_until,
)
from tests_runtime.test_state_redis import UNHURRIED, converse

KEEPING = replace(UNHURRIED, outbox_items=100_000)
"""Nothing that was acknowledged is tidied away."""
BRISK = Patience(timeout_s=1.0, keepalive_s=0.5, first_retry_s=0.05, last_retry_s=0.5)
HEALED_S = 20.0
"""From the end of a primary to answers by the next one."""


@pytest.fixture(params=installed())
def replicated(request: pytest.FixtureRequest) -> Iterator[Replicated]:
    """Servers to be mistreated."""
    with replicated_server(ServerKind(request.param)) as servers:
        yield servers


class Traffic:
    """Turns of a few users, one after the other, repeated until they are answered. Notes what was acknowledged."""

    def __init__(self, store: ConversationStore) -> None:
        self._store = store
        self._news = asyncio.Condition()
        self.acknowledged: dict[str, list[str]] = {}
        self.failures: list[ChatFlowError] = []

    async def talk(self, uid: str) -> None:
        """Until cancelled."""
        answered = self.acknowledged[uid] = []
        for number in count():
            turn = Turn(uid, f"m{number}", f"owner of {uid}", f"text {number}")
            while True:
                try:
                    await converse(self._store, turn)
                    break
                # A claim may be lost with a primary: replicas lag behind it.
                except (StateUnavailable, ClaimLost) as error:
                    self.failures.append(error)
                    await asyncio.sleep(0.05)
            answered.append(turn.message_id)
            async with self._news:
                self._news.notify_all()

    async def go_on(self, turns: int) -> None:
        """Return when so many more turns of every user are answered."""
        goals = {uid: len(answered) + turns for uid, answered in self.acknowledged.items()}
        async with asyncio.timeout(HEALED_S), self._news:
            await self._news.wait_for(lambda: all(len(self.acknowledged[uid]) >= goal for uid, goal in goals.items()))


async def replies_in_outbox(store: ConversationStore, uid: str) -> list[str]:
    """Which messages of a user were answered. Servers on a busy machine may lose sight of each other once more."""
    async with asyncio.timeout(HEALED_S):
        while True:
            try:
                entries = await store.outbox(uid, "0", limit=KEEPING.outbox_items)
            except StateUnavailable:
                await asyncio.sleep(0.05)
                continue
            return [entry.item.message_id for entry in entries if isinstance(entry.item, Reply)]


@asynccontextmanager
async def traffic(store: ConversationStore) -> AsyncIterator[Traffic]:
    """Traffic while the context lasts; at its end all that was acknowledged must be there, once and in order."""
    talking = Traffic(store)
    tasks = [asyncio.create_task(talking.talk(uid)) for uid in ("u0", "u1", "u2", "u3")]
    try:
        await asyncio.sleep(0)
        await talking.go_on(5)
        yield talking
    finally:
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ended), ended
    for uid, answered in talking.acknowledged.items():
        replied = await replies_in_outbox(store, uid)
        # The last turn may have been committed and then cancelled before it was noted.
        assert replied[: len(answered)] == answered
        assert len(replied) <= len(answered) + 1


async def test_a_killed_primary_is_replaced_and_no_acknowledged_turn_is_lost(replicated: Replicated) -> None:
    async with (
        open_redis_store(replicated.url, new_flow(), KEEPING, patience=BRISK) as store,
        traffic(store) as talking,
    ):
        former = replicated.primary()
        # Replication is asynchronous: on a busy machine the replicas may be far behind.
        written = former.ask("ROLE")[1]
        others = [server for server in replicated.servers if server is not former]
        wait_until(lambda: all(server.ask("ROLE")[4] >= written for server in others))
        former.kill()
        await talking.go_on(20)
        assert talking.failures, "the gap must have been noticed"
        assert replicated.primary() is not former


async def test_a_frozen_primary_is_given_up_and_rejoins_as_a_replica(replicated: Replicated) -> None:
    async with (
        open_redis_store(replicated.url, new_flow(), KEEPING, patience=BRISK) as store,
        traffic(store) as talking,
    ):
        former = replicated.primary()
        former.freeze()
        try:
            await talking.go_on(5)
        finally:
            former.thaw()
        await talking.go_on(20)
        assert replicated.primary() is not former


async def test_a_primary_that_hands_over_wakes_who_waits_and_is_followed(replicated: Replicated) -> None:
    async with (
        open_redis_store(replicated.url, new_flow(), KEEPING, patience=BRISK) as store,
        traffic(store) as talking,
    ):
        with store.watch("somebody else") as watch:
            former = replicated.primary()
            # Else it would acknowledge what it cannot pass on, until it learns of its end.
            former.ask("CLIENT", "PAUSE", 10_000, "WRITE")
            replicated.sentinels[1].ask("SENTINEL", "FAILOVER", "primary")
            assert await watch.wait(HEALED_S), "the wake-ups begin anew at the new primary"
        await talking.go_on(20)
        assert replicated.primary() is not former


@pytest.mark.parametrize("kind", installed())
async def test_a_demoted_primary_is_left_and_the_call_may_be_repeated(kind: ServerKind) -> None:
    with running_server(kind) as server:
        connection, wakeups = Connection(server.url, patience=PATIENT), Wakeups(server.url, "f", patience=PATIENT)
        raw = Connection(server.url, patience=PATIENT)
        for part in (connection, wakeups, raw):
            await part.open()
        store = RedisStore(connection, wakeups, "f", UNHURRIED)
        before = await connection.call("CLIENT", "ID")
        await raw.call("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StateUnavailable, match=r"READONLY|became a replica"):
            await store.load(Turn("u", "m", "o", "text"))
        await raw.call("REPLICAOF", "NO", "ONE")
        await connection.connected()
        assert await connection.call("CLIENT", "ID") != before, "a new connection, which may lead elsewhere"
        await converse(store, Turn("u", "m", "o", "text"))
        for part in (connection, wakeups, raw):
            await part.close()


@pytest.mark.parametrize("kind", installed())
async def test_a_primary_without_replicas_writes_nothing_and_keeps_its_connections(kind: ServerKind) -> None:
    with running_server(kind, ("--min-replicas-to-write", "1")) as server:
        connection, wakeups = Connection(server.url, patience=PATIENT), Wakeups(server.url, "f", patience=PATIENT)
        for part in (connection, wakeups):
            await part.open()
        store = RedisStore(connection, wakeups, "f", UNHURRIED)
        before = await connection.call("CLIENT", "ID")
        with pytest.raises(StateUnavailable, match="NOREPLICAS"):
            await store.load(Turn("u", "m", "o", "text"))
        assert await connection.call("DBSIZE") == 0
        assert await connection.call("CLIENT", "ID") == before
        for part in (connection, wakeups):
            await part.close()


def bulk(*texts: str) -> bytes:
    """Texts as RESP has them in a list."""
    return b"*%d\r\n" % len(texts) + b"".join(b"$%d\r\n%s\r\n" % (len(text), text.encode()) for text in texts)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[int]:
    """The port of a server whose connections end before it does."""
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await serve(reader, writer)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(accept, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        await asyncio.gather(*tasks)


@asynccontextmanager
async def scripted(answer: bytes | None, asked: list[bytes] | None = None) -> AsyncIterator[int]:
    """The port of a sentinel that gives one answer to everyone, or none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"primary\r\n")
        if asked is not None:
            asked.append(request)
        if answer is not None:
            writer.write(b"+OK\r\n" * (request.count(b"*") - 1) + answer)
        await reader.read()

    async with serving(serve) as port:
        yield port


@asynccontextmanager
async def relayed(path: Path) -> AsyncIterator[int]:
    """A port that leads to a Unix socket."""

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(path)
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))
        await far_writer.wait_closed()

    async with serving(serve) as port:
        yield port


def sentinels(*ports: int, options: str = "") -> Sentinels:
    site = site_of(f"redis+sentinel://bot:secret@{','.join(f'127.0.0.1:{port}' for port in ports)}/primary/2{options}")
    assert isinstance(site, Sentinels)
    return site


async def test_sentinels_are_asked_in_turn_until_one_names_the_primary() -> None:
    async with scripted(None) as silent, scripted(b"*-1\r\n") as ignorant, scripted(bulk("state-0.state", "7")) as good:
        found = await sentinels(silent, ignorant, good).find()
    assert (str(found), found.username, found.password) == ("redis://state-0.state:7/2", "bot", "secret")


async def test_what_every_sentinel_said_is_told_but_no_password() -> None:
    async with scripted(b"*-1\r\n") as ignorant, scripted(b"-NOAUTH Authentication required.\r\n") as strict:
        site = sentinels(ignorant, strict, 1, options="?sentinel_password=hidden")
        with pytest.raises(StateUnavailable, match="no sentinel names the primary") as raised:
            await site.find()
    told = str(raised.value)
    for piece in (f"127.0.0.1:{ignorant} watches no 'primary'", "NOAUTH", "127.0.0.1:1: "):
        assert piece in told
    for password in ("secret", "hidden"):
        assert password not in told + str(site)


async def test_sentinels_get_their_password_and_never_the_servers() -> None:
    asked: list[bytes] = []
    async with scripted(bulk("h", "1"), asked) as port:
        await sentinels(port).find()
        await sentinels(port, options="?sentinel_password=a+%2b").find()
    assert b"AUTH" not in asked[0]
    assert b"AUTH\r\n$3\r\na++" in asked[1]
    assert not any(b"secret" in request for request in asked)


async def test_a_server_that_is_a_replica_is_not_taken_for_the_primary_and_another_sentinel_is_asked() -> None:
    with running_server(arguments=("--replicaof", "127.0.0.1", "1")) as replica, running_server() as primary:
        async with (
            relayed(replica.socket) as demoted,
            relayed(primary.socket) as promoted,
            scripted(bulk("localhost", str(demoted))) as stale,
            scripted(bulk("localhost", str(promoted))) as right,
        ):
            hosts = f"127.0.0.1:{stale},127.0.0.1:{right}"
            connection = Connection(f"redis+sentinel://{hosts}/primary", patience=BRISK)
            with pytest.raises(StateUnavailable, match="says that it is a slave"):
                await connection.open()
            await connection.connected()
            assert (await connection.call("ROLE"))[0] == b"master"
            await connection.close()


@pytest.mark.parametrize("answer", [bulk("h" * 70 + ".state", "7"), bulk("state", "first"), bulk("state")])
async def test_a_sentinel_that_answers_nonsense_does_not_end_the_attempts(answer: bytes) -> None:
    with running_server() as server:
        async with (
            relayed(server.socket) as port,
            scripted(answer) as odd,
            scripted(bulk("localhost", str(port))) as good,
        ):
            connection = Connection(f"redis+sentinel://127.0.0.1:{odd},127.0.0.1:{good}/primary", patience=BRISK)
            with suppress(StateUnavailable):
                await connection.open()
            await connection.connected()
            assert (await connection.call("ROLE"))[0] == b"master"
            await connection.close()


async def test_a_primary_is_left_only_when_two_sentinels_name_another_server() -> None:
    with running_server() as here, running_server() as there:
        async with (
            relayed(here.socket) as present,
            relayed(there.socket) as former,
            scripted(bulk("127.0.0.1", str(present))) as first,
            scripted(bulk("localhost", str(present))) as second,
            scripted(bulk("localhost", str(former))) as stale,
        ):
            at = [Endpoint(port=port) for port in (first, second, stale)]
            site = Sentinels(Endpoint(), at, "primary")
            wire = await (await site.find()).connect(lambda: Wire("another name of it", 1.0, 1.0, None))
            assert [await site.has_moved(wire) for _ in range(6)] == [False] * 6
            assert not await Sentinels(Endpoint(), [at[1], at[1]], "primary").has_moved(wire), "it is named otherwise"
            assert await Sentinels(Endpoint(), [at[2], at[2]], "primary").has_moved(wire)
            async with scripted(bulk("127.0.0.1", str(former))) as numeric:
                both = [at[2], Endpoint(port=numeric)]
                assert await Sentinels(Endpoint(), both, "primary").has_moved(wire), "both mean the same"
            wire.abort("the test is over")

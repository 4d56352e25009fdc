"""Rate limits: the algorithm, every store that keeps them, and a served gateway that refuses."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace

import aiohttp
import pytest
import websockets
from chatflow_runtime.domain.access import client_address
from chatflow_runtime.domain.rate import Rate, charge
from chatflow_runtime.errors import RateLimited
from chatflow_runtime.ports import Answered, Claimed, Letter, Waiting
from hypothesis import given
from hypothesis import strategies as st
from tests_runtime.state_cases import RULES, Case, Open, outcome
from tests_runtime.web_clients import new_user
from tests_runtime.web_gateway import SHOP, Gateway, running_gateway

SECOND = Rate(1_000.0, 3)
"""Three at once, then one a second."""
LIMITED = replace(RULES, user_rate=SECOND)


@given(
    rate=st.builds(Rate, st.floats(0.5, 5_000), st.integers(1, 50)),
    pauses_ms=st.lists(st.integers(0, 3_000), min_size=1, max_size=200),
)
def test_no_stretch_of_time_has_more_than_the_burst_and_the_rate(rate: Rate, pauses_ms: list[int]) -> None:
    let_in: list[float] = []
    due_ms, now_ms = None, 0.0
    for pause_ms in pauses_ms:
        now_ms += pause_ms
        kept, retry_ms = charge(rate, due_ms, now_ms)
        assert (kept is None) == (retry_ms > 0)
        if kept is None:
            # No sooner than it says, and by then at the latest.
            assert charge(rate, due_ms, now_ms + retry_ms)[1] == 0
            assert retry_ms <= rate.interval_ms + 1.5
        else:
            due_ms = kept
            let_in.append(now_ms)
    for first, began_ms in enumerate(let_in):
        for count, at_ms in enumerate(let_in[first:], start=1):
            assert count <= rate.burst + (at_ms - began_ms) / rate.interval_ms + 1e-6


@given(rate=st.builds(Rate, st.floats(1, 1_000), st.integers(1, 50)), count=st.integers(1, 100))
def test_who_keeps_to_the_rate_is_never_refused(rate: Rate, count: int) -> None:
    due_ms = None
    for number in range(count):
        due_ms, retry_ms = charge(rate, due_ms, number * rate.interval_ms * 1.0001)
        assert retry_ms == 0


async def refused_for_s(case: Case, message_id: str, **more: str) -> int | None:
    with pytest.raises(RateLimited) as caught:
        await case.store.load(case.turn(message_id, **more))
    return caught.value.retry_after_s


async def test_a_user_is_refused_beyond_the_burst_until_the_rate_allows_it(open_case: Open) -> None:
    async with open_case(LIMITED) as case:
        for number in range(3):
            await case.answer(f"m{number}")
        assert await refused_for_s(case, "m3") == 1
        await case.answer("m3", uid="another")
        case.time.advance(999)
        assert await refused_for_s(case, "m3") == 1
        case.time.advance(1)
        await case.answer("m3")
        assert await refused_for_s(case, "m4") == 1
        case.time.advance(60_000)
        for number in range(4, 7):
            await case.answer(f"m{number}")
        assert await refused_for_s(case, "m7") == 1


async def test_repetitions_and_waiting_messages_are_charged_once(open_case: Open) -> None:
    async with open_case(LIMITED) as case:
        await case.answer("m1")
        for _ in range(5):
            assert isinstance(await case.store.load(case.turn("m1")), Answered)
        first = case.turn("m2")
        claimed = await case.claim(first)
        for _ in range(5):
            assert isinstance(await case.store.load(case.turn("m2")), Waiting)
            assert isinstance(await case.store.load(case.turn("m3")), Waiting)
        assert await refused_for_s(case, "m4") == 1
        await case.store.commit(first, claimed.conversation, outcome(first))
        await case.claim(case.turn("m3"))


async def test_what_waits_to_be_answered_later_is_charged_when_it_is_accepted(open_case: Open) -> None:
    async with open_case(LIMITED) as case:
        for number in range(3):
            await case.inbox.accept(Letter("u", f"m{number}", "text", 1))
        with pytest.raises(RateLimited):
            await case.inbox.accept(Letter("u", "m3", "text", 1))
        await case.inbox.accept(Letter("u", "m2", "text", 1))
        assert await refused_for_s(case, "m4") == 1
        later = case.turn("m0")
        unmetered = type(later)(later.uid, later.message_id, later.owner, later.text, is_metered=False)
        assert isinstance(await case.store.load(unmetered), Claimed)


async def test_an_address_is_refused_whoever_it_speaks_for_and_leaves_no_claim(open_case: Open) -> None:
    async with open_case(replace(RULES, address_rate=SECOND)) as case:
        for number in range(3):
            await case.store.load(case.turn("m", uid=f"u{number}", address="192.0.2.1"))
        assert await refused_for_s(case, "m", uid="u3", address="192.0.2.1") == 1
        with pytest.raises(RateLimited):
            await case.store.meter_address("192.0.2.1")
        # The one who is refused holds no conversation up.
        assert isinstance(await case.store.load(case.turn("n", uid="u3", address="192.0.2.2")), Claimed)
        case.time.advance(1_000)
        assert isinstance(await case.store.load(case.turn("m", uid="u4", address="192.0.2.1")), Claimed)


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        pytest.param("192.0.2.9", [], 0, "192.0.2.9", id="no proxy"),
        pytest.param("10.0.0.1", ["192.0.2.9"], 0, "10.0.0.1", id="a header that nobody vouches for"),
        pytest.param("10.0.0.1", ["192.0.2.9"], 1, "192.0.2.9", id="one proxy"),
        pytest.param("10.0.0.1", ["6.6.6.6, 192.0.2.9"], 1, "192.0.2.9", id="a client that makes addresses up"),
        pytest.param("10.0.0.1", ["6.6.6.6", "192.0.2.9"], 1, "192.0.2.9", id="in a header of its own"),
        pytest.param("10.0.0.1", ["192.0.2.9, 10.0.0.2"], 2, "192.0.2.9", id="two proxies"),
        pytest.param("10.0.0.1", ["192.0.2.9"], 2, "192.0.2.9", id="past the outer proxy"),
        pytest.param("10.0.0.1", [], 1, "10.0.0.1", id="past the proxy"),
        pytest.param("2001:db8:1:2:3::4", [], 0, "2001:db8:1:2::/64", id="IPv6: the network"),
        pytest.param("::ffff:192.0.2.9", [], 0, "192.0.2.9", id="IPv4 in IPv6"),
        pytest.param("10.0.0.1", ["192.0.2.9:4711"], 1, "192.0.2.9", id="a proxy that adds the port"),
        pytest.param("10.0.0.1", ["[2001:db8:1:2::7]:4711"], 1, "2001:db8:1:2::/64", id="and so with IPv6"),
    ],
)
def test_the_address_is_the_one_that_the_outermost_proxy_of_ours_heard(
    peer: str, forwarded: list[str], trusted: int, address: str
) -> None:
    assert client_address(peer, forwarded, trusted) == address


@given(st.text(max_size=100), st.lists(st.text(max_size=60), max_size=4), st.integers(0, 10))
def test_any_header_gives_some_address_that_is_no_long_one(peer: str, forwarded: list[str], trusted: int) -> None:
    assert 1 <= len(client_address(peer, forwarded, trusted)) <= 64


GATEWAY = {
    **SHOP["gateway"],  # type: ignore[dict-item]
    "rateLimit": {
        "perUser": {"messages": 60, "per": "1h", "burst": 2},
        "perAddress": {"messages": 60, "per": "1h", "burst": 5},
        "trustedProxies": 1,
    },
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway({**SHOP, "gateway": GATEWAY}) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.base_url) as session:
        yield session


def address(number: int) -> dict[str, str]:
    return {"x-forwarded-for": f"192.0.2.{number}"}


@pytest.mark.parametrize("path", ["/v1/chat", "/v1/messages"])
async def test_a_user_is_told_when_to_come_back(client: aiohttp.ClientSession, path: str) -> None:
    uid, at = new_user(), address(1 if path == "/v1/chat" else 2)
    for number in range(2):
        body = {"uid": uid, "text": "退款", "message_id": f"m{number}"}
        async with client.post(path, json=body, headers=at) as response:
            assert response.status in (200, 202)
    async with client.post(path, json={"uid": uid, "text": "退款", "message_id": "m2"}, headers=at) as response:
        problem = await response.json()
        assert (response.status, problem["code"], problem["retryable"]) == (429, "rate_limited", True)
        assert 50 <= int(response.headers["retry-after"]) <= 60
        assert problem["retry_after_s"] == int(response.headers["retry-after"])
        assert problem["user_text"] == "您发送得太快了，请稍等片刻再发。"
    async with client.post("/v1/ratings", json={"uid": uid, "score": 5}, headers=at) as response:
        assert response.status == 429


async def test_an_address_is_refused_on_every_channel(client: aiohttp.ClientSession, gateway: Gateway) -> None:
    at = address(3)
    for _ in range(5):
        async with client.post("/v1/sessions", headers=at) as response:
            assert response.status == 201
    message = {"uid": new_user(), "text": "退款"}
    completion = {"model": "shop", "messages": [{"role": "user", "content": "退款"}]}
    bodies = {"/v1/sessions": None, "/v1/chat": message, "/v1/messages": message, "/v1/chat/completions": completion}
    for path, body in bodies.items():
        async with client.post(path, json=body, headers=at) as response:
            assert response.status == 429, path
            assert int(response.headers["retry-after"]) <= 60
    socket_address = f"ws://127.0.0.1:{gateway.port}/v1/ws?uid={new_user()}"
    async with websockets.connect(socket_address, additional_headers=at) as socket:
        await socket.send(json.dumps({"type": "message", "text": "退款"}))
        assert json.loads(await socket.recv())["problem"]["code"] == "rate_limited"
    async with client.post("/v1/chat", json=message, headers=address(4)) as response:
        assert response.status == 200

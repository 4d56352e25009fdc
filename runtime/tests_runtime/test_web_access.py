"""Who may speak, and as whom: sessions, API keys and an identity provider's tokens at a served gateway. Nobody reads or
writes another's conversation."""

from __future__ import annotations

import base64
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
import websockets
from aiohttp import web
from chatflow_api.runtime_config import JwtConfig
from chatflow_runtime.adapters.jwks import PublishedKeys
from chatflow_runtime.adapters.tokens import ProviderTokens, SessionTokens
from chatflow_runtime.domain.access import digests_of, keys_of
from chatflow_runtime.errors import CredentialInvalid, KeysUnavailable
from hypothesis import given
from hypothesis import strategies as st
from joserfc import jwt
from joserfc.jwk import ECKey, Key, KeySet, OctKey, RSAKey
from tests_runtime.web_clients import new_user
from tests_runtime.web_gateway import SHOP, Gateway, running_gateway

API_KEY = "an-api-key-of-a-backend"
QUESTION = "退款多久到账"
ISSUER, AUDIENCE = "https://id.example.com/", "chat"


def closed(**auth: object) -> dict[str, Any]:
    """The shop, for users with a credential."""
    return {**SHOP, "gateway": {**SHOP["gateway"], "auth": auth}}  # type: ignore[dict-item]


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway(closed(), api_keys=digests_of([API_KEY])) as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.base_url) as session:
        yield session


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def session(client: aiohttp.ClientSession, **headers: str) -> dict[str, Any]:
    async with client.post("/v1/sessions", headers=headers) as response:
        assert response.status == 201, await response.text()
        assert response.headers["cache-control"] == "no-store"
        found: dict[str, Any] = await response.json()
        return found


async def say(client: aiohttp.ClientSession, token: str | None, **body: str) -> tuple[int, dict[str, Any]]:
    headers = {} if token is None else bearer(token)
    async with client.post("/v1/chat", json={"text": QUESTION, **body}, headers=headers) as response:
        return response.status, await response.json()


async def test_a_visitor_talks_with_a_session_and_no_uid(client: aiohttp.ClientSession, gateway: Gateway) -> None:
    visitor = await session(client)
    assert visitor["expires_at_ms"] == pytest.approx((time.time() + 24 * 3600) * 1000, abs=60_000)
    status, reply = await say(client, visitor["token"], message_id="m1")
    assert (status, reply["intent"]) == (200, "refund")
    history = gateway.run(gateway.store.history(visitor["uid"]))
    assert [message.role for message in history] == ["user", "assistant"]
    assert await say(client, visitor["token"], message_id="m1", uid=visitor["uid"]) == (200, reply)


async def test_a_session_is_exchanged_for_a_fresh_one_of_the_same_visitor(client: aiohttp.ClientSession) -> None:
    first = await session(client)
    second = await session(client, **bearer(first["token"]))
    assert second["uid"] == first["uid"]
    assert (await session(client))["uid"] != first["uid"]


async def test_a_backend_with_an_api_key_names_any_user(client: aiohttp.ClientSession) -> None:
    status, reply = await say(client, API_KEY, uid=new_user())
    assert (status, reply["intent"]) == (200, "refund")
    status, problem = await say(client, API_KEY)
    assert (status, problem["code"]) == (422, "invalid_message")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        pytest.param("POST", "/v1/chat", {"uid": "{uid}", "text": "hi"}, id="chat"),
        pytest.param("POST", "/v1/messages", {"uid": "{uid}", "text": "hi"}, id="messages"),
        pytest.param("POST", "/v1/ratings", {"uid": "{uid}", "score": 5}, id="ratings"),
        pytest.param(
            "POST",
            "/v1/chat/completions",
            {"model": "x", "user": "{uid}", "messages": [{"role": "user", "content": "hi"}]},
            id="completions",
        ),
        pytest.param("GET", "/v1/events?uid={uid}&last_event_id=0", None, id="events"),
        pytest.param("GET", "/v1/ws?uid={uid}", None, id="websocket"),
    ],
)
async def test_no_route_lets_one_user_be_another(
    client: aiohttp.ClientSession, gateway: Gateway, method: str, path: str, body: Mapping[str, object] | None
) -> None:
    victim, thief = await session(client), await session(client)
    assert (await say(client, victim["token"]))[0] == 200
    before = gateway.run(gateway.store.history(victim["uid"]))
    content = None if body is None else json.loads(json.dumps(body).replace("{uid}", victim["uid"]))
    upgrade = {"connection": "Upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
    upgrade |= {"sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ=="}
    for headers, status in (({}, 401), (bearer(thief["token"]), 403)):
        extra = upgrade if path.startswith("/v1/ws") else {}
        async with client.request(
            method, path.format(uid=victim["uid"]), json=content, headers={**headers, **extra}
        ) as response:
            assert response.status == status, await response.text()
            assert victim["uid"] not in await response.text()
            assert ("www-authenticate" in response.headers) == (status == 401)
    assert gateway.run(gateway.store.history(victim["uid"])) == before


async def test_a_stolen_stream_id_brings_nothing_of_anyone_else(client: aiohttp.ClientSession) -> None:
    victim, thief = await session(client), await session(client)
    _, stolen = await say(client, victim["token"], message_id="of-the-victim")
    headers = {**bearer(thief["token"]), "last-event-id": "0-1"}
    async with client.get("/v1/events", headers=headers) as stream:
        assert (await say(client, thief["token"], message_id="of-the-thief"))[0] == 200
        async for line in stream.content:
            assert b"of-the-victim" not in line
            assert stolen["id"].encode() not in line
            if b"of-the-thief" in line:
                break


async def test_streams_take_the_token_as_a_parameter(client: aiohttp.ClientSession, gateway: Gateway) -> None:
    visitor = await session(client)
    address = f"ws://127.0.0.1:{gateway.port}/v1/ws?access_token={visitor['token']}"
    async with websockets.connect(address) as socket:
        await socket.send(json.dumps({"type": "message", "text": QUESTION, "message_id": "w1"}))
        assert json.loads(await socket.recv())["type"] == "reply"
    async with client.get(f"/v1/events?access_token={visitor['token']}&last_event_id=0") as stream:
        async for line in stream.content:
            if b"w1" in line:
                break
    status, problem = await say(client, None, uid="x")
    assert (status, problem["code"]) == (401, "credential_missing")
    async with client.post(f"/v1/chat?access_token={visitor['token']}", json={"text": "hi"}) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    "header",
    [
        pytest.param("", id="empty"),
        pytest.param("Bearer", id="no token"),
        pytest.param("Basic dTpw", id="another scheme"),
        pytest.param("Bearer a.b.c", id="no JWT"),
        pytest.param("Bearer " + "x" * 9000, id="far too long"),
        pytest.param("Bearer \xff\xfe", id="no ASCII"),
    ],
)
async def test_what_is_no_credential_is_refused(client: aiohttp.ClientSession, header: str) -> None:
    async with client.post("/v1/chat", json={"text": "hi"}, headers={"authorization": header}) as response:
        assert (response.status, (await response.json())["code"]) == (401, "credential_invalid")


async def test_two_credentials_are_refused_whichever_is_good(client: aiohttp.ClientSession) -> None:
    good, other = await session(client), await session(client)
    for pair in ((good, other), (other, good)):
        headers = [("authorization", f"Bearer {one['token']}") for one in pair]
        async with client.post("/v1/chat", json={"text": "hi"}, headers=headers) as response:
            assert (response.status, (await response.json())["code"]) == (401, "credential_invalid")
    address = f"/v1/events?access_token={other['token']}"
    async with client.get(address, headers=bearer(good["token"])) as response:
        assert response.status == 401


async def test_a_flow_may_have_no_anonymous_users() -> None:
    with running_gateway(closed(anonymous=False, apiKeysSecretRef={"name": "keys", "key": "keys"})) as running:
        async with aiohttp.ClientSession(running.base_url) as client, client.post("/v1/sessions") as response:
            assert (response.status, (await response.json())["code"]) == (403, "sessions_refused")


async def test_a_visitor_who_is_let_in_under_overload_gets_an_answer() -> None:
    with running_gateway(closed()) as running:
        admission = running.runner.admission
        admission.elsewhere, admission.shed_fraction = admission.backlog_limit + 1, 0.5
        let_in = []
        async with aiohttp.ClientSession(running.base_url) as client:
            for _ in range(40):
                async with client.post("/v1/sessions") as response:
                    assert response.status in (201, 503)
                    if response.status == 201:
                        let_in.append((await response.json())["token"])
            assert 5 < len(let_in) < 35
            assert {(await say(client, token))[0] for token in let_in} == {200}


SESSION_KEY = b"k" * 32


def sessions(now_s: float = 0.0, flow: str = "f1", key: bytes = SESSION_KEY) -> SessionTokens:
    tokens = SessionTokens(flow, 60.0, lambda: now_s)
    tokens.use([key])
    return tokens


def test_a_session_ends_with_its_time_its_flow_and_its_key() -> None:
    token = sessions().give("anon-1").token
    assert sessions(59.9).read(token).uid == "anon-1"
    rotated = sessions()
    rotated.use([b"n" * 32, SESSION_KEY])
    assert rotated.read(token).uid == "anon-1"
    for reader in (sessions(60.0), sessions(flow="f2"), sessions(key=b"x" * 32)):
        with pytest.raises(CredentialInvalid):
            reader.read(token)


@given(st.text(max_size=300))
def test_no_made_up_token_is_a_session(text: str) -> None:
    with pytest.raises(CredentialInvalid):
        sessions().read(text)


@given(data=st.data())
def test_no_altered_session_is_one(data: st.DataObject) -> None:
    token = sessions().give("anon-1").token
    # The last letter of a part may hold bits that decoding leaves out.
    at = data.draw(st.sampled_from([at for at in range(len(token) - 1) if token[at] != "." and token[at + 1] != "."]))
    letter = data.draw(st.sampled_from("ABCDEFGHabcdefgh0123456789-_").filter(lambda one: one != token[at]))
    with pytest.raises(CredentialInvalid):
        sessions().read(token[:at] + letter + token[at + 1 :])


CONFIG = JwtConfig(issuer=ISSUER, audience=AUDIENCE, jwks_url="http://127.0.0.1/keys", uid_claim="sub")
RSA = RSAKey.generate_key(2048, {"kid": "rsa"}, private=True)
EC = ECKey.generate_key("P-256", {"kid": "ec"}, private=True)
CLAIMS = {"iss": ISSUER, "aud": AUDIENCE, "sub": "customer-7", "exp": 2_000}


def provided(key: Key = RSA, algorithm: str = "RS256", **claims: object) -> str:
    kept = {name: value for name, value in {**CLAIMS, **claims}.items() if value is not None}
    return jwt.encode({"alg": algorithm, "kid": key.kid}, kept, key, algorithms=[algorithm])


def provider(now_s: float = 1_000.0) -> ProviderTokens:
    tokens = ProviderTokens(CONFIG, lambda: now_s)
    tokens.use(KeySet([RSA, EC]))
    return tokens


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS384"), (EC, "ES256")])
def test_a_providers_token_names_its_user(key: Key, algorithm: str) -> None:
    known = provider().read(provided(key, algorithm, aud=["other", AUDIENCE]))
    assert (known.uid, known.until_s) == ("customer-7", 2_060)


CONFUSED = {"alg": "HS256", "kid": "rsa"}


def confused() -> str:
    """Signed by HMAC with the published key as the secret: a verifier takes that which leaves the choice of the
    algorithm to the token."""
    header, claims = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (CONFUSED, CLAIMS))
    signature = hmac.digest(RSA.as_pem(private=False), header + b"." + claims, "sha256")
    return b".".join((header, claims, base64.urlsafe_b64encode(signature).rstrip(b"="))).decode()


@pytest.mark.parametrize(
    "token",
    [
        pytest.param(provided(exp=900), id="expired"),
        pytest.param(provided(exp=None), id="for ever"),
        pytest.param(provided(nbf=1_100), id="not yet"),
        pytest.param(provided(iss="https://evil.example"), id="another issuer"),
        pytest.param(provided(iss=None), id="no issuer"),
        pytest.param(provided(aud="shop"), id="another audience"),
        pytest.param(provided(aud=None), id="no audience"),
        pytest.param(provided(sub=None), id="nobody"),
        pytest.param(provided(sub=7), id="a number"),
        pytest.param(provided(sub="anon-8sB1XzJrPz5rX3nTn2dC9w"), id="an anonymous user"),
        pytest.param(provided(RSAKey.generate_key(2048, {"kid": "rsa"})), id="another key of that name"),
        pytest.param(confused(), id="signed with the published key"),
        pytest.param("eyJhbGciOiJub25lIn0.eyJzdWIiOiJ4In0.", id="not signed"),
    ],
)
def test_a_token_that_the_provider_did_not_give_for_this_is_refused(token: str) -> None:
    with pytest.raises(CredentialInvalid):
        provider().read(token)


@asynccontextmanager
async def publishing(answer: web.Response) -> AsyncIterator[str]:
    async def keys(_: web.Request) -> web.Response:
        return web.Response(status=answer.status, text=answer.text, headers={"location": "/"})

    app = web.Application()
    app.add_routes([web.get("/keys", keys)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    finally:
        await runner.cleanup()


async def read_from(answer: web.Response) -> ProviderTokens:
    tokens = ProviderTokens(CONFIG, lambda: 1_000.0)
    async with publishing(answer) as url, aiohttp.ClientSession() as session:
        await PublishedKeys(url, session, tokens.use, tokens.misses_key).check()
    return tokens


async def test_published_keys_are_used_and_symmetric_ones_left_out() -> None:
    oct_key = OctKey.import_key(b"s" * 32, {"kid": "oct"})
    strange = {"kty": "lattice", "kid": "future"}
    keys = [RSA.as_dict(private=False), oct_key.as_dict(), strange, {"kty": "RSA"}]
    tokens = await read_from(web.json_response({"keys": keys}))
    assert tokens.read(provided()).uid == "customer-7"
    with pytest.raises(CredentialInvalid):
        tokens.read(provided(EC, "ES256"))
    assert tokens.misses_key.is_set()


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(web.Response(status=500), id="an error"),
        pytest.param(web.Response(status=302), id="a redirect"),
        pytest.param(web.Response(text="<html>"), id="no JSON"),
        pytest.param(web.Response(text="[]"), id="no key set"),
        pytest.param(web.Response(text='{"keys": []}'), id="no keys"),
        pytest.param(web.Response(text='{"keys": ["' + "x" * 300_000 + '"]}'), id="far too much"),
    ],
)
async def test_what_is_no_key_set_is_refused_with_a_reason(answer: web.Response) -> None:
    with pytest.raises(KeysUnavailable, match=r"127\.0\.0\.1"):
        await read_from(answer)


def test_keys_in_a_secret_stand_one_a_line() -> None:
    assert keys_of("# backends\nfirst-key-of-sixteen\n\nsecond-key-of-sixteen\n", 16) == [
        "first-key-of-sixteen",
        "second-key-of-sixteen",
    ]
    for text in ("", "# nothing\n", "long-enough-to-be-one\nshort"):
        with pytest.raises(ValueError, match="key"):
            keys_of(text, 16)

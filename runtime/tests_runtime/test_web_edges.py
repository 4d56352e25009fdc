"""What surrounds the chat routes of a served gateway: problems, limits, origins, documents, assets, admin port."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import quote

import aiohttp
import chatflow_runtime.web.app  # noqa: F401  All error classes of the web must be defined.
import hypothesis
import jsonschema  # type: ignore[import-untyped]
import msgspec
import pytest
import structlog
from chatflow_runtime import errors
from chatflow_runtime.domain.texts import texts_for
from chatflow_runtime.errors import ChatFlowError, Interrupted, Shed, StateUnavailable
from chatflow_runtime.web import problems, services, wire
from chatflow_runtime.web.admin import Health, create_admin_app
from chatflow_runtime.web.origins import Origins
from fastapi.openapi.models import OpenAPI
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message
from tests_runtime.web_clients import new_user
from tests_runtime.web_gateway import Gateway, running_gateway


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with running_gateway() as running:
        yield running


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(gateway.base_url) as session:
        yield session


def subclasses(kind: type[ChatFlowError]) -> Iterator[type[ChatFlowError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from subclasses(child)


@pytest.mark.parametrize("kind", sorted(set(subclasses(ChatFlowError)), key=str), ids=str)
def test_every_error_has_its_row_in_the_table(kind: type[ChatFlowError]) -> None:
    row = problems.entry_of(kind)
    assert 400 <= row.status < 600
    assert row.retry_after_s is None or kind.is_retryable
    if kind.__module__ in (errors.__name__, problems.__name__):
        assert row is problems.TABLE[kind]
    assert kind is ChatFlowError or row is not problems.TABLE[ChatFlowError]


def test_every_public_error_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in problems.TABLE]
    assert len(set(codes)) == len(codes)


@pytest.mark.parametrize(
    ("body", "status", "code", "says"),
    [
        pytest.param(b"", 400, "malformed_request", "no JSON", id="nothing"),
        pytest.param(b'{"uid": "u"', 400, "malformed_request", "truncated", id="half"),
        pytest.param(b'{"uid": "\xff"}', 400, "malformed_request", "UTF-8", id="no UTF-8"),
        pytest.param(b'{"uid": 1, "text": "x"}', 422, "invalid_message", "$.uid", id="a wrong type"),
        pytest.param(b'{"uid": "u"}', 422, "invalid_message", "`text`", id="a missing field"),
        pytest.param(
            b'{"uid": "u", "text": "x", "messageId": "m"}', 422, "invalid_message", "`messageId`", id="misspelt"
        ),
        pytest.param(b'{"uid": "", "text": "x"}', 422, "invalid_message", "1", id="an empty uid"),
        pytest.param(b'{"uid": "a b", "text": "x"}', 422, "invalid_message", "'a b'", id="white space in the uid"),
        pytest.param('{"uid": "\u200b", "text": "x"}'.encode(), 422, "invalid_message", "visible", id="invisible"),
        pytest.param(b'{"uid": "u", "text": "x", "message_id": ""}', 422, "invalid_message", "message_id", id="no id"),
        pytest.param(b'{"uid": "u", "text": "\\t "}', 422, "invalid_message", "empty", id="an empty text"),
        pytest.param(
            '{"uid": "u", "text": " \u200b\u2800"}'.encode(), 422, "invalid_message", "empty", id="unseen text"
        ),
        pytest.param(
            json.dumps({"uid": "u", "text": "字" * 501}).encode(), 413, "message_too_long", "501", id="a long text"
        ),
        pytest.param(b" " * (services.MAX_BODY_BYTES + 1), 413, "body_too_large", "65536", id="a large body"),
    ],
)
async def test_a_body_that_does_not_fit_is_told_what_is_wrong(
    client: aiohttp.ClientSession, body: bytes, status: int, code: str, says: str
) -> None:
    for data in (body, aiohttp.payload.AsyncIterablePayload(_pieces(body))):
        async with client.post("/v1/chat", data=data, headers={"x-request-id": "r-1"}) as response:
            problem = msgspec.json.decode(await response.read(), type=problems.Problem)
            assert (response.status, response.content_type) == (status, "application/problem+json")
        assert (problem.status, problem.code, problem.type) == (status, code, problems.TYPE_BASE + code)
        assert says in problem.detail
        assert problem.request_id == response.headers["x-request-id"] == "r-1"


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    """The body in chunks, so that no Content-Length announces it."""
    for start in range(0, len(body), 8192):
        yield body[start : start + 8192]


async def test_the_longest_text_passes_however_it_is_escaped(client: aiohttp.ClientSession) -> None:
    body = json.dumps({"uid": new_user(), "text": "😀" * 500}).encode("ascii")
    async with client.post("/v1/chat", data=body) as response:
        assert response.status == 200


@hypothesis.settings(max_examples=100, deadline=None)
@given(
    path=st.sampled_from(["/v1/chat", "/v1/ratings", "/v1/chat/completions"]),
    body=st.binary(max_size=300)
    | st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    ).map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {},
        optional={
            "uid": st.text(),
            "text": st.text(),
            "message_id": st.text(),
            "score": st.integers(),
            "user": st.text(),
            "messages": st.lists(
                st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": st.text()})
            ),
        },
    ).map(lambda value: json.dumps(value).encode()),
)
async def test_no_body_whatever_breaks_the_gateway(gateway: Gateway, path: str, body: bytes) -> None:
    async with aiohttp.ClientSession(gateway.base_url) as client, client.post(path, data=body) as response:
        assert response.status < 500, body
        assert json.loads(await response.read())


@hypothesis.settings(max_examples=50, deadline=None)
@given(uid=st.text(max_size=200), last_id=st.text(max_size=40))
async def test_no_query_whatever_breaks_the_events(gateway: Gateway, uid: str, last_id: str) -> None:
    query = f"uid={quote(uid, errors='replace')}&last_event_id={quote(last_id, errors='replace')}"
    async with aiohttp.ClientSession(gateway.base_url) as client, client.get(f"/v1/events?{query}") as response:
        assert response.status in (200, 422)


async def test_unknown_routes_and_wrong_methods_are_problems(client: aiohttp.ClientSession) -> None:
    for method, path, status, code in (
        ("GET", "/nowhere", 404, "route_unknown"),
        ("GET", "/v1/chat", 405, "method_refused"),
        ("DELETE", "/v1/config", 405, "method_refused"),
        ("POST", "/v1/events", 405, "method_refused"),
    ):
        async with client.request(method, path) as response:
            assert (response.status, (await response.json(content_type=None))["code"]) == (status, code)
            assert status == 404 or response.headers["allow"]


async def test_a_failure_inside_is_a_problem_that_tells_nothing_of_the_inside(
    client: aiohttp.ClientSession, gateway: Gateway
) -> None:
    outage, bug = StateUnavailable("no answer from redis://secret-host:6379"), ZeroDivisionError("division by zero")
    for failure, status, code in ((outage, 503, "state_unavailable"), (bug, 500, "internal")):
        gateway.shop.fault = failure
        for headers in ({}, {"accept": "text/event-stream"}):
            body = {"uid": "u", "text": "你好"}
            with structlog.testing.capture_logs() as logged:
                async with client.post("/v1/chat", json=body, headers=headers) as response:
                    text = await response.text()
            (line,) = logged
            assert line["request_id"] == response.headers["x-request-id"]
            assert "你好" not in str(line)
            assert (response.status, json.loads(text)["code"]) == (status, code)
            assert ("retry-after" in response.headers) == (code == "state_unavailable")
            assert "secret-host" not in text
            assert "zero" not in text
            channel = "sse" if headers else "rest"
            assert gateway.sample("chatflow_turn_failures_total", channel=channel, code=code) == 1
    gateway.shop.fault = None


def test_what_the_user_may_read_is_in_the_flows_language(gateway: Gateway) -> None:
    texts = texts_for(gateway.config)
    made = problems.Problems(texts)
    assert made.of(StateUnavailable("away"), "r").user_text == texts.busy
    assert made.of(Shed("6000 turns are under way"), "r").user_text == texts.shed
    assert made.of(Interrupted("a newer message"), "r").user_text == texts.interrupted


@pytest.mark.parametrize("path", ["/v1/config", "/v1/chat", "/openapi.json"])
@pytest.mark.parametrize(
    ("origin", "is_allowed"),
    [
        pytest.param("https://shop.example.com", True, id="listed"),
        pytest.param("https://help.example.org", True, id="a listed subdomain"),
        pytest.param("own", True, id="own"),
        pytest.param("https://evil.example", False, id="foreign"),
        pytest.param("http://shop.example.com", False, id="another scheme"),
        pytest.param("https://shop.example.com.evil.example", False, id="a look-alike"),
        pytest.param("null", False, id="no origin"),
    ],
)
async def test_cross_origin_requests_are_answered_as_the_manifest_says(
    client: aiohttp.ClientSession, gateway: Gateway, path: str, origin: str, is_allowed: bool
) -> None:
    headers = {"origin": gateway.base_url if origin == "own" else origin}
    expected = headers["origin"] if is_allowed else None
    async with client.request("POST" if path == "/v1/chat" else "GET", path, headers=headers) as response:
        assert response.headers.get("access-control-allow-origin") == expected
        assert "origin" in response.headers["vary"].lower()
        # A request that needs no preflight takes no effect either.
        assert (response.status == 403) is (path == "/v1/chat" and not is_allowed)
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type, x-stainless-os"}
    preflight = headers | asked
    async with client.options(path, headers=preflight) as response:
        assert response.status == (204 if is_allowed else 403)
        assert response.headers.get("access-control-allow-origin") == expected
        assert "origin" in response.headers["vary"].lower()
        if is_allowed:
            assert response.headers["access-control-allow-headers"] == "content-type, x-stainless-os"


def test_the_gateways_own_page_is_known_behind_a_proxy_too() -> None:
    origins = Origins([])
    proxied = {b"host": b"gateway:8080", b"x-forwarded-host": b"chat.example.com"}
    assert origins.allows("https://chat.example.com", proxied)
    assert not origins.allows("https://other.example.com", proxied)
    assert not origins.allows("null", {})


def test_a_star_allows_every_page() -> None:
    origins = Origins(["*"])
    assert origins.allows("null", {})
    assert (b"access-control-allow-origin", b"*") in origins.response_headers(b"https://any.example", {})


@given(origin=st.text())
def test_only_listed_origins_pass_whatever_a_client_sends(origin: str) -> None:
    origins = Origins(["https://shop.example.com", "https://*.example.org"])
    host = origin.lower().removeprefix("https://")
    is_listed = host == "shop.example.com" or re.fullmatch(r"([a-z0-9-]+\.)+example\.org", host, re.ASCII)
    assert origins.allows(origin, {b"host": b"chat.example.net"}) == bool(is_listed and origin.lower() != host)


async def test_the_document_is_valid_and_its_examples_fit_its_schemas(client: aiohttp.ClientSession) -> None:
    async with client.get("/openapi.json") as response:
        document = await response.json()
    OpenAPI.model_validate(document)
    assert document["openapi"].startswith("3.2")
    checked = 0
    for schema in document["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for node in walk(document):
        if "$ref" in node:
            assert resolve(document, node["$ref"])
        if "schema" in node and "examples" in node:
            validator = jsonschema.Draft202012Validator({**document, **node["schema"]})
            for example in node["examples"].values():
                validator.validate(example["value"])
                checked += 1
    assert checked >= 30


def _answer(operation: dict[str, Any]) -> dict[str, Any]:
    """What the document says of the response when all is well."""
    found: dict[str, Any] = next(row for status, row in operation["responses"].items() if status.startswith("2"))
    return found


async def test_every_route_has_examples_in_both_languages(client: aiohttp.ClientSession) -> None:
    async with client.get("/openapi.json") as response:
        document = await response.json()
    chat = {"/v1/sessions", "/v1/chat", "/v1/messages", "/v1/events", "/v1/ratings", "/v1/chat/completions"}
    desk = {"/v1/handoffs/{uid}", "/v1/handoffs/{uid}/messages", "/v1/handoffs/{uid}/return"}
    served = chat | desk | {"/v1/models", "/v1/config"}
    assert served | {"/v1/ws", "/", "/widget.js"} == set(document["paths"])
    for path in served:
        (operation,) = document["paths"][path].values()
        contents = list(_answer(operation)["content"].values())
        contents += list(operation.get("requestBody", {}).get("content", {}).values())
        assert all(set(content["examples"]) == {"zh", "en"} for content in contents), path


async def test_examples_of_requests_are_answered_as_the_document_says(client: aiohttp.ClientSession) -> None:
    async with client.get("/openapi.json") as response:
        document = await response.json()
    for path in ("/v1/chat", "/v1/messages", "/v1/ratings", "/v1/chat/completions"):
        (operation,) = document["paths"][path].values()
        status = next(status for status in operation["responses"] if status.startswith("2"))
        for example in operation["requestBody"]["content"]["application/json"]["examples"].values():
            async with client.post(path, json=example["value"]) as response:
                content = _answer(operation)["content"][response.content_type]
                assert response.status == int(status)
                if response.content_type == "application/json":
                    validator = jsonschema.Draft202012Validator({**document, **content["schema"]})
                    validator.validate(await response.json())


def walk(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
        for child in node.values():
            yield from walk(child)
    elif isinstance(node, list):
        for child in node:
            yield from walk(child)


def resolve(document: dict[str, Any], reference: str) -> Any:
    node: Any = document
    for part in reference.removeprefix("#/").split("/"):
        node = node[part]
    return node


async def test_the_docs_page_and_the_widgets_configuration_are_served(client: aiohttp.ClientSession) -> None:
    async with client.get("/docs") as response:
        assert (response.status, response.content_type) == (200, "text/html")
        assert "openapi.json" in await response.text()
    async with client.get("/v1/config") as response:
        config = msgspec.json.decode(await response.read(), type=wire.WidgetConfig)
    assert (config.title, config.locale, config.rating_scale, config.max_text_length) == (
        "青禾商城客服",
        "zh-CN",
        5,
        500,
    )


@pytest.mark.parametrize("path", ["/", "/docs"])
async def test_pages_let_in_their_own_scripts_alone_and_are_sent_once(client: aiohttp.ClientSession, path: str) -> None:
    async with client.get(path, headers={"accept-encoding": "identity"}) as response:
        policy = response.headers["content-security-policy"]
        page, etag = await response.text(), response.headers["etag"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert policy.count("sha256-") == page.count("<script>") + page.count("<style>") == 2
    async with client.get(path, headers={"if-none-match": etag}) as response:
        assert (response.status, await response.read()) == (304, b"")


async def test_the_widget_may_be_loaded_by_any_page_and_comes_compressed(gateway: Gateway) -> None:
    async with aiohttp.ClientSession(gateway.base_url, auto_decompress=False) as client:
        for origin in ("https://evil.example", "https://shop.example.com"):
            headers = {"origin": origin, "accept-encoding": "gzip"}
            async with client.get("/widget.js", headers=headers) as response:
                assert response.headers.getall("access-control-allow-origin") == ["*"]
                assert response.headers["content-encoding"] == "gzip"
                assert b"customElements.define" in gzip.decompress(await response.read())


async def admin(health: Health, gateway: Gateway, path: str, accept: str = "") -> tuple[int, str, str]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "path": path, "headers": [(b"accept", accept.encode())]}
    guards = gateway.runner.dispatcher.models.guards
    await create_admin_app(health, gateway.registry, guards.snapshots)(scope, receive, send)
    return sent[0]["status"], dict(sent[0]["headers"])[b"content-type"].decode(), sent[1]["body"].decode()


async def test_the_admin_port_is_ready_once_warm_and_until_it_drains(gateway: Gateway) -> None:
    health = Health()
    drained: list[bool] = []
    health.on_drain(lambda: drained.append(True))
    assert (await admin(health, gateway, "/livez"))[0] == 200
    status, _, reason = await admin(health, gateway, "/readyz")
    assert (status, "warming up" in reason) == (503, True)
    health.warmed()
    assert (await admin(health, gateway, "/readyz"))[0] == 200
    health.drain()
    health.drain()
    assert (await admin(health, gateway, "/readyz"))[0] == 503
    assert drained == [True]
    assert (await admin(health, gateway, "/"))[0] == 404


async def test_the_admin_port_tells_how_the_breakers_stand(client: aiohttp.ClientSession, gateway: Gateway) -> None:
    async with client.post("/v1/chat", json={"uid": new_user(), "text": "你们的吉祥物叫什么"}) as response:
        assert response.status == 200
    status, content_type, text = await admin(Health(), gateway, "/debug/breakers")
    assert (status, content_type) == (200, "application/json")
    found = json.loads(text)["llm"]
    assert found.pop("calls") >= 1
    assert found == {"state": "closed", "bad": 0, "openings": 0, "opens_for_s": 0.0}


async def test_turns_are_counted_by_channel_rung_and_origin(client: aiohttp.ClientSession, gateway: Gateway) -> None:
    labels = {"channel": "rest", "rung": "L0", "origin": "knowledge"}
    before = gateway.sample("chatflow_turns_total", **labels)
    async with client.post("/v1/chat", json={"uid": new_user(), "text": "退款多久到账"}) as response:
        assert response.status == 200
    assert gateway.sample("chatflow_turns_total", **labels) == before + 1
    status, content_type, text = await admin(Health(), gateway, "/metrics")
    assert (status, content_type.startswith("text/plain")) == (200, True)
    names = {family.name for family in text_string_to_metric_families(text)}
    assert {"chatflow_turns", "chatflow_turn_seconds", "chatflow_first_token_seconds", "process_cpu_seconds"} <= names
    _, openmetrics, _ = await admin(Health(), gateway, "/metrics", "application/openmetrics-text; version=1.0.0")
    assert openmetrics.startswith("application/openmetrics-text")

"""Actions: calls to business APIs, against real servers."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from decimal import Decimal

import aiohttp
import pytest
from aiohttp import web
from chatflow_api.runtime_config import ActionConfig, DialogueConfig, derive
from chatflow_api.v1alpha1 import ChatFlow, HttpMethod
from chatflow_runtime.adapters.business_api import MAX_RESPONSE_BYTES, BusinessApi, fill_url, objection_to
from chatflow_runtime.adapters.http_session import open_session
from chatflow_runtime.domain.templates import fill
from chatflow_runtime.errors import ActionFailed
from chatflow_runtime.ports import ActionResult
from hypothesis import given
from hypothesis import strategies as st
from yarl import URL

TOKEN = "tok-0123456789"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Shop:
    """An API whose answers a test lays down; the last one is repeated. Reached as shop:9180 and as partner:9180."""

    session: aiohttp.ClientSession

    def __init__(self) -> None:
        self.answers: list[Handler] = [_json({"status": "已发货"})]
        self.requests: list[tuple[web.Request, bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request, await request.read()))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return await answer(request)

    @property
    def paths(self) -> list[str]:
        return [request.raw_path for request, _ in self.requests]


def _json(body: object, status: int = 200, **headers: str) -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        text = body if isinstance(body, str) else json.dumps(body)
        return web.Response(text=text, status=status, content_type="application/json", headers=headers)

    return answer


def _text(body: str, kind: str = "text/html") -> Handler:
    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(text=body, content_type=kind)

    return answer


async def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _cut_in_the_middle(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "100"})
    await response.prepare(request)
    await response.write(b'{"status": ')
    return await _cut(request)


async def _never(_: web.Request) -> web.StreamResponse:
    await asyncio.Event().wait()
    return web.Response()


@pytest.fixture
async def shop() -> AsyncIterator[Shop]:
    shop = Shop()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", shop.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    address = f"127.0.0.1:{runner.addresses[0][1]}"
    async with AsyncExitStack() as stack:
        stack.push_async_callback(runner.cleanup)
        shop.session = await stack.enter_async_context(open_session({"shop": address, "partner": address}))
        yield shop


def _dialogue(action: ActionConfig, allowed: tuple[str, ...] = ()) -> DialogueConfig:
    flow = ChatFlow.model_validate(
        {"apiVersion": "chatflow.dev/v1alpha1", "kind": "ChatFlow", "metadata": {"name": "shop"}}
    )
    return derive(flow).dialogue.model_copy(update={"actions": (action,), "allowed_hosts": allowed})


def _action(
    url: str = "http://shop:9180/orders/{order_no}",
    method: HttpMethod = HttpMethod.GET,
    timeout_s: float = 30.0,
    slots: tuple[str, ...] = ("order_no",),
) -> ActionConfig:
    return ActionConfig(
        name="order_status",
        intent="order_status",
        slots=slots,
        url=url,
        method=method,
        secret="shop/token",
        timeout_s=timeout_s,
        reply="{response.status}",
        not_found=None,
        failure=None,
    )


async def _call(
    shop: Shop,
    action: ActionConfig,
    slots: dict[str, str] | None = None,
    allowed: tuple[str, ...] = (),
    token: str | None = TOKEN,
    message_id: str = "m-1",
) -> ActionResult:
    api = BusinessApi(_dialogue(action, allowed), shop.session, {action.name: token})
    return await api.call(action, slots or {"order_no": "A1024", "phone": "13800000000"}, message_id)


async def _failure(
    shop: Shop, action: ActionConfig, slots: dict[str, str] | None = None, token: str | None = TOKEN
) -> str:
    with pytest.raises(ActionFailed) as raised:
        await _call(shop, action, slots, token=token)
    message = str(raised.value)
    assert message.startswith(f"action 'order_status', {action.method} http")
    for value in (TOKEN, *(slots or {}).values()):
        assert len(value) < 3 or value not in message
    return message


async def test_a_get_sends_slots_in_the_url_and_returns_the_json(shop: Shop) -> None:
    result = await _call(shop, _action())
    assert result == ActionResult(is_found=True, body={"status": "已发货"})
    ((request, body),) = shop.requests
    assert (request.method, request.raw_path, request.host, body) == ("GET", "/orders/A1024", "shop:9180", b"")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}"
    assert request.headers["Idempotency-Key"] == "m-1"
    assert request.headers["Accept"] == "application/json"


@pytest.mark.parametrize("method", [HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH])
async def test_methods_with_a_body_send_the_actions_own_slots(shop: Shop, method: HttpMethod) -> None:
    await _call(shop, _action("http://shop:9180/refunds", method), token=None)
    ((request, body),) = shop.requests
    assert json.loads(body) == {"order_no": "A1024"}
    assert request.headers["Content-Type"] == "application/json"
    assert "Authorization" not in request.headers


async def test_prices_stay_as_the_api_wrote_them(shop: Shop) -> None:
    shop.answers = [_json('{"total": 199.00, "count": 2}')]
    result = await _call(shop, _action())
    assert result.body == {"total": Decimal("199.00"), "count": 2}
    assert fill("共 {response.count} 件，{response.total} 元", {}, result.body) == "共 2 件，199.00 元"


async def test_404_means_that_there_is_no_such_thing(shop: Shop) -> None:
    shop.answers = [_json({"error": "no such order"}, status=404)]
    assert await _call(shop, _action()) == ActionResult(is_found=False)
    assert len(shop.requests) == 1


async def test_an_empty_answer_to_a_change_is_a_result(shop: Shop) -> None:
    shop.answers = [_json("", status=204)]
    assert await _call(shop, _action(method=HttpMethod.DELETE)) == ActionResult(is_found=True)


@pytest.mark.parametrize(
    ("url", "value", "path"),
    [
        pytest.param("http://shop:9180/o/{order_no}", "a?b#c&d=e%2f", "/o/a%3Fb%23c%26d%3De%252f", id="reserved"),
        pytest.param("http://shop:9180/o/{order_no}/x", "订 单", "/o/%E8%AE%A2%20%E5%8D%95/x", id="Chinese and space"),
        pytest.param("http://shop:9180/o?no={order_no}&a=1", "a/../b&c=d", "/o?no=a%2F..%2Fb%26c%3Dd&a=1", id="query"),
        pytest.param("http://shop:9180/o/v{order_no}", "..", "/o/v..", id="dots behind a letter"),
        pytest.param("http://shop:9180/订单/{order_no}", "1", "/%E8%AE%A2%E5%8D%95/1", id="Chinese in the template"),
        pytest.param("http://shop:9180/o/{order_no}", "{order_no}", "/o/%7Border_no%7D", id="a placeholder as value"),
    ],
)
async def test_values_are_percent_encoded(shop: Shop, url: str, value: str, path: str) -> None:
    await _call(shop, _action(url), {"order_no": value})
    assert shop.paths == [path]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        pytest.param("../admin", "has a slash in slot 'order_no'", id="slash"),
        pytest.param("..\\admin", "has a slash in slot 'order_no'", id="backslash"),
        pytest.param("..", "has '.' or '..' for a path segment", id="two dots"),
        pytest.param(".", "has '.' or '..' for a path segment", id="a dot"),
        pytest.param("1\r\nX-Evil: 1", "has control characters in slot 'order_no'", id="line end"),
        pytest.param("", "has no value in slot 'order_no'", id="empty"),
    ],
)
async def test_a_value_that_would_leave_its_segment_is_refused(shop: Shop, value: str, message: str) -> None:
    assert message in await _failure(shop, _action(), {"order_no": value})
    assert shop.requests == []


async def test_dots_from_two_slots_are_refused_too(shop: Shop) -> None:
    action = _action("http://shop:9180/o/{a}{b}", slots=("a", "b"))
    assert "for a path segment" in await _failure(shop, action, {"a": ".", "b": "."})
    assert "has no value in slot 'b'" in await _failure(shop, action, {"a": "1"})


@given(value=st.text(min_size=1).filter(str.isprintable))
def test_no_value_changes_the_shape_of_the_path(value: str) -> None:
    action = _action("http://shop:9180/o/{order_no}/items?x={order_no}")
    try:
        url = fill_url(action, {"order_no": value})
    except ActionFailed:
        assert {"/", "\\"} & set(value) or value in (".", "..")
        return
    assert url.isascii()
    path, _, query = url.removeprefix("http://shop:9180").partition("?")
    assert path.count("/") == 3
    assert query.count("=") == 1
    assert not set(url) & set("#&\\ ")


@pytest.mark.parametrize("method", [HttpMethod.GET, HttpMethod.PUT, HttpMethod.DELETE])
@pytest.mark.parametrize("first", [_cut, _cut_in_the_middle, _json({}, 502), _json({}, 503), _json({}, 504)])
async def test_idempotent_calls_are_sent_once_more(shop: Shop, method: HttpMethod, first: Handler) -> None:
    shop.answers = [first, _json({"status": "ok"})]
    assert (await _call(shop, _action(method=method))).body == {"status": "ok"}
    keys = [request.headers["Idempotency-Key"] for request, _ in shop.requests]
    assert keys == ["m-1", "m-1"]


async def test_a_call_is_retried_once_and_no_more(shop: Shop) -> None:
    shop.answers = [_json({}, 503)]
    assert "answered with status 503" in await _failure(shop, _action())
    assert len(shop.requests) == 2


@pytest.mark.parametrize("method", [HttpMethod.POST, HttpMethod.PATCH])
@pytest.mark.parametrize("first", [_cut, _json({}, 503)])
async def test_other_calls_are_never_repeated(shop: Shop, method: HttpMethod, first: Handler) -> None:
    shop.answers = [first, _json({"status": "ok"})]
    await _failure(shop, _action(method=method))
    assert len(shop.requests) == 1


async def test_the_deadline_covers_the_retry(shop: Shop) -> None:
    shop.answers = [_json({}, 503), _never]
    assert "took longer than 0.1 s" in await _failure(shop, _action(timeout_s=0.1))
    assert len(shop.requests) == 2


async def test_an_api_that_is_not_there_is_a_failure(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    message = await _failure(shop, _action(f"http://127.0.0.1:{port}/orders/{{order_no}}"))
    assert "cannot be reached (ClientConnectorError); check that it runs" in message


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        pytest.param(_json({}, 401), "answered with status 401; check the token in secretRef", id="401"),
        pytest.param(_json({}, 500), "answered with status 500; see that API's log", id="500"),
        pytest.param(_text("<html>"), "answered with text/html; actions need an API", id="HTML"),
        pytest.param(_json(""), "answered with broken JSON", id="empty"),
        pytest.param(_json('{"a": '), "answered with broken JSON", id="broken JSON"),
        pytest.param(_json("x" * (MAX_RESPONSE_BYTES + 1)), "answered with more than 262144 bytes", id="too long"),
    ],
)
async def test_other_answers_are_failures(shop: Shop, answer: Handler, message: str) -> None:
    shop.answers = [answer]
    assert message in await _failure(shop, _action())
    assert len(shop.requests) == 1


async def test_a_host_that_is_not_allowed_is_never_called(shop: Shop) -> None:
    action = _action("http://shop:9180/orders/{order_no}")
    with pytest.raises(ActionFailed, match=r"leads to host 'shop:9180'; list it in allowedHosts"):
        await _call(shop, action, allowed=("partner:9180",))
    assert "with credentials" in await _failure(shop, _action("http://shop:9180@evil.example/{order_no}"))
    assert shop.requests == []


async def test_redirects_are_followed_inside_the_allowed_hosts_without_the_token(shop: Shop) -> None:
    shop.answers = [
        _json({}, 302, Location="/v2/orders/A1024"),
        _json({}, 307, Location="http://partner:9180/o/A1024"),
        _json({"status": "ok"}),
    ]
    result = await _call(shop, _action(), allowed=("shop:9180", "partner:9180"))
    assert result.body == {"status": "ok"}
    assert [(request.host, request.headers.get("Authorization")) for request, _ in shop.requests] == [
        ("shop:9180", f"Bearer {TOKEN}"),
        ("shop:9180", f"Bearer {TOKEN}"),
        ("partner:9180", None),
    ]


@pytest.mark.parametrize(
    ("location", "message"),
    [
        pytest.param("http://partner:9180/x", "leads to host 'partner:9180'", id="another host"),
        pytest.param("http://shop/x", "leads to host 'shop'", id="another port"),
        pytest.param("file:///etc/passwd", "leads to an address without http(s)", id="another scheme"),
        pytest.param("http://u:p@shop:9180/x", "with credentials", id="credentials"),
        pytest.param("/again", "redirects more than 3 times", id="a loop"),
        pytest.param("http://[", "redirects to what is no address", id="nonsense"),
    ],
)
async def test_redirects_elsewhere_are_refused(shop: Shop, location: str, message: str) -> None:
    shop.answers = [_json({}, 302, Location=location)]
    assert message in await _failure(shop, _action())


@pytest.mark.parametrize(
    ("url", "objection"),
    [
        pytest.param("https://api.example/x", None, id="https"),
        pytest.param("https://api.example:443/x", None, id="https, port named"),
        pytest.param("https://API.example/x", None, id="upper case"),
        pytest.param("https://api.example:8443/x", "leads to host 'api.example:8443'", id="https, another port"),
        pytest.param("https://api.example./x", None, id="a dot behind: the same host"),
        pytest.param("https://api.example.evil/x", "leads to host", id="a longer name"),
        pytest.param("https://api.example@evil/x", "leads to an address with credentials", id="credentials"),
        pytest.param("http://api.example/x", "leads from https to http", id="downgrade"),
        pytest.param("https://10.0.0.1:8443/", None, id="an allowed address"),
    ],
)
def test_a_target_is_held_against_the_allowed_hosts(url: str, objection: str | None) -> None:
    allowed = {"api.example", "10.0.0.1:8443"}
    found = objection_to(URL(url), URL("https://api.example/first"), allowed)
    assert (found is None) == (objection is None)
    assert found is None or found[0].startswith(objection or "")


async def test_a_change_is_never_redirected(shop: Shop) -> None:
    shop.answers = [_json({}, 307, Location="/elsewhere")]
    assert "redirects (status 307)" in await _failure(shop, _action(method=HttpMethod.POST))


async def test_a_message_id_can_hold_anything(shop: Shop) -> None:
    await _call(shop, _action(), message_id="消息 1\r\nX: 1")
    assert shop.requests[0][0].headers["Idempotency-Key"] == "%E6%B6%88%E6%81%AF%201%0D%0AX:%201"


async def test_a_token_with_a_line_end_is_told(shop: Shop) -> None:
    assert "has a token with characters" in await _failure(shop, _action(), token="a\nb")

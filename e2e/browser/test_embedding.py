"""The widget on a page of another origin, as a bubble, under that page's own strict policy."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import expect
from tests_runtime.web_gateway import SHOP, Gateway, running_gateway
from tests_runtime.web_page import NewPage, replies, say, uid_of


def test_a_page_of_an_allowed_origin_embeds_the_widget_as_a_bubble(new_page: NewPage, pictures: Path) -> None:
    with shop_page() as shop, running_gateway({**SHOP, "gateway": {"allowedOrigins": [shop.origin]}}) as gateway:
        shop.widget = f"{gateway.base_url}/widget.js"
        page = new_page()
        page.goto(shop.origin)
        launcher = page.get_by_role("button", name="打开在线客服")
        expect(page.get_by_role("textbox")).to_be_hidden()
        launcher.click()
        expect(page.get_by_role("dialog", name="青禾商城客服")).to_be_visible()
        expect(page.get_by_role("textbox")).to_be_focused()
        say(page, "退款多久到账")
        expect(replies(page)).to_have_count(2)
        page.screenshot(path=pictures / "chat-bubble.png")
        page.keyboard.press("Escape")
        expect(page.get_by_role("textbox")).to_be_hidden()
        expect(launcher).to_be_focused()
        gateway.run(gateway.runner.answer(uid_of(page), "elsewhere", "你好"))
        expect(page.locator("chatflow-widget .unread")).to_have_text("1")
        before = uid_of(page)
        gateway.run(replaced_key(gateway))
        launcher.click()
        say(page, "退款多久到账")
        expect(replies(page)).to_have_count(4)
        assert uid_of(page) != before
        page.keyboard.press("Escape")
        page.set_viewport_size({"width": 375, "height": 667})
        launcher.click()
        box = page.get_by_role("dialog").bounding_box()
        assert box == {"x": 0, "y": 0, "width": 375, "height": 667}


async def replaced_key(gateway: Gateway) -> None:
    """The gateways lose the key that signs sessions: no token that was given is good any longer."""
    gateway.sessions.use([b"another key, of which no visitor has a token"])
    gateway.gate.forget()


class ShopPage:
    """A page of another origin, with a strict policy of its own."""

    def __init__(self, port: int) -> None:
        self.origin = f"http://localhost:{port}"
        self.widget = ""

    def html(self) -> str:
        return (
            '<!doctype html><html lang="zh-CN"><meta name="viewport" content="width=device-width">'
            f'<title>Shop</title><h1>Shop</h1><script src="{self.widget}"></script>'
            '<chatflow-widget mode="bubble"></chatflow-widget></html>'
        )


@contextmanager
def shop_page() -> Iterator[ShopPage]:
    """Serve the page while the context lasts."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.html().encode()
            gateway = page.widget.removesuffix("/widget.js")
            policy = f"default-src 'none'; script-src {gateway}; connect-src {gateway}"
            self.send_response(200)
            self.send_header("content-type", "text/html; charset=utf-8")
            self.send_header("content-security-policy", policy)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay silent."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        page = ShopPage(server.server_port)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield page
        server.shutdown()

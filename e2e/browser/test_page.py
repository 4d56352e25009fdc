"""The page and the widget in a real browser: a conversation, what it shows, languages, phones and keyboards."""

from __future__ import annotations

import re
from pathlib import Path

from chatflow_api.names import partition
from playwright.sync_api import Page, expect
from tests_cli.shop_process import LiveShop
from tests_runtime.web_gateway import MARKUP, REFUND, SLOW, Gateway
from tests_runtime.web_page import NewPage, replies, say, status, streaming, uid_of
from tests_runtime.web_script import CONVERSATION, MODEL_SAYS

MASCOT = "您好，我们的吉祥物叫禾禾，是一株会走路的稻苗。"


def test_a_conversation_with_a_slot_an_action_a_citation_a_model_and_a_rating(
    new_page: NewPage, live_shop: LiveShop, pictures: Path
) -> None:
    page = new_page()
    page.goto(live_shop.url)
    expect(status(page)).to_have_text("在线")
    with live_shop.halting_model() as go_on:
        for number, step in enumerate(CONVERSATION, start=1):
            say(page, step.text)
            if step.is_streamed:
                expect(streaming(page)).to_contain_text(MODEL_SAYS[0])
                go_on()
            expect(replies(page)).to_have_count(1 + number)
            last = replies(page).last
            expect(last.locator(".bubble")).to_contain_text(step.says)
            expect(last.locator(".sources")).to_have_count(int(bool(step.cites)))
            expect(last.locator(".stars button")).to_have_count(5 if step.asks_rating else 0)
    page.locator("chatflow-widget .sources summary").click()
    expect(page.locator("chatflow-widget .sources li")).to_be_visible()
    page.get_by_role("button", name="4 分").click()
    expect(page.get_by_text("感谢您的评价")).to_be_visible()
    expect(page.locator(".stars button.on")).to_have_count(4)
    page.screenshot(path=pictures / "chat-desktop.png")


def test_an_answer_streams_and_messages_meanwhile_wait_their_turn(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, SLOW)
    under_way = streaming(page)
    expect(under_way).to_contain_text("您好，")
    say(page, "退款多久到账")
    expect(page.locator("chatflow-widget .entry.user.queued")).to_contain_text("排队中")
    gateway.open_gate()
    expect(replies(page)).to_have_count(3)
    expect(replies(page).nth(1)).to_contain_text(MASCOT)
    expect(replies(page).nth(2)).to_contain_text("1 到 3 个工作日")
    expect(page.locator("chatflow-widget .queued")).to_have_count(0)
    gateway.close_gate()


def test_citations_open_and_link_to_their_page(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, "退款多久到账")
    link = page.get_by_role("link", name=REFUND.title)
    expect(link).to_be_hidden()
    page.locator("chatflow-widget .sources summary").click()
    expect(link).to_have_attribute("href", REFUND.url or "")
    expect(link).to_have_attribute("rel", "noopener noreferrer")


def test_markup_is_shown_and_foreign_code_is_text(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, f"{MARKUP}<img src=x onerror=alert(1)>")
    reply = replies(page).nth(1)
    expect(reply.locator("ol li")).to_have_count(2)
    expect(reply.locator("li strong")).to_have_text("两年")
    assert reply.locator("a").evaluate_all("links => links.map(link => link.href)") == [
        "https://shop.example.com/help",
        "https://shop.example.com/a?b=1",
    ]
    expect(reply).to_contain_text("<b>粗体</b>")
    assert page.locator("chatflow-widget .log img").count() == 0
    expect(page).to_have_title("青禾商城客服")


def test_notices_appear_in_the_conversation(new_page: NewPage, own_gateway: Gateway) -> None:
    page, gateway = new_page(), own_gateway
    page.goto(gateway.base_url)
    say(page, "你好")
    expect(replies(page)).to_have_count(2)
    for number, ahead_ms in enumerate((575_000, 601_000), start=1):
        gateway.ahead_ms = ahead_ms
        gateway.run(gateway.store.sweep(partition(uid_of(page))))
        expect(page.locator("chatflow-widget .entry.notice")).to_have_count(number)
    expect(page.locator("chatflow-widget .entry.notice").first).to_contain_text(re.compile(r"\d+ 秒后"))


def test_the_page_speaks_chinese_and_english(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    expect(page.get_by_role("heading", level=1)).to_have_text("青禾商城客服")
    expect(page.get_by_placeholder("输入您的问题…")).to_be_visible()
    expect(page.get_by_text("接口文档")).to_be_visible()
    page.get_by_role("button", name="English").click()
    expect(page.get_by_placeholder("Type your question…")).to_be_visible()
    expect(page.get_by_role("button", name="Send", exact=True)).to_be_visible()
    expect(status(page)).to_have_text("Online")
    expect(page.get_by_text("接口文档")).to_be_hidden()
    expect(page.locator("html")).to_have_attribute("lang", "en")
    page.reload()
    expect(page.get_by_placeholder("Type your question…")).to_be_visible()


def test_the_reference_is_readable_without_the_internet(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    page.get_by_role("link", name="接口文档").click()
    chat = page.locator("#chat")
    expect(chat.locator("pre").first).to_contain_text("七天无理由退货")
    chat.get_by_role("button", name="English").first.click()
    expect(chat.locator("pre").first).to_contain_text("How do I get a refund?")
    page.get_by_role("link", name="ChatReply").first.click()
    expect(page.locator("#schema-ChatReply")).to_contain_text("citations")


def test_intent_and_rung_are_shown_on_request_alone(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, "退款多久到账")
    expect(replies(page)).to_have_count(2)
    expect(page.locator("chatflow-widget .debug")).to_have_count(0)
    page.get_by_text("显示意图与层级").click()
    expect(page.locator("chatflow-widget .debug")).to_contain_text("refund 97.3 %")


def test_the_page_fits_a_phone(new_page: NewPage, gateway: Gateway, pictures: Path) -> None:
    page = new_page(viewport={"width": 375, "height": 667}, is_mobile=True, has_touch=True, device_scale_factor=2)
    page.goto(gateway.base_url)
    for number, text in enumerate(("退款多久到账", "你们的吉祥物叫什么"), start=2):
        say(page, text)
        expect(replies(page)).to_have_count(number)
    assert page.evaluate("document.documentElement.scrollWidth") == 375
    assert page.evaluate("document.documentElement.scrollHeight") == 667
    expect(page.get_by_role("textbox")).to_be_in_viewport(ratio=1)
    expect(replies(page).last).to_be_in_viewport(ratio=0.9)
    assert float(page.get_by_role("textbox").evaluate("box => parseFloat(getComputedStyle(box).fontSize)")) >= 16
    expect(page.get_by_role("heading", level=1)).to_be_hidden()
    page.screenshot(path=pictures / "chat-mobile.png")
    page.get_by_role("button", name="帮助").tap()
    expect(page.get_by_role("heading", level=1)).to_be_visible()


def test_everything_can_be_done_by_keyboard(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    expect(status(page)).to_have_text("在线")
    reach(page, "textarea")
    page.keyboard.type("退款")
    page.keyboard.press("Shift+Enter")
    page.keyboard.type("多久到账")
    assert page.get_by_role("textbox").input_value() == "退款\n多久到账"
    page.keyboard.press("Enter")
    expect(page.get_by_role("textbox")).to_have_value("")
    expect(replies(page)).to_have_count(2)
    say(page, "谢谢，解决了")
    expect(page.locator("chatflow-widget .stars")).to_be_visible()
    reach(page, "summary", "Shift+Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("link", name=REFUND.title)).to_be_visible()
    reach(page, "a")
    reach(page, "button")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator(".stars button.on")).to_have_count(2)
    expect(page.get_by_role("textbox")).to_be_focused()


def reach(page: Page, name: str, key: str = "Tab") -> None:
    """Press a key until an element of this name inside the widget has the focus."""
    focused = "document.activeElement.shadowRoot?.activeElement?.localName"
    for _ in range(20):
        page.keyboard.press(key)
        if page.evaluate(focused) == name:
            return
    raise AssertionError(f"no {name} was reached by {key}")


def test_enter_picks_a_candidate_while_an_input_method_composes(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    page.get_by_role("textbox").focus()
    typing = page.context.new_cdp_session(page)
    typing.send("Input.imeSetComposition", {"text": "退kuan", "selectionStart": 5, "selectionEnd": 5})
    typing.send("Input.dispatchKeyEvent", {"type": "rawKeyDown", "key": "Enter", "windowsVirtualKeyCode": 229})
    expect(page.get_by_role("textbox")).to_have_value("退kuan")
    typing.send("Input.insertText", {"text": "退款"})
    expect(page.get_by_role("textbox")).to_have_value("退款")
    page.keyboard.press("Enter")
    expect(page.locator("chatflow-widget .entry.user .bubble")).to_contain_text("退款")

"""The widget through outages: connections that are cut, gateways that are down, reloads. Nothing is lost or doubled."""

from __future__ import annotations

from playwright.sync_api import Page, expect
from tests_runtime.web_gateway import SLOW, Gateway
from tests_runtime.web_page import NewPage, history, replies, say, status, streaming, uid_of

MASCOT = "您好，我们的吉祥物叫禾禾，是一株会走路的稻苗。"


def test_a_lost_connection_comes_back_and_misses_nothing(new_page: NewPage, own_gateway: Gateway) -> None:
    page, gateway = new_page(), own_gateway
    page.goto(gateway.base_url)
    say(page, "你好")
    expect(replies(page)).to_have_count(2)
    gateway.stop()
    expect(status(page)).to_have_text("连接已断开，正在重新连接…")
    gateway.run_apart(gateway.runner.answer(uid_of(page), "elsewhere", "退款多久到账"))
    gateway.start()
    expect(status(page)).to_have_text("在线")
    expect(replies(page)).to_have_count(3)
    expect(replies(page).last).to_contain_text("1 到 3 个工作日")


def test_an_answer_that_breaks_off_is_asked_for_again_and_takes_effect_once(
    new_page: NewPage, gateway: Gateway
) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, SLOW)
    expect(streaming(page)).to_contain_text("您好，")
    gateway.cut()
    gateway.open_gate()
    expect(replies(page)).to_have_count(2)
    expect(replies(page).last).to_contain_text(MASCOT)
    expect(page.locator("chatflow-widget .failed")).to_have_count(0)
    assert [role for role, _ in history(gateway, page)] == ["user", "assistant"]
    gateway.close_gate()


def test_a_widget_that_is_moved_in_the_page_sends_what_waits(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, SLOW)
    say(page, "退款多久到账")
    expect(streaming(page)).to_contain_text("您好，")
    page.evaluate(
        """() => { const widget = document.querySelector("chatflow-widget"), home = widget.parentNode;
                    widget.remove(); home.append(widget); }"""
    )
    gateway.open_gate()
    expect(replies(page)).to_have_count(3)
    expect(replies(page).last).to_contain_text("1 到 3 个工作日")
    assert [role for role, _ in history(gateway, page)] == ["user", "assistant"] * 2
    gateway.close_gate()


def test_a_message_that_failed_is_sent_again_by_hand_under_its_old_id(new_page: NewPage, own_gateway: Gateway) -> None:
    page, gateway = new_page(), own_gateway
    page.clock.install()
    page.goto(gateway.base_url)
    expect(status(page)).to_have_text("在线")
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.post_data or "") if request.method == "POST" else None)
    gateway.stop()
    say(page, "退款多久到账")
    retry = page.get_by_role("button", name="重试")
    for _ in range(8):
        page.clock.fast_forward(10_000)
    expect(retry).to_be_visible()
    expect(page.get_by_text("发送失败，请检查网络")).to_be_visible()
    gateway.start()
    retry.click()
    expect(replies(page)).to_have_count(2)
    expect(page.locator("chatflow-widget .failed")).to_have_count(0)
    assert len(sent) > 2
    assert len(set(sent)) == 1


def test_offline_messages_wait_for_the_network(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    expect(status(page)).to_have_text("在线")
    page.context.set_offline(True)
    expect(status(page)).to_have_text("网络已断开，恢复后会自动继续")
    say(page, "你好")
    expect(page.locator("chatflow-widget .entry.user")).to_contain_text("正在重试")
    page.context.set_offline(False)
    expect(status(page)).to_have_text("在线")
    expect(replies(page)).to_have_count(2)


def test_a_reload_keeps_the_conversation_and_resumes_after_the_last_id(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, "退款多久到账")
    expect(replies(page)).to_have_count(2)
    page.goto("about:blank")
    gateway.run(gateway.runner.answer(uid_of_stored(page, gateway), "elsewhere", "你好"))
    page.goto(gateway.base_url)
    expect(replies(page)).to_have_count(3)
    expect(page.locator("chatflow-widget .entry.user")).to_have_count(1)
    expect(page.locator("chatflow-widget .sources")).to_have_count(1)


def uid_of_stored(page: Page, gateway: Gateway) -> str:
    """The uid of a page that was left: storage belongs to the origin."""
    (origin,) = [entry for entry in page.context.storage_state()["origins"] if entry["origin"] == gateway.base_url]
    return next(item["value"] for item in origin["localStorage"] if item["name"] == "chatflow:uid")


def test_a_message_that_a_reload_cuts_off_goes_out_again_under_its_old_id(new_page: NewPage, gateway: Gateway) -> None:
    page = new_page()
    page.goto(gateway.base_url)
    say(page, SLOW)
    expect(streaming(page)).to_contain_text("您好，")
    page.reload()
    expect(streaming(page)).to_contain_text("您好，")
    gateway.open_gate()
    expect(replies(page).last).to_contain_text(MASCOT)
    expect(page.locator("chatflow-widget .entry.user")).to_have_count(1)
    expect(replies(page)).to_have_count(2)
    assert [role for role, _ in history(gateway, page)] == ["user", "assistant"]
    gateway.close_gate()

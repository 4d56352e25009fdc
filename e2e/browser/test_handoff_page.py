"""A conversation that a person takes over, as the widget shows it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from chatflow_runtime.domain.reply import Notice
from chatflow_runtime.ports import Word
from chatflow_runtime.state.memory_handoffs import MemoryHandoffs
from playwright.sync_api import expect
from tests_runtime.test_web_handoff import spec
from tests_runtime.web_gateway import Gateway, running_gateway
from tests_runtime.web_page import NewPage, replies, say, uid_of


@pytest.fixture(scope="module")
def desk_gateway() -> Iterator[Gateway]:
    with running_gateway(spec()) as running:
        yield running


def test_messages_to_a_person_bring_no_empty_bubbles_and_the_person_s_words_come_with_a_name(
    new_page: NewPage, desk_gateway: Gateway
) -> None:
    page = new_page()
    page.goto(desk_gateway.base_url)
    say(page, "转人工")
    expect(replies(page).last).to_contain_text("正在为您转接人工客服")
    handoffs = MemoryHandoffs(desk_gateway.store)
    uid = uid_of(page)

    def speak(name: str, message_id: str, *, ends: bool = False) -> None:
        notice = Notice("returned" if ends else "agent", f"这里是{name}", 1, message_id, name)
        desk_gateway.run(handoffs.speak(Word(uid, message_id, notice.text, name, notice, ends)))

    people = page.locator("chatflow-widget .entry.agent")
    say(page, "在吗")
    speak("小周", "a1")
    expect(people).to_have_count(1)
    expect(people.locator(".bubble")).to_contain_text("这里是小周")
    expect(people.locator(".meta")).to_have_text("小周")
    # Two replies to see, the greeting and the announcement; that to 在吗 is there and shows nothing.
    expect(page.locator("chatflow-widget .entry.bot:visible")).to_have_count(2)
    page.reload()
    expect(people).to_have_count(1)
    expect(page.locator("chatflow-widget .entry.bot:visible")).to_have_count(2)
    speak("小周", "a2", ends=True)
    expect(page.locator("chatflow-widget .entry.notice")).to_contain_text("这里是小周")
    say(page, "你们的吉祥物叫什么")
    expect(replies(page).last).to_contain_text("禾禾")

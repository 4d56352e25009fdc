"""The page, as its tests handle it: what they type into it, and the parts they look at."""

from __future__ import annotations

from collections.abc import Callable

from playwright.sync_api import Locator, Page
from tests_runtime.web_gateway import Gateway

NewPage = Callable[..., Page]
"""Opens a page in a context of its own; keywords are the context's options."""


def say(page: Page, text: str) -> None:
    """Type a message and send it."""
    box = page.get_by_role("textbox")
    box.fill(text)
    box.press("Enter")


def replies(page: Page) -> Locator:
    """The whole replies, the greeting first."""
    return page.locator("chatflow-widget .entry.bot[aria-busy=false]")


def streaming(page: Page) -> Locator:
    """The reply under way."""
    return page.locator("chatflow-widget .entry.bot[aria-busy=true]")


def status(page: Page) -> Locator:
    """The line that tells of the connection."""
    return page.locator("chatflow-widget .status")


def uid_of(page: Page) -> str:
    """The page's user."""
    uid: str = page.evaluate(
        """() => {
          const session = Object.keys(localStorage).find((key) => key.startsWith("chatflow:session:"));
          return session ? JSON.parse(localStorage[session]).uid : localStorage["chatflow:uid"];
        }"""
    )
    return uid


def history(gateway: Gateway, page: Page) -> list[tuple[str, str]]:
    """What the gateway has stored of the conversation: roles and texts."""
    return [(message.role, message.text) for message in gateway.run(gateway.store.history(uid_of(page)))]

"""A headless Chromium, Debian's, for the tests of the page; a machine without one skips them with one loud line."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright
from tests_runtime.web_gateway import Gateway, running_gateway
from tests_runtime.web_page import NewPage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PICTURES = Path(__file__).parents[2] / "build"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests of this folder where there is no browser; the hook sees those of all folders."""
    if CHROMIUM is None:
        for item in items:
            if Path(__file__).parent in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no chromium on the PATH"))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The one loud line."""
    if CHROMIUM is None:
        terminalreporter.write_line(
            "SKIPPED: every test of the page (e2e/browser), since no chromium is on the PATH; apt-get install chromium",
            red=True,
            bold=True,
        )


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser a module; every test opens a context of its own, with its own storage."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def new_page(browser: Browser) -> Iterator[NewPage]:
    """Opens pages that must end without an error in their console or a breach of their policy."""
    contexts: list[BrowserContext] = []
    complaints: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        # An outage that a test makes is a network error, which Chromium logs by itself.
        if message.type == "error" and not re.search(r"net::ERR_|Failed to load resource", message.text):
            complaints.append(message.text)

    def open_page(**options: Any) -> Page:
        settings = {"viewport": {"width": 1280, "height": 860}, "locale": "zh-CN", "reduced_motion": "reduce"}
        contexts.append(browser.new_context(**{**settings, **options}))
        page = contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", hear)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    """A gateway for tests that leave it as it is."""
    with running_gateway() as running:
        yield running


@pytest.fixture
def own_gateway() -> Iterator[Gateway]:
    """One that a test may stop."""
    with running_gateway() as running:
        yield running


@pytest.fixture(scope="session")
def pictures() -> Path:
    """Where screenshots go."""
    PICTURES.mkdir(exist_ok=True)
    return PICTURES

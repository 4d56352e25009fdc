"""Settings of all tests, and what tests of several folders share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from tests_cli.shop_process import LiveShop, running_shop

# A deadline a case measures the machine, not the code; and a run of the suite can be repeated.
settings.register_profile("chatflow", deadline=None, derandomize=True)
settings.load_profile("chatflow")


@pytest.fixture(scope="session")
def live_shop() -> Iterator[LiveShop]:
    """`chatflow up examples/shop-support`, the same all session long; users of their own keep the tests apart."""
    with running_shop() as shop:
        yield shop

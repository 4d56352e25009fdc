"""The conversation that every protocol has to carry: five turns with a slot, an action, a citation, an answer of the
language model and a request for a rating. It fits the gateway of the web's tests and `examples/shop-support`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Step:
    """A message, and what its reply must be."""

    text: str
    origins: tuple[str, ...]
    """Which answerers may have given the reply; what was asked before may come from the cache."""
    slot: str | None = None
    is_cited: bool = False
    asks_rating: bool = False
    is_streamed: bool = False
    """Whether deltas come before the reply."""

    def check(self, reply: Mapping[str, Any], deltas: Sequence[str]) -> None:
        """Compare a reply, as the gateway sent it, and the deltas before it."""
        assert reply["origin"] in self.origins, reply
        assert reply["slot"] == self.slot, reply
        assert bool(reply["citations"]) == self.is_cited
        assert (reply["rating_scale"] is not None) == self.asks_rating
        assert reply["text"]
        if self.is_streamed:
            assert "".join(deltas) == reply["text"]
            assert len(deltas) > 1


def script(slot: str) -> tuple[Step, ...]:
    """The conversation with a flow that collects the order number in this slot."""
    return (
        Step("我的订单到哪了", ("dialogue",), slot=slot),
        Step("QH20251234", ("action",)),
        Step("退款多久到账", ("knowledge", "cache"), is_cited=True),
        Step("你们的吉祥物叫什么", ("llm",), is_streamed=True),
        Step("谢谢，解决了", ("dialogue",), asks_rating=True),
    )

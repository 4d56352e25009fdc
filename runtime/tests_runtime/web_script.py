"""The conversation that every protocol has to carry with `examples/shop-support`: five turns with a slot, an action, a
citation, an answer of the language model and a request for a rating."""

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
    says: str
    """A part of the reply."""
    slot: str | None = None
    cites: tuple[str, ...] = ()
    asks_rating: bool = False
    is_streamed: bool = False
    """Whether deltas come before the reply."""

    def check(self, reply: Mapping[str, Any], deltas: Sequence[str] | None = None) -> None:
        """Compare a reply, as the gateway sent it, and the deltas before it where the protocol streams."""
        assert reply["origin"] in self.origins, reply
        assert self.says in reply["text"]
        assert reply["slot"] == self.slot, reply
        assert tuple(citation["id"] for citation in reply["citations"]) == self.cites
        assert reply["rating_scale"] == (5 if self.asks_rating else None)
        if deltas is not None and self.is_streamed:
            assert "".join(deltas) == reply["text"]
            assert len(deltas) > 1


MODEL_SAYS = ("您好，", "我们的吉祥物叫禾禾，", "是一株会走路的稻苗。")
"""What the language model answers, in its pieces."""

CONVERSATION = (
    Step("我的订单到哪了", ("dialogue",), "请发一下订单号", slot="order_number"),
    Step("QH20251234", ("action",), "静音破壁机"),
    Step("退款多久到账", ("knowledge", "cache"), "储蓄卡 1 至 3 个工作日", cites=("refund-time",)),
    Step("你们的吉祥物叫什么", ("llm",), "".join(MODEL_SAYS), is_streamed=True),
    Step("谢谢，解决了", ("dialogue",), "打个分", asks_rating=True),
)

"""Knowledge answers that gateways share: one finds what another has given, as long as both have the same model and
knowledge; without the state server each goes by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from chatflow_runtime.answerers.answer import Answer
from chatflow_runtime.answerers.cached import AnswerCache, CachedAnswer
from chatflow_runtime.domain.reply import Citation, Origin
from chatflow_runtime.domain.routing import Intent
from chatflow_runtime.state.link import Link, link_to
from chatflow_runtime.state.redis_answers import RedisAnswers
from tests_runtime.state_cases import PATIENT, new_flow
from tests_runtime.state_servers import Cluster, ServerKind, Servers, installed

ANSWER = CachedAnswer(
    Answer("退款 **3 天**到账。", Origin.KNOWLEDGE, (Citation("refund", "退款多久到账？", 0.93, "https://x.example"),)),
    Intent("refund", 0.97, is_in_scope=True),
)


@pytest.fixture(params=[*installed(), "cluster"])
async def link(request: pytest.FixtureRequest, state_servers: Servers) -> AsyncIterator[Link]:
    if request.param == "cluster":
        found: Cluster = request.getfixturevalue("cluster")
        url = found.url
    else:
        url = state_servers(ServerKind(request.param)).url
    opened = link_to(url, patience=PATIENT)
    await opened.open()
    yield opened
    await opened.close()


def gateway(link: Link, flow: str, ttl_s: float = 300.0, entries: int = 10) -> AnswerCache:
    return AnswerCache(entries, ttl_s, lambda: 0.0, RedisAnswers(link, flow, ttl_s))


async def until_found(cache: AnswerCache, revision: str, text: str) -> CachedAnswer:
    async with asyncio.timeout(10):
        while (found := await cache.find(revision, text)) is None:  # noqa: ASYNC110  Nothing tells of a write.
            await asyncio.sleep(0.01)
    return found


async def test_what_one_gateway_has_answered_another_finds_and_keeps(link: Link) -> None:
    flow = new_flow()
    first, second = gateway(link, flow), gateway(link, flow)
    assert await second.find("r1", "退款") is None
    first.put("r1", "Refund?", ANSWER)
    assert second.get("r1", "refund?") is None
    assert await until_found(second, "r1", "REFUND?") == ANSWER
    assert second.get("r1", "refund?") == ANSWER


async def test_another_revision_text_or_flow_finds_nothing(link: Link) -> None:
    flow = new_flow()
    gateway(link, flow).put("r1", "refund", ANSWER)
    reader = gateway(link, flow)
    await until_found(reader, "r1", "refund")
    for cache, revision, text in (
        (reader, "r2", "refund"),
        (reader, "r1", "refunds"),
        (gateway(link, new_flow()), "r1", "refund"),
    ):
        assert await cache.find(revision, text) is None


async def test_a_shared_answer_goes_after_its_time(link: Link) -> None:
    flow = new_flow()
    gateway(link, flow, ttl_s=0.2).put("r1", "refund", ANSWER)
    async with asyncio.timeout(10):
        while await gateway(link, flow).find("r1", "refund") is not None:  # noqa: ASYNC110  The server tells nobody.
            await asyncio.sleep(0.01)


async def test_a_cache_that_keeps_nothing_shares_nothing_and_no_server_is_no_error(link: Link) -> None:
    flow = new_flow()
    gateway(link, flow, entries=0).put("r1", "refund", ANSWER)
    await link.close()
    cache = gateway(link, flow)
    cache.put("r1", "refund", ANSWER)
    assert cache.get("r1", "refund") == ANSWER
    assert await cache.find("r1", "other") is None

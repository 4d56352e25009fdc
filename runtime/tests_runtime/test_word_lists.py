"""Word lists come into force while a gateway runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from chatflow_runtime.adapters.word_lists import WordLists, follow
from chatflow_runtime.domain.moderation import Moderator
from chatflow_runtime.errors import WordListInvalid
from structlog.testing import capture_logs


def made_of(words: Sequence[str]) -> Moderator:
    return Moderator.build(words, refusal="no")


class Looks:
    """Stands in for sleep: the watch looks when the test lets it."""

    def __init__(self) -> None:
        self._asked: asyncio.Queue[None] = asyncio.Queue()
        self._go = asyncio.Event()

    async def wait(self, _seconds: float) -> None:
        self._asked.put_nowait(None)
        await self._go.wait()
        self._go.clear()

    async def once(self) -> None:
        """One look, to its end."""
        await self._asked.get()
        self._go.set()
        await self._asked.get()
        self._asked.put_nowait(None)


@asynccontextmanager
async def watched(lists: WordLists) -> AsyncIterator[tuple[Moderator, Looks]]:
    looks, words = Looks(), lists.read()
    moderator = made_of(words)
    task = asyncio.create_task(follow(lists, words, moderator, made_of, looks.wait))
    yield moderator, looks
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_changed_list_is_in_force_from_the_next_text_on(tmp_path: Path) -> None:
    file = tmp_path / "words/list.txt"
    file.parent.mkdir()
    file.write_text("scoundrel\n")
    lists = WordLists(tmp_path, ["words/list.txt"])
    async with watched(lists) as (moderator, looks):
        under_way = moderator.stream()
        file.write_text("rascal\n")
        await looks.once()
        assert [moderator.check(text).is_refused for text in ("a rascal", "a scoundrel")] == [True, False]
        assert under_way.feed("you rascal. ") + under_way.finish() == "you rascal. "
        assert "scoundrel" in moderator.stream().feed("you scoundrel. ")


@pytest.mark.parametrize("broken", [b"***\n", b"\xff\xfe\x00"], ids=["no word", "no text"])
async def test_a_list_that_cannot_be_used_is_told_of_once_and_the_old_one_stays(tmp_path: Path, broken: bytes) -> None:
    file = tmp_path / "list.txt"
    file.write_text("scoundrel\n")
    async with watched(WordLists(tmp_path, ["list.txt"])) as (moderator, looks):
        with capture_logs() as logs:
            file.write_bytes(broken)
            await looks.once()
            await looks.once()
            file.unlink()
            await looks.once()
            assert moderator.check("a scoundrel").is_refused
            file.write_text("rascal\n")
            await looks.once()
        assert [entry["event"] for entry in logs] == ["word_lists_refused", "word_lists_refused", "word_lists_in_use"]
        assert moderator.check("a rascal").is_refused


def test_a_list_that_is_missing_at_the_start_is_named(tmp_path: Path) -> None:
    with pytest.raises(WordListInvalid, match=r"word list words/list\.txt: .* cannot be read"):
        WordLists(tmp_path, ["words/list.txt"]).read()

"""The moderation word lists on disk, and the watch that puts changed ones in force while the gateway runs.

They are keys of ConfigMaps: on a cluster the kubelet replaces the files within a minute or two of an edit,
`chatflow up` at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from chatflow_runtime.domain.moderation import Moderator, parse_words
from chatflow_runtime.errors import WordListInvalid

log = structlog.get_logger()

POLL_S = 2.0


@dataclass(frozen=True, slots=True)
class WordLists:
    """The lists of a flow: paths below a folder."""

    folder: Path
    paths: Sequence[str]

    def read(self) -> tuple[str, ...]:
        """All words; WordListInvalid names the file, and the line where one is no word."""
        words: list[str] = []
        for path in self.paths:
            try:
                words += parse_words((self.folder / path).read_text(encoding="utf-8"), path)
            except (OSError, UnicodeDecodeError) as error:
                reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
                raise WordListInvalid(f"word list {path}: {self.folder / path} cannot be read ({reason})") from error
        return tuple(words)


async def follow(
    lists: WordLists,
    words: Sequence[str],
    moderator: Moderator,
    made_of: Callable[[Sequence[str]], Moderator],
    wait: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Put the lists in force whenever they hold other than `words`, until cancelled; streams under way keep the old
    ones. Lists that cannot be used are logged, and the old ones stay."""
    reason = ""
    while True:
        await wait(POLL_S)
        try:
            found = await asyncio.to_thread(lists.read)
            if found != words:
                moderator.swap(await asyncio.to_thread(made_of, found))
                words = found
                log.info("word_lists_in_use", words=len(words))
            reason = ""
        except WordListInvalid as error:
            if str(error) != reason:
                log.error("word_lists_refused", reason=str(error))
            reason = str(error)

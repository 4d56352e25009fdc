"""The ladder as data: which answerers are tried for a question, in which order, and when new users are turned away."""

from __future__ import annotations

import hashlib

from chatflow_api.runtime_config import DegradationConfig

from chatflow_runtime.domain.reply import Origin, Rung

RUNG_OF: dict[Origin, Rung] = {
    Origin.CACHE: Rung.L0,
    Origin.KNOWLEDGE: Rung.L0,
    Origin.ACTION: Rung.L0,
    Origin.DIALOGUE: Rung.L0,
    Origin.LLM: Rung.L1,
    Origin.BACKUP: Rung.L1,
    Origin.STATIC: Rung.L2,
    Origin.SHED: Rung.L3,
}
"""The rung on which each answerer stands."""

MODELS: tuple[Origin, ...] = (Origin.LLM, Origin.BACKUP)
"""The models that are asked in turn before the static reply; a flow without one of them skips it."""


def is_shed(uid: str, backlog: int, is_new: bool, config: DegradationConfig) -> bool:
    """Whether a user is turned away: only a new conversation, only above the limit, and always the same share of users.

    `backlog` is the number of turns under way. The share is taken by a hash of the user, so that a retry by the same
    user meets the same answer while the overload lasts.
    """
    if not is_new or backlog <= config.backlog_limit:
        return False
    return _fraction(uid) < config.shed_fraction


def _fraction(uid: str) -> float:
    digest = hashlib.blake2b(uid.encode(), digest_size=8, person=b"chatflow-shed").digest()
    return int.from_bytes(digest, "big") / 2**64

"""A user's keys, made once for the calls of a turn, in the forms of chatflow_api.names. Used by the Redis stores."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from chatflow_api import names


class Keys(NamedTuple):
    """Everything that is named after one user and the user's partition."""

    conversation: str
    history: str
    replies: str
    outbox: str
    due: str
    records: str
    channel: str
    rate: str


@lru_cache(maxsize=4096)
def keys_of(flow: str, uid: str) -> Keys:
    """The keys of a user of a flow; those of recent users are kept (about 1 KB each)."""
    number = names.partition(uid)
    return Keys(
        conversation=names.conversation_key(flow, uid),
        history=names.history_key(flow, uid),
        replies=names.replies_key(flow, uid),
        outbox=names.outbox_key(flow, uid),
        due=names.due_key(flow, number),
        records=names.records_key(flow, number),
        channel=names.wake_channel(flow, number),
        rate=names.user_rate_key(flow, uid),
    )

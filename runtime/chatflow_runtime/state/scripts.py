"""The Lua scripts, ready to be sent: one file per atomic operation, with the domain's tables and the flow's rules
rendered in front, so that Lua, the in-memory twin and the domain agree by construction. Used by the Redis stores."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import IntEnum
from importlib import resources
from typing import TypeVar

from chatflow_runtime.domain.conversation import SCHEMA, TRANSITIONS, Conversation
from chatflow_runtime.domain.rate import GRAIN_MS
from chatflow_runtime.state.rules import Rules

K = TypeVar("K", bound=str)
V = TypeVar("V", bound=str)


class Status(IntEnum):
    """First element of every script's return value; the scripts use the same names."""

    DONE = 0
    CLAIMED = 1
    ANSWERED = 2
    ATTACHED = 3
    QUEUED = 4
    REJECTED = 5
    LOST = 6
    TOO_NEW = 7
    GONE = 8
    """The due user has no conversation that could end."""
    POSTPONED = 9
    """A turn is under way, or the deadline has moved."""
    CLOSING = 10
    """The closing notice is out."""
    ENDED = 11
    OTHER_TIME = 12
    """The closing notice names a wrong number of seconds; nothing was written."""
    FULL = 13
    """Too many messages wait in the inbox."""
    LIMITED = 14
    """More than the rate allows."""
    OVERTAKEN = 15
    """A newer message has the claim, or had it."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script. `sha` is the hex digest by which EVALSHA names it."""

    name: str
    source: bytes
    sha: bytes


@dataclass(frozen=True, slots=True)
class Scripts:
    """Every script of a store."""

    load: Script
    renew: Script
    commit: Script
    commit_told: Script
    """`commit` where a webhook is told; without, a turn need not carry along how."""
    release: Script
    rate: Script
    due: Script
    settle: Script
    attend: Script
    lease: Script
    free: Script
    accept: Script
    take: Script
    left: Script
    attempt: Script
    done: Script
    bury: Script
    meter: Script
    backlog: Script
    hooks: Script
    sent: Script
    agent: Script
    handoff: Script

    def all(self) -> tuple[Script, ...]:
        """For SCRIPT LOAD when a connection begins."""
        return tuple(getattr(self, each.name) for each in fields(self))


def render(rules: Rules) -> Scripts:
    """The scripts for a flow's rules."""
    constants = _constants(rules)
    clock, envelope, history, seen, loss = map(_file, ("clock", "envelope", "history", "seen", "loss"))
    holds, keep, removal, gcra, dead, tell = map(_file, ("holds", "keep", "removal", "gcra", "dead", "tell"))
    letter, lookups = _file("letter"), _next_scene()

    def script(name: str, *parts: str) -> Script:
        source = _with_constants("\n".join((*parts, _file(name))), constants).encode()
        return Script(name, source, hashlib.sha1(source, usedforsecurity=False).hexdigest().encode())

    return Scripts(
        load=script("load", clock, envelope, history, seen, gcra, _while_busy(rules)),
        renew=script("renew", clock, envelope, seen, loss),
        commit=script("commit", clock, envelope, history, seen, loss, lookups),
        commit_told=script("commit", clock, envelope, history, seen, loss, dead, tell, lookups),
        release=script("release", envelope),
        rate=script("rate", envelope, lookups),
        due=script("due", clock),
        settle=script("settle", clock, envelope, dead, tell, lookups),
        attend=script("attend", clock, keep),
        lease=script("lease", keep),
        free=script("free"),
        accept=script("accept", clock, seen, gcra),
        take=script("take", holds, dead, letter),
        left=script("left", holds, dead, letter),
        attempt=script("attempt", holds, dead, letter),
        done=script("done", holds, seen, removal, dead, tell),
        bury=script("bury", holds, seen, removal, dead, tell),
        hooks=script("hooks", holds),
        sent=script("sent", holds, dead),
        agent=script("agent", clock, envelope, history, dead, tell, lookups),
        handoff=script("handoff", envelope),
        meter=script("meter", clock, gcra),
        backlog=script("backlog", clock),
    )


def _file(name: str) -> str:
    return (resources.files(__package__) / "lua" / f"{name}.lua").read_text(encoding="utf-8")


def _constants(rules: Rules) -> dict[str, str]:
    """Names in capitals that the Lua files use, with their literals."""
    numbers = {
        "SCHEMA": SCHEMA,
        "TTL_MS": rules.ttl_ms,
        "KEEP_MS": rules.ttl_ms + rules.keep_ms,
        "REFRESH_MS": rules.keep_ms // 2,
        "NOTICE_MS": rules.notice_ms,
        "NOTICE_SLACK_MS": rules.notice_slack_ms,
        "HISTORY": rules.history_messages,
        "HISTORY_SLACK": 8,
        "LEASE_MS": rules.lease_ms,
        "RETRY_MS": rules.retry_ms,
        "WAITER_MS": rules.waiter_ms,
        "WAITERS": rules.waiters,
        "OUTBOX": rules.outbox_items,
        "TIDY": rules.tidy_turns,
        "RECORDS": rules.partition_records,
        "INBOX": rules.inbox_letters,
        "DEAD": rules.dead_letters,
        "DEAD_MS": rules.dead_ms,
        "HOOKS": rules.hook_deliveries,
        "PARTITION_LEASE_MS": rules.partition_lease_ms,
        "GRAIN_MS": GRAIN_MS,
        "USER_INTERVAL_MS": rules.user_rate.interval_ms,
        "USER_BURST": rules.user_rate.burst,
        "BACKLOG_MS": rules.backlog_ms,
        "SWEEP_LEASE_MS": rules.sweep_lease_ms,
        "SWEEP_USERS": rules.sweep_users,
        **{status.name: status.value for status in Status},
    }
    names = {"FIRST_SCENE": Conversation().scene, "READERS": "workers"}
    return {name: str(value) for name, value in numbers.items()} | {name: f"'{text}'" for name, text in names.items()}


def _with_constants(source: str, constants: Mapping[str, str]) -> str:
    """The source with literals for constants: as locals, each function that uses one would carry it along at every
    call, a measurable share of the cost of scripts as short as these."""
    return re.sub(r"\b[A-Z][A-Z_]+\b", lambda found: constants.get(found[0], found[0]), source)


def _next_scene() -> str:
    """domain.conversation.TRANSITIONS as a Lua function. Nested ifs, because a table would be built at every call."""
    branches = [_branch("scene", scene, _returns("event", row)) for scene, row in TRANSITIONS.items()]
    return "\n".join(("local function next_scene(scene, event)", *branches, "  return scene", "end"))


def _while_busy(rules: Rules) -> str:
    policies = _returns("scene", rules.while_busy)
    return f"local function while_busy(scene)\n{policies}\nend"


def _returns(variable: str, row: Mapping[K, V]) -> str:
    return "\n".join(_branch(variable, key, f"return '{value}'") for key, value in row.items())


def _branch(variable: str, key: str, body: str) -> str:
    return f"  if {variable} == '{key}' then\n  {body}\n  end"

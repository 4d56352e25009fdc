"""How conversations are kept: deadlines, policies and bounds. One object serves the Redis store, its scripts and its
in-memory twin; `bootstrap` derives it from the flow's configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from chatflow_api.runtime_config import RuntimeConfig
from chatflow_api.v1alpha1 import WhileBusy

from chatflow_runtime.domain.conversation import Scene
from chatflow_runtime.domain.rate import Rate


@dataclass(frozen=True, slots=True)
class Rules:
    """What a manifest says about state, and the fixed bounds beside it."""

    ttl_ms: int
    """A conversation ends this long after its last turn."""
    notice_ms: int
    """The closing notice is sent this long before the end; 0 sends none."""
    history_messages: int
    while_busy: Mapping[Scene, WhileBusy] = field(default_factory=lambda: dict.fromkeys(Scene, WhileBusy.ENQUEUE))
    """The policy of every scene; END has that of GREETING, where the next message begins."""
    lease_ms: int = 5_000
    """A claim that is not renewed for this long may be taken over."""
    retry_ms: int = 1_000
    """A waiting message loads again after this long at the latest."""
    waiter_ms: int = 3_000
    """A waiting message that has not loaded for this long loses its place: three missed retries."""
    waiters: int = 64
    """Messages of one user that may wait at once."""
    keep_ms: int = 3_600_000
    """Keys outlive the conversation's own deadline by half of this at least, so that late clients still read the
    outbox."""
    outbox_items: int = 200
    """Entries of an outbox that are kept at least, and so the number of answered message ids that are remembered."""
    partition_records: int = 10_000
    """Records that a partition holds when no worker fetches them (about 3 MB); the oldest go first."""
    sweep_lease_ms: int = 10_000
    """A due user whose sweep crashed is due again after this long."""
    sweep_users: int = 100
    """Due users taken in one call."""
    partition_lease_ms: int = 10_000
    """A worker that is not heard of for this long has left, and its partitions are free."""
    inbox_letters: int = 1_000
    """Messages that wait in one partition; more are refused."""
    dead_letters: int = 1_000
    """Messages of one partition that could not be answered, and deliveries that no webhook took, that are kept; the
    oldest go first."""
    dead_ms: int = 14 * 24 * 3_600_000
    """They are kept this long after the last one came."""
    hook_deliveries: int = 1_000
    """Deliveries to webhooks that wait in one partition; with more the oldest go to the dead letters."""
    backlog_ms: int = 5_000
    """A process that has not told of its turns for this long is gone."""
    user_rate: Rate = field(default_factory=Rate)
    """Messages of one user."""
    address_rate: Rate = field(default_factory=Rate)
    """Requests of one client address."""
    notice_slack_ms: int = 1_500
    """How far the seconds named in a closing notice may be off: a worker's tick and the rounding to a second."""

    @property
    def tidy_turns(self) -> int:
        """Every so many turns an outbox is trimmed to its length."""
        return max(1, self.outbox_items // 4)

    @classmethod
    def of(cls, config: RuntimeConfig) -> Rules:
        """The rules of a flow."""
        state, while_busy, limits = config.state, config.dialogue.while_busy, config.gateway.rate_limit
        first = while_busy.get(Scene.GREETING, WhileBusy.ENQUEUE)
        return cls(
            ttl_ms=round(state.ttl_s * 1000),
            notice_ms=round(state.closing_notice_s * 1000),
            history_messages=state.history_messages,
            # What is said to a person is neither refused nor interrupted.
            while_busy={scene: while_busy.get(scene, first) for scene in Scene} | {Scene.HANDOFF: WhileBusy.ENQUEUE},
            user_rate=Rate(limits.per_user.interval_ms, limits.per_user.burst),
            address_rate=Rate(limits.per_address.interval_ms, limits.per_address.burst),
        )

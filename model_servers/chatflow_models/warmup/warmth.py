"""When a server counts as warm, from its times to first token. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Goal:
    """What is asked of a server before it takes traffic."""

    prompts: int = 6
    """Answered at least, by a model that was never seen warm."""
    in_a_row: int = 3
    """The last so many must be fast."""
    ratio: float = 1.5
    """Fast: the time to first token is at most this many times the best one."""


@dataclass(slots=True)
class Warmth:
    """What is known of one model, asked the same prompts. A restarted server is cold, but the best time that the model
    ever had stays: it is what the new process has to come back to."""

    goal: Goal
    best_s: float | None = None
    first_tokens_s: list[float] = field(default_factory=list)
    """Of this process, in order."""
    was_warm: bool = False

    def note(self, first_token_s: float) -> None:
        """A prompt was answered."""
        self.first_tokens_s.append(first_token_s)
        self.best_s = first_token_s if self.best_s is None else min(self.best_s, first_token_s)
        self.was_warm |= self.is_warm

    def restarted(self) -> None:
        """Another process has taken its place."""
        self.first_tokens_s.clear()

    @property
    def is_warm(self) -> bool:
        """Whether enough prompts ran, and the last ones about as fast as the best."""
        goal, last = self.goal, self.first_tokens_s[-self.goal.in_a_row :]
        wanted = goal.in_a_row if self.was_warm else max(goal.prompts, goal.in_a_row)
        if self.best_s is None or len(self.first_tokens_s) < wanted:
            return False
        return all(first_token_s <= goal.ratio * self.best_s for first_token_s in last)

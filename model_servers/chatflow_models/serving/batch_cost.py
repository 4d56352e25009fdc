"""What a batch takes, by its size: a fixed part and one for each text. Pure; `service` measures."""

from __future__ import annotations

from collections.abc import Mapping

_WEIGHT = 0.1
"""Of the newest batch in the moving average of the model's speed."""
_LEAST_S = 1e-6


class BatchCost:
    """Learnt from a warm-up, which gives its shape, and from every batch since, which tell how fast the model is now:
    other texts, or a busier machine."""

    def __init__(self, measured_s: Mapping[int, float]) -> None:
        """`measured_s` are seconds by texts of a batch, for one size or more."""
        few, many = min(measured_s), max(measured_s)
        rise_s = (measured_s[many] - measured_s[few]) / (many - few) if many > few else 0.0
        self._text_s = max(rise_s, _LEAST_S)
        self._fixed_s = max(measured_s[few] - few * self._text_s, 0.0)
        self._slowness = 1.0

    def note(self, texts: int, seconds: float) -> None:
        """A batch was worked on."""
        found = seconds / (self._fixed_s + texts * self._text_s)
        self._slowness += _WEIGHT * (found - self._slowness)

    def of(self, texts: int, most: int) -> float:
        """Seconds for so many texts, in batches of `most` at most."""
        batches = -(-texts // most)
        return self._slowness * (batches * self._fixed_s + texts * self._text_s)

    def fitting(self, seconds: float) -> int:
        """Texts of the largest batch that takes no longer; at least 1."""
        return max(1, int((seconds / max(self._slowness, _LEAST_S) - self._fixed_s) / self._text_s))

"""Pauses between tries: growing, bounded, with jitter so that many stores do not knock in step."""

from __future__ import annotations

import random


class Backoff:
    """A growing pause.

    Args:
        first_s, most_s: first and longest pause in seconds; each is doubled until `most_s`.
        rng: source of the jitter (each pause is 50–100 % of its nominal length).
    """

    def __init__(self, first_s: float, most_s: float, rng: random.Random | None = None) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._rng = rng or random.Random()  # noqa: S311 - jitter, not a secret
        self.tries = 0

    def reset(self) -> None:
        """It worked: start small again."""
        self.tries = 0

    def next_s(self) -> float:
        """Seconds to wait before the next try."""
        nominal_s = min(self._most_s, self._first_s * 2.0 ** min(self.tries, 20))
        self.tries += 1
        return nominal_s * (0.5 + self._rng.random() / 2)

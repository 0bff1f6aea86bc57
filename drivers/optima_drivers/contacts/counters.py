"""Event counters of scales: what a value proves beside the baseline that an inspector wrote down when sealing.

Each adjustment adds one, and nobody can take one away: a counter that differs is a broken seal, in whichever direction.
The overflow rule only explains the difference: 999 → 000 is one step of a counter that wraps at 1000, 20 → 19 is another
scale or 999 steps. A counter that stops at its end counts no more, so there it proves nothing.
Source: makers' manuals as named in `profiles`; NIST Handbook 44, S.1.11 (two counters, calibration and configuration).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Overflow(StrEnum):
    """What comes after a counter's last value."""

    WRAPS = "wraps"
    STOPS = "stops"
    UNKNOWN = "unknown"
    NOT_COUNTED = "not-counted"  # a number that stays as it is: a parameter, a serial number


class Rule(msgspec.Struct, frozen=True):
    """How one counter counts: its values are 0 … size - 1."""

    size: int
    overflow: Overflow = Overflow.UNKNOWN


class Verdict(StrEnum):
    """What a value proves."""

    SAME = "same"
    ADJUSTED = "adjusted"
    WRAPPED = "wrapped"  # adjusted, and over the end
    OTHER = "other"  # another scale, or a counter that was tampered with
    UNPROVEN = "unproven"


class Finding(msgspec.Struct, frozen=True):
    """A verdict and, where it was counted, the number of steps from the baseline."""

    verdict: Verdict
    steps: int = 0

    @property
    def breaks(self) -> bool:
        """Whether the seal is broken by this."""
        return self.verdict in (Verdict.ADJUSTED, Verdict.WRAPPED, Verdict.OTHER)


def compare(rule: Rule, baseline: int, value: int) -> Finding:
    """What `value` proves beside `baseline`, both within the rule's values."""
    if value == baseline:
        at_end = rule.overflow is Overflow.STOPS and value == rule.size - 1
        return Finding(Verdict.UNPROVEN if at_end else Verdict.SAME)
    if rule.overflow is Overflow.NOT_COUNTED:
        return Finding(Verdict.OTHER)
    if value > baseline:
        return Finding(Verdict.ADJUSTED, value - baseline)
    steps = (value - baseline) % rule.size
    if rule.overflow is Overflow.WRAPS and steps <= rule.size // 2:
        return Finding(Verdict.WRAPPED, steps)
    return Finding(Verdict.OTHER)

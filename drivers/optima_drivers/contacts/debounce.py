"""Debounce: slow to grant, quick to revoke. Sans-io; time comes in as nanoseconds of one monotonic clock.

contact   ──┐_┌┐_┌────────────────────────┐____
value     ──┐__________________┌──────────┐____      the first sample that differs revokes,
             at once            stable_ns  at once   equal ones for stable_ns grant

At the beginning nothing is granted yet, so there is nothing to revoke: the first stable_ns decide nothing.
"""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Debounce(Generic[T]):
    """What a switch says, once it says it steadily.

    Args:
        safe: what is taken at the first sample that says it or disturbs another value: locked, open. As the first value
            only stable_ns after the first sample.
        stable_ns: how long any other value must be sampled, the same each time, before it counts. No two samples may be
            further apart than half of it: what nobody saw was not steady.

    Attributes:
        value: what counts; None: nothing yet.
    """

    def __init__(self, safe: T, stable_ns: int) -> None:
        self.value: T | None = None
        self._safe = safe
        self._stable_ns = stable_ns
        self.forget()

    @property
    def settled(self) -> bool:
        """Whether more samples of the same change nothing."""
        return self.value is not None and self.value == self._candidate

    def forget(self) -> None:
        """Begin again, with nothing known."""
        self.value = None
        self._candidate: T | None = None
        self._begun_ns: int | None = None
        self._since_ns = self._last_ns = 0

    def sample(self, raw: T, now_ns: int, *, disturbed: bool = False) -> None:
        """Take one sample; `disturbed`: the contact has moved since the last one, whatever it says now."""
        if raw != self._candidate or disturbed or now_ns - self._last_ns > self._stable_ns // 2:
            self._candidate, self._since_ns = raw, now_ns
        self._last_ns = now_ns
        if self._begun_ns is None:
            self._begun_ns = now_ns
        is_known = self.value is not None or now_ns - self._begun_ns >= self._stable_ns
        is_granted = self.value is not None and self.value != self._safe
        if (raw == self._safe and is_known) or (is_granted and (raw != self.value or disturbed)):
            self.value = self._safe
        elif now_ns - self._since_ns >= self._stable_ns:
            self.value = raw

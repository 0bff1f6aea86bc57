"""What may leave the disk, and when: the replay window, the size bound."""

from __future__ import annotations

import time
from collections.abc import Callable

from optima_bridge.journal.store import Store
from optima_bridge.journal.words import BEGINNING, Limits, Loss, Position

REST_S = 60.0  # between two looks at the age of records
LOOK_RECORDS = 1024  # between two looks at the size


class LossTally:
    """Adds up lost records to one Loss."""

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._lost: Loss | None = None

    def add(self, first: Position, last: Position, count: int) -> None:
        """Count so many more, from `first` to `last`."""
        if self._lost:
            first, last, count = min(first, self._lost.first), max(last, self._lost.last), count + self._lost.count
        self._lost = Loss(first, last, count, self._reason)

    def take(self) -> Loss | None:
        """The sum so far; begins anew."""
        lost, self._lost = self._lost, None
        return lost


class Retention:
    """Removes records in small steps, between commits. It starts no timer: a journal that is not written does not grow.

    Attributes:
        busy: whether a round is under way and the next step should follow soon.
    """

    def __init__(self, limits: Limits, wall_ns: Callable[[], int]) -> None:
        self._limits = limits
        self._wall_ns = wall_ns
        self._tally = LossTally("disk-bound")
        self._unseen_records = 0
        self._after = BEGINNING  # this round has looked at the age of all records up to here
        self._next_round_s = time.monotonic()
        self.busy = False

    def note(self, records: int) -> None:
        """Say that so many were written."""
        self._unseen_records += records
        if self._unseen_records >= LOOK_RECORDS or time.monotonic() >= self._next_round_s:
            self.busy = True

    def step(self, store: Store, floor: Position) -> tuple[int, Loss | None]:
        """One step of at most a thousand records.

        Args:
            floor: every sink has all records up to here.

        Returns:
            how many records went, and at the end of a round what was lost in it.

        Raises:
            sqlite3.Error: as from `store`.
        """
        if store.used_bytes() > self._limits.keep_bytes:
            removed, lost = store.remove_oldest(floor)
            if lost:
                self._tally.add(*lost)
            if removed:
                return removed, None
        if time.monotonic() >= self._next_round_s:
            cutoff_ns = self._wall_ns() - int(self._limits.keep_s * 1e9)
            removed, following = store.remove_settled(self._after, floor, cutoff_ns)
            if following is None:
                self._next_round_s = time.monotonic() + REST_S
            self._after = following or BEGINNING
            return removed, None
        if not store.shrink():
            self.busy = False
            self._unseen_records = 0
            return 0, self._tally.take()
        return 0, None

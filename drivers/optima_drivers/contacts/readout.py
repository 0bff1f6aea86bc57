"""One reading of all counters of an indicator: which question is next, and when it has waited long enough. Sans-io."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from optima_bridge.errors import FrameError
from optima_drivers.contacts.dialects import Dialect

TRIES = 6  # of one counter: two equal answers in a row must be among so many
ANSWER_TIMEOUT_NS = 500_000_000


class Readout:
    """Asks for each counter until two answers in a row are equal.

    Args:
        counters: gets ``frames_good``, ``frames_bad_…``, ``timeouts``, ``refused``.

    Attributes:
        values: what was read, by name; complete once `is_done` and not `failed`.
        failed: a counter could not be read.
    """

    def __init__(self, dialect: Dialect, names: Sequence[str], counters: Counter[str]) -> None:
        self._dialect = dialect
        self._names = names
        self._counters = counters
        self._todo: list[str] = []
        self.restart()

    def restart(self) -> None:
        """Begin a new reading."""
        self.values: dict[str, int] = {}
        self.failed = False
        self._todo = [*self._names]
        self._begin()

    def _begin(self) -> None:
        """Begin with the next counter."""
        self._first: int | None = None
        self._tries = 0
        self.deadline_ns = 0  # when to ask, or to give up waiting

    @property
    def is_done(self) -> bool:
        return self.failed or not self._todo

    def ask(self, now_ns: int) -> bytes:
        """The question to be sent now; empty: an answer is waited for, or there is no more to ask."""
        if self.is_done or now_ns < self.deadline_ns:
            return b""
        if self.deadline_ns:
            self._counters["timeouts"] += 1
        if self._tries == TRIES:
            self.failed = True
            return b""
        self._tries += 1
        self.deadline_ns = now_ns + ANSWER_TIMEOUT_NS
        return self._dialect.ask(self._todo[0])

    def take(self, data: bytes) -> None:
        """Take what has arrived."""
        for result in self._dialect.feed(data):
            if isinstance(result, FrameError):
                self._counters[f"frames_bad_{result.kind}"] += 1
                continue
            self._counters["frames_good"] += 1
            if self.is_done or not self.deadline_ns or result.name != self._todo[0]:
                continue  # late: nobody has asked
            if result.value is None:
                self._counters["refused"] += 1
            elif result.value == self._first:
                self.values[self._todo.pop(0)] = result.value
                self._begin()
                continue
            self._first = result.value
            self.deadline_ns = 0

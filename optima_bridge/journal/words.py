"""The words of the journal: positions, bounds, losses, denials, numbers for the health page."""

from __future__ import annotations

import msgspec

Position = tuple[int, int]
"""(epoch, seq): the place of a record in the order of all records of this node."""

BEGINNING: Position = (0, 0)
"""Before every record: epochs and sequence numbers start at 1."""


class Limits(msgspec.Struct, frozen=True):
    """How much is kept.

    Attributes:
        keep_s: replay window; delivered records stay this long, by their capture time.
        keep_bytes: bound of the records on disk; the oldest go first, delivered or not.
        memory_records: bound of what waits in memory while the disk takes nothing.
    """

    keep_s: float = 7 * 86400
    keep_bytes: int = 200 << 20
    memory_records: int = 20_000


class Loss(msgspec.Struct, frozen=True):
    """Records that are gone before every sink had them.

    Attributes:
        first, last: the range they lie in; not everything in the range is lost.
        count: how many, exactly.
        reason: ``disk-bound`` (keep_bytes) or ``memory-bound`` (memory_records, while the disk took nothing).
    """

    first: Position
    last: Position
    count: int
    reason: str


class Denial(msgspec.Struct, frozen=True, gc=False):
    """A publish that the receiver refused (MQTT reason code); `reason` None takes it back."""

    sink: str
    at: Position
    reason: int | None


class JournalStats(msgspec.Struct, frozen=True):
    """The journal in numbers.

    Attributes:
        records: on disk.
        size_bytes: of the database and its write-ahead log.
        oldest_age_s: age of the oldest record on disk by its capture time; None where there is none.
        pending: records in memory, not yet on disk.
        free_bytes: room on the disk for this user.
        problem: what is wrong at the moment, one sentence.
    """

    records: int
    size_bytes: int
    oldest_age_s: float | None
    pending: int
    free_bytes: int
    problem: str | None

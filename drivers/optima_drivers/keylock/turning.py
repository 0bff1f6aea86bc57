"""From positions heard to positions that count: slow to grant, quick to revoke. Sans-io; time in nanoseconds of one clock.

Positions are UnifiedPOS numbers: LOCK 1, NORM 2, SUPR 3, from 4 on the model's own, and 0 between two. Every position but
LOCK and NORM is one of rights: it counts when nothing else was heard for `settle_ns`, and ends with the first position that is
not it, before anybody knows where the key comes to rest. What makes no sense grants nothing; it ends rights only of a lock of
which nothing more can be expected. None is unknown, which is locked.
"""

from __future__ import annotations

import msgspec

BETWEEN, LOCK, NORM, SUPR = 0, 1, 2, 3


class Turn(msgspec.Struct, frozen=True):
    """One decision.

    Attributes:
        code: the position from now on; None: not known any more.
        at_ns: when it was decided.
        found: nobody turned anything: the device was asked, or input was lost.
    """

    code: int | None
    at_ns: int
    found: bool = False


class Turning:
    """The position of one lock.

    Args:
        settle_ns: how long a position must be the last one heard; 0 for devices that wait themselves.
        reads_to_grant: how often it must be heard in a row; more than 1 for devices that are asked again and again.
        says_once: the device tells each turn once and cannot be asked, so what makes no sense may have been a turn.
    """

    def __init__(self, settle_ns: int = 0, reads_to_grant: int = 1, *, says_once: bool = False) -> None:
        self._settle_ns = settle_ns
        self._reads_to_grant = reads_to_grant
        self._says_once = says_once
        self.position: int | None = None
        self._candidate: int | None = None
        self._found = False
        self._reads = 0
        self._due_ns = 0

    def deadline_ns(self) -> int | None:
        """When `expire` must be called at the latest; None while nothing is pending."""
        return None if self._candidate is None or self._reads < self._reads_to_grant else self._due_ns

    def expire(self, now_ns: int) -> list[Turn]:
        """Let silence speak. Only silence may: what waits to be heard might contradict."""
        deadline_ns = self.deadline_ns()
        if deadline_ns is None or now_ns < deadline_ns:
            return []
        position, self._candidate = self._candidate, None
        return self._become(position, deadline_ns, self._found)

    def heard(self, code: int, now_ns: int, *, found: bool = False) -> list[Turn]:
        """Take one position that the device tells, `found` by asking; returns what was decided, in order."""
        if code == self.position:
            self._candidate = None
            return []
        if code != self._candidate:
            self._candidate, self._found, self._reads = code, found, 0
            self._due_ns = now_ns + self._settle_ns
        self._reads += 1
        if self._reads == self._reads_to_grant:
            self._due_ns = max(self._due_ns, now_ns)
        turns = self.expire(now_ns)
        if self.position is not None and self.position >= SUPR and self.position != code:
            turns += self._become(code if code < SUPR else BETWEEN, now_ns)
            if self.position == code:
                self._candidate = None
        return turns

    def disturbed(self, now_ns: int, *, lost: bool) -> list[Turn]:
        """Take something that makes no sense, so that nothing is pending any more; `lost`: other positions may be missing."""
        self._candidate = None
        if lost:
            return self._become(None, now_ns, found=True)
        had_rights = self.position is not None and self.position >= SUPR
        return self._become(BETWEEN, now_ns) if self._says_once and had_rights else []

    def _become(self, position: int | None, at_ns: int, found: bool = False) -> list[Turn]:
        if position == self.position:
            return []
        self.position = position
        return [Turn(position, at_ns, found)]

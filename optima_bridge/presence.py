"""Presence rules: slow to grant, quick to revoke. Sans-io; time comes in as nanoseconds of one monotonic clock.

Two kinds of readers need two machines. `PolledPresence` is for readers that are asked (1-Wire, NFC): each poll says
which tokens answer. `RepeatedPresence` is for readers that only talk (125 kHz): frames repeat while a token is held, and
silence is the only sign of its removal.

Actions: ``inserted`` (granted), ``suspect`` (first miss, or a poll that failed: stop trusting it), ``restored`` (suspicion was wrong),
``removed`` (decided), ``ambiguous`` (several tokens: none counts).
"""

from __future__ import annotations

import msgspec

from optima_bridge.model import Data

ABSENT: Data = {"presence": "absent"}
PRESENT: Data = {"presence": "present"}
SUSPECT: Data = {"presence": "suspect"}
AMBIGUOUS: Data = {"presence": "ambiguous"}


class Change(msgspec.Struct, frozen=True):
    """One decision.

    Attributes:
        action: see the module.
        identifier: the token it is about; None for ``ambiguous`` and its end.
        at_ns: when it was decided; for a removal by silence, last frame + hold time.
        last_seen_ns: when the token last answered.
        state: what is true from now on.
    """

    action: str
    identifier: str | None
    at_ns: int
    last_seen_ns: int
    state: Data


class PolledPresence:
    """Presence for readers that are polled.

    Args:
        reads_to_grant: equal single-token polls in a row before ``inserted``.
        misses_to_remove: polls in a row without the token before ``removed``; the first one makes it ``suspect``.
    """

    def __init__(self, reads_to_grant: int = 2, misses_to_remove: int = 3) -> None:
        self._reads_to_grant = reads_to_grant
        self._misses_to_remove = misses_to_remove
        self.held: str | None = None
        self.ambiguous = False
        self._suspect = False
        self._misses = 0
        self._last_seen_ns = 0
        self._candidate: str | None = None
        self._reads = 0

    @property
    def settled(self) -> bool:
        """Nothing is pending: no candidate, no suspicion. A driver may poll slowly."""
        return self._candidate is None and not self._suspect

    def poll(self, identifiers: frozenset[str], now_ns: int) -> list[Change]:
        """Take the result of one complete poll; returns what was decided, in order."""
        if len(identifiers) > 1:
            return self._several(identifiers, now_ns)
        seen = next(iter(identifiers), None)
        changes: list[Change] = []
        if self.ambiguous and seen is None:
            self.ambiguous = False
            changes.append(Change("removed", None, now_ns, now_ns, ABSENT))
        if seen is not None and seen == self.held:
            self._candidate, self._reads = None, 0
            self._last_seen_ns = now_ns
            if self._suspect:
                self._hold(seen)
                changes.append(Change("restored", seen, now_ns, now_ns, PRESENT))
            return changes
        if self.held is not None:
            self._misses += 1
        self._consider(seen)
        granted = seen is not None and self._reads >= self._reads_to_grant
        if self.held is not None and (granted or self._misses >= self._misses_to_remove):
            changes.append(Change("removed", self.held, now_ns, self._last_seen_ns, ABSENT))
            self._hold(None)
        else:
            changes += self._doubt(now_ns)
        if granted:
            self._hold(seen)
            self._last_seen_ns = now_ns
            self._candidate, self._reads, self.ambiguous = None, 0, False
            changes.append(Change("inserted", seen, now_ns, now_ns, PRESENT))
        return changes

    def failed(self, now_ns: int) -> list[Change]:
        """A poll came to no result: what is held is not trusted until the next one, nor does it count as missed."""
        self._consider(None)
        return self._doubt(now_ns)

    def _doubt(self, now_ns: int) -> list[Change]:
        if self.held is None or self._suspect:
            return []
        self._suspect = True
        return [Change("suspect", self.held, now_ns, self._last_seen_ns, SUSPECT)]

    def _hold(self, identifier: str | None) -> None:
        self.held, self._suspect, self._misses = identifier, False, 0

    def _consider(self, seen: str | None) -> None:
        if seen is None:
            self._candidate, self._reads = None, 0
        elif seen == self._candidate:
            self._reads += 1
        else:
            self._candidate, self._reads = seen, 1

    def _several(self, identifiers: frozenset[str], now_ns: int) -> list[Change]:
        self._candidate, self._reads = None, 0
        if self.ambiguous:
            return []
        changes: list[Change] = []
        if self.held is not None:
            last_seen_ns = now_ns if self.held in identifiers else self._last_seen_ns
            changes.append(Change("removed", self.held, now_ns, last_seen_ns, ABSENT))
        self._hold(None)
        self.ambiguous = True
        changes.append(Change("ambiguous", None, now_ns, now_ns, AMBIGUOUS))
        return changes


class RepeatedPresence:
    """Presence for readers that only talk: a frame repeats while the token is held.

    Args:
        reads_to_grant: equal frames in a row before ``inserted``.
        suspect_ns: silence after which a held token is ``suspect``.
        hold_ns: silence after which it is ``removed``; also how long a first frame counts towards the grant.
        gap_ns: frames closer together than this count as one. A real reader needs tens of milliseconds for a frame, so
            frames that arrive together were waiting somewhere: they are late and must not grant by themselves.
    """

    def __init__(
        self,
        reads_to_grant: int = 2,
        *,
        suspect_ns: int = 150_000_000,
        hold_ns: int = 500_000_000,
        gap_ns: int = 20_000_000,
    ) -> None:
        self._reads_to_grant = reads_to_grant
        self._suspect_ns = min(suspect_ns, hold_ns)
        self._hold_ns = hold_ns
        self._gap_ns = gap_ns
        self.held: str | None = None
        self._suspect = False
        self._last_seen_ns = 0
        self._candidate: str | None = None
        self._candidate_ns = 0
        self._reads = 0

    def deadline_ns(self) -> int | None:
        """When `expire` must be called at the latest; None while nothing is held."""
        if self.held is None:
            return None
        return self._last_seen_ns + (self._hold_ns if self._suspect else self._suspect_ns)

    def expire(self, now_ns: int) -> list[Change]:
        """Let silence speak."""
        changes: list[Change] = []
        while (deadline := self.deadline_ns()) is not None and now_ns >= deadline:
            if self._suspect or self._suspect_ns == self._hold_ns:
                changes.append(Change("removed", self.held, deadline, self._last_seen_ns, ABSENT))
                self.held, self._suspect = None, False
            else:
                self._suspect = True
                changes.append(Change("suspect", self.held, deadline, self._last_seen_ns, SUSPECT))
        return changes

    def seen(self, identifier: str, now_ns: int) -> list[Change]:
        """Take one good frame; returns what was decided, in order."""
        changes = self.expire(now_ns)
        if identifier == self.held:
            self._candidate, self._reads = None, 0
            self._last_seen_ns = now_ns
            if self._suspect:
                self._suspect = False
                changes.append(Change("restored", identifier, now_ns, now_ns, PRESENT))
            return changes
        if identifier != self._candidate or now_ns - self._candidate_ns > self._hold_ns:
            self._candidate, self._reads, self._candidate_ns = identifier, 1, now_ns
        elif now_ns - self._candidate_ns >= self._gap_ns:
            self._reads += 1
            self._candidate_ns = now_ns
        if self._reads < self._reads_to_grant:
            return changes
        if self.held is not None:
            changes.append(Change("removed", self.held, now_ns, self._last_seen_ns, ABSENT))
        self.held, self._suspect, self._last_seen_ns = identifier, False, now_ns
        self._candidate, self._reads = None, 0
        changes.append(Change("inserted", identifier, now_ns, now_ns, PRESENT))
        return changes

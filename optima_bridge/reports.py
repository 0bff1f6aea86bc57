"""What a polled reader says of each poll: events, and observations where it finds something without anything having happened. Sans-io."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from optima_bridge.model import Data, Event, Observation, Subject
from optima_bridge.presence import ABSENT, PolledPresence

READS_TO_GRANT = 2
PENDING_PAUSE_MS = 20  # between polls while a candidate or a suspicion waits for the next one

News = Event | Observation


class TokenReports:
    """The keys or cards on one reader.

    Args:
        subject: what they are; ``ambiguous`` counts them under its plural.
        misses_to_remove: as in `PolledPresence`.
        describe: gives what events say of a token: its identifier, None where it is none to rely on, and facts.
        counters: gets ``misses``, polls without the held token.
    """

    def __init__(
        self,
        subject: Subject,
        misses_to_remove: int,
        describe: Callable[[str], tuple[str | None, Data]],
        counters: Counter[str],
    ) -> None:
        self._subject = subject
        self._presence = PolledPresence(READS_TO_GRANT, misses_to_remove)
        self._describe = describe
        self._counters = counters
        self._known = False  # whether anything was said yet

    def polled(self, tokens: frozenset[str], now_ns: int) -> Iterator[News]:
        """Take the result of one complete poll; gives what is to be said of it, in order."""
        presence = self._presence
        self._counters["misses"] += presence.held is not None and presence.held not in tokens
        changes = presence.poll(tokens, now_ns)
        if not self._known and not tokens:
            yield Observation(self._subject, ABSENT)
        self._known = self._known or bool(changes) or not tokens
        for change in changes:
            identifier: str | None = None
            data: Data = {f"{self._subject}s": len(tokens)}
            if change.identifier is not None:
                identifier, data = self._describe(change.identifier)
                if change.last_seen_ns != change.at_ns:
                    data = {**data, "last_seen_ms": (change.at_ns - change.last_seen_ns) // 1_000_000}
            yield Event(self._subject, change.action, change.at_ns, data, identifier, change.state)

    def pause_ms(self, poll_interval_ms: int) -> int:
        """How long to wait until the next poll: shorter while this one decided nothing yet."""
        return poll_interval_ms if self._presence.settled else min(poll_interval_ms, PENDING_PAUSE_MS)


class FaultReports:
    """One fault that each poll finds or does not."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._active: bool | None = None

    def polled(self, active: bool, now_ns: int) -> Iterator[News]:
        """Take the result of one complete poll; gives what is to be said of it."""
        before, self._active = self._active, active
        state: Data = {"active": active, "code": self._code}
        if before is None and not active:
            yield Observation(Subject.FAULT, state)
        elif before is not active:
            yield Event(
                Subject.FAULT, "raised" if active else "cleared", now_ns, data={"code": self._code}, state=state
            )

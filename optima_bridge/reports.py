"""What a polled reader says of its polls: events, and an observation of what it finds at first. Sans-io."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator

from pydantic import Field

from optima_bridge.beat import AT_REST, next_beat_ns
from optima_bridge.driver import DriverSettings
from optima_bridge.model import Data, Event, Observation, Subject
from optima_bridge.presence import ABSENT, Change, PolledPresence

READS_TO_GRANT = 2
PENDING_INTERVAL_MS = 20  # from poll to poll while a candidate or a suspicion waits for the next one

News = Event | Observation


class PolledSettings(DriverSettings):
    """Configuration keys of a reader that is polled."""

    poll_interval_ms: int = Field(
        default=100,
        ge=20,
        le=1000,
        description="from one poll to the next while a key or card is there, in milliseconds; twice that while none is",
    )
    misses_to_remove: int = Field(
        default=3, ge=1, le=10, description="polls in a row without a key or card after which it counts as removed"
    )


class TokenReports:
    """The keys or cards on one reader.

    Args:
        subject: what they are; ``ambiguous`` counts them under its plural.
        describe: gives what events say of a token: its identifier, None where it is none to rely on, and facts.
        counters: gets ``misses``, polls without the held token.
    """

    def __init__(
        self,
        subject: Subject,
        settings: PolledSettings,
        describe: Callable[[str], tuple[str | None, Data]],
        counters: Counter[str],
    ) -> None:
        self._subject = subject
        self._presence = PolledPresence(READS_TO_GRANT, settings.misses_to_remove)
        self._poll_interval_ms = settings.poll_interval_ms
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
        yield from self._events(changes, len(tokens))

    def failed(self, now_ns: int) -> Iterator[News]:
        """A poll came to no result, and the reader has to be recovered first: a held token is ``suspect`` at once."""
        yield from self._events(self._presence.failed(now_ns), 0)

    def _events(self, changes: Iterable[Change], tokens: int) -> Iterator[Event]:
        for change in changes:
            identifier: str | None = None
            data: Data = {f"{self._subject}s": tokens}
            if change.identifier is not None:
                identifier, data = self._describe(change.identifier)
                if change.last_seen_ns != change.at_ns:
                    data = {**data, "last_seen_ms": (change.at_ns - change.last_seen_ns) // 1_000_000}
            yield Event(self._subject, change.action, change.at_ns, data, identifier, change.state)

    def next_poll_ns(self, now_ns: int) -> int:
        """When to poll again: sooner while the last poll left something undecided, later while nothing is there."""
        interval_ms = self._poll_interval_ms
        if not self._presence.settled:
            interval_ms = min(interval_ms, PENDING_INTERVAL_MS)
        elif self._presence.held is None and not self._presence.ambiguous:
            interval_ms *= AT_REST
        return next_beat_ns(now_ns, interval_ms)


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

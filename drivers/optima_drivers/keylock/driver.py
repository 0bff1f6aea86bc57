"""What the drivers of all keylocks have in common: positions out of a link, decided, published with UnifiedPOS numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Generic, TypeVar

from optima_bridge.errors import FrameError, LinkTimeout
from optima_bridge.link import ByteLink, RecordLink
from optima_bridge.model import Data, Event, KeylockPosition, Observation, Subject
from optima_drivers.keylock.profiles import Position
from optima_drivers.keylock.turning import SUPR, Turn, Turning

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


LinkT = TypeVar("LinkT", bound="ByteLink | RecordLink")


class KeylockDriver(Generic[LinkT]):
    """One lock; `decode` gives the positions that a record of its link tells."""

    def __init__(
        self,
        link: LinkT,
        positions: Iterable[Position],
        decode: Callable[[bytes], list[int | FrameError]],
        turning: Turning,
    ) -> None:
        self._link = link
        self._names = {position.code: position.name for position in positions if position.code > SUPR and position.name}
        self._decode = decode
        self._turning = turning
        self._turns: list[Turn] = []  # decided, and not yet told
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> Mapping[str, int]:
        """``frames_good``: positions told; ``frames_bad_…`` by kind; ``timeouts`` of questions."""
        return self._counters

    async def stop(self) -> None:
        """Nothing to do: closing the link gives back what was taken."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """Each position once, when it counts. Ends by LinkLost."""
        while True:
            while self._turns:
                yield self._news(self._turns.pop(0))
            await self._before_read()
            try:
                self._take(await self._link.read(self._patience_s()))
            except LinkTimeout:
                self._turns += self._turning.expire(self._link.clock_ns())

    async def _before_read(self) -> None:
        """What else there is to do."""

    def _deadline_ns(self) -> int | None:
        """When there is something to do though nothing comes."""
        return self._turning.deadline_ns()

    def _patience_s(self) -> float | None:
        deadline_ns = self._deadline_ns()
        return None if deadline_ns is None else max(0, deadline_ns - self._link.clock_ns()) / NS_PER_S

    def _take(self, record: bytes, *, found: bool = False) -> None:
        """Decide what a record means that has come now."""
        now_ns = self._link.clock_ns()
        for result in self._decode(record):
            if isinstance(result, FrameError):
                self._counters[f"frames_bad_{result.kind}"] += 1
                self._turns += self._turning.disturbed(now_ns, lost=result.kind == "overrun")
            else:
                self._counters["frames_good"] += 1
                self._turns += self._turning.heard(result, now_ns, found=found)

    def _news(self, turn: Turn) -> Event | Observation:
        position = KeylockPosition.UNKNOWN if turn.code is None else KeylockPosition.of(turn.code)
        state: Data = {"position": position.value, "position_code": turn.code or 0}
        if name := self._names.get(turn.code or 0):
            state = {**state, "name": name}
        if turn.found:
            return Observation(Subject.KEYLOCK, state)
        return Event(Subject.KEYLOCK, "turned", turn.at_ns, data=state, state=state)

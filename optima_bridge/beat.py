"""One beat for all that is polled: readers that wait for the same moment wake the process once, not once each.

Waking an idle machine costs several times what a poll does; with 64 readers that is most of the daemon's CPU. A timer of
each wait's own costs as much again: asyncio keeps timers in a heap, and compares them in Python.
"""

from __future__ import annotations

import asyncio
import math

NS_PER_MS = 1_000_000
MS_PER_S = 1000
AT_REST = 2
"""What is polled is polled so many times less often while there is nothing that could be revoked."""

Waiter = asyncio.Future[None]


def next_beat_ns(now_ns: int, interval_ms: int) -> int:
    """The next multiple of the interval; where that is in less than a quarter of it, the one after.

    Args:
        now_ns: of the monotonic clock that everybody shares.
        interval_ms: 1 or more.
    """
    interval_ns = interval_ms * NS_PER_MS
    left_ns = interval_ns - now_ns % interval_ns
    return now_ns + (left_ns if left_ns * 4 >= interval_ns else left_ns + interval_ns)


async def pause(duration_s: float) -> None:
    """Sleep, on a timer shared with all who wait for the same millisecond; up to 1 ms longer than asked for."""
    waits = shared_timers()
    waiter: Waiter = waits.loop.create_future()
    due_ms = waits.add(waiter, duration_s)
    try:
        await waiter
    finally:
        waits.drop(waiter, due_ms)


class SharedTimers:
    """The waits of one event loop; those that end in the same millisecond have one timer."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._groups: dict[int, tuple[asyncio.TimerHandle, set[Waiter]]] = {}

    def add(self, waiter: Waiter, timeout_s: float) -> int:
        """Give `waiter` its result once that time has passed, up to 1 ms late; returns what `drop` wants to know."""
        due_ms = math.ceil((self.loop.time() + timeout_s) * MS_PER_S)
        group = self._groups.get(due_ms)
        if group is None:
            group = self._groups[due_ms] = (self.loop.call_at(due_ms / MS_PER_S, self._passed, due_ms), set())
        group[1].add(waiter)
        return due_ms

    def drop(self, waiter: Waiter, due_ms: int) -> None:
        """`waiter` waits no more. It may have been told already."""
        group = self._groups.get(due_ms)
        if group is not None:
            timer, waiters = group
            waiters.discard(waiter)
            if not waiters:
                timer.cancel()
                del self._groups[due_ms]

    def _passed(self, due_ms: int) -> None:
        for waiter in self._groups.pop(due_ms)[1]:
            if not waiter.done():
                waiter.set_result(None)


_latest: SharedTimers | None = None


def shared_timers() -> SharedTimers:
    """Those of the running loop."""
    global _latest  # noqa: PLW0603 - a process has one loop; tests have one after the other
    loop = asyncio.get_running_loop()
    if _latest is None or _latest.loop is not loop:
        _latest = SharedTimers(loop)
    return _latest

"""An event loop whose clock jumps to the next timer: tests of hours take milliseconds, and no load can disturb them.

For code that waits on timers and memory links only. Ptys, sockets and threads live in real time.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Where the loop would sleep, its clock is moved on by that much."""

    def __init__(self) -> None:
        self._now_s = 0.0
        super().__init__(_NoSleep(self._pass))

    def time(self) -> float:
        return self._now_s

    def clock_ns(self) -> int:
        """The same clock in whole microseconds, for links: hides the rounding of floats."""
        return round(self._now_s * 1e6) * 1000

    def _pass(self, duration_s: float) -> None:
        self._now_s += duration_s


class _NoSleep(selectors.DefaultSelector):
    def __init__(self, on_sleep: Callable[[float], None]) -> None:
        super().__init__()
        self._on_sleep = on_sleep

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("nothing will ever happen: no timer is set, and only timers count here")
        self._on_sleep(timeout)
        return super().select(0)


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` in virtual time; it finds the loop by `virtual_loop`."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main)


def virtual_loop() -> VirtualTimeLoop:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop

"""An event loop whose clock jumps to the next timer: hours of a device take milliseconds, and no load can disturb them.

For code that waits on timers and memory links only. Ptys, sockets and threads live in real time.
"""

from __future__ import annotations

import asyncio
import selectors
import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """Where the loop would sleep, its clock is moved on by that much.

    Args:
        speed: so many times faster than real time; 0: no waiting at all.
    """

    def __init__(self, speed: float = 0) -> None:
        self._now_s = 0.0
        self._speed = speed
        super().__init__(_NoSleep(self._pass))

    def time(self) -> float:
        return self._now_s

    def clock_ns(self) -> int:
        """The same clock in whole microseconds, for links: hides the rounding of floats."""
        return round(self._now_s * 1e6) * 1000

    def _pass(self, duration_s: float) -> None:
        if self._speed:
            time.sleep(max(0.0, duration_s) / self._speed)
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


def run(main: Coroutine[Any, Any, T], speed: float = 0) -> T:
    """Run `main` in virtual time; it finds the loop by `virtual_loop`."""
    with asyncio.Runner(loop_factory=partial(VirtualTimeLoop, speed)) as runner:
        return runner.run(main)


def virtual_loop() -> VirtualTimeLoop:
    """The running loop."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    return loop

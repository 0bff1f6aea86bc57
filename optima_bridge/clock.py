"""Wall time for events, and how far it can be trusted.

Order comes from (epoch, seq) and the monotonic clock; wall time is for people. Its quality is published with each event,
because a store PC without a battery wakes up in 1970.
"""

from __future__ import annotations

import ctypes
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

ClockQuality = Literal["synced", "unsynced", "stepped"]

SAMPLE_NS = 10_000_000_000
STEP_NS = 500_000_000
STEPPED_FOR_NS = 60_000_000_000
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised


def boot_id() -> str:
    """Random id of this boot of the kernel, or zeros where there is none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return "00000000-0000-0000-0000-000000000000"


def kernel_synced() -> bool:
    """Whether the kernel believes that its clock is disciplined (adjtimex(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    timex = ctypes.create_string_buffer(512)  # struct timex is 208 bytes on 64-bit Linux; modes 0 only reads
    state: int = libc.adjtimex(timex)
    return state not in (-1, TIME_ERROR)


class Clock:
    """Wall time, monotonic time and clock quality, cheap enough for every event."""

    def __init__(self) -> None:
        self.boot = boot_id()
        self._millisecond = -1
        self._text = ""
        self._sampled_ns = -SAMPLE_NS
        self._synced = False
        self._offset_ns = time.time_ns() - time.monotonic_ns()
        self._stepped_ns = -STEPPED_FOR_NS

    def now(self) -> tuple[int, int]:
        """(wall, monotonic) nanoseconds of this moment."""
        mono_ns = time.monotonic_ns()
        wall_ns = time.time_ns()
        offset_ns = wall_ns - mono_ns
        if abs(offset_ns - self._offset_ns) > STEP_NS:
            self._stepped_ns = mono_ns
        self._offset_ns = offset_ns
        return wall_ns, mono_ns

    def quality(self, mono_ns: int) -> ClockQuality:
        """How far the wall time of this moment can be trusted."""
        if mono_ns - self._stepped_ns < STEPPED_FOR_NS:
            return "stepped"
        if mono_ns - self._sampled_ns >= SAMPLE_NS:
            self._sampled_ns = mono_ns
            self._synced = kernel_synced()
        return "synced" if self._synced else "unsynced"

    def rfc3339(self, wall_ns: int) -> str:
        """``2026-11-22T11:32:42.238Z``: UTC, milliseconds."""
        millisecond = wall_ns // 1_000_000
        if millisecond != self._millisecond:
            second, rest = divmod(millisecond, 1000)
            if second != self._millisecond // 1000 or not self._text:
                self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S.")
            self._millisecond = millisecond
            self._text = f"{self._text[:20]}{rest:03d}Z"
        return self._text

"""Modem lines: four inputs and two outputs beside a serial port's bytes, enough to read switches with.

    RTS or DTR ──► contact ──► CTS, DSR, DCD or RI        RS-232 levels; an open contact reads as off

A poll sees the level only; where the port counts edges, a pulse shorter than the poll shows in the counters. They count
each edge of CTS, DSR and DCD; of RI some count trailing edges only, so a count tells *that*, not how often.
Source: Linux, tty_ioctl(4), ioctl_tty(2), include/uapi/linux/serial.h (struct serial_icounter_struct).
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import struct
import termios
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Protocol, TypeVar

import msgspec

from optima_bridge.beat import next_beat_ns
from optima_bridge.link.base import Link

TIOCGICOUNT = 0x545D  # not in the termios module
ICOUNT_SIZE_BYTES = 80  # 20 ints

T = TypeVar("T")


class Line(StrEnum):
    """An input."""

    CTS = "cts"
    DSR = "dsr"
    DCD = "dcd"
    RI = "ri"


class Sample(msgspec.Struct, frozen=True):
    """The inputs at one moment.

    Attributes:
        on: those that are on.
        edges: how often each has changed since some moment in the past, modulo anything; None: the port does not count.
    """

    on: frozenset[Line]
    edges: Mapping[Line, int] | None = None


class ModemLines(Link, Protocol):
    """A link with modem lines. Both outputs are on when it is opened."""

    async def read_lines(self) -> Sample:
        """The inputs now.

        Raises:
            LinkError: this port has no such lines (a pty).
            LinkLost: the device is gone.
        """

    async def lines_moved(self, since: Sample, timeout_s: float, interval_s: float) -> None:
        """Wait until a poll, one each `interval_s`, finds the inputs or their counters unlike `since`; at most `timeout_s`.

        Raises as read_lines.
        """

    async def set_outputs(self, *, dtr: bool, rts: bool) -> None:
        """Switch the outputs; returns when they are. Raises as read_lines, and LinkTimeout."""


BITS = {
    Line.CTS: termios.TIOCM_CTS,
    Line.DSR: termios.TIOCM_DSR,
    Line.DCD: termios.TIOCM_CAR,
    Line.RI: termios.TIOCM_RNG,
}


class PortLines:
    """The lines of an open tty. Not for a pty, which has none: there every call is an OSError, ENOTTY.

    They are asked on a thread of their own: the kernel asks some USB serial adapters each time, which takes 1 ms, and up to
    5 s where the adapter hangs (ftdi_sio.c, cp210x.c). While nothing moves, the event loop sleeps.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._counts = True
        self._owner: ThreadPoolExecutor | None = None  # most ports are never asked
        self._enough = threading.Event()

    async def read(self) -> Sample:
        """The inputs now. Raises OSError."""
        return await self._call(self._read)

    async def moved(self, since: Sample, timeout_s: float, interval_s: float) -> None:
        """As `ModemLines.lines_moved`. Raises OSError."""
        enough = self._enough = threading.Event()

        def poll() -> None:
            end_s = time.monotonic() + timeout_s
            interval_ms = round(interval_s * 1000)
            while (now_ns := time.monotonic_ns()) < end_s * 1e9 and not enough.is_set() and self._read() == since:
                enough.wait((next_beat_ns(now_ns, interval_ms) - now_ns) / 1e9)

        try:
            await self._call(poll)
        finally:
            enough.set()

    async def set_outputs(self, *, dtr: bool, rts: bool) -> None:
        """Switch the outputs. Raises OSError."""
        on = termios.TIOCM_DTR * dtr | termios.TIOCM_RTS * rts
        off = (termios.TIOCM_DTR | termios.TIOCM_RTS) & ~on
        await self._call(lambda: self._set(on, off))

    def close(self, close_port: Callable[[], None]) -> None:
        """Close the port, after what the thread is doing with it."""
        self._enough.set()
        if self._owner is None:
            close_port()
        else:
            self._owner.submit(close_port)
            self._owner.shutdown(wait=False)

    async def _call(self, function: Callable[[], T]) -> T:
        self._owner = self._owner or ThreadPoolExecutor(1, "lines")
        return await asyncio.get_running_loop().run_in_executor(self._owner, function)

    def _read(self) -> Sample:
        # The counters first: an edge between the two shows in the level now or in the next counters, never in neither.
        edges = self._edges() if self._counts else None
        (level,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.TIOCMGET, bytes(4)))
        return Sample(frozenset(line for line, bit in BITS.items() if level & bit), edges)

    def _edges(self) -> Mapping[Line, int] | None:
        try:
            counters = fcntl.ioctl(self._fd, TIOCGICOUNT, bytes(ICOUNT_SIZE_BYTES))
        except OSError as error:
            if error.errno not in (errno.ENOTTY, errno.EINVAL):
                raise
            self._counts = False
            return None
        cts, dsr, ri, dcd = struct.unpack_from("4i", counters)
        return {Line.CTS: cts, Line.DSR: dsr, Line.DCD: dcd, Line.RI: ri}

    def _set(self, on: int, off: int) -> None:
        for request, bits in ((termios.TIOCMBIS, on), (termios.TIOCMBIC, off)):
            if bits:
                fcntl.ioctl(self._fd, request, struct.pack("i", bits))

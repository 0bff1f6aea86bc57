"""Links that carry records, each whole and by itself, and what those on a file descriptor have in common: read on its readiness."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from optima_bridge.errors import LinkError, LinkLost, LinkTimeout
from optima_bridge.link.base import Link, why_not_opened
from optima_bridge.model import DeviceIdentity

MAX_READ_BYTES = 4096
MAX_WAITING_RECORDS = 1024  # the kernel keeps fewer
TEXT_BYTES = 256
UNNAMED = DeviceIdentity()
RULES = {"evdev": 'SUBSYSTEM=="input", KERNEL=="event*"', "hidraw": 'SUBSYSTEM=="hidraw"'}
"""What a udev rule matches nodes by, beside the ids of the device."""
UNIT_WORDS = {"evdev": "char-input", "hidraw": "char-hidraw"}
"""How systemd calls them."""


class RecordLink(Link, Protocol):
    """An open device that says one record at a time. Exactly one task uses it; cancelling a read loses no record."""

    @property
    def identity(self) -> DeviceIdentity:
        """Who the device says it is."""

    async def read(self, timeout_s: float | None = None) -> bytes:
        """Wait for the next record.

        Raises:
            LinkTimeout: none came in time.
            LinkLost: the device is gone.
        """

    def discard_input(self) -> int:
        """Drop records that came and were not read, for they are late; returns how many.

        Raises:
            LinkLost: the device is gone.
        """


class InputLink(RecordLink, Protocol):
    """An input device; a record is a packet (`optima_bridge.wire.evdev`)."""

    def grab(self) -> None:
        """Take the device from every other program on this PC, until close(). On a keyboard nobody can type then.

        Raises:
            LinkBusy: another program has taken it.
            LinkLost: the device is gone.
        """


class ReportLink(RecordLink, Protocol):
    """A HID device; a record is an input report (`optima_bridge.wire.hid`)."""

    @property
    def descriptor(self) -> bytes:
        """Its report descriptor."""

    async def ask(self, report_id: int, size_bytes: int) -> bytes | None:
        """The input report as it would be now; None where the device does not tell.

        Args:
            report_id: 0 where the device has no ids.
            size_bytes: of the report, the id not counted.

        Raises:
            LinkLost: the device is gone.
        """


class FdLink:
    """A device node that gives one record, or some, to each read(2)."""

    def __init__(self, fd: int, name: str, identity: DeviceIdentity = UNNAMED) -> None:
        self.identity = identity
        self._fd = fd
        self._name = name
        self._error: LinkLost | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        os.set_blocking(fd, False)

    @property
    def name(self) -> str:
        return self._name

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    async def read(self, timeout_s: float | None = None) -> bytes:
        if self._error:
            await asyncio.sleep(0)  # who reads on regardless can still be cancelled, and holds up nobody
        try:
            async with asyncio.timeout(timeout_s):
                while (record := self._next()) is None:
                    await self._readable()
        except TimeoutError as error:
            if (record := self._next()) is None:  # where both happened, a record is no silence
                raise LinkTimeout(f"{self._name}: nothing came within {timeout_s} s") from error
        return record

    def discard_input(self) -> int:
        for dropped in range(MAX_WAITING_RECORDS):  # bounded: a flood must not hold the loop
            if self._next() is None:
                return dropped
        return MAX_WAITING_RECORDS

    def close(self) -> None:
        if self._fd >= 0:
            self._error = self._error or LinkLost(f"{self._name} was closed")
            self._wake()
            os.close(self._fd)
            self._fd = -1

    def _next(self) -> bytes | None:
        """The next record, None while there is none."""
        return self._read()

    def _read(self) -> bytes | None:
        """What the kernel has, None while it has nothing."""
        if self._error:
            raise self._error
        try:
            chunk = os.read(self._fd, MAX_READ_BYTES)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lose(error) from error
        if not chunk:
            raise self._lose(None)
        return chunk

    async def _readable(self) -> None:
        waiter = self._waiter = self._loop.create_future()
        self._loop.add_reader(self._fd, self._wake)
        try:
            await waiter
        finally:
            self._stop_waiting()

    def _wake(self) -> None:
        """The kernel has something, or the link was closed."""
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._waiter:
            self._waiter = None
            self._loop.remove_reader(self._fd)

    def _lose(self, error: OSError | None) -> LinkLost:
        reason = error.strerror if error else "end of file"
        self._error = LinkLost(f"{self._name} went away ({reason})", port=self._name)
        return self._error


@contextmanager
def opening(port: str, kind: str) -> Iterator[int]:
    """A file descriptor of the node that `port` names, for reading and asking only; closed again where it is not `kind`.

    Raises:
        LinkNotFound, LinkPermission, LinkError: why there is none.
    """
    scheme, _, path = port.partition(":")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        raise _way_in(scheme, error.errno, why_not_opened(path, error.errno, str(error))) from error
    try:
        yield fd
    except OSError as error:
        os.close(fd)
        raise LinkError(
            f"{path} is not {kind}",
            cause="the path in the configuration is a file or another kind of device",
            next_step="correct the path in the configuration",
            port=path,
        ) from error


def _way_in(scheme: str, number: int | None, error: LinkError) -> LinkError:
    """`error`; where the node may not be opened, with what lets the service do it: drivers of such nodes declare no ids."""
    if number == errno.EPERM:  # by its mode it would be EACCES
        error.cause = "the service's unit allows serial ports and USB devices only"
        error.next_step = (
            f"systemctl edit optima-bridge, with the line DeviceAllow={UNIT_WORDS[scheme]} r under [Service]"
        )
    elif number == errno.EACCES:
        error.cause = "a udev rule must give the device to the service's group"
        error.next_step = (
            f"write into /etc/udev/rules.d/60-optima-keylock.rules, with the two ids that lsusb shows: {RULES[scheme]}, "
            'ATTRS{idVendor}=="XXXX", ATTRS{idProduct}=="XXXX", GROUP="optima-bridge", MODE="0640" and plug it in again'
        )
    return error


def ask_text(fd: int, kind: str, number: int, *, needed: bool = True) -> str:
    """The text that a driver gives for this ioctl; empty where it has none and none is `needed`."""
    buffer = bytearray(TEXT_BYTES)
    try:
        fcntl.ioctl(fd, ioc_read(kind, number, TEXT_BYTES), buffer)
    except OSError:
        if needed:
            raise
    return buffer.partition(b"\0")[0].decode("utf-8", "replace").strip()


def ioc_read(kind: str, number: int, size_bytes: int) -> int:
    """The ioctl request by which a driver gives `size_bytes` (asm-generic/ioctl.h: _IOR)."""
    return 2 << 30 | size_bytes << 16 | ord(kind) << 8 | number


def ioc_write(kind: str, number: int, size_bytes: int) -> int:
    """The ioctl request by which a driver takes `size_bytes` (asm-generic/ioctl.h: _IOW)."""
    return 1 << 30 | size_bytes << 16 | ord(kind) << 8 | number

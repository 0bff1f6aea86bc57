"""Simulated devices on pseudo-terminals: what a program opens is a real tty, what answers is an object in this process."""

from __future__ import annotations

import asyncio
import os
import tty
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

MAX_READ_BYTES = 4096
MAX_WAITING_BYTES = 65536
BITS_PER_CHARACTER = 10  # 8N1


class ByteDevice(Protocol):
    """A simulated device, sans-io."""

    def receive(self, data: bytes) -> bytes:
        """Take what the host wrote, split or glued as it came; return the answer, often empty."""


class PtyServer:
    """Serves one device on one pty while the ``async with`` block runs.

    A pty has no speed and no break: both ends see bytes at once unless `baud` paces them.

    Args:
        device: answers what is written to the pty.
        symlink: stable path for clients, like those in ``/dev/serial/by-id``; it goes with unplug() and comes back with
            replug(). None: `path` is the pty itself, another one after each replug().
        baud: let one character of 10 bits pass each way per character time; None: as fast as they come.

    Attributes:
        lost_bytes: what nobody read in time, beyond the kernel's buffer and 64 KiB of our own; a UART loses them too.
    """

    def __init__(self, device: ByteDevice, *, symlink: Path | None = None, baud: int | None = None) -> None:
        self._device = device
        self._symlink = symlink
        self._character_s = BITS_PER_CHARACTER / baud if baud else 0.0
        self._master = self._slave = -1
        self._pty = ""
        self._incoming = bytearray()
        self._outgoing = bytearray()
        self._timer: asyncio.TimerHandle | None = None
        self.lost_bytes = 0

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self.replug()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.unplug()

    @property
    def path(self) -> str:
        """What a client opens."""
        return str(self._symlink or self._pty)

    @property
    def plugged(self) -> bool:
        return self._master >= 0

    def send(self, data: bytes) -> None:
        """Let bytes arrive at the host that it did not ask for. Nothing happens while unplugged."""
        if not self.plugged:
            return
        self._outgoing += data
        excess = len(self._outgoing) - MAX_WAITING_BYTES
        if excess > 0:
            self.lost_bytes += excess
            del self._outgoing[-excess:]
        if self._character_s:
            self._start_timer()
        else:
            self._write(len(self._outgoing))

    def unplug(self) -> None:
        """Take the port away: clients see a hang-up, the path is gone. Safe to call twice."""
        if not self.plugged:
            return
        if self._timer:
            self._timer.cancel()
            self._timer = None
        self._loop.remove_reader(self._master)
        self._loop.remove_writer(self._master)
        os.close(self._master)
        os.close(self._slave)
        self._master = self._slave = -1
        self._incoming.clear()
        self._outgoing.clear()
        if self._symlink:
            self._symlink.unlink(missing_ok=True)

    def replug(self) -> None:
        """Bring the port back: another pty under the same symlink. Safe to call twice."""
        if self.plugged:
            return
        # Our own slave descriptor keeps the master readable between two clients.
        self._master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self._master, False)
        self._pty = os.ttyname(self._slave)
        if self._symlink:
            self._symlink.unlink(missing_ok=True)
            self._symlink.symlink_to(self._pty)
        self._loop.add_reader(self._master, self._readable)

    def _readable(self) -> None:
        data = os.read(self._master, MAX_READ_BYTES)
        if self._character_s:
            self._incoming += data
            self._start_timer()
        elif answer := self._device.receive(data):
            self.send(answer)

    def _start_timer(self) -> None:
        if not self._timer:
            self._timer = self._loop.call_later(self._character_s, self._character_passed)

    def _character_passed(self) -> None:
        self._timer = None
        if self._incoming:
            self._outgoing += self._device.receive(bytes([self._incoming.pop(0)]))
        self._write(1)
        if self.plugged and (self._incoming or self._outgoing):
            self._start_timer()

    def _write(self, size_bytes: int) -> None:
        try:
            sent = os.write(self._master, self._outgoing[:size_bytes])
        except BlockingIOError:
            sent = 0
        del self._outgoing[:sent]
        if self._character_s:
            return  # the next character time tries again
        if self._outgoing:
            self._loop.add_writer(self._master, self._writable)
        else:
            self._loop.remove_writer(self._master)

    def _writable(self) -> None:
        self._write(len(self._outgoing))

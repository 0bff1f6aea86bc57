"""Serial ports behind a terminal server (RFC 2217: ser2net, Moxa and others) through pyserial: bytes and modem lines.

pyserial's client blocks: a thread of ours owns it for opening, writing and closing. What arrives is taken in by a thread of
pyserial's own, lies ready, and wakes who waits. Lines change by notification (RFC 2217, NOTIFY-MODEMSTATE):

    FF FA 2C 6B state FF F0     state: CD 80, RI 40, DSR 20, CTS 10; changed: CD 08, RI 04 (trailing edge), DSR 02, CTS 01

Nothing here is encrypted or authenticated: whoever reaches the server's network can open the port and answer for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import serial
from serial import rfc2217

from optima_bridge.errors import LinkError, LinkLost, LinkNotFound, LinkTimeout
from optima_bridge.link.base import SerialFormat
from optima_bridge.link.lines import Line, Sample

MAX_READ_BYTES = 4096
MAX_BUFFER_BYTES = 65536
FLOOD_BYTES = 1 << 20
LOOK_S = 0.005
BREAK_S = 0.002
FIRST_STATE_S = 1.0  # a server that notifies at all does so at once
KEEPALIVE = ((socket.TCP_KEEPIDLE, 3), (socket.TCP_KEEPINTVL, 2), (socket.TCP_KEEPCNT, 3))  # a dead server shows in 9 s

STATE = {Line.CTS: 0x10, Line.DSR: 0x20, Line.RI: 0x40, Line.DCD: 0x80}
CHANGED = {Line.CTS: 0x01, Line.DSR: 0x02, Line.RI: 0x04, Line.DCD: 0x08}
NOTIFICATION = rfc2217.COM_PORT_OPTION + rfc2217.SERVER_NOTIFY_MODEMSTATE

_is_address = re.compile(r"rfc2217://(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]):[0-9]{1,5}").fullmatch
T = TypeVar("T")


class _Port(rfc2217.Serial):
    """pyserial's client, with what it keeps to itself: each notification, and the socket, for TCP keepalive.

    Stands on four names inside of pyserial; tests/pty/test_rfc2217_link.py notices when they are gone.

    Attributes:
        sample: the lines as last notified; None: never yet.
        on_news: called on pyserial's thread when anything has come: bytes, a notification, the end.
    """

    _socket: socket.socket | None

    def __init__(self, on_news: Callable[[], None]) -> None:
        self.sample: Sample | None = None
        self.on_news = on_news
        self._buffer: queue.Queue[bytes | None] | None = None
        super().__init__()

    @property
    def _read_buffer(self) -> queue.Queue[bytes | None] | None:
        return self._buffer

    @_read_buffer.setter
    def _read_buffer(self, buffer: queue.Queue[bytes | None] | None) -> None:
        """Have pyserial's own buffer tell when something is put into it."""
        self._buffer = None if buffer is None else _Telling(self.on_news)

    def open(self) -> None:
        super().open()
        assert self._socket is not None
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE:
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        deadline_s = time.monotonic() + FIRST_STATE_S
        while self.sample is None and time.monotonic() < deadline_s:
            time.sleep(LOOK_S)

    def close(self) -> None:
        connection = self._socket
        super().close()
        if connection is not None:  # pyserial leaves it open where the server was faster
            connection.close()

    def _telnet_process_subnegotiation(self, suboption: bytes) -> None:
        super()._telnet_process_subnegotiation(suboption)  # type: ignore[misc]
        if suboption[:2] == NOTIFICATION and len(suboption) > len(NOTIFICATION):
            self.sample = notified(self.sample, suboption[2])
            self.on_news()


class _Telling(queue.Queue[bytes | None]):
    def __init__(self, on_news: Callable[[], None]) -> None:
        super().__init__()
        self._on_news = on_news

    def put(self, item: bytes | None, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        self._on_news()


def notified(before: Sample | None, state: int) -> Sample:
    """The lines after a notification. A line that is what it was and yet has changed went there and back: two edges."""
    on = frozenset(line for line, bit in STATE.items() if state & bit)
    if before is None:
        return Sample(on, dict.fromkeys(Line, 0))
    edges = dict(before.edges or {})
    for line in Line:
        if (line in on) != (line in before.on):
            edges[line] += 1
        elif state & CHANGED[line]:
            edges[line] += 2
    return Sample(on, edges)


class Rfc2217Link:
    """An open port of a terminal server, 8N1 raw, DTR and RTS asserted."""

    def __init__(self) -> None:
        self._port = _Port(self._on_news)
        self._owner = ThreadPoolExecutor(1, "rfc2217")
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._is_told = False  # that there is news: one call into the loop is enough for all of it
        self._buffer = bytearray()
        self._error: LinkLost | None = None
        self._closed = False

    @classmethod
    async def open(cls, url: str, serial_format: SerialFormat) -> Rfc2217Link:
        """Connect to the server and have it open its port.

        Raises:
            LinkNotFound: nobody listens there, or `url` is no address.
            LinkError: somebody does, who does not speak RFC 2217 or refuses.
        """
        if not _is_address(url):
            raise LinkNotFound(f"{url!r} is not a port", cause="it must be rfc2217://HOST:PORT", port=url)
        link = cls()
        port = link._port
        port.port, port.baudrate, port.stopbits, port.timeout = url, serial_format.baud, serial_format.stop_bits, 0
        try:
            await link._call(port.open)
        except (serial.SerialException, ValueError, OSError) as error:
            link.close()
            if "Could not open" in str(error):
                raise LinkNotFound(
                    f"{url} cannot be reached: {error}",
                    cause="the terminal server is off, or host and port are not right",
                    next_step="check the address in the configuration, and the server's power and network",
                    port=url,
                ) from error
            raise LinkError(
                f"{url} cannot be opened: {error}",
                cause="the terminal server does not speak RFC 2217 on this port, or serves somebody else",
                next_step="set this port of the server to RFC 2217 (telnet with COM port control)",
                port=url,
            ) from error
        except asyncio.CancelledError:
            link.close()
            raise
        return link

    @property
    def name(self) -> str:
        return str(self._port.port)

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    async def read(self, timeout_s: float | None = None) -> bytes:
        if self._error:
            await asyncio.sleep(0)  # who reads on regardless can still be cancelled, and holds up nobody
        try:
            async with asyncio.timeout(timeout_s):
                while not self._take_in():
                    await self._news.wait()
        except TimeoutError as error:
            raise LinkTimeout(f"{self.name}: nothing came within {timeout_s} s") from error
        chunk = bytes(self._buffer[:MAX_READ_BYTES])
        del self._buffer[:MAX_READ_BYTES]
        return chunk

    async def write(self, data: bytes) -> None:
        self._take_in()
        await self._ask(lambda: self._port.write(data))

    def discard_input(self) -> int:
        dropped = self._take_in()
        self._buffer.clear()
        return dropped

    async def send_break(self) -> None:
        self._take_in()
        await self._ask(lambda: self._port.send_break(BREAK_S))

    async def read_lines(self) -> Sample:
        self._take_in()
        if (sample := self._port.sample) is None:
            raise LinkError(
                f"{self.name}: the terminal server says nothing of the modem lines",
                cause="notification of modem state is switched off in it, or not implemented",
                next_step="switch it on in the server's settings for this port",
                port=self.name,
            )
        return sample

    async def lines_moved(self, since: Sample, timeout_s: float, interval_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while await self.read_lines() == since:
                    await self._news.wait()

    async def set_outputs(self, *, dtr: bool, rts: bool) -> None:
        def switch() -> None:
            if self._port.dtr != dtr:  # each takes the server's confirmation, 50 ms at the least
                self._port.dtr = dtr
            if self._port.rts != rts:
                self._port.rts = rts

        self._take_in()
        await self._ask(switch)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._news.set()
            self._error = self._error or LinkLost(f"{self.name} was closed")
            self._owner.submit(self._port.close)
            self._owner.shutdown(wait=False)

    def _take_in(self) -> int:
        """Fetch what has arrived; returns how many bytes wait. Raises LinkLost once the server is gone."""
        self._news.clear()
        self._is_told = False
        if self._error:
            raise self._error
        try:
            if (waiting := self._port.in_waiting) > FLOOD_BYTES:
                raise self._lose("it sends faster than any serial port")
            for _ in range(min(waiting, MAX_READ_BYTES)):  # a flood must not hold the loop
                byte = self._port.read(1)
                if not byte:
                    raise self._lose("it closed the connection")
                if len(self._buffer) < MAX_BUFFER_BYTES:  # nobody reads: as a UART without flow control
                    self._buffer += byte
        except serial.SerialException as error:
            raise self._lose(str(error)) from error
        return len(self._buffer)

    def _on_news(self) -> None:
        if not self._is_told:
            self._is_told = True
            with contextlib.suppress(RuntimeError):  # the loop has ended before the port
                self._loop.call_soon_threadsafe(self._news.set)

    async def _ask(self, function: Callable[[], T]) -> T:
        """Have the thread do it, with its errors as ours."""
        try:
            return await self._call(function)
        except serial.SerialException as error:
            if "timeout" in str(error):
                raise LinkTimeout(f"{self.name}: the terminal server did not confirm: {error}") from error
            raise self._lose(str(error)) from error
        except OSError as error:
            raise self._lose(str(error)) from error

    async def _call(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._owner, function)

    def _lose(self, reason: str) -> LinkLost:
        if self._error is None:
            self._error = LinkLost(
                f"{self.name} went away ({reason})",
                cause="the terminal server or the network between lost its power",
                next_step="check the server and its network; the daemon connects again by itself",
                port=self.name,
            )
        return self._error

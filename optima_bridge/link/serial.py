"""Serial ports through pyserial, read on readiness of their file descriptor: no thread, no polling, nothing when idle."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import termios
import time
from pathlib import Path

import serial

from optima_bridge.beat import shared_timers
from optima_bridge.errors import LinkBusy, LinkError, LinkLost, LinkTimeout
from optima_bridge.link.base import SerialFormat, why_not_opened
from optima_bridge.link.lines import PortLines, Sample

MAX_READ_BYTES = 4096
MAX_BUFFER_BYTES = 65536
WRITE_TIMEOUT_S = 1.0
BREAK_S = 0.002  # two characters at 9600 baud


class SerialLink:
    """An open serial port, exclusively ours (TIOCEXCL and a lock), 8N1 raw, DTR and RTS asserted."""

    def __init__(self, port: serial.Serial) -> None:
        self._port = port
        self.name = str(port.port)
        self._fd: int = port.fileno()
        self._lines = PortLines(self._fd)
        self._buffer = bytearray()
        self._error: LinkLost | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._timers = shared_timers()
        os.set_blocking(self._fd, False)
        self._loop.add_reader(self._fd, self._readable)

    @classmethod
    def open(cls, path: str, serial_format: SerialFormat) -> SerialLink:
        """Open `path` and drop what it held before: bytes from before the opening are late.

        Raises:
            LinkNotFound, LinkPermission, LinkBusy, LinkError: with the holder's pid and program where they can be seen.
        """
        try:
            port = serial.Serial(
                path,
                serial_format.baud,
                stopbits=serial_format.stop_bits,
                timeout=0,
                write_timeout=0,
                inter_byte_timeout=0,  # VMIN 1: with nothing to read EAGAIN, not the end of file of a lost port
                exclusive=True,
            )
            if not _is_pty(port.fileno()):
                fcntl.ioctl(port.fileno(), termios.TIOCEXCL)  # pyserial only locks the file, which others need not ask
        except (serial.SerialException, OSError, ValueError) as error:
            raise _explain(path, error) from error
        return cls(port)

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    async def read(self, timeout_s: float | None = None) -> bytes:
        if not self._buffer:
            if self._error:
                await asyncio.sleep(0)  # who reads on regardless can still be cancelled, and holds up nobody
                raise self._error
            waiter = self._waiter = self._loop.create_future()
            due_ms = None if timeout_s is None else self._timers.add(waiter, timeout_s)
            try:
                await waiter
            finally:
                self._waiter = None
                if due_ms is not None:
                    self._timers.drop(waiter, due_ms)
            if not self._buffer:
                if self._error:
                    raise self._error
                raise LinkTimeout(f"{self.name}: nothing came within {timeout_s} s")
        if len(self._buffer) <= MAX_READ_BYTES:
            chunk = bytes(self._buffer)
            self._buffer.clear()
        else:
            chunk = bytes(self._buffer[:MAX_READ_BYTES])
            del self._buffer[:MAX_READ_BYTES]
        if self._paused:
            self._resume()
        return chunk

    async def write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            if self._error:
                raise self._error
            try:
                rest = rest[os.write(self._fd, rest) :]
            except BlockingIOError:
                await self._writable()
            except OSError as error:
                raise self._lose(error) from error

    def discard_input(self) -> int:
        if self._error:
            raise self._error
        dropped = len(self._buffer)
        self._buffer.clear()
        try:
            for _ in range(MAX_BUFFER_BYTES // MAX_READ_BYTES):  # bounded: a flood must not hold the loop
                chunk = os.read(self._fd, MAX_READ_BYTES)
                if not chunk:
                    raise self._lose(None)
                dropped += len(chunk)
        except BlockingIOError:
            pass  # that was all
        except OSError as error:
            raise self._lose(error) from error
        if self._paused:
            self._resume()
        return dropped

    async def send_break(self) -> None:
        if self._error:
            raise self._error
        try:
            self._port.break_condition = True
            try:
                await asyncio.sleep(BREAK_S)
            finally:  # a cancelled caller must not leave the line held
                self._port.break_condition = False
        except OSError as error:
            if error.errno in (errno.ENOTTY, errno.EINVAL):
                return  # a pty has no line to hold
            raise self._lose(error) from error

    async def read_lines(self) -> Sample:
        if self._error:
            raise self._error
        try:
            return await self._lines.read()
        except OSError as error:
            raise self._no_lines(error) from error

    async def lines_moved(self, since: Sample, timeout_s: float, interval_s: float) -> None:
        if self._error:
            raise self._error
        try:
            await self._lines.moved(since, timeout_s, interval_s)
        except OSError as error:
            raise self._no_lines(error) from error

    async def set_outputs(self, *, dtr: bool, rts: bool) -> None:
        if self._error:
            raise self._error
        try:
            await self._lines.set_outputs(dtr=dtr, rts=rts)
        except OSError as error:
            raise self._no_lines(error) from error

    def close(self) -> None:
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            self._loop.remove_writer(self._fd)
            self._fd = -1
            self._error = self._error or LinkLost(f"{self.name} was closed")
            self._wake()
            self._lines.close(self._close_port)

    def _close_port(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self._port.close()

    def _readable(self) -> None:
        try:
            chunk = os.read(self._fd, MAX_READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            self._lose(error)
            return
        if not chunk:
            self._lose(None)
            return
        self._buffer += chunk
        if len(self._buffer) > MAX_BUFFER_BYTES - MAX_READ_BYTES:  # the driver is behind: let the kernel hold the rest
            self._paused = True
            self._loop.remove_reader(self._fd)
        self._wake()

    def _resume(self) -> None:
        if len(self._buffer) < MAX_BUFFER_BYTES // 2 and not self._error:
            self._paused = False
            self._loop.add_reader(self._fd, self._readable)

    async def _writable(self) -> None:
        writable = self._loop.create_future()
        self._loop.add_writer(self._fd, _wake, writable)
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await writable
        except TimeoutError as error:
            raise LinkTimeout(f"{self.name} took no bytes for {WRITE_TIMEOUT_S} s") from error
        finally:
            if self._fd >= 0:
                self._loop.remove_writer(self._fd)

    def _no_lines(self, error: OSError) -> LinkError:
        if error.errno not in (errno.ENOTTY, errno.EINVAL):
            return self._lose(error)
        return LinkError(
            f"{self.name} has no modem lines",
            cause="it is a pseudo-terminal, or an adapter whose driver cannot read CTS, DSR, DCD and RI",
            next_step="use another port; see which ports there are: bridge devices list --all",
            port=self.name,
        )

    def _lose(self, error: OSError | None) -> LinkLost:
        if self._error is None:
            reason = error.strerror if error else "end of file"
            self._error = LinkLost(f"{self.name} went away ({reason})", port=self.name)
            if self._fd >= 0:
                self._loop.remove_reader(self._fd)
            self._wake()
        return self._error

    def _wake(self) -> None:
        if self._waiter:
            _wake(self._waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


def _is_pty(fd: int) -> bool:
    """Whether this is a simulated port: a pty keeps TIOCEXCL while its other end is open, beyond our death."""
    return os.major(os.fstat(fd).st_rdev) in range(136, 144)  # Linux: Unix98 pty slaves (devices.txt)


def _explain(path: str, error: Exception) -> LinkError:
    number = getattr(error, "errno", None)
    if number is None and isinstance(error.__context__, termios.error):
        number = error.__context__.args[0]  # pyserial keeps it only in its text
    text = str(error)
    if "exclusively lock" in text:
        number = errno.EBUSY
    if number == errno.ENOTTY:
        return LinkError(
            f"{path} is not a serial port",
            cause="the path in the configuration is a file or another kind of device",
            next_step="correct the path; see which ports there are: bridge devices list --all",
            port=path,
        )
    return why_not_opened(path, number, text)


def name_holder(path: str, error: LinkBusy) -> LinkBusy:
    """`error` again, with the holder's pid and program in it where they can be seen. Walks /proc: call it in a thread."""
    holder = find_holder(path)
    if holder is None:
        return error
    pid, program = holder
    return LinkBusy(
        f"{path} is held by pid {pid} ({program})",
        next_step=f"stop {program} (pid {pid}), or keep it away from this port",
        port=path,
        holder={"pid": pid, "program": program},
    )


def find_holder(path: str) -> tuple[int, str] | None:
    """Pid and program name of another process that has `path` open; None where none can be seen.

    Other users' processes can only be seen by root (proc(5), /proc/pid/fd).
    """
    try:
        wanted = Path(path).stat()
    except OSError:
        return None
    own = os.getpid()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == own:
            continue
        try:
            if any(_same_file(fd, wanted) for fd in (process / "fd").iterdir()):
                return int(process.name), (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return None


def _same_file(fd: Path, wanted: os.stat_result) -> bool:
    try:
        return os.path.samestat(fd.stat(), wanted)
    except OSError:
        return False  # closed meanwhile

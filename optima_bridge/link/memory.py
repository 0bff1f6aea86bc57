"""A link without hardware: two ends joined in memory, with faults to order. Backs contract tests and simulators.

The *peer* is the device's end: a test or a simulator holds it, `feed`s bytes to the driver, sees what the driver wrote,
and pulls the plug.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from optima_bridge.errors import LinkBusy, LinkLost, LinkNotFound, LinkTimeout
from optima_bridge.link.lines import Line, Sample

MAX_READ_BYTES = 4096
_named: dict[str, MemoryLink] = {}


class MemoryPeer:
    """The device's end of a memory link.

    Attributes:
        on_write: called with each write of the driver; a simulator answers by `feed`.
        on_break: called when the driver sends a break.
        on_outputs: called with DTR and RTS when the driver switches them.
        counts_edges: whether the port counts the edges of its inputs.
        written: everything the driver has written, for tests.
    """

    def __init__(self) -> None:
        self.on_write: Callable[[bytes], None] | None = None
        self.on_break: Callable[[], None] | None = None
        self.on_outputs: Callable[[bool, bool], None] | None = None
        self.counts_edges = True
        self.written = bytearray()
        self._on: frozenset[Line] = frozenset()
        self._edges = dict.fromkeys(Line, 0)
        self._link: MemoryLink | None = None

    def set_lines(self, on: Iterable[Line]) -> None:
        """Switch the driver's inputs: these are on, the others off."""
        before, self._on = self._on, frozenset(on)
        for line in before ^ self._on:
            self._edges[line] += 1
        assert self._link is not None
        self._link._starving.clear()  # noqa: SLF001 - the two ends of one pipe

    def sample(self) -> Sample:
        """The driver's inputs now."""
        return Sample(self._on, dict(self._edges) if self.counts_edges else None)

    def feed(self, data: bytes) -> None:
        """Let `data` arrive at the driver."""
        assert self._link is not None
        self._link._arrive(data)  # noqa: SLF001 - the two ends of one pipe

    async def drained(self) -> None:
        """Wait until the driver has read everything and waits for more: a test's way to let it finish, without a sleep."""
        assert self._link is not None
        await self._link._starving.wait()  # noqa: SLF001 - the two ends of one pipe

    def unplug(self) -> None:
        """Make every use of the driver's end fail with LinkLost, the pending read too; what had arrived can be read."""
        assert self._link is not None
        self._link._lose()  # noqa: SLF001 - the two ends of one pipe


class MemoryLink:
    """The driver's end of a memory link; made by `memory_pair`."""

    def __init__(self, name: str, peer: MemoryPeer, clock_ns: Callable[[], int]) -> None:
        self._name = name
        self._peer = peer
        self._clock_ns = clock_ns
        self._buffer = bytearray()
        self._lost = False
        self._closed = False
        self._taken = False
        self._ready = asyncio.Event()
        self._starving = asyncio.Event()
        peer._link = self  # noqa: SLF001 - the two ends of one pipe

    @property
    def name(self) -> str:
        return self._name

    @property
    def closed(self) -> bool:
        """Whether close() was called."""
        return self._closed

    def clock_ns(self) -> int:
        return self._clock_ns()

    async def read(self, timeout_s: float | None = None) -> bytes:
        if not self._buffer:
            if self._closed or self._lost:
                await asyncio.sleep(0)  # who reads on regardless can still be cancelled, and holds up nobody
            self._check()
            self._ready.clear()
            self._starving.set()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._ready.wait()
            except TimeoutError as error:
                if not self._buffer:
                    raise LinkTimeout(f"{self._name}: nothing came within {timeout_s} s") from error
            finally:
                self._starving.clear()
        if not self._buffer or self._closed:
            self._check()
        chunk = bytes(self._buffer[:MAX_READ_BYTES])
        del self._buffer[:MAX_READ_BYTES]
        return chunk

    async def write(self, data: bytes) -> None:
        self._check()
        self._peer.written += data
        if self._peer.on_write:
            self._peer.on_write(data)
        await asyncio.sleep(0)

    def discard_input(self) -> int:
        self._check()
        dropped = len(self._buffer)
        self._buffer.clear()
        return dropped

    async def send_break(self) -> None:
        self._check()
        if self._peer.on_break:
            self._peer.on_break()
        await asyncio.sleep(0)

    async def read_lines(self) -> Sample:
        self._check()
        self._starving.set()
        return self._peer.sample()

    async def lines_moved(self, since: Sample, timeout_s: float, interval_s: float) -> None:
        end_ns = self.clock_ns() + int(timeout_s * 1e9)
        while (left_ns := end_ns - self.clock_ns()) > 0 and await self.read_lines() == since:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(min(interval_s, left_ns / 1e9))

    async def set_outputs(self, *, dtr: bool, rts: bool) -> None:
        self._check()
        if self._peer.on_outputs:
            self._peer.on_outputs(dtr, rts)
        await asyncio.sleep(0)

    def close(self) -> None:
        self._closed = True
        self._ready.set()

    def _check(self) -> None:
        if self._closed or self._lost:
            raise LinkLost(f"{self._name} is gone")

    def _arrive(self, data: bytes) -> None:
        if data and not self._lost:
            self._buffer += data
            self._ready.set()
            self._starving.clear()

    def _lose(self) -> None:
        self._lost = True
        self._ready.set()


def memory_pair(
    name: str = "memory:test", *, clock_ns: Callable[[], int] = time.monotonic_ns, register: bool = False
) -> tuple[MemoryLink, MemoryPeer]:
    """Make both ends. With `register`, a configured port of this name gets the driver's end when it is opened next."""
    peer = MemoryPeer()
    link = MemoryLink(name, peer, clock_ns)
    if register:
        _named[name] = link
    return link, peer


def take(name: str) -> MemoryLink:
    """The registered link of this name; it can be taken once.

    Raises:
        LinkNotFound: none was registered. LinkBusy is what a second opener gets, as on a real port.
    """
    if name not in _named:
        raise LinkNotFound(f"no memory link is registered as {name}", cause="memory: ports exist in tests only")
    link = _named[name]
    if link.closed:
        del _named[name]
        raise LinkNotFound(f"{name} was closed")
    if link._taken:  # noqa: SLF001 - this module's own
        raise LinkBusy(f"{name} is in use", holder={"pid": 0, "program": "this process"})
    link._taken = True  # noqa: SLF001 - this module's own
    return link

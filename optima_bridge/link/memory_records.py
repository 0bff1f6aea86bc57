"""Record links without hardware, for tests and simulators: what `optima_bridge.link.memory` is for byte pipes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

from optima_bridge.errors import LinkLost, LinkTimeout
from optima_bridge.link.records import UNNAMED
from optima_bridge.model import DeviceIdentity


class MemoryRecordLink:
    """The driver's end: an input device and a HID device in one; made by `memory_records`.

    Attributes:
        grabbed: whether grab() was called.
    """

    def __init__(
        self, peer: RecordPeer, identity: DeviceIdentity, descriptor: bytes, clock_ns: Callable[[], int]
    ) -> None:
        self.name = "memory:test"
        self.identity = identity
        self.descriptor = descriptor
        self.grabbed = False
        self._peer = peer
        self._clock_ns = clock_ns
        self._error: LinkLost | None = None

    def clock_ns(self) -> int:
        return self._clock_ns()

    async def read(self, timeout_s: float | None = None) -> bytes:
        waiting = self._peer.waiting
        if self._error and not waiting:
            await asyncio.sleep(0)  # who reads on regardless can still be cancelled, and holds up nobody
        while not waiting:
            self._check()
            self._peer.came.clear()
            self._peer.starving.set()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._peer.came.wait()
            except TimeoutError as error:
                if not waiting:
                    raise LinkTimeout(f"{self.name}: nothing came within {timeout_s} s") from error
            finally:
                self._peer.starving.clear()
        return waiting.popleft()

    def discard_input(self) -> int:
        self._check()
        dropped = len(self._peer.waiting)
        self._peer.waiting.clear()
        return dropped

    def grab(self) -> None:
        self._check()
        self.grabbed = True

    async def ask(self, report_id: int, size_bytes: int) -> bytes | None:
        del size_bytes
        self._check()
        await asyncio.sleep(0)
        self._check()
        return self._peer.on_ask(report_id)

    def close(self) -> None:
        self._lose("was closed")
        self._peer.waiting.clear()

    def _check(self) -> None:
        if self._error:
            raise self._error

    def _lose(self, how: str) -> None:
        self._error = self._error or LinkLost(f"{self.name} {how}")
        self._peer.came.set()


class RecordPeer:
    """The device's end.

    Attributes:
        on_ask: answers the driver's question for a report, by its id; None: not told.
    """

    def __init__(self, identity: DeviceIdentity, descriptor: bytes, clock_ns: Callable[[], int]) -> None:
        self.on_ask: Callable[[int], bytes | None] = lambda _: None
        self.waiting: deque[bytes] = deque()
        self.came = asyncio.Event()
        self.starving = asyncio.Event()
        self.link = MemoryRecordLink(self, identity, descriptor, clock_ns)

    def feed(self, record: bytes) -> None:
        """Let a record arrive at the driver."""
        self.waiting.append(record)
        self.came.set()
        self.starving.clear()

    async def drained(self) -> None:
        """Wait until the driver has read everything and waits for more."""
        await self.starving.wait()

    def unplug(self) -> None:
        """Make every use of the driver's end fail with LinkLost, the pending read too; what had arrived can be read."""
        self.link._lose("is gone")  # noqa: SLF001 - the two ends of one link


def memory_records(
    *, identity: DeviceIdentity = UNNAMED, descriptor: bytes = b"", clock_ns: Callable[[], int] = time.monotonic_ns
) -> tuple[MemoryRecordLink, RecordPeer]:
    """Make both ends."""
    peer = RecordPeer(identity, descriptor, clock_ns)
    return peer.link, peer

"""One DS2490 behind a link: bring it into a known state, ask who is on its 1-Wire line."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from optima_bridge.errors import LinkTimeout
from optima_bridge.wire.onewire import Rom
from optima_drivers.ds2490 import codec
from optima_drivers.ds2490.codec import Result, Status

if TYPE_CHECKING:
    from optima_bridge.link.usb import UsbLink  # pyusb is imported when a port is opened

TRANSFER_TIMEOUT_S = 0.2
IDLE_TIMEOUT_S = 0.5  # a search takes 13 ms for each chip
IDLE_PAUSE_S = 0.004  # between two looks at a chip that is busy
SILENT_PACKETS = 5  # without a result, of a chip at rest: it tells only what went wrong, and nothing did


class Adapter:
    """The chip.

    Args:
        counters: gets ``resets``, ``frames_good`` (searches) and ``arrivals``.
    """

    def __init__(self, link: UsbLink, counters: Counter[str]) -> None:
        self._link = link
        self._counters = counters

    async def initialise(self) -> None:
        """As after power-up, whatever another program left: a block without its data would hold everything up.

        Raises:
            LinkTimeout, TransferRefused: it does not answer, or is no DS2490.
            FrameError: as before.
            LinkLost: it is gone.
        """
        await self._link.select_alternate(codec.ALTERNATE)
        for endpoint in (codec.IN_ENDPOINT, codec.OUT_ENDPOINT, codec.STATUS_ENDPOINT):
            await self._link.clear_halt(endpoint)
        await self._control(codec.RESET_DEVICE)
        await self._done(idle_packets=1)

    async def poll(self) -> tuple[bool, frozenset[Rom]]:
        """Whether the line is shorted, and all chips on it, those in the adapter too.

        Raises:
            FrameError: poor contact, or bytes of an earlier search: worth another try at once.
            LinkTimeout, TransferRefused: the chip is in a state that only initialise() ends.
            LinkLost: it is gone.
        """
        result = await self._reset()
        if result & Result.SHORT:
            return True, frozenset()
        if result & Result.NO_PRESENCE:
            return False, frozenset()
        return False, await self._search()

    async def flush(self) -> None:
        """Drop what is left in the FIFOs. Raises as poll()."""
        await self._control(codec.FLUSH_IN)
        await self._control(codec.FLUSH_OUT)

    async def _reset(self) -> int:
        self._counters["resets"] += 1
        await self._communicate(codec.RESET_LINE, codec.REGULAR_SPEED)
        return (await self._done()).results[-1]

    async def _search(self) -> frozenset[Rom]:
        await self._link.write(codec.OUT_ENDPOINT, codec.SEARCH_START, TRANSFER_TIMEOUT_S)
        await self._communicate(codec.SEARCH_LINE, codec.search_index())
        data = b""
        if (await self._done()).waiting_bytes:
            data = await self._link.read(codec.IN_ENDPOINT, codec.IN_FIFO_SIZE_BYTES, TRANSFER_TIMEOUT_S)
        roms = codec.decode_roms(data)
        self._counters["frames_good"] += 1
        return roms

    async def _done(self, idle_packets: int = SILENT_PACKETS) -> Status:
        """Wait until the chip has done what it was told: it is idle, and its result has come, in this packet or before.

        Without waiting for the result, a packet from before the command would be taken for one from after it. A result in
        any case is what NTF asks for; where `idle_packets` in a row bring none, it is success.

        Raises:
            LinkTimeout: it does not come to an end.
        """
        results: tuple[int, ...] = ()
        at_rest = 0
        deadline_ns = self._link.clock_ns() + round(IDLE_TIMEOUT_S * 1e9)
        while self._link.clock_ns() < deadline_ns:
            packet = await self._link.read(codec.STATUS_ENDPOINT, codec.MAX_STATUS_SIZE_BYTES, TRANSFER_TIMEOUT_S)
            status = Status.from_packet(packet)
            results += status.results
            self._counters["arrivals"] += status.arrivals
            at_rest = at_rest + 1 if status.is_idle else 0
            if (at_rest and results) or at_rest >= idle_packets:
                return msgspec.structs.replace(status, results=results or (0,))
            await asyncio.sleep(IDLE_PAUSE_S)
        raise LinkTimeout(f"{self._link.name}: the chip does not come to rest", port=self._link.name)

    async def _control(self, command: int) -> None:
        await self._link.control_out(codec.CONTROL, command, 0, TRANSFER_TIMEOUT_S)

    async def _communicate(self, command: int, parameter: int) -> None:
        await self._link.control_out(codec.COMMUNICATION, command, parameter, TRANSFER_TIMEOUT_S)

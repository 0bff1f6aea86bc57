"""Keys on the probe of a DS2490 USB adapter: poll the line, decide presence, report shorts.

    reset of the line   -> 00 somebody, 01 nobody, 02 short
    search              -> all ROMs at once; the chip walks the line by itself

The adapter has a chip of family 81 on its own line: somebody always answers, so only a search tells whether a key is there.
Source: DS2490 data sheet; application note 117; Book of iButton Standards, ch. 5.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import TYPE_CHECKING, ClassVar

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError, LinkTimeout, TransferRefused
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_bridge.probe import KeyProbe, ProbeSettings
from optima_bridge.wire.onewire import Rom
from optima_drivers.ds2490.adapter import Adapter

if TYPE_CHECKING:
    from optima_bridge.link.usb import UsbLink  # pyusb is imported when a port is opened

MAX_READS = 5  # of one poll, while the answers are damaged
NS_PER_S = 1_000_000_000


class Ds2490Settings(ProbeSettings):
    """Configuration keys of a ``ds2490`` device."""


class Ds2490Driver:
    """A key reader: one probe on a DS9490R."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="ds2490",
        summary="iButton keys on a DS2490 USB adapter (DS9490R, DS9490B)",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.KEY_READER}),
        schemes=frozenset({"usb"}),
        integrity="crc8",
        spec="DS2490 data sheet; application note 117; Book of iButton Standards ch. 5",
        usb_ids=((0x04FA, 0x2490),),
    )
    Settings: ClassVar[type[DriverSettings]] = Ds2490Settings

    def __init__(self, link: UsbLink, settings: Ds2490Settings) -> None:
        self._link = link
        self._counters: Counter[str] = Counter()
        self._adapter = Adapter(link, self._counters)
        self._probe = KeyProbe(settings, self._counters)

    @property
    def counters(self) -> Mapping[str, int]:
        """``polls``, ``misses``, ``resets``, ``frames_good`` and ``frames_bad_…``, ``arrivals``, ``recoveries``."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        """Set the chip up. Raises LinkTimeout, TransferRefused, FrameError: it does not answer like a DS2490."""
        await self._adapter.initialise()
        return DeviceIdentity(model="DS2490", serial=self._link.place)  # it has no number of its own

    async def stop(self) -> None:
        """Give the interface back to the kernel's driver."""
        await self._link.release()

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """Keys that come and go, shorts of the probe. Ends by LinkLost, or by what a second try at a failed poll raises."""
        while True:
            self._counters["polls"] += 1
            try:
                is_short, roms = await self._read()
            except (FrameError, LinkTimeout, TransferRefused):
                for news in self._probe.failed(self._link.clock_ns()):
                    yield news
                is_short, roms = await self._recovered()
            for news in self._probe.polled(is_short, roms, self._link.clock_ns()):
                yield news
            now_ns = self._link.clock_ns()
            await asyncio.sleep((self._probe.next_poll_ns(now_ns) - now_ns) / NS_PER_S)

    async def _read(self, reads: int = MAX_READS) -> tuple[bool, frozenset[Rom]]:
        """What is on the line, with another try at once where an answer is damaged: poor contact. Raises as `Adapter.poll`."""
        while True:
            try:
                return await self._adapter.poll()
            except FrameError as error:
                self._counters[f"frames_bad_{error.kind}"] += 1
                await self._adapter.flush()
                reads -= 1
                if not reads:
                    raise

    async def _recovered(self) -> tuple[bool, frozenset[Rom]]:
        """Set the chip up anew, which fails where it is no DS2490 any more, and read once: if that is damaged, it is by the line."""
        self._counters["recoveries"] += 1
        await self._adapter.initialise()
        try:
            return await self._read(1)
        except FrameError:
            return False, frozenset()


_conforms: type[Driver] = Ds2490Driver

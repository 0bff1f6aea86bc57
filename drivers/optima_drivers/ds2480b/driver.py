"""Keys on the probe of a DS2480B adapter: poll the line, decide presence, report shorts.

    C1                        -> CF                nobody there
    C1                        -> CD                somebody; then one pass for each chip:
    E1 F0 E3 B1 E1 path E3 A1 -> F0 16 bytes       its ROM and where others differ

Polls only: an arrival byte, where an adapter passes it on, makes the next poll earlier and proves nothing.
Source: DS2480B data sheet 19-5047; Book of iButton Standards, ch. 5.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError, LinkTimeout
from optima_bridge.link import ByteLink, SerialFormat
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_bridge.probe import KeyProbe, ProbeSettings
from optima_bridge.wire.onewire import Rom
from optima_drivers.ds2480b.adapter import Adapter
from optima_drivers.ds2480b.codec import Bus, is_arrival

MAX_READS = 5  # of one poll, while the answers are damaged


class Ds2480bSettings(ProbeSettings):
    """Configuration keys of a ``ds2480b`` device."""


class Ds2480bDriver:
    """A key reader: one probe on a DS9097U or a clone of it."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="ds2480b",
        summary="iButton keys on a DS2480B serial adapter (DS9097U and clones)",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.KEY_READER}),
        schemes=frozenset({"serial", "memory"}),
        integrity="crc8",
        spec="DS2480B data sheet 19-5047 rev 4; application note 192; Book of iButton Standards ch. 5",
        serial_format=SerialFormat(9600),
        usb_ids=((0x0403, 0xEA90), (0x10C4, 0xEA60), (0x1A86, 0x7523)),  # Eclo; clones with a CP2102, with a CH340
        wire_is_public=True,
    )
    Settings: ClassVar[type[DriverSettings]] = Ds2480bSettings

    def __init__(self, link: ByteLink, settings: Ds2480bSettings) -> None:
        self._link = link
        self._counters: Counter[str] = Counter()
        self._adapter = Adapter(link, self._counters)
        self._probe = KeyProbe(settings, self._counters)

    @property
    def counters(self) -> Mapping[str, int]:
        """``polls``, ``misses``, ``frames_good`` and ``frames_bad_…``, ``arrivals``, ``timeouts``, ``noise_bytes``, ``late_bytes``."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        """Find the chip. Raises LinkTimeout: nothing answers; RemoteProtocolError: it is no DS2480B."""
        await self._adapter.detect()
        return DeviceIdentity(model="DS2480B")

    async def stop(self) -> None:
        """Nothing to do: between exchanges the chip idles in command mode, and start() recovers it from any other."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """Keys that come and go, shorts of the probe. Ends by LinkLost, or by LinkTimeout when the chip falls silent."""
        while True:
            self._counters["polls"] += 1
            try:
                bus, roms = await self._read()
            except (FrameError, LinkTimeout):
                for news in self._probe.failed(self._link.clock_ns()):
                    yield news
                bus, roms = await self._recovered()
            for news in self._probe.polled(bus is Bus.SHORT, roms, self._link.clock_ns()):
                yield news
            await self._wait()

    async def _read(self, reads: int = MAX_READS) -> tuple[Bus, frozenset[Rom]]:
        """What is on the line, with another try at once where an answer is damaged: poor contact. Raises as `Adapter.poll`."""
        while True:
            try:
                return await self._adapter.poll()
            except FrameError as error:
                self._counters[f"frames_bad_{error.kind}"] += 1
                reads -= 1
                if not reads:
                    raise
            except LinkTimeout:
                self._counters["timeouts"] += 1
                raise

    async def _recovered(self) -> tuple[Bus, frozenset[Rom]]:
        """Find the chip again, which fails where it is no DS2480B any more, and read once: if that is damaged, it is by the line."""
        await self._adapter.detect()
        try:
            return await self._read(1)
        except FrameError:
            return Bus.NONE, frozenset()

    async def _wait(self) -> None:
        """Until the next poll is due, or a key announces itself."""
        due_ns = self._probe.next_poll_ns(self._link.clock_ns())
        while (left_ns := due_ns - self._link.clock_ns()) > 0:
            try:
                received = await self._link.read(timeout_s=left_ns / 1e9)
            except LinkTimeout:
                return
            if any(map(is_arrival, received)):
                self._counters["arrivals"] += 1
                return
            self._counters["noise_bytes"] += len(received)


_conforms: type[Driver] = Ds2480bDriver

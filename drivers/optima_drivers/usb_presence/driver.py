"""A dongle as a key: it is there while a USB device with its ids is plugged in.

Nothing is sent to the dongle. The kernel's list is read when it says that something changed, and now and then; what counts
is the difference of two reads, so a lost message does no harm. Plugs bounce: a first read, and a first miss, are decided by
another read `settle_ms` later, whatever is heard in between.

Source: Linux Documentation/ABI/testing/sysfs-bus-usb; USB 2.0 section 9.6.1 (idVendor, idProduct, iSerialNumber).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import Annotated, ClassVar

from pydantic import Field, StringConstraints

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.link.sysfs import SysfsLink, UsbDevice
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation, Subject
from optima_bridge.presence import ABSENT, Change, PolledPresence

READS_TO_GRANT = 2
MISSES_TO_REMOVE = 2

UsbId = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{4}$", to_lower=True)]


class UsbPresenceSettings(DriverSettings):
    """Configuration keys of a ``usb-presence`` device."""

    vendor_id: UsbId = Field(description="vendor id of the dongle, four hex digits: lsusb shows VENDOR:PRODUCT")
    product_id: UsbId = Field(description="product id of the dongle, four hex digits")
    serial: str = Field(default="", max_length=126, description="only the dongle with this serial number; empty: any")
    settle_ms: int = Field(
        default=300, ge=20, le=5000, description="how long it must be in, or out, before that counts, in milliseconds"
    )
    poll_interval_ms: int = Field(
        default=1000,
        ge=100,
        le=10_000,
        description="look at least this often, in milliseconds; changes are heard of earlier",
    )


class UsbPresenceDriver:
    """A key reader whose contacts are the USB sockets of this PC."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="usb-presence",
        summary="USB dongle, plugged in or not",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.KEY_READER}),
        schemes=frozenset({"sysfs"}),
        integrity="crc16",
        spec="Linux Documentation/ABI/testing/sysfs-bus-usb; USB 2.0 section 9.6.1",
    )
    Settings: ClassVar[type[DriverSettings]] = UsbPresenceSettings

    def __init__(self, link: SysfsLink, settings: UsbPresenceSettings) -> None:
        self._link = link
        self._settings = settings
        self._counters: Counter[str] = Counter()
        self._presence = PolledPresence(READS_TO_GRANT, MISSES_TO_REMOVE)
        self._known = False  # whether anything was said about the dongle

    @property
    def counters(self) -> Mapping[str, int]:
        """``looks``, and ``wakes``: those of them that the kernel asked for."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        """See that the kernel's list can be read. Raises LinkLost: it cannot."""
        await self._look()
        return DeviceIdentity(model=f"USB {self._settings.vendor_id}:{self._settings.product_id}")

    async def stop(self) -> None:
        """Nothing to do: nothing was opened."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """Dongles that are plugged in and pulled out. Ends by LinkLost."""
        while True:
            for news in self._take(await self._look(), self._link.clock_ns()):
                yield news
            if not self._presence.settled:
                await asyncio.sleep(self._settings.settle_ms / 1000)
            elif await self._link.changed(self._settings.poll_interval_ms / 1000):
                self._counters["wakes"] += 1

    async def _look(self) -> list[UsbDevice]:
        self._counters["looks"] += 1
        found = await self._link.find(self._settings.vendor_id, self._settings.product_id)
        return [device for device in found if self._settings.serial in ("", device.serial)]

    def _take(self, found: list[UsbDevice], now_ns: int) -> Iterator[Event | Observation]:
        changes = self._presence.poll(frozenset(map(_token, found)), now_ns)
        if not self._known and not found:
            yield Observation(Subject.KEY, ABSENT)
        self._known = self._known or bool(changes) or not found
        for change in changes:
            yield _event(change, len(found))


def _token(device: UsbDevice) -> str:
    """What presence calls it. The number makes a dongle that was pulled out and put back between two looks another one."""
    return f"{device.bus_path} {device.number} {device.serial}"


def _event(change: Change, dongles: int) -> Event:
    data: dict[str, str | int] = {"dongles": dongles}
    serial = ""
    if change.identifier is not None:
        bus_path, _, serial = change.identifier.split(" ", 2)
        data = {"bus_path": bus_path}
    if change.last_seen_ns != change.at_ns:
        data["last_seen_ms"] = (change.at_ns - change.last_seen_ns) // 1_000_000
    return Event(Subject.KEY, change.action, change.at_ns, data, serial or None, change.state)


_conforms: type[Driver] = UsbPresenceDriver

"""A controller with an MCU that speaks Zephyr MCUmgr/SMP: its secure store; it has no events.

    06 09 "AAsIAAABAAAABqBzEw==" 0a    a line of base64: what size has your buffer?

Frames: `optima_drivers.smp.framing`; messages: `optima_drivers.smp.message`; what is kept where: `optima_drivers.smp.layout`.
Source: Zephyr, "SMP Protocol Specification", "SMP Transport Specification", "SMP Groups" 0, 3 and 8.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.link import ByteLink, SerialFormat
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_bridge.store import HasSecureStore, SecureStore
from optima_drivers.smp.device import Device
from optima_drivers.smp.line import Line
from optima_drivers.smp.store import SmpStore


class SmpSettings(DriverSettings):
    """Configuration keys of an ``smp`` device."""

    directory: str = Field(
        default="/lfs1",
        pattern=r"^/[!-~]{1,47}$",
        description="where its firmware keeps the two certificate files, up to 48 characters",
    )
    max_size_bytes: int = Field(default=2048, ge=256, le=8192, description="the largest certificate it takes, in bytes")
    answer_timeout_ms: int = Field(
        default=1500,
        ge=100,
        le=10_000,
        description="how long it may take to answer, per try of three, milliseconds; writing its flash is part of it",
    )
    echo_interval_ms: int = Field(
        default=5000, ge=100, le=60_000, description="silence after which it is asked for an echo, in milliseconds"
    )


class SmpDriver:
    """The secure store of one controller; events() only finds out when it is gone."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="smp",
        summary="controllers with Zephyr MCUmgr (SMP) on a serial line: certificates",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.SECURE_STORE}),
        schemes=frozenset({"serial", "memory"}),
        integrity="crc16",
        spec="Zephyr: SMP Protocol Specification, SMP Transport Specification, SMP Groups 0, 3, 8",
        serial_format=SerialFormat(115200),
    )
    Settings: ClassVar[type[DriverSettings]] = SmpSettings

    def __init__(self, link: ByteLink, settings: SmpSettings) -> None:
        self._settings = settings
        self._line = Line(link, settings.answer_timeout_ms / 1000)
        self._device = Device(self._line)
        self.store: SecureStore = SmpStore(self._device, settings.directory, settings.max_size_bytes)

    @property
    def counters(self) -> Mapping[str, int]:
        """``frames_good``, ``frames_bad_…``, ``timeouts``, ``late_answers``, ``uploads_again``."""
        return self._line.counters

    async def start(self) -> DeviceIdentity:
        """Find the device. Raises LinkTimeout: nothing answers; RemoteProtocolError, DeviceError: not as it should."""
        return await self.store.connect()

    async def stop(self) -> None:
        """Nothing to do: what is left open is closed when the next session begins."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """None; ends by LinkLost, or by LinkTimeout where the device falls silent."""
        nothing: tuple[Event, ...] = ()
        for event in nothing:  # what makes this a generator
            yield event
        while True:
            await self._line.quiet(self._settings.echo_interval_ms / 1000)
            await self._device.check()


_conforms: type[Driver] = SmpDriver
_conforms_too: type[HasSecureStore] = SmpDriver

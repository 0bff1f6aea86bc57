"""Keylocks that are HID devices of their own: their report descriptor says where in a report the positions are.

    05 01    report 5, button 1: Ex        05 04    button 3: R        05 00    between two positions
    05 02    button 2: L                   05 08    button 4: S        05 06    two at once: cannot be

That is an NCR 5953 with the descriptor in `optima_bridge.wire.hid`; the manual tells to parse it, for layouts may change.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError, RemoteProtocolError
from optima_bridge.link import ReportLink
from optima_bridge.model import Capability, DeviceIdentity, Maturity
from optima_bridge.wire.hid import BUTTON_PAGE, InputReports, parse
from optima_drivers.keylock.driver import NS_PER_MS, KeylockDriver
from optima_drivers.keylock.profiles import MAX_POSITIONS, REPORTED, ReportedPosition, ReportProfile, distinct
from optima_drivers.keylock.turning import BETWEEN, Turning


class HidKeylockSettings(DriverSettings):
    """Configuration keys of a ``keylock-hid`` device."""

    profile: Literal["ncr", "generic"] = Field(
        description="the model; generic: usage_page, usage and positions have it all"
    )
    usage_page: int | None = Field(default=None, ge=1, le=0xFFFF, description="of the collection with the positions")
    usage: int | None = Field(default=None, ge=1, le=0xFFFF, description="of the collection with the positions")
    positions: tuple[ReportedPosition, ...] = Field(
        default=(), max_length=MAX_POSITIONS, description="your own positions, in place of the profile's"
    )
    settle_ms: int = Field(
        default=80, ge=0, le=500, description="how long a position must last before it counts, milliseconds"
    )

    @field_validator("positions")
    @classmethod
    def _told_apart(cls, positions: tuple[ReportedPosition, ...]) -> tuple[ReportedPosition, ...]:
        distinct([position.code for position in positions], "code")
        distinct([position.button for position in positions], "button")
        return positions

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.profile == "generic" and not (self.positions and self.usage_page and self.usage):
            raise ValueError("profile generic needs positions, usage_page and usage")
        if self.profile != "generic" and (self.usage_page or self.usage):
            raise ValueError(
                f"profile {self.profile} has its usage_page and usage; to give others, use profile generic"
            )
        return self


class HidKeylockDriver(KeylockDriver[ReportLink]):
    """A lock on a hidraw device."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="keylock-hid",
        summary="keylock that is a USB HID device (NCR DynaKey, own positions)",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.KEYLOCK}),
        schemes=frozenset({"hidraw"}),
        integrity="crc16",  # of USB
        spec="USB HID 1.11; UnifiedPOS Keylock; NCR RealPOS 5953 USB DynaKey manual",
    )
    Settings: ClassVar[type[DriverSettings]] = HidKeylockSettings

    def __init__(self, link: ReportLink, settings: HidKeylockSettings) -> None:
        own = ReportProfile((settings.usage_page or 0) << 16 | (settings.usage or 0), settings.positions)
        profile = REPORTED.get(settings.profile, own)
        positions = settings.positions or profile.positions
        super().__init__(link, positions, self._positions, Turning(settings.settle_ms * NS_PER_MS))
        self._application = profile.application
        self._codes = {position.button: position.code for position in positions}
        self._reports = InputReports((), False, {})
        self._report_ids: frozenset[int] = frozenset()  # of those that tell a position

    async def start(self) -> DeviceIdentity:
        """Find the positions in the descriptor, and ask where the key is.

        Raises:
            RemoteProtocolError: the device has no such positions; FrameError: its descriptor makes no sense.
        """
        self._reports = parse(self._link.descriptor)
        fields = [field for field in self._reports.fields if field.application == self._application]
        missing = [
            button for button in self._codes if not any(field.has(BUTTON_PAGE << 16 | button) for field in fields)
        ]
        if missing:
            page, usage = self._application >> 16, self._application & 0xFFFF
            raise RemoteProtocolError(
                f"{self._link.name} has no button {missing[0]} in an application {page:04x}:{usage:02x}",
                cause="this is not the node of the keylock, or not this model",
                next_step="give the port of another node of the device: grep . /sys/class/hidraw/*/device/uevent",
            )
        self._report_ids = frozenset(
            field.report_id for field in fields if any(field.has(BUTTON_PAGE << 16 | button) for button in self._codes)
        )
        self._link.discard_input()  # reports from before are late
        for report_id in sorted(self._report_ids):
            report = await self._link.ask(report_id, (self._reports.size_bits[report_id] + 7) // 8)
            if report and self._positions(report) != [BETWEEN]:  # zeros are what a lazy device answers
                self._take(report, found=True)
        return self._link.identity

    def _positions(self, report: bytes) -> list[int | FrameError]:
        if (report[0] if self._reports.has_ids and report else 0) not in self._report_ids:
            return []  # a report of something else in the same device, maybe of the same application
        try:
            usages = self._reports.on(report, self._application)
        except FrameError as error:
            return [error]
        buttons = [usage & 0xFFFF for usage in usages or () if usage >> 16 == BUTTON_PAGE]
        if len(buttons) > 1:
            return [FrameError("two positions at once", kind="several")]
        return [self._codes.get(buttons[0], BETWEEN) if buttons else BETWEEN]


_conforms: type[Driver] = HidKeylockDriver

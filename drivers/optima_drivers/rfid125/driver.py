"""Drivers for 125 kHz readers: RDM6300 (presence) and ID-2LA/12LA/20LA (touch). The codec draws the bytes.

Neither reader has a command channel: nothing is ever sent, and a reader that is dead looks like one without a card.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError, LinkTimeout
from optima_bridge.link import ByteLink, SerialFormat
from optima_bridge.model import NO_DATA, Capability, Data, DeviceIdentity, Event, Maturity, Subject
from optima_bridge.presence import Change, RepeatedPresence
from optima_drivers.rfid125.codec import FrameDecoder

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
ONE_READ: Data = {"reads": 1}


class _Reader:
    """What both drivers share: good frames out of a link, the others counted."""

    def __init__(self, link: ByteLink) -> None:
        self._link = link
        self._decoder = FrameDecoder()
        self._counters = dict.fromkeys(("frames", "length", "hex", "checksum", "overrun", "suppressed"), 0)

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    async def start(self) -> DeviceIdentity:
        self._link.discard_input()  # a card that was shown before we listened must not log anybody in now
        return DeviceIdentity()

    async def stop(self) -> None:
        pass

    async def _read(self, timeout_s: float | None = None) -> list[str]:
        """Card numbers of the good frames in the next chunk; may be empty.

        Raises:
            LinkTimeout, LinkLost: from the link.
        """
        identifiers: list[str] = []
        for frame in self._decoder.feed(await self._link.read(timeout_s)):
            if isinstance(frame, FrameError):
                self._counters[frame.kind] += 1
            else:
                identifiers.append(frame.identifier)
        self._counters["frames"] += len(identifiers)
        return identifiers


class Rdm6300Settings(DriverSettings):
    """When a held card counts as present, and when as gone."""

    hold_ms: int = Field(default=500, ge=100, le=5000, description="silence after which a card is removed")
    suspect_ms: int = Field(
        default=150, ge=70, le=5000, description="silence after which a card is suspect; at most hold_ms"
    )
    reads_to_grant: int = Field(default=2, ge=1, le=5, description="equal frames in a row before a card counts")


class Rdm6300Driver(_Reader):
    """The reader repeats its frame about every 65 ms while a card is held; silence means that it was taken away."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="rdm6300",
        summary="125 kHz card reader RDM6300: card held and taken away",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.CARD_READER}),
        schemes=frozenset({"serial", "memory"}),
        integrity="xor",
        spec="Seeed RDM6300 data sheet",
        serial_format=SerialFormat(9600),
        wire_is_public=True,
    )
    Settings: ClassVar[type[DriverSettings]] = Rdm6300Settings

    def __init__(self, link: ByteLink, settings: Rdm6300Settings) -> None:
        super().__init__(link)
        self._presence = RepeatedPresence(
            settings.reads_to_grant,
            suspect_ns=settings.suspect_ms * NS_PER_MS,
            hold_ns=settings.hold_ms * NS_PER_MS,
        )

    async def events(self) -> AsyncGenerator[Event, None]:
        presence = self._presence
        while True:
            try:
                identifiers = await self._read(self._patience_s())
            except LinkTimeout:
                identifiers = []
            now_ns = self._link.clock_ns()
            changes = presence.expire(now_ns)  # noise keeps the link busy, and must not keep a card present
            for identifier in identifiers:
                changes += presence.seen(identifier, now_ns)
            for change in changes:
                yield _event(change)

    def _patience_s(self) -> float | None:
        """How long silence says nothing new; None while no card is held."""
        deadline_ns = self._presence.deadline_ns()
        return None if deadline_ns is None else max(0, deadline_ns - self._link.clock_ns()) / NS_PER_S


def _event(change: Change) -> Event:
    silence_ms = (change.at_ns - change.last_seen_ns) // NS_PER_MS
    return Event(
        Subject.CARD,
        change.action,
        mono_ns=change.at_ns,
        data={"last_seen_ms": silence_ms} if change.action in ("suspect", "removed") else NO_DATA,
        identifier=change.identifier,
        state=change.state,
    )


class Id12laSettings(DriverSettings):
    """When a card that is shown again counts again."""

    repeat_ms: int = Field(
        default=1000, ge=0, le=5000, description="the same card within this time is one touch; 0: each counts"
    )


class Id12laDriver(_Reader):
    """The reader sends one frame when a card is shown and nothing when it goes: a touch, never a presence."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="id12la",
        summary="125 kHz card readers ID-2LA, ID-12LA, ID-20LA: card shown",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.CARD_READER}),
        schemes=frozenset({"serial", "memory"}),
        integrity="xor",
        spec="ID-Innovations ID-2LA, ID-12LA, ID-20LA data sheet 2013, ASCII format",
        serial_format=SerialFormat(9600),
        reports_removal=False,
        wire_is_public=True,
    )
    Settings: ClassVar[type[DriverSettings]] = Id12laSettings

    def __init__(self, link: ByteLink, settings: Id12laSettings) -> None:
        super().__init__(link)
        self._repeat_ns = settings.repeat_ms * NS_PER_MS

    async def events(self) -> AsyncGenerator[Event, None]:
        last, last_ns = "", 0
        while True:
            identifiers = await self._read()
            now_ns = self._link.clock_ns()
            for identifier in identifiers:
                repeated = identifier == last and now_ns - last_ns < self._repeat_ns
                last, last_ns = identifier, now_ns
                if repeated:
                    self._counters["suppressed"] += 1
                else:
                    yield Event(Subject.CARD, "presented", now_ns, ONE_READ, identifier)


_rdm6300_conforms: type[Driver] = Rdm6300Driver
_id12la_conforms: type[Driver] = Id12laDriver

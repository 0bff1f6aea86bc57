"""ISO 14443A cards on a PN532: poll the field, decide presence.

    D4 4A 02 00    list at most two cards; the field comes up by itself
    D4 32 01 00    field off

Each poll powers the cards up anew. Asking a selected card whether it is still there would be quicker, and
would never see a second one beside it.
Source: PN532 user manual UM0701-02; ISO/IEC 14443-3.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from contextlib import suppress
from typing import ClassVar

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import LinkError, LinkTimeout, ProtocolError, RemoteProtocolError
from optima_bridge.link import ByteLink, SerialFormat
from optima_bridge.model import Capability, Data, DeviceIdentity, Event, Maturity, Observation, Subject
from optima_bridge.reports import PolledSettings, TokenReports
from optima_drivers.pn532.cards import Card
from optima_drivers.pn532.chip import FIRST_ACK_TIMEOUTS_S, Chip

RANDOM = "random"
NS_PER_S = 1_000_000_000


class Pn532Settings(PolledSettings):
    """Configuration keys of a ``pn532`` device."""


class Pn532Driver:
    """A card reader: one PN532 module."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="pn532",
        summary="ISO 14443A cards (MIFARE, NTAG, DESFire, phones) on a PN532 module, serial (HSU)",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.CARD_READER}),
        schemes=frozenset({"serial", "memory"}),
        integrity="sum8",
        spec="PN532 user manual UM0701-02, 6.2 and 7; ISO/IEC 14443-3",
        serial_format=SerialFormat(115200),
    )
    Settings: ClassVar[type[DriverSettings]] = Pn532Settings

    def __init__(self, link: ByteLink, settings: Pn532Settings) -> None:
        self._link = link
        self._counters: Counter[str] = Counter()
        self._chip = Chip(link, self._counters)
        self._cards = TokenReports(Subject.CARD, settings, _describe, self._counters)

    @property
    def counters(self) -> Mapping[str, int]:
        """``polls``, ``misses``, ``recoveries``, ``noise_bytes``, and those of `Chip`."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        """Wake and set up the chip. Raises LinkTimeout: nothing answers; RemoteProtocolError: it is no PN532."""
        firmware = await self._chip.initialise(FIRST_ACK_TIMEOUTS_S)
        return DeviceIdentity(model="PN532", firmware=str(firmware))

    async def stop(self) -> None:
        """Switch the field off."""
        with suppress(LinkError, ProtocolError):
            await self._chip.rest()

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """Cards that come and go. Ends by LinkLost, or by what a second try at a failed poll raises."""
        while True:
            self._counters["polls"] += 1
            try:
                cards = await self._chip.poll()
            except (LinkTimeout, RemoteProtocolError):
                for news in self._cards.failed(self._link.clock_ns()):
                    yield news
                cards = await self._recovered()
            for news in self._cards.polled(_tokens(cards), self._link.clock_ns()):
                yield news
            await self._wait()

    async def _recovered(self) -> tuple[Card, ...]:
        """Another poll, from the start: the chip has lost its settings or fell asleep, for its power failed for a moment."""
        self._counters["recoveries"] += 1
        await self._chip.initialise()
        return await self._chip.poll()

    async def _wait(self) -> None:
        """Until the next poll is due; reading meanwhile, so that an unplugged adapter is noticed at once."""
        due_ns = self._cards.next_poll_ns(self._link.clock_ns())
        with suppress(LinkTimeout):
            while (left_ns := due_ns - self._link.clock_ns()) > 0:
                self._counters["noise_bytes"] += len(await self._link.read(left_ns / NS_PER_S))


def _tokens(cards: tuple[Card, ...]) -> frozenset[str]:
    """The cards' names for presence: their UIDs. Random ones have no name that lasts, and are only counted."""
    lasting = {card.uid.hex().upper() for card in cards if not card.has_random_uid}
    passing = sum(card.has_random_uid for card in cards)
    return frozenset(lasting) | {f"{RANDOM}{n}" for n in range(passing)}


def _describe(token: str) -> tuple[str | None, Data]:
    return (None, {"uid": RANDOM}) if token.startswith(RANDOM) else (token, {"uid": "fixed"})


_conforms: type[Driver] = Pn532Driver

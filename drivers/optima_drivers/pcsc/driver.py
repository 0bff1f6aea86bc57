"""Cards on any PC/SC reader: that a card came or went, and its UID where the reader tells one.

    ff ca 00 00 00      -> UID 90 00          answered by the reader, for contactless cards only

A contactless card's ATR is made by the reader and begins with 3B 8n 80 01; to others nothing is sent, for a card with contacts
must not see class FF. Source: PC/SC part 3 revision 2.01.09, 3.1.3.2.3 (ATR) and 3.2.2.1.3 (get data).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.link.card import CardLink
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_drivers.pcsc import reader
from optima_drivers.pcsc.apdu import OK, Command, decode

GET_UID = Command(0xCA, 0x00, 0x00, cla=0xFF)


class PcscSettings(DriverSettings):
    """A ``pcsc`` device has no configuration keys of its own."""


class PcscDriver:
    """A card reader: whatever card, by its UID where it has one."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="pcsc",
        summary="cards on any PC/SC reader, contactless ones by their UID",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.CARD_READER}),
        schemes=frozenset({"pcsc"}),
        integrity="iso7816",
        spec="PC/SC part 3 rev 2.01.09 (3.1.3.2.3, 3.2.2.1.3) and part 5; pcsc-lite",
    )
    Settings: ClassVar[type[DriverSettings]] = PcscSettings

    def __init__(self, link: CardLink, settings: PcscSettings) -> None:
        self._link = link
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> Mapping[str, int]:
        """``cards`` that came; ``unread``: those of them that could not be asked."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        await self._link.wait()
        return DeviceIdentity(model=self._link.reader)

    async def stop(self) -> None:
        """Nothing to do: no card is held between two questions."""

    def events(self) -> AsyncGenerator[Event | Observation, None]:
        return reader.events(self._link, self._uid, self._counters)

    async def _uid(self, atr: bytes) -> str | None:
        if not is_contactless(atr):
            return None
        async with self._link.session(reset=False) as session:
            [command] = GET_UID.pieces()
            answer = decode(await session.transmit(command))
        return answer.data.hex().upper() or None if answer.status == OK else None


def is_contactless(atr: bytes) -> bool:
    """Whether the reader made this ATR for a contactless card."""
    return len(atr) >= 4 and atr[0] == 0x3B and atr[1] & 0xF0 == 0x80 and atr[2:4] == b"\x80\x01"


_conforms: type[Driver] = PcscDriver

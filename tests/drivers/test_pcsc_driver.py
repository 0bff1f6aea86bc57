"""Cards that come and go, on a reader in memory: the `pcsc` and `piv` drivers as readers, and the driver contract."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from optima_bridge.errors import LinkLost
from optima_bridge.link.memory_card import MemoryReader, memory_reader
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_bridge.testing import ConformanceCase, LinkContract
from optima_drivers.pcsc import PcscDriver, PivDriver
from optima_drivers.pcsc.driver import PcscSettings
from optima_drivers.pcsc.piv import PivSettings
from optima_drivers.pcsc.virtual_card import ATR, VirtualPivCard, chuid

UID = bytes.fromhex("04A23B91C45D80")
GUID = bytes(range(1, 17)).hex().upper()
CONTACT_ATR = bytes.fromhex("3BFD1300008131FE158073C021C057597562694B657940")
ABSENT, PRESENT = {"presence": "absent"}, {"presence": "present"}


class Bench:
    """A reader in memory, as the conformance suite makes it and joins it to a driver."""

    def __init__(self) -> None:
        self.link, self.reader = memory_reader()
        self.numbers = count(1)

    def insert(self, card: VirtualPivCard | None = None) -> None:
        self.reader.insert(card or VirtualPivCard(uid=UID, guid=bytes([next(self.numbers)]) * 16))

    @staticmethod
    def join(simulator: Bench) -> tuple[Any, MemoryReader]:
        return simulator.link, simulator.reader


class TestPcsc(LinkContract):
    case = ConformanceCase(
        driver=PcscDriver,
        simulator=Bench,
        provoke=lambda bench: bench.insert(),
        undo=lambda bench: bench.reader.remove(),
        grants=(Subject.CARD, "inserted"),
        identifier=UID.hex().upper(),
        revokes=(Subject.CARD, "removed"),
        join=Bench.join,
    )


class TestPiv(LinkContract):
    case = ConformanceCase(
        driver=PivDriver,
        simulator=Bench,
        provoke=lambda bench: bench.insert(),
        undo=lambda bench: bench.reader.remove(),
        grants=(Subject.CARD, "inserted"),
        revokes=(Subject.CARD, "removed"),
        join=Bench.join,
    )


MAKE: dict[str, Callable[[Any], Any]] = {
    "pcsc": lambda link: PcscDriver(link, PcscSettings()),
    "piv": lambda link: PivDriver(link, PivSettings()),
}


async def news(
    driver: PcscDriver | PivDriver, bench: Bench, *doings: Callable[[], object]
) -> list[Event | Observation]:
    """What the driver says while all this is done, each after it was quiet again."""
    said: list[Event | Observation] = []

    async def listen() -> None:
        async for one in driver.events():
            said.append(one)

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(10):
        await bench.reader.drained()
        for do in doings:
            do()
            await bench.reader.drained()
    listening.cancel()
    await asyncio.wait({listening})
    return said


def cards(said: list[Event | Observation]) -> list[tuple[str, str | None]]:
    return [(one.action, one.identifier) for one in said if isinstance(one, Event) and one.subject is Subject.CARD]


@pytest.mark.parametrize(("name", "identifier"), [("pcsc", UID.hex().upper()), ("piv", GUID)])
async def test_a_card_that_comes_and_goes_is_two_events(name: str, identifier: str) -> None:
    bench = Bench()
    card = VirtualPivCard(uid=UID)
    driver = MAKE[name](bench.link)
    assert await driver.start() == DeviceIdentity(model="Memory Reader 00 00")
    said = await news(driver, bench, lambda: bench.insert(card), bench.reader.remove)
    assert said[:2] == [
        Observation(Subject.CARD, ABSENT),
        Observation(Subject.FAULT, {"active": False, "code": "card-mute"}),
    ]
    inserted, removed = said[2:]
    assert isinstance(inserted, Event)
    assert isinstance(removed, Event)
    assert (inserted.identifier, inserted.data, inserted.state) == (identifier, {"atr": ATR.hex().upper()}, PRESENT)
    assert (removed.action, removed.identifier, removed.state) == ("removed", identifier, ABSENT)
    assert inserted.mono_ns <= removed.mono_ns


@pytest.mark.parametrize("name", MAKE)
async def test_a_card_that_is_there_at_the_start_is_inserted(name: str) -> None:
    bench = Bench()
    bench.insert(VirtualPivCard(uid=UID))
    driver = MAKE[name](bench.link)
    identity = await driver.start()
    assert identity.model == ("Optima virtual PIV" if name == "piv" else "Memory Reader 00 00")
    assert identity.serial == (GUID if name == "piv" else "")
    assert [action for action, _ in cards(await news(driver, bench))] == ["inserted"]


@pytest.mark.parametrize("name", MAKE)
async def test_a_quick_exchange_is_noticed_by_the_count_of_changes(name: str) -> None:
    bench = Bench()
    driver = MAKE[name](bench.link)
    await driver.start()

    def exchange() -> None:
        bench.reader.remove()
        bench.insert()

    said = cards(await news(driver, bench, bench.insert, exchange, bench.reader.remove))
    assert [action for action, _ in said] == ["inserted", "removed", "inserted", "removed"]
    assert said[0][1] == said[1][1]
    assert said[2][1] == said[3][1]
    if name == "piv":
        assert said[1][1] != said[2][1]


async def test_a_card_with_contacts_never_sees_the_command_for_readers() -> None:
    bench = Bench()
    card = VirtualPivCard(atr=CONTACT_ATR, uid=UID)
    card.apdus = []
    said = await news(MAKE["pcsc"](bench.link), bench, lambda: bench.insert(card))
    assert cards(said) == [("inserted", None)]
    assert card.apdus == []


async def test_a_contactless_card_without_an_answer_has_no_identifier() -> None:
    bench = Bench()
    assert cards(await news(MAKE["pcsc"](bench.link), bench, lambda: bench.insert(VirtualPivCard()))) == [
        ("inserted", None)
    ]


@pytest.mark.parametrize(("name", "identifier"), [("pcsc", "0ABBCCDD"), ("piv", GUID)])
@pytest.mark.parametrize("atr", [ATR, ATR + b"\x00"], ids=["same ATR", "another ATR"])
async def test_a_card_is_never_told_by_the_answer_of_one_that_took_its_place(
    name: str, identifier: str, atr: bytes
) -> None:
    bench = Bench()
    second = VirtualPivCard(atr=atr, uid=bytes.fromhex("0ABBCCDD"))

    def exchange() -> None:
        bench.reader.remove()
        bench.insert(second)

    def insert_and_exchange() -> None:
        bench.insert(VirtualPivCard(uid=UID))
        asyncio.get_running_loop().call_soon(exchange)  # the driver has seen the first by then, and has not asked it

    said = await news(MAKE[name](bench.link), bench, insert_and_exchange)
    assert cards(said) == [("inserted", None), ("removed", None), ("inserted", identifier)]
    told = [one.data["atr"] for one in said if isinstance(one, Event) and one.action == "inserted"]
    assert told == [ATR.hex().upper(), atr.hex().upper()]


class OtherCard(VirtualPivCard):
    """A card of another kind."""

    def exchange(self, apdu: bytes) -> bytes:
        return b"\x6a\x82"


class Nonsense(VirtualPivCard):
    """Not even a status word."""

    def exchange(self, apdu: bytes) -> bytes:
        return b"\x90"


class Dies(VirtualPivCard):
    """It loses contact at the first command."""

    def exchange(self, apdu: bytes) -> bytes:
        return b""


@pytest.mark.parametrize("card", [OtherCard, Nonsense, Dies])
async def test_a_card_that_cannot_be_asked_is_a_card_all_the_same(card: type[VirtualPivCard]) -> None:
    bench = Bench()
    driver = PivDriver(bench.link, PivSettings())
    bench.insert(card())
    assert await driver.start() == DeviceIdentity(model="Memory Reader 00 00")
    bench.insert(card())
    said = cards(await news(driver, bench, bench.reader.remove))
    assert said == [("inserted", None), ("removed", None)]
    assert (driver.counters["cards"], driver.counters["unread"]) == (1, 2)


@pytest.mark.parametrize("name", MAKE)
async def test_a_mute_card_is_a_fault_and_no_card(name: str) -> None:
    bench = Bench()
    driver = MAKE[name](bench.link)
    mute = VirtualPivCard(atr=b"")
    said = await news(driver, bench, lambda: bench.insert(mute), bench.reader.remove, bench.insert)
    assert [(one.action, one.state) for one in said if isinstance(one, Event) and one.subject is Subject.FAULT] == [
        ("raised", {"active": True, "code": "card-mute"}),
        ("cleared", {"active": False, "code": "card-mute"}),
    ]
    assert [action for action, _ in cards(said)] == ["inserted"]


async def test_a_card_in_the_wrong_way_round_at_the_start_is_a_fault() -> None:
    bench = Bench()
    bench.insert(VirtualPivCard(atr=b""))
    said = await news(MAKE["piv"](bench.link), bench)
    assert [one.subject for one in said] == [Subject.CARD, Subject.FAULT]
    assert isinstance(said[1], Event)


async def test_a_card_is_told_by_the_vendors_serial_number_where_it_has_one() -> None:
    for card in (VirtualPivCard(guid=b"", serial=4711), VirtualPivCard(serial=4711)):
        bench = Bench()
        said = await news(MAKE["piv"](bench.link), bench, lambda: bench.insert(card))  # noqa: B023 - used at once
        assert cards(said) == [("inserted", "4711")]


async def test_a_closed_link_ends_the_events() -> None:
    bench = Bench()
    driver = MAKE["pcsc"](bench.link)
    waiting = asyncio.create_task(news(driver, bench))
    await waiting
    bench.link.close()
    with pytest.raises(LinkLost):
        await anext(driver.events())


def test_the_number_is_that_of_the_chuid() -> None:
    assert VirtualPivCard().files.objects[0x5FC102] == chuid(bytes(range(1, 17)))

"""The driver keeps the contract, asks who is there, and believes no reader that has fallen silent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import pytest

from optima_bridge.errors import DeviceError, LinkTimeout
from optima_bridge.link import MemoryPeer, memory_pair
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_bridge.testing import ConformanceCase, DriverContract
from optima_driver_rc522_serial import Rc522SerialDriver, Rc522SerialSimulator
from optima_driver_rc522_serial.codec import encode
from optima_driver_rc522_serial.driver import Rc522SerialSettings

UID, OTHER_UID = "04A3B2C1", "04A1B2C3D4E5F6"
WHO = encode("ID", "rc522-serial", "1.0")
NOBODY, CARD = encode("CARD"), encode("CARD", UID)


class TestRc522Serial(DriverContract):
    case = ConformanceCase(
        driver=Rc522SerialDriver,
        simulator=partial(Rc522SerialSimulator, look_ms=10),
        provoke=lambda simulator: simulator.put(UID),
        undo=lambda simulator: simulator.lift(),
        grants=(Subject.CARD, "inserted"),
        identifier=UID,
        revokes=(Subject.CARD, "removed"),
        suspects=(Subject.CARD, "suspect"),
        second=lambda simulator: simulator.put(OTHER_UID),
        ambiguous=(Subject.CARD, "ambiguous"),
        noise=b"\x00\xff\x55\n",
    )


def with_driver(scenario: Callable[[Rc522SerialDriver, MemoryPeer], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        link, peer = memory_pair()
        await scenario(Rc522SerialDriver(link, Rc522SerialSettings()), peer)

    asyncio.run(asyncio.wait_for(main(), 10))


def test_it_says_who_answered() -> None:
    async def scenario(driver: Rc522SerialDriver, peer: MemoryPeer) -> None:
        peer.on_write = lambda _: peer.feed(b"\x00" + CARD + WHO)
        assert await driver.start() == DeviceIdentity(model="rc522-serial", firmware="1.0")
        assert driver.counters == {"frames_bad_characters": 1, "frames_good": 1}
        assert peer.written == b"?\n"

    with_driver(scenario)


def test_another_device_is_refused() -> None:
    async def scenario(driver: Rc522SerialDriver, peer: MemoryPeer) -> None:
        peer.on_write = lambda _: peer.feed(encode("ID", "gps", "2"))
        with pytest.raises(DeviceError, match="answers as gps, not as rc522-serial"):
            await driver.start()

    with_driver(scenario)


def test_looks_without_an_answer_are_no_start() -> None:
    async def scenario(driver: Rc522SerialDriver, peer: MemoryPeer) -> None:
        async def looks() -> None:
            while True:
                peer.feed(NOBODY)
                await asyncio.sleep(0.05)

        looking = asyncio.create_task(looks())
        with pytest.raises(LinkTimeout):
            await driver.start()
        looking.cancel()

    with_driver(scenario)


def test_a_silent_reader_is_dead_and_not_a_reader_without_a_card() -> None:
    async def scenario(driver: Rc522SerialDriver, peer: MemoryPeer) -> None:
        peer.on_write = lambda _: peer.feed(WHO)
        await driver.start()
        with pytest.raises(LinkTimeout):
            await anext(driver.events())

    with_driver(scenario)


def test_an_empty_field_at_the_beginning_is_found_once_and_is_no_event() -> None:
    async def scenario(driver: Rc522SerialDriver, peer: MemoryPeer) -> None:
        peer.on_write = lambda _: peer.feed(WHO)
        await driver.start()
        events = driver.events()
        peer.feed(NOBODY)
        assert await anext(events) == Observation(Subject.CARD, {"presence": "absent"})
        more = asyncio.ensure_future(anext(events))
        for line in (NOBODY, CARD, CARD):
            await peer.drained()
            peer.feed(line)
        event = await more
        assert isinstance(event, Event)
        assert event.action == "inserted"

    with_driver(scenario)


def test_lines_that_waited_together_count_once() -> None:
    async def scenario(driver: Rc522SerialDriver, peer: MemoryPeer) -> None:
        peer.on_write = lambda _: peer.feed(WHO)
        await driver.start()
        events = driver.events()
        granted = asyncio.ensure_future(anext(events))
        await peer.drained()
        peer.feed(CARD * 5)
        await peer.drained()
        assert not granted.done()
        peer.feed(CARD)
        event = await granted
        assert isinstance(event, Event)
        assert (event.action, event.identifier) == ("inserted", UID)

    with_driver(scenario)


def test_the_simulator_takes_a_question_in_pieces_and_nothing_else() -> None:
    simulator = Rc522SerialSimulator()
    assert simulator.receive(b"?") == b""
    assert simulator.receive(b"\n?\n") == WHO * 2
    assert simulator.receive(b"x" * 1000 + b"\n") == b""

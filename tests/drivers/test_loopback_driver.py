"""The loopback driver: what it makes of what its device says. The contract itself is proved in test_conformance."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from functools import partial
from typing import Any

import pytest

from optima_bridge.errors import LinkTimeout
from optima_bridge.link import MemoryPeer, memory_pair, open_byte_link
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_drivers.loopback import LoopbackDriver
from optima_drivers.loopback.codec import Query, encode
from optima_drivers.loopback.driver import LoopbackSettings
from optima_drivers.loopback.simulator import LoopbackSimulator

ROM, OTHER_ROM = "01B7BA1000000075", "01C3D21000000021"
Events = AsyncGenerator[Event | Observation, None]


def make(simulator: LoopbackSimulator, now_ns: int = 7) -> tuple[LoopbackDriver, MemoryPeer]:
    link, peer = memory_pair(clock_ns=lambda: now_ns)
    peer.on_write = lambda data: peer.feed(simulator.receive(data))
    simulator.attach(peer.feed)
    return LoopbackDriver(link, LoopbackSettings()), peer


async def take(events: Events, count: int) -> list[Event | Observation]:
    return [await anext(events) for _ in range(count)]


async def test_start_tells_who_answers() -> None:
    driver, _ = make(LoopbackSimulator("loopback", "b-17", "1.0"))
    assert await driver.start() == DeviceIdentity("loopback", "b-17", "1.0")


async def test_what_is_found_at_start_is_observed_and_a_key_is_granted() -> None:
    simulator = LoopbackSimulator()
    simulator.key_in(ROM)
    simulator.lock(1)
    simulator.seal(is_open=True)
    simulator.controller("ERROR", "42")
    driver, _ = make(simulator)
    await driver.start()
    assert await take(driver.events(), 4) == [
        Event(Subject.KEY, "inserted", 7, identifier=ROM, state={"presence": "present"}),
        Observation(Subject.KEYLOCK, {"position": "locked", "position_code": 1}),
        Observation(Subject.SEAL, {"seal": "broken"}),
        Observation(Subject.CONTROLLER, {"status": "error", "code": "42"}),
    ]


async def test_an_empty_device_is_observed_as_empty_and_the_rest_stays_unknown() -> None:
    simulator = LoopbackSimulator()
    driver, _ = make(simulator)
    await driver.start()
    simulator.card("67003B51C6")
    assert await take(driver.events(), 2) == [
        Observation(Subject.KEY, {"presence": "absent"}),
        Event(Subject.CARD, "presented", 7, identifier="67003B51C6"),
    ]


async def started(simulator: LoopbackSimulator) -> tuple[LoopbackDriver, MemoryPeer, Events]:
    driver, peer = make(simulator)
    await driver.start()
    events = driver.events()
    assert await anext(events) == Observation(Subject.KEY, {"presence": "absent"})
    return driver, peer, events


def change(subject: Subject, action: str, state: dict[str, Any]) -> Event:
    return Event(subject, action, 7, data=state, state=state)


async def test_each_change_is_one_event_however_often_it_is_said() -> None:
    simulator = LoopbackSimulator()
    _, _, events = await started(simulator)
    for position in (1, 1, 0, 2, 3, 3):
        simulator.lock(position)
    for is_open in (True, True, False):
        simulator.seal(is_open)
    for word in ("READY", "BUSY", "BUSY", "PENDING"):
        simulator.controller(word)
    simulator.controller("ERROR", "1")
    simulator.controller("ERROR", "2")
    assert await take(events, 11) == [
        change(Subject.KEYLOCK, "turned", {"position": "locked", "position_code": 1}),
        change(Subject.KEYLOCK, "turned", {"position": "between", "position_code": 0}),
        change(Subject.KEYLOCK, "turned", {"position": "normal", "position_code": 2}),
        change(Subject.KEYLOCK, "turned", {"position": "supervisor", "position_code": 3}),
        change(Subject.SEAL, "opened", {"seal": "broken"}),
        change(Subject.SEAL, "closed", {"seal": "intact"}),
        change(Subject.CONTROLLER, "changed", {"status": "ready"}),
        change(Subject.CONTROLLER, "changed", {"status": "busy"}),
        change(Subject.CONTROLLER, "changed", {"status": "pending-transaction"}),
        change(Subject.CONTROLLER, "changed", {"status": "error", "code": "1"}),
        change(Subject.CONTROLLER, "changed", {"status": "error", "code": "2"}),
    ]


async def test_one_key_is_removed_before_another_is_inserted() -> None:
    simulator = LoopbackSimulator()
    _, _, events = await started(simulator)
    for rom in (ROM, ROM, OTHER_ROM):
        simulator.key_in(rom)
    simulator.key_out()
    simulator.key_out()
    simulator.card("67003B51C6")
    told = [(e.action, e.identifier) for e in await take(events, 5) if isinstance(e, Event)]
    assert told == [
        ("inserted", ROM),
        ("removed", ROM),
        ("inserted", OTHER_ROM),
        ("removed", OTHER_ROM),
        ("presented", "67003B51C6"),
    ]


async def test_damaged_frames_are_counted_and_never_raised() -> None:
    simulator = LoopbackSimulator()
    driver, peer, events = await started(simulator)
    good = dict(driver.counters)
    peer.feed(b"\x02LOCK 3\x03\x1c" + b"\x02LOCK 4\x03\x1c" + b"\x02LO\x80")
    simulator.lock(3)
    assert (await take(events, 1))[0].subject is Subject.KEYLOCK
    assert driver.counters == good | {
        "frames_good": good["frames_good"] + 1,
        "frames_bad_checksum": 1,
        "frames_bad_message": 1,
        "frames_bad_characters": 1,
    }


async def test_a_silent_device_is_asked_three_times() -> None:
    link, peer = memory_pair()
    with pytest.raises(LinkTimeout, match="no loopback device answered 3 times"):
        await LoopbackDriver(link, LoopbackSettings(answer_timeout_ms=10)).start()
    assert peer.written == encode(Query()) * 3


async def test_an_answer_to_the_second_question_is_enough() -> None:
    simulator = LoopbackSimulator()
    link, peer = memory_pair()

    def hears_the_second(data: bytes) -> None:
        if len(peer.written) > len(data):
            peer.feed(simulator.receive(data))

    peer.on_write = hears_the_second
    driver = LoopbackDriver(link, LoopbackSettings(answer_timeout_ms=10))
    assert await driver.start() == DeviceIdentity("loopback", "0", "1")
    assert driver.counters["timeouts"] == 1


async def test_it_works_over_a_real_tty() -> None:
    simulator = LoopbackSimulator()
    async with PtyServer(simulator) as server:
        simulator.attach(server.send)
        link = await open_byte_link(server.path, LoopbackDriver.info.serial_format)
        driver = LoopbackDriver(link, LoopbackSettings())
        await driver.start()
        events = driver.events()
        simulator.key_in(ROM)
        found, inserted = await take(events, 2)
        assert found == Observation(Subject.KEY, {"presence": "absent"})
        assert isinstance(inserted, Event)
        assert inserted.identifier == ROM
        await driver.stop()
        link.close()


def test_the_simulator_refuses_what_its_protocol_cannot_say_and_stays_as_it_was() -> None:
    simulator = LoopbackSimulator()
    simulator.controller("READY")
    answer = simulator.receive(encode(Query()))
    for refused in (partial(simulator.controller, "LOST"), partial(simulator.key_in, "1"), partial(simulator.lock, 4)):
        with pytest.raises(ValueError, match="is not a loopback message"):
            refused()
    assert simulator.receive(encode(Query())) == answer

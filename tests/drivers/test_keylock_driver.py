"""The keylock drivers keep the contract; what they do at the start, on real descriptors, and what they never tell."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import ValidationError

from optima_bridge.driver import Driver
from optima_bridge.errors import FrameError, LinkError, LinkLost, LinkTimeout, RemoteProtocolError
from optima_bridge.link import MemoryRecordLink, RecordPeer, SerialFormat, memory_pair, memory_records, open_link
from optima_bridge.link.evdev import EvdevLink
from optima_bridge.link.hidraw import HidrawLink
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import Data, DeviceIdentity, Event, Observation, Subject
from optima_bridge.testing import ConformanceCase, DriverContract, LinkContract
from optima_bridge.wire.evdev import EV_KEY, EV_SYN, PRESSED, SYN_REPORT, InputEvent, encode
from optima_drivers.keylock import HidKeylockDriver, SerialKeylockDriver, TypedKeylockDriver
from optima_drivers.keylock.hid import HidKeylockSettings
from optima_drivers.keylock.keys import KEYS
from optima_drivers.keylock.serial import SerialKeylockSettings
from optima_drivers.keylock.simulator import (
    NCR_DESCRIPTOR,
    HidKeylockSimulator,
    SerialKeylockSimulator,
    TypedKeylockSimulator,
)
from optima_drivers.keylock.typed import TypedKeylockSettings
from tests.virtual_time import run, virtual_loop

LIMIT_S = 20.0
GRANTS = (Subject.KEYLOCK, "turned")
LOCKED: Data = {"position": "locked", "position_code": 1}
NORMAL: Data = {"position": "normal", "position_code": 2}
SUPERVISOR: Data = {"position": "supervisor", "position_code": 3}
POSIFLEX = TypedKeylockSettings(profile="posiflex")
NCR = HidKeylockSettings(profile="ncr")
ULTIMATE = SerialKeylockSettings(profile="ultimate")
LINES = {1: "LOCK 1", 2: "LOCK 2", 3: "LOCK 3"}
Events = AsyncGenerator[Event | Observation, None]


def records(simulator: Any) -> tuple[MemoryRecordLink, RecordPeer]:
    link, peer = memory_records(descriptor=NCR_DESCRIPTOR, identity=DeviceIdentity("POS keyboard", "7"))
    simulator.attach(peer.feed)
    if isinstance(simulator, HidKeylockSimulator):
        peer.on_ask = simulator.answer
    return link, peer


class TestTyped(LinkContract):
    case = ConformanceCase(
        driver=TypedKeylockDriver,
        simulator=TypedKeylockSimulator,
        provoke=lambda simulator: simulator.turn(3),
        undo=lambda simulator: simulator.turn(1),
        grants=GRANTS,
        settings={"profile": "posiflex"},
        join=records,
    )


class TestHid(LinkContract):
    case = ConformanceCase(
        driver=HidKeylockDriver,
        simulator=HidKeylockSimulator,
        provoke=lambda simulator: simulator.turn(3),
        undo=lambda simulator: simulator.turn(1),
        grants=GRANTS,
        settings={"profile": "ncr", "settle_ms": 20},
        join=records,
    )


class TestSerial(DriverContract):
    case = ConformanceCase(
        driver=SerialKeylockDriver,
        simulator=SerialKeylockSimulator,
        provoke=lambda simulator: simulator.turn(3),
        undo=lambda simulator: simulator.turn(1),
        grants=GRANTS,
        settings={"profile": "ultimate", "poll_interval_ms": 50},
        noise=b"\x00\xff\x55\r",
    )


class OnlyTalks(SerialKeylockSimulator):
    """A lock that tells each turn and cannot be asked."""

    def __init__(self) -> None:
        super().__init__()
        self._texts = {code: f"{text}\r\n".encode() for code, text in LINES.items()}

    def receive(self, data: bytes) -> bytes:
        raise AssertionError(f"nobody may ask it: {data!r}")


class TestSerialThatCannotBeAsked(DriverContract):
    case = ConformanceCase(
        driver=SerialKeylockDriver,
        simulator=OnlyTalks,
        provoke=lambda simulator: simulator.turn(3),
        undo=lambda simulator: simulator.turn(1),
        grants=GRANTS,
        settings={
            "profile": "generic",
            "positions": tuple({"code": code, "text": text} for code, text in LINES.items()),
        },
        noise=b"\x00\xff\x55\r",
    )


async def next_state(events: Events) -> Data:
    news = await anext(events)
    state = news.state
    assert state is not None
    return state


# What is true at the start


async def test_the_position_of_a_hid_lock_is_asked_and_is_no_event() -> None:
    simulator = HidKeylockSimulator()
    link, _ = records(simulator)
    simulator.turn(2)
    driver = HidKeylockDriver(link, NCR)
    assert await driver.start() == DeviceIdentity("POS keyboard", "7")
    events = driver.events()
    assert await anext(events) == Observation(Subject.KEYLOCK, NORMAL)
    simulator.turn(3)
    event = await anext(events)
    assert event == Event(Subject.KEYLOCK, "turned", event.mono_ns, SUPERVISOR, None, SUPERVISOR)  # type: ignore[union-attr]


@pytest.mark.parametrize("simulator", [HidKeylockSimulator(tells=False), HidKeylockSimulator()])
def test_a_hid_lock_that_does_not_tell_or_answers_zeros_is_unknown_until_it_is_turned(
    simulator: HidKeylockSimulator,
) -> None:
    async def main() -> list[Event | Observation]:
        link, peer = records(simulator)
        driver = HidKeylockDriver(link, NCR)
        await driver.start()
        virtual_loop().call_at(5, peer.feed, b"\x05\x02")
        return [await anext(driver.events())]

    [event] = run(main())
    assert isinstance(event, Event)
    assert event.state == LOCKED


async def test_an_answer_of_two_positions_at_once_is_counted_and_means_nothing() -> None:
    simulator = HidKeylockSimulator()
    link, _ = records(simulator)
    simulator.report(0b0110)
    driver = HidKeylockDriver(link, NCR)
    await driver.start()
    assert driver.counters == {"frames_bad_several": 1}


async def test_what_was_decided_at_the_start_is_told_first_even_without_settling() -> None:
    simulator = HidKeylockSimulator()
    link, _ = records(simulator)
    simulator.turn(3)
    driver = HidKeylockDriver(link, HidKeylockSettings(profile="ncr", settle_ms=0))
    await driver.start()
    assert await anext(driver.events()) == Observation(Subject.KEYLOCK, SUPERVISOR)


def test_reports_that_waited_together_grant_nothing_that_the_last_one_denies() -> None:
    async def main() -> Event | Observation:
        link, peer = memory_records(descriptor=NCR_DESCRIPTOR, clock_ns=virtual_loop().clock_ns)
        driver = HidKeylockDriver(link, NCR)
        await driver.start()
        for report in (b"\x05\x04", b"\x05\x08", b"\x05\x02"):
            peer.feed(report)
        return await anext(driver.events())

    event = run(main())
    assert event.state == LOCKED


def test_only_reports_that_have_a_button_of_a_position_are_asked_for_and_tell_one() -> None:
    of_the_same_application = bytes.fromhex("8506 068fff 0911 7508 9501 8102")
    two_reports = NCR_DESCRIPTOR[:-1] + of_the_same_application + NCR_DESCRIPTOR[-1:]

    async def main() -> tuple[list[int], list[Data], Counter[str]]:
        asked: list[int] = []
        link, peer = memory_records(descriptor=two_reports, clock_ns=virtual_loop().clock_ns)
        peer.on_ask = asked.append
        driver = HidKeylockDriver(link, NCR)
        await driver.start()
        for at_s, report in enumerate((b"\x05\x08", b"\x06\x2a", b"\x06\x00", b"\x06", b"\x05\x04")):
            virtual_loop().call_at(at_s, peer.feed, report)
        events = driver.events()
        return asked, [await next_state(events) for _ in range(2)], Counter(driver.counters)

    assert run(main()) == ([5], [SUPERVISOR, NORMAL], Counter(frames_good=2))


@pytest.mark.parametrize(
    ("descriptor", "error"),
    [(b"", RemoteProtocolError), (NCR_DESCRIPTOR.replace(b"\x29\x04", b"\x29\x03"), RemoteProtocolError), (b"\xc0", FrameError)],
)  # fmt: skip
async def test_a_node_without_the_positions_is_refused(descriptor: bytes, error: type[Exception]) -> None:
    link, _ = memory_records(descriptor=descriptor)
    with pytest.raises(error):
        await HidKeylockDriver(link, NCR).start()


async def test_only_a_device_that_is_nothing_but_a_keylock_is_grabbed() -> None:
    own = TypedKeylockSettings.model_validate_json(
        '{"profile": "generic", "only_keylock": true, "positions": [{"code": 1, "keys": "F13"}]}'
    )
    for settings in (own, own.model_copy(update={"only_keylock": False}), POSIFLEX):
        link, peer = memory_records()
        peer.feed(b"late")
        await TypedKeylockDriver(link, settings).start()
        assert link.grabbed is settings.only_keylock
        assert link.discard_input() == 0


def test_a_lock_that_does_not_answer_is_given_up_at_the_start_and_later() -> None:
    async def silent() -> None:
        link, _ = memory_pair(clock_ns=virtual_loop().clock_ns)
        await SerialKeylockDriver(link, ULTIMATE).start()

    async def falls_silent() -> None:
        simulator = SerialKeylockSimulator()
        link, peer = memory_pair(clock_ns=virtual_loop().clock_ns)
        peer.on_write = lambda data: peer.feed(simulator.receive(data))
        driver = SerialKeylockDriver(link, ULTIMATE)
        await driver.start()
        events = driver.events()
        assert await anext(events) == Observation(Subject.KEYLOCK, LOCKED)
        peer.on_write = None
        began_s = virtual_loop().time()
        try:
            await anext(events)
        finally:
            assert driver.counters["timeouts"] == 2
            assert virtual_loop().time() - began_s < 0.8

    for scenario in (silent, falls_silent):
        with pytest.raises(LinkTimeout):
            run(scenario())


# On descriptors of this kernel


async def typed_on_a_pipe(stack: AsyncExitStack) -> tuple[Driver, Callable[[int], None], Callable[[], None]]:
    ours, theirs = os.pipe()
    link = EvdevLink(ours, "evdev:pipe")
    stack.callback(link.close)
    simulator = TypedKeylockSimulator()

    def send_torn(packet: bytes) -> None:
        for start in range(0, len(packet), 37):
            os.write(theirs, packet[start : start + 37])

    simulator.attach(send_torn)
    return TypedKeylockDriver(link, POSIFLEX), simulator.turn, lambda: os.close(theirs)


async def hid_on_a_socket_pair(stack: AsyncExitStack) -> tuple[Driver, Callable[[int], None], Callable[[], None]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = HidrawLink(ours.detach(), "hidraw:pair", descriptor=NCR_DESCRIPTOR)
    stack.callback(link.close)
    simulator = HidKeylockSimulator()
    simulator.attach(theirs.sendall)
    return HidKeylockDriver(link, NCR), simulator.turn, theirs.close


async def serial_on_a_pty(stack: AsyncExitStack) -> tuple[Driver, Callable[[int], None], Callable[[], None]]:
    simulator = SerialKeylockSimulator()
    server = await stack.enter_async_context(PtyServer(simulator))
    simulator.attach(server.send)
    link = await open_link(server.path, SerialFormat())
    stack.callback(link.close)
    return SerialKeylockDriver(link, ULTIMATE), simulator.turn, server.unplug  # type: ignore[arg-type]


@pytest.mark.parametrize("opened", [typed_on_a_pipe, hid_on_a_socket_pair, serial_on_a_pty])
async def test_turns_and_the_end_come_through_a_real_descriptor(opened: Any) -> None:
    async with AsyncExitStack() as stack, asyncio.timeout(LIMIT_S):
        driver, turn, unplug = await opened(stack)
        await driver.start()
        events = driver.events()
        seen: list[Data] = []
        for code in (2, 3):
            turn(code)
            while seen[-1:] != [{2: NORMAL, 3: SUPERVISOR}[code]]:
                seen.append(await next_state(events))
        unplug()
        with pytest.raises(LinkError):
            await anext(events)
        await driver.stop()


# What people type

WORDS = st.lists(st.sampled_from(sorted(set(KEYS) - {"L"})), max_size=30).map(" ".join)


@hypothesis_settings(max_examples=30, deadline=None)
@given(WORDS)
def test_nothing_of_what_people_type_is_told_counted_or_logged(keys: str) -> None:
    async def main() -> None:
        link, peer = memory_records(clock_ns=virtual_loop().clock_ns)
        simulator = TypedKeylockSimulator(clock_ns=virtual_loop().clock_ns)
        simulator.attach(peer.feed)
        driver = TypedKeylockDriver(link, POSIFLEX)
        await driver.start()
        simulator.type(keys)
        peer.unplug()
        with pytest.raises(LinkLost) as lost:
            await anext(driver.events())
        assert str(lost.value) == "memory:test is gone"
        assert driver.counters == {}

    heard = Listener()
    logging.getLogger().addHandler(heard)
    try:
        run(main())
    finally:
        logging.getLogger().removeHandler(heard)
    assert heard.lines == []


def typed_on_a_posiflex(*typed: tuple[str, int]) -> tuple[list[tuple[Any, int]], Counter[str]]:
    """What is told, and milliseconds; `typed`: keys, 8 ms from one to the next, and the milliseconds until the next ones."""

    async def main() -> tuple[list[tuple[Any, int]], Counter[str]]:
        loop = virtual_loop()
        link, peer = memory_records(clock_ns=loop.clock_ns)
        driver = TypedKeylockDriver(link, POSIFLEX)
        await driver.start()
        at_ms = 1000
        for keys, wait_ms in typed:
            for place, key in enumerate(keys.split()):
                at_ns = (at_ms + place * 8) * 1_000_000
                packet = encode(InputEvent(at_ns, EV_KEY, KEYS[key], PRESSED), InputEvent(at_ns, EV_SYN, SYN_REPORT, 0))
                loop.call_at(at_ns / 1e9, peer.feed, packet)
            at_ms += wait_ms
        loop.call_at(at_ms / 1000, peer.unplug)
        told = []
        with contextlib.suppress(LinkLost):
            async for news in driver.events():
                assert isinstance(news, Event)
                assert news.state is not None
                told.append((news.state["position"], round(news.mono_ns / 1e6) - 1000))
        return told, Counter(driver.counters)

    return run(main())


@pytest.mark.parametrize("scanned", ["S K L 2 4 7 1 ENTER", "K L 2 ENTER", "ENTER K L 2", "K L 2 K", "K L 2 K L"])
def test_what_a_scanner_on_the_same_keyboard_types_turns_nothing(scanned: str) -> None:
    told, counters = typed_on_a_posiflex(("K L 1", 500), (scanned, 500))
    assert told == [("normal", 76)]
    assert counters["frames_bad_typing"] == 1


def test_a_sequence_counts_when_nothing_was_typed_behind_it() -> None:
    assert typed_on_a_posiflex(("K L 2", 76), ("1", 500))[0] == []
    assert typed_on_a_posiflex(("K L 2", 77), ("1", 500))[0] == [("supervisor", 76)]
    assert typed_on_a_posiflex(("K L 1 K L 2", 500))[0] == [("supervisor", 100)]


def test_supervisor_ends_with_any_sequence_at_once_also_within_typing() -> None:
    assert typed_on_a_posiflex(("K L 2", 500), ("K L 0", 500))[0] == [("supervisor", 76), ("locked", 516)]
    assert typed_on_a_posiflex(("K L 2", 500), ("1 K L 0", 500))[0] == [("supervisor", 76), ("between", 524)]
    assert typed_on_a_posiflex(("K L 2", 500), ("K L 3", 500))[0] == [
        ("supervisor", 76),
        ("between", 516),
        ("specific", 576),
    ]


def test_a_lock_that_only_talks_loses_supervisor_by_a_line_that_is_no_position() -> None:
    async def main() -> list[Data]:
        link, peer = memory_pair(clock_ns=virtual_loop().clock_ns)
        settings = SerialKeylockSettings.model_validate_json(
            '{"profile": "generic", "positions": [{"code": 1, "text": "P1"}, {"code": 3, "text": "P3"}]}'
        )
        driver = SerialKeylockDriver(link, settings)
        await driver.start()
        events = driver.events()
        told = []
        for line in (b"P3\r", b"P4\r", b"P1\r"):
            peer.feed(line)
            told.append(await next_state(events))
        return told

    assert run(main()) == [SUPERVISOR, {"position": "between", "position_code": 0}, LOCKED]


class Listener(logging.Handler):
    """Everything that is logged, at any level."""

    def __init__(self) -> None:
        super().__init__(0)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "asyncio":  # which selector it uses
            self.lines.append(record.getMessage())


# Settings


@pytest.mark.parametrize(
    ("settings", "document", "message"),
    [
        (TypedKeylockSettings, '{"profile": "generic"}', "needs positions"),
        (TypedKeylockSettings, '{"profile": "posiflex", "only_keylock": true}', "whole keyboard"),
        (TypedKeylockSettings, '{"profile": "ncr"}', "Input should be"),
        (TypedKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "keys": "K SHIFT"}]}', "SHIFT is not"),
        (TypedKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "keys": " "}]}', "pattern"),
        (TypedKeylockSettings, '{"profile": "generic", "positions": [{"code": 0, "keys": "K"}]}', "greater than"),
        (TypedKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "keys": "K L"}, {"code": 2, "keys": "1 K L 2"}]}', "part of another"),
        (TypedKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "keys": "K"}, {"code": 2, "keys": "K"}]}', "part of another"),
        (TypedKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "keys": "K"}, {"code": 1, "keys": "L"}]}', "same code"),
        (TypedKeylockSettings, '{"profile": "posiflex", "positions": [{"code": 3, "keys": "K L"}]}', "people type"),
        (HidKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "button": 1}]}', "usage_page"),
        (HidKeylockSettings, '{"profile": "ncr", "usage": 1}', "use profile generic"),
        (HidKeylockSettings, '{"profile": "ncr", "positions": [{"code": 1, "button": 1}, {"code": 2, "button": 1}]}', "same button"),
        (SerialKeylockSettings, '{"profile": "generic"}', "needs positions"),
        (SerialKeylockSettings, '{"profile": "ultimate", "enquiry": "?"}', "use profile generic"),
        (SerialKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "text": "a\\r"}]}', "pattern"),
        (SerialKeylockSettings, '{"profile": "generic", "positions": [{"code": 1, "text": "a"}, {"code": 2, "text": "a"}]}', "same text"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_meant_are_refused(settings: Any, document: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        settings.model_validate_json(document)


async def test_own_programming_takes_the_place_of_a_profiles() -> None:
    own = TypedKeylockSettings.model_validate_json(
        '{"profile": "posiflex", "positions": [{"code": 9, "name": "Z", "keys": "F24"}]}'
    )
    simulator = TypedKeylockSimulator()
    link, _ = records(simulator)
    driver = TypedKeylockDriver(link, own)
    await driver.start()
    simulator.turn(3)
    simulator.type("F24")
    assert await next_state(driver.events()) == {"position": "specific", "position_code": 9, "name": "Z"}


async def test_a_generic_lock_is_asked_with_its_own_words() -> None:
    settings = SerialKeylockSettings.model_validate_json(
        '{"profile": "generic", "enquiry": "P\\r", "positions": [{"code": 2, "text": "R"}]}'
    )
    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(b"R\r\n" if data == b"P\r" else b"?")
    driver = SerialKeylockDriver(link, settings)
    await driver.start()
    assert await anext(driver.events()) == Observation(Subject.KEYLOCK, NORMAL)

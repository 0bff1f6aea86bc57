"""The 125 kHz drivers on memory links in virtual time: what they decide, and exactly when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

import pytest
from pydantic import ValidationError

from optima_bridge.driver import Driver
from optima_bridge.errors import LinkLost
from optima_bridge.link import memory_pair
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_drivers.rfid125 import Id12laDriver, Rdm6300Driver
from optima_drivers.rfid125.codec import encode
from optima_drivers.rfid125.driver import Id12laSettings, Rdm6300Settings
from optima_drivers.rfid125.simulator import Rfid125Simulator
from tests.virtual_time import run, virtual_loop

A, B = "67003B51C6", "0C000621A5"
FRAME_A, FRAME_B = encode(A), encode(B)
HOLD_300 = Rdm6300Settings(hold_ms=300)
DEFAULTS = Rdm6300Settings()
TOUCH_DEFAULTS = Id12laSettings()

Script = Iterable[tuple[int, bytes]]


async def collect(events: AsyncGenerator[Event | Observation, None]) -> list[Event]:
    """Everything until the link is lost."""
    found: list[Event] = []
    while True:
        try:
            event = await anext(events)
        except LinkLost:
            return found
        assert isinstance(event, Event)
        found.append(event)


def play(
    driver_class: type[Driver], settings: object, script: Script, end_ms: int = 60_000
) -> tuple[list[Event], dict[str, int]]:
    """Let bytes arrive at their times (ms), pull the plug at `end_ms`; returns the events and the final counters."""

    async def main() -> tuple[list[Event], dict[str, int]]:
        loop = virtual_loop()
        link, peer = memory_pair(clock_ns=loop.clock_ns)
        driver = driver_class(link, settings)
        assert await driver.start() == DeviceIdentity()
        for at_ms, data in script:
            loop.call_at(at_ms / 1000, peer.feed, data)
        loop.call_at(end_ms / 1000, peer.unplug)
        events = await collect(driver.events())
        await driver.stop()
        assert peer.written == b""  # there is no command channel
        return events, dict(driver.counters)

    return run(main())


def brief(events: Iterable[Event]) -> list[tuple[str, str | None, float]]:
    """Action, card and time in ms."""
    return [(event.action, event.identifier, event.mono_ns / 1e6) for event in events]


def held(frame: bytes, first_ms: int, count: int) -> list[tuple[int, bytes]]:
    """A card that answers `count` times, each 65 ms."""
    return [(first_ms + 65 * number, frame) for number in range(count)]


REFERENCE = [
    *held(FRAME_A, 0, 10),
    *held(FRAME_A, 12 * 65, 8),
    *held(FRAME_B, 3000, 4),
    (3300, FRAME_A),
    *held(FRAME_A, 3400, 4),
]


def test_the_reference_trace_of_the_protocol_document() -> None:
    events, counters = play(Rdm6300Driver, HOLD_300, REFERENCE, end_ms=3600)
    assert brief(events) == [
        ("inserted", A, 65),
        ("suspect", A, 735),
        ("restored", A, 780),
        ("suspect", A, 1385),
        ("removed", A, 1535),
        ("inserted", B, 3065),
        ("suspect", B, 3345),
        ("removed", B, 3400),
        ("inserted", A, 3400),
    ]
    assert counters == {"frames": 27, "length": 0, "hex": 0, "checksum": 0, "overrun": 0, "suppressed": 0}


def test_an_event_carries_state_and_silence_and_nothing_of_the_card_number() -> None:
    events, _ = play(Rdm6300Driver, HOLD_300, REFERENCE, end_ms=3600)
    assert {event.subject for event in events} == {Subject.CARD}
    assert [(event.action, event.data, event.state) for event in events[:5]] == [
        ("inserted", {}, {"presence": "present"}),
        ("suspect", {"last_seen_ms": 150}, {"presence": "suspect"}),
        ("restored", {}, {"presence": "present"}),
        ("suspect", {"last_seen_ms": 150}, {"presence": "suspect"}),
        ("removed", {"last_seen_ms": 300}, {"presence": "absent"}),
    ]
    assert events[7].data == {"last_seen_ms": 205}  # B made way for A at once


def test_silence_removes_a_card_with_nothing_else_happening() -> None:
    events, _ = play(Rdm6300Driver, DEFAULTS, held(FRAME_A, 0, 2))
    assert brief(events) == [("inserted", A, 65), ("suspect", A, 215), ("removed", A, 565)]


def test_noise_does_not_keep_a_card_present() -> None:
    noise = [(at_ms, b"\x00\xff\x02\x37") for at_ms in range(70, 2000, 40)]
    events, _ = play(Rdm6300Driver, DEFAULTS, held(FRAME_A, 0, 2) + noise)
    assert [event.action for event in events] == ["inserted", "suspect", "removed"]
    assert brief(events)[2] == ("removed", A, 565)


@pytest.mark.parametrize("count", [2, 5, 200])
def test_late_frames_that_arrive_together_never_grant(count: int) -> None:
    events, counters = play(Rdm6300Driver, DEFAULTS, [(100, FRAME_A * count)])
    assert events == []
    assert counters["frames"] == count


def test_late_frames_count_as_one_and_the_next_real_one_grants() -> None:
    events, _ = play(Rdm6300Driver, DEFAULTS, [(100, FRAME_A * 2), (165, FRAME_A)])
    assert brief(events)[0] == ("inserted", A, 165)


def test_frames_with_a_wrong_character_never_grant() -> None:
    digits = b"0123456789ABCDEF"
    damaged = [
        FRAME_A[:place] + bytes([digit]) + FRAME_A[place + 1 :]
        for place in range(1, 13)
        for digit in digits
        if digit != FRAME_A[place]
    ]
    events, counters = play(Rdm6300Driver, DEFAULTS, [(65 * number, frame) for number, frame in enumerate(damaged)])
    assert events == []
    assert counters["checksum"] == 180 == len(damaged)


def test_a_double_fault_that_passes_the_check_neither_grants_nor_ends_a_presence() -> None:
    ghost = encode("77003B51C6")[:11] + b"DB\x03"
    script = [*held(FRAME_A, 0, 10), (300, ghost), (420, ghost)]
    events, counters = play(Rdm6300Driver, DEFAULTS, sorted(script))
    assert counters["frames"] == 12
    assert {event.identifier for event in events} == {A}


@pytest.mark.parametrize("reads", [1, 3, 5])
def test_the_number_of_reads_to_grant_is_a_setting(reads: int) -> None:
    settings = Rdm6300Settings(reads_to_grant=reads)
    events, _ = play(Rdm6300Driver, settings, held(FRAME_A, 0, 10))
    assert brief(events)[0] == ("inserted", A, 65 * (reads - 1))


def test_errors_are_counted_by_kind_but_not_what_came_before_the_first_frame() -> None:
    junk = b"ZZ\x0367003B51C6CB\x03"
    bad = b"\x02\x03\x02ZZ003B51C6CB\x03\x0268003B51C6CB\x03\x02" + b"0" * 20
    _, counters = play(Id12laDriver, TOUCH_DEFAULTS, [(0, junk), (10, bad), (20, FRAME_A)])
    assert counters == {"frames": 1, "length": 1, "hex": 1, "checksum": 1, "overrun": 1, "suppressed": 0}


def test_a_touch_is_an_event_without_a_state() -> None:
    events, _ = play(Id12laDriver, TOUCH_DEFAULTS, [(40, encode(A, cr_lf=True))])
    assert events == [Event(Subject.CARD, "presented", 40_000_000, {"reads": 1}, A, None)]
    assert Id12laDriver.info.reports_removal is False


def test_the_same_card_within_the_window_is_suppressed_and_restarts_it() -> None:
    times_ms = [0, 999, 1998, 2998, 2999]
    events, counters = play(Id12laDriver, TOUCH_DEFAULTS, [(at_ms, FRAME_A) for at_ms in times_ms])
    assert brief(events) == [("presented", A, 0), ("presented", A, 2998)]
    assert (counters["frames"], counters["suppressed"]) == (5, 3)


def test_another_card_is_never_suppressed() -> None:
    events, _ = play(Id12laDriver, TOUCH_DEFAULTS, [(0, FRAME_A + FRAME_B + FRAME_A)])
    assert brief(events) == [("presented", A, 0), ("presented", B, 0), ("presented", A, 0)]


def test_a_window_of_zero_lets_every_frame_through() -> None:
    settings = Id12laSettings(repeat_ms=0)
    events, counters = play(Id12laDriver, settings, [(0, FRAME_A * 500)])
    assert len(events) == 500
    assert counters["suppressed"] == 0


@pytest.mark.parametrize("driver_class", [Rdm6300Driver, Id12laDriver])
def test_frames_from_before_the_start_are_dropped(driver_class: type[Driver]) -> None:
    async def main() -> list[Event]:
        loop = virtual_loop()
        link, peer = memory_pair(clock_ns=loop.clock_ns)
        peer.feed(FRAME_A)
        driver = driver_class(link, driver_class.Settings())
        await driver.start()
        loop.call_at(0.065, peer.feed, FRAME_B)
        loop.call_at(1, peer.unplug)
        return await collect(driver.events())

    assert [event.identifier for event in run(main())] == ([B] if driver_class is Id12laDriver else [])


@pytest.mark.parametrize("driver_class", [Rdm6300Driver, Id12laDriver])
def test_cancelling_a_wait_loses_no_byte(driver_class: type[Driver]) -> None:
    async def main() -> Event | Observation:
        link, peer = memory_pair(clock_ns=virtual_loop().clock_ns)
        driver = driver_class(link, driver_class.Settings())
        await driver.start()
        virtual_loop().call_at(0.1, peer.feed, FRAME_A[:7])
        async with aclosing(driver.events()) as events:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(events)
        virtual_loop().call_at(0.3, peer.feed, FRAME_A[7:])
        virtual_loop().call_at(0.4, peer.feed, FRAME_A)
        async with aclosing(driver.events()) as events:
            return await anext(events)

    event = run(main())
    assert isinstance(event, Event)
    assert (event.action, event.identifier) in (("inserted", A), ("presented", A))


@pytest.mark.parametrize(
    ("driver_class", "key", "bad"),
    [
        (Rdm6300Driver, "hold_ms", 99),
        (Rdm6300Driver, "hold_ms", 5001),
        (Rdm6300Driver, "suspect_ms", 0),
        (Rdm6300Driver, "reads_to_grant", 0),
        (Rdm6300Driver, "reads_to_grant", 6),
        (Id12laDriver, "repeat_ms", -1),
        (Id12laDriver, "repeat_ms", 5001),
        (Id12laDriver, "hold_ms", 500),
    ],
)
def test_a_setting_out_of_range_is_refused(driver_class: type[Driver], key: str, bad: int) -> None:
    with pytest.raises(ValidationError, match=key):
        driver_class.Settings.model_validate({key: bad})


async def _hold_for_a_minute(loss: float) -> list[Event]:
    loop = virtual_loop()
    link, peer = memory_pair(clock_ns=loop.clock_ns)
    reader = Rfid125Simulator("rdm6300", loss=loss, seed=1)
    reader.attach(peer.feed)
    driver = Rdm6300Driver(link, Rdm6300Settings())
    await driver.start()
    reader.insert(A)
    loop.call_at(60, reader.remove)
    loop.call_at(70, peer.unplug)
    return await collect(driver.events())


@pytest.mark.parametrize("loss", [0.0, 0.2])
def test_a_card_held_for_a_minute_is_one_presence_also_at_the_edge_of_the_field(loss: float) -> None:
    events = run(_hold_for_a_minute(loss))
    decisions = [event for event in events if event.action in ("inserted", "removed")]
    assert [event.action for event in decisions] == ["inserted", "removed"]
    assert 60e9 < decisions[1].mono_ns < 60.5e9

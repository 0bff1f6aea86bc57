"""Every shipped driver keeps the driver contract, and so does the template that others copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import ClassVar

import msgspec
import pytest

from optima_bridge.errors import BridgeError, FrameError, LinkLost
from optima_bridge.model import Data, DeviceIdentity, Event, Observation, Subject
from optima_bridge.testing import ConformanceCase, DriverContract, awaits, bench
from optima_bridge.testing.bench import WHOLE
from optima_drivers._template import TemplateDriver
from optima_drivers._template.codec import Decoder
from optima_drivers._template.tests import test_codec
from optima_drivers._template.tests.test_driver import TestTemplate  # collected here, as it is in a package made of it
from optima_drivers.ds2480b import Ds2480bDriver
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.loopback import LoopbackDriver
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.rfid125 import Id12laDriver, Rdm6300Driver
from optima_drivers.rfid125.codec import CardFrame
from optima_drivers.rfid125.simulator import Rfid125Simulator

ROM = "01B7BA1000000075"
OTHER_ROM = "0101EFCDAB00002C"
CARD = "67003B51C6"
Events = AsyncGenerator[Event | Observation, None]


class TestLoopback(DriverContract):
    case = ConformanceCase(
        driver=LoopbackDriver,
        simulator=LoopbackSimulator,
        provoke=lambda simulator: simulator.key_in(ROM),
        undo=lambda simulator: simulator.key_out(),
        grants=(Subject.KEY, "inserted"),
        identifier=ROM,
        revokes=(Subject.KEY, "removed"),
    )


class TestRdm6300(DriverContract):
    case = ConformanceCase(
        driver=Rdm6300Driver,
        simulator=partial(Rfid125Simulator, "rdm6300", repeat_ms=25),
        provoke=lambda simulator: simulator.insert(CARD),
        undo=lambda simulator: simulator.remove(),
        grants=(Subject.CARD, "inserted"),
        identifier=CARD,
        revokes=(Subject.CARD, "removed"),
        suspects=(Subject.CARD, "suspect"),
    )


class TestId12la(DriverContract):
    case = ConformanceCase(
        driver=Id12laDriver,
        simulator=partial(Rfid125Simulator, "id12la", repeat_ms=25),
        provoke=lambda simulator: simulator.insert(CARD),
        undo=lambda simulator: simulator.remove(),
        grants=(Subject.CARD, "presented"),
        identifier=CARD,
    )


class TestDs2480b(DriverContract):
    case = ConformanceCase(
        driver=Ds2480bDriver,
        simulator=Ds2480bSimulator,
        provoke=lambda simulator: simulator.put(ROM),
        undo=lambda simulator: simulator.lift(),
        grants=(Subject.KEY, "inserted"),
        identifier=ROM,
        revokes=(Subject.KEY, "removed"),
        suspects=(Subject.KEY, "suspect"),
        second=lambda simulator: simulator.put(OTHER_ROM),
        ambiguous=(Subject.KEY, "ambiguous"),
        settings={"poll_interval_ms": 20},
    )


class KeepsLateBytes(TemplateDriver):
    async def start(self) -> DeviceIdentity:
        return DeviceIdentity()


class EndsQuietly(TemplateDriver):
    async def events(self) -> Events:
        with suppress(LinkLost):
            async for event in super().events():
                yield event


class LeaksTheLibrarysError(TemplateDriver):
    async def events(self) -> Events:
        try:
            async for event in super().events():
                yield event
        except LinkLost as error:
            raise OSError("the port is gone") from error


class SwallowsCancellation(TemplateDriver):
    async def events(self) -> Events:
        with suppress(asyncio.CancelledError):
            async for event in super().events():
                yield event
        yield Event(Subject.SEAL, "opened", 0)


class ClosesTheLink(TemplateDriver):
    async def stop(self) -> None:
        self._link.close()


class TellsTheIdentifier(TemplateDriver):
    async def events(self) -> Events:
        async for event in super().events():
            yield Event(Subject.SEAL, "opened", self._link.clock_ns(), data={"id": "01ab"}, identifier="01AB")
            del event


class TakesAnyLine(TemplateDriver):
    async def events(self) -> Events:
        while b"\n" not in await self._link.read():
            pass
        yield Event(Subject.SEAL, "opened", self._link.clock_ns())


class FailsOnDamage(TemplateDriver):
    async def events(self) -> Events:
        async for event in super().events():
            yield event
            if self.counters["frames_bad_overrun"] + self.counters["frames_bad_characters"]:
                raise ValueError("a damaged line")


class HearsOneLinkOnly(TemplateDriver):
    heard: ClassVar[object] = None

    async def start(self) -> DeviceIdentity:
        if type(self).heard not in (None, self._link):
            raise LinkLost("the device that was there first is gone")
        type(self).heard = self._link
        return await super().start()


class GrantsOnceMore(TemplateDriver):
    async def events(self) -> Events:
        async for event in super().events():
            if isinstance(event, Event) and event.action == "closed":
                yield Event(Subject.SEAL, "opened", event.mono_ns)
            yield event


class LeavesTheState(TemplateDriver):
    states: ClassVar[tuple[Data | None, Data | None]]

    async def events(self) -> Events:
        async for event in super().events():
            if isinstance(event, Event):
                event = msgspec.structs.replace(event, state=self.states[event.action == "closed"])
            yield event


class RevokesToNothing(LeavesTheState):
    states = ({"seal": "broken"}, None)


class RevokesToTheSame(LeavesTheState):
    states = ({"seal": "broken"}, {"seal": "broken"})


class HasNoState(LeavesTheState):
    states = (None, None)


class FindsAtTheStart(TemplateDriver):
    async def events(self) -> Events:
        yield Observation(Subject.SEAL, {"seal": "broken"})
        async for event in super().events():
            yield event


class FindsInDamage(TemplateDriver):
    async def events(self) -> Events:
        while True:
            chunk = await self._link.read()
            for result in self._decoder.feed(chunk):
                state = {"seal": "intact" if result is False else "broken"}
                if isinstance(result, FrameError):
                    yield Observation(Subject.SEAL, state)
                else:
                    yield Event(Subject.SEAL, "opened" if result else "closed", self._link.clock_ns(), state=state)


@pytest.mark.parametrize(
    ("broken", "test"),
    [
        (KeepsLateBytes, DriverContract.test_bytes_from_before_start_grant_nothing),
        (EndsQuietly, DriverContract.test_a_lost_link_ends_the_events),
        (LeaksTheLibrarysError, DriverContract.test_unplugging_at_any_await_of_events_raises_only_link_errors),
        (SwallowsCancellation, DriverContract.test_events_can_be_cancelled_at_any_await),
        (ClosesTheLink, DriverContract.test_stop_is_safe_twice_and_leaves_the_link_usable),
        (TellsTheIdentifier, partial(DriverContract.test_an_event_arrives_over_any_cable, cable=WHOLE)),
        (TakesAnyLine, partial(DriverContract.test_random_noise_grants_nothing, seed=0)),
        (FailsOnDamage, partial(DriverContract.test_one_byte_that_is_lost_or_doubled_grants_nobody_else, times=2)),
        (HearsOneLinkOnly, DriverContract.test_a_device_that_vanishes_and_returns_is_heard_again),
        (FindsAtTheStart, DriverContract.test_an_event_arrives_between_noise),
        (FindsAtTheStart, DriverContract.test_bytes_from_before_start_grant_nothing),
        (FindsAtTheStart, partial(DriverContract.test_one_byte_that_is_lost_or_doubled_grants_nobody_else, times=0)),
        (FindsInDamage, DriverContract.test_an_event_arrives_between_noise),
        (FindsInDamage, partial(DriverContract.test_random_noise_grants_nothing, seed=0)),
        (RevokesToNothing, DriverContract.test_what_is_taken_away_is_told_and_suspect_before_that),
        (RevokesToTheSame, DriverContract.test_what_is_taken_away_is_told_and_suspect_before_that),
        (HasNoState, DriverContract.test_what_is_taken_away_is_told_and_suspect_before_that),
        (GrantsOnceMore, DriverContract.test_what_is_taken_away_is_told_and_suspect_before_that),
    ],
    ids=lambda it: it.__name__ if isinstance(it, type) else "",
)
def test_the_suite_notices_a_driver_that(broken: type[TemplateDriver], test: Callable[[DriverContract], None]) -> None:
    class Contract(DriverContract):
        case = replace(TestTemplate.case, driver=broken)

    test(TestTemplate())
    with pytest.raises((AssertionError, BridgeError, OSError, ValueError, pytest.fail.Exception)):
        test(Contract())


class ReadsOnRegardless(TemplateDriver):
    """Holds on to a lost link; never gives up the port."""

    async def events(self) -> Events:
        while True:
            with suppress(Exception):
                async for event in super().events():
                    yield event


@pytest.mark.parametrize(
    "test",
    [
        DriverContract.test_a_lost_link_ends_the_events,
        DriverContract.test_unplugging_at_any_await_of_events_raises_only_link_errors,
        DriverContract.test_a_device_that_vanishes_and_returns_is_heard_again,
    ],
)
def test_a_driver_that_reads_on_regardless_is_noticed_and_holds_up_nobody(
    test: Callable[[DriverContract], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Contract(DriverContract):
        case = replace(TestTemplate.case, driver=ReadsOnRegardless)

    monkeypatch.setattr(bench, "WAIT_S", 0.2)
    monkeypatch.setattr(awaits, "LIMIT_S", 0.5)
    with pytest.raises(AssertionError, match=r"within 0\.[25] s"):
        test(Contract())


def test_an_event_that_does_not_come_is_named_with_what_came_and_what_was_counted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Contract(DriverContract):
        case = replace(TestTemplate.case, grants=(Subject.KEY, "inserted"))

    monkeypatch.setattr(bench, "WAIT_S", 0.2)
    missed = (
        r"key inserted did not come within 0\.2 s; seen: seal opened; "
        r"counters: {'frames_bad_overrun': 2, 'frames_good': 1}"
    )
    with pytest.raises(AssertionError, match=missed):
        Contract().test_an_event_arrives_between_noise()


def test_a_test_that_fails_shows_the_values() -> None:
    class Other(TemplateDriver):
        info = msgspec.structs.replace(TemplateDriver.info, contract=0)

    class Contract(DriverContract):
        case = replace(TestTemplate.case, driver=Other)

    with pytest.raises(AssertionError, match="assert 0 == 1"):
        Contract().test_info_is_complete()


def takes_any_hex(text: bytes) -> CardFrame | FrameError:
    try:
        return CardFrame(bytes.fromhex(text.decode("ascii"))[:5].hex().upper())
    except ValueError:
        return FrameError("a character that is not hexadecimal", kind="hex")


@pytest.mark.parametrize(
    ("proved", "check", "broken"),
    [
        (TestRdm6300, "optima_drivers.rfid125.codec._decode", takes_any_hex),
        (TestId12la, "optima_drivers.rfid125.codec._decode", takes_any_hex),
        (TestDs2480b, "optima_bridge.wire.onewire.crc8", lambda _: 0),
    ],
)
def test_the_suite_notices_a_driver_that_does_not_check_what_it_says(
    proved: type[DriverContract], check: str, broken: Callable[[bytes], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, broken)
    with pytest.raises(AssertionError, match=r"integrity is \w+, yet byte \d+ of b'.*' may be damaged"):
        proved().test_a_flipped_bit_is_noticed_where_the_driver_says_so()


def test_damage_that_the_check_does_not_cover_may_go_unnoticed() -> None:
    class Marked(TestId12la):
        """A mark before each frame, which the decoder passes over."""

        case = replace(TestId12la.case, simulator=MarksEachFrame)

    with pytest.raises(AssertionError, match="yet byte 0 of "):
        Marked().test_a_flipped_bit_is_noticed_where_the_driver_says_so()
    Marked.case = replace(Marked.case, unchecked=b"\x80")
    Marked().test_a_flipped_bit_is_noticed_where_the_driver_says_so()


class KeepsTheWholeLine(Decoder):
    def feed(self, data: bytes) -> list[bool | FrameError]:
        self.kept = getattr(self, "kept", b"") + data
        return super().feed(data)


def test_the_template_notices_a_decoder_that_keeps_a_line_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    test_codec.test_a_line_that_never_ends_is_not_kept()
    monkeypatch.setattr(test_codec, "Decoder", KeepsTheWholeLine)
    with pytest.raises(AssertionError):
        test_codec.test_a_line_that_never_ends_is_not_kept()


class NamesAnother(LoopbackDriver):
    async def events(self) -> Events:
        async for event in super().events():
            yield msgspec.structs.replace(event, identifier=OTHER_ROM) if isinstance(event, Event) else event


def test_the_suite_notices_a_driver_that_names_another_key() -> None:
    class Contract(DriverContract):
        case = replace(TestLoopback.case, driver=NamesAnother)

    with pytest.raises(AssertionError, match=OTHER_ROM):
        Contract().test_an_event_arrives()


class MarksEachFrame(Rfid125Simulator):
    def __init__(self) -> None:
        super().__init__("id12la", repeat_ms=25)

    def attach(self, send: Callable[[bytes], None]) -> None:
        super().attach(lambda data: send(b"\x80" + data))


class TrustsASuspectKey(Ds2480bDriver):
    async def events(self) -> Events:
        async for event in super().events():
            if isinstance(event, Event) and event.action == "suspect":
                event = msgspec.structs.replace(event, state={"presence": "present"})
            yield event


def test_the_suite_notices_a_driver_that_trusts_a_suspect_key() -> None:
    class Contract(DriverContract):
        case = replace(TestDs2480b.case, driver=TrustsASuspectKey)

    with pytest.raises(AssertionError, match="present"):
        Contract().test_what_is_taken_away_is_told_and_suspect_before_that()


class TrustsOneOfTwo(Ds2480bDriver):
    async def events(self) -> Events:
        async for event in super().events():
            if isinstance(event, Event) and event.action == "ambiguous":
                event = Event(Subject.KEY, "ambiguous", event.mono_ns, identifier=ROM, state={"presence": "present"})
            yield event


def test_the_suite_notices_a_driver_that_trusts_one_of_two_keys() -> None:
    class Contract(DriverContract):
        case = replace(TestDs2480b.case, driver=TrustsOneOfTwo)

    with pytest.raises(AssertionError):
        Contract().test_a_second_token_makes_both_count_for_nothing()

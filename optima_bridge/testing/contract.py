"""The conformance suite's tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.metadata import entry_points
from typing import ClassVar

import pytest
from pydantic import ValidationError

from optima_bridge.driver import CONTRACT, ENTRY_POINT_GROUP, DriverInfo, DriverSettings
from optima_bridge.errors import LinkError, ProtocolError
from optima_bridge.model import DeviceIdentity, Event, Observation
from optima_bridge.testing.awaits import AtAwait, at_every_await, cancelled_at, run
from optima_bridge.testing.bench import (
    BYTE_BY_BYTE,
    GLUED,
    WAIT_S,
    WHOLE,
    Bench,
    ByteBench,
    Cable,
    ConformanceCase,
    repeats,
)
from optima_bridge.topics import is_segment

MOST_SPOILED = 8
"""So many bytes of an event are spoiled in turn, spread over it."""

ASKED_S = 0.2
"""So long a device that is asked has for what it says with a flipped bit."""


class Declared:
    """The tests of every driver. Each scenario runs in an event loop of its own and is bounded by LIMIT_S."""

    case: ClassVar[ConformanceCase]

    def bench(self) -> Bench:
        """A fresh driver and simulator."""
        return Bench(self.case) if self.case.join else ByteBench(self.case)

    def test_info_is_complete(self) -> None:
        info = self.case.driver.info
        assert isinstance(info, DriverInfo)
        assert info.contract == CONTRACT
        assert is_segment(info.name)
        assert all((info.summary, info.capabilities, info.schemes, info.integrity, info.spec))

    def test_the_entry_point_has_the_drivers_name(self) -> None:
        offered = [point.load() for point in entry_points(group=ENTRY_POINT_GROUP, name=self.case.driver.info.name)]
        assert offered == ([self.case.driver] if self.case.registered else [])

    def test_settings_are_described_and_refuse_unknown_keys(self) -> None:
        settings = self.case.driver.Settings
        assert issubclass(settings, DriverSettings)
        assert [name for name, key in settings.model_fields.items() if not key.description] == []
        with pytest.raises(ValidationError, match="no_such_key"):
            settings.model_validate({**self.case.settings, "no_such_key": 1})

    def test_stop_is_safe_twice_and_leaves_the_link_usable(self) -> None:
        async def scenario() -> None:
            bench = self.bench()
            assert isinstance(await bench.driver.start(), DeviceIdentity)
            await bench.driver.stop()
            await bench.driver.stop()
            await bench.works_again()

        run(scenario())

    def test_unplugging_at_any_await_of_start_raises_only_link_errors(self) -> None:
        async def scenario(k: int) -> bool:
            bench = self.bench()
            start = AtAwait(bench.driver.start(), k, bench.peer.unplug)
            await _or_link_error(start)
            await bench.driver.stop()
            return start.reached

        at_every_await(scenario)

    def test_start_can_be_cancelled_at_any_await(self) -> None:
        async def scenario(k: int) -> bool:
            bench = self.bench()
            reached = await cancelled_at(bench.driver.start(), k)
            await bench.driver.stop()
            await bench.works_again()
            return reached

        at_every_await(scenario)


class StoreContract(Declared):
    """The tests of a driver that has a secure store and no events."""

    def test_its_store_can_be_looked_at(self) -> None:
        async def scenario() -> None:
            bench = self.bench()
            await bench.driver.start()
            await bench.look(bench.driver)
            assert all(isinstance(total, int) for total in bench.driver.counters.values())
            await bench.driver.stop()

        run(scenario())

    def test_unplugging_at_any_await_of_a_look_raises_only_link_errors(self) -> None:
        async def scenario(k: int) -> bool:
            bench = self.bench()
            await bench.driver.start()
            look = AtAwait(bench.look(bench.driver), k, bench.peer.unplug)
            await _or_link_error(look)
            await bench.driver.stop()
            return look.reached

        at_every_await(scenario)

    def test_a_look_can_be_cancelled_at_any_await(self) -> None:
        async def scenario(k: int) -> bool:
            bench = self.bench()
            await bench.driver.start()
            reached = await cancelled_at(bench.look(bench.driver), k)
            await bench.driver.stop()
            await bench.works_again()
            return reached

        at_every_await(scenario)

    def test_a_lost_link_ends_the_events(self) -> None:
        async def scenario() -> None:
            bench = self.bench()
            await bench.driver.start()
            waiting = asyncio.ensure_future(anext(bench.driver.events(), None))
            await asyncio.sleep(0)
            bench.peer.unplug()
            with pytest.raises(LinkError):
                await waiting
            await bench.driver.stop()
            await bench.driver.stop()

        run(scenario())


class LinkContract(Declared):
    """The tests of a driver of events, whatever its link."""

    def test_an_event_arrives(self) -> None:
        run(self._one_event(self.bench))

    def test_unplugging_at_any_await_of_events_raises_only_link_errors(self) -> None:
        async def scenario(k: int) -> bool:
            bench = self.bench()
            await bench.driver.start()
            event = AtAwait(bench.granted(bench.driver.events()), k, bench.peer.unplug)
            waiting = asyncio.create_task(_or_link_error(event))
            await bench.settled(waiting)
            await bench.provoke()
            await waiting
            await bench.driver.stop()
            return event.reached

        assert at_every_await(scenario) > 0, "events() must wait for the device"

    def test_a_lost_link_ends_the_events(self) -> None:
        async def scenario() -> None:
            bench = self.bench()
            events = await bench.one_event()
            bench.peer.unplug()
            with pytest.raises(LinkError):
                await anext(events, None)
            await bench.driver.stop()
            await bench.driver.stop()

        run(scenario())

    def test_events_can_be_cancelled_at_any_await(self) -> None:
        async def scenario(k: int) -> bool:
            bench = self.bench()
            await bench.driver.start()
            cancelled = asyncio.create_task(cancelled_at(bench.granted(bench.driver.events()), k))
            await bench.settled(cancelled)
            await bench.provoke()
            reached = await cancelled
            await bench.driver.stop()
            await bench.undo()
            await bench.works_again()
            return reached

        assert at_every_await(scenario) > 0, "events() must wait for the device"

    def test_stop_can_be_cancelled_at_any_await(self) -> None:
        async def scenario(k: int) -> bool:
            bench = self.bench()
            await bench.one_event()
            reached = await cancelled_at(bench.driver.stop(), k)
            await bench.driver.stop()
            await bench.undo()
            await bench.works_again()
            return reached

        at_every_await(scenario)

    def test_what_is_taken_away_is_told_and_suspect_before_that(self) -> None:
        revokes, suspects = self.case.revokes, self.case.suspects
        if revokes is None:
            pytest.skip("the case names no event that revokes")

        async def scenario() -> None:
            bench = self.bench()
            events = await bench.one_event()
            granted = bench.seen[-1].state
            assert granted is not None, "what can be taken away is a state"
            await bench.undo()
            taken = await bench.until(events, revokes)
            told = [(event.subject, event.action) for event in taken]
            assert self.case.grants not in told
            assert told.count(suspects) == 1 if suspects else told == [revokes]
            for event in taken:
                if (event.subject, event.action) in (revokes, suspects):
                    assert event.state is not None
                    assert event.state != granted
            await bench.driver.stop()

        run(scenario())

    def test_a_second_token_makes_both_count_for_nothing(self) -> None:
        ambiguous = self.case.ambiguous
        if self.case.second is None or ambiguous is None:
            pytest.skip("the case names no second token")

        async def scenario() -> None:
            bench = self.bench()
            events = await bench.one_event()
            await bench.put_second()
            *before, event = await bench.until(events, ambiguous)
            assert self.case.grants not in [(earlier.subject, earlier.action) for earlier in before]
            assert event.identifier is None
            assert event.state is not None
            assert event.state.get("presence") != "present"
            await bench.undo()
            again = asyncio.create_task(bench.granted(events))
            await bench.settled(again)
            await bench.provoke()
            assert (await again).identifier is not None
            await bench.driver.stop()

        run(scenario())

    async def _one_event(self, make: Callable[[], Bench], noise: bytes = b"") -> list[Event | Observation]:
        """Start the driver, see one event and stop it; all that was told, the event last."""
        bench = make()
        await bench.one_event(noise)
        assert all(isinstance(total, int) for total in bench.driver.counters.values())
        await bench.driver.stop()
        return bench.seen


class DriverContract(LinkContract):
    """The tests of a driver of byte pipes."""

    def bench(self, cable: Cable = WHOLE) -> ByteBench:
        return ByteBench(self.case, cable)

    def test_it_works_without_a_port(self) -> None:
        assert "memory" in self.case.driver.info.schemes

    @pytest.mark.parametrize("cable", [WHOLE, BYTE_BY_BYTE, GLUED], ids=["whole", "byte by byte", "glued"])
    def test_an_event_arrives_over_any_cable(self, cable: Cable) -> None:
        run(self._one_event(partial(self.bench, cable)))

    def test_an_event_arrives_between_noise(self) -> None:
        *before, granted = run(self._one_event(self.bench, self.case.noise))
        assert isinstance(granted, Event)
        assert not [news for news in before if repeats(news, granted)]

    @pytest.mark.parametrize("seed", range(4))
    def test_random_noise_grants_nothing(self, seed: int) -> None:
        async def scenario() -> None:
            bench = self.bench()
            waiting = await self._waiting(bench)
            for _ in range(32):
                bench.peer.feed(noise.randbytes(64))
                await bench.settled(waiting)
            assert not [news for news in bench.seen if repeats(news, granted)]
            if waiting.done():  # giving up is right where every byte is an answer
                assert isinstance(waiting.exception(), LinkError | ProtocolError)
            else:
                bench.send(self.case.noise)
                await bench.provoke()
                await waiting
            await bench.driver.stop()

        noise = random.Random(seed)  # noqa: S311 - the same noise each time
        granted = self._granted()
        run(scenario())

    def test_bytes_from_before_start_grant_nothing(self) -> None:
        async def scenario() -> None:
            earlier = self.bench()
            await earlier.one_event()
            bench = self.bench()
            bench.peer.feed(bytes(earlier.delivered))
            waiting = await self._waiting(bench)
            assert not waiting.done()
            assert not [news for news in bench.seen if repeats(news, granted)]
            await bench.provoke()
            await waiting

        granted = self._granted()
        run(scenario())

    @pytest.mark.parametrize("times", [0, 2], ids=["lost", "doubled"])
    def test_one_byte_that_is_lost_or_doubled_grants_nobody_else(self, times: int) -> None:
        async def undisturbed() -> tuple[Event, int]:
            bench = self.bench()
            waiting = await self._waiting(bench)
            before = len(bench.delivered)
            await bench.provoke()
            return await waiting, len(bench.delivered) - before

        async def scenario(k: int) -> None:
            bench = self.bench()
            waiting = await self._waiting(bench)
            assert not [news for news in bench.seen if repeats(news, granted)]
            bench.garble(k, times)
            await bench.provoke()
            garbled = asyncio.create_task(bench.garbled.wait())
            await asyncio.wait({waiting, garbled}, return_when=asyncio.FIRST_COMPLETED)
            garbled.cancel()
            await bench.settled(waiting)
            if not waiting.done():  # the frame is spoiled: the next one must be heard
                await bench.undo()
                bench.send(self.case.noise)
                await bench.provoke()
                await asyncio.wait({waiting})
            if waiting.exception() is None:
                assert waiting.result().identifier == granted.identifier or self.case.driver.info.integrity == "none"
            else:  # giving up is right where every byte is an answer
                assert isinstance(waiting.exception(), LinkError | ProtocolError)
                await bench.undo()
                await bench.works_again()
            await bench.driver.stop()

        granted, size_bytes = run(undisturbed())
        for k in range(0, size_bytes, 1 + size_bytes // MOST_SPOILED):
            run(scenario(k))

    def test_a_flipped_bit_is_noticed_where_the_driver_says_so(self) -> None:
        """The bit is flipped in every repetition, for two equal readings may be needed. A device that is asked for each
        thing sends more than the frames that grant, so there the flipped bit may only grant nothing else."""

        async def undisturbed() -> tuple[Event, bytes, bool]:
            bench = self.bench()
            waiting = await self._waiting(bench)
            await bench.arrived()
            before, asked = len(bench.delivered), len(bench.peer.written)
            await bench.provoke()
            event = await waiting
            return event, bytes(bench.delivered[before:]), len(bench.peer.written) > asked

        async def scenario(k: int) -> None:
            bench = self.bench()
            waiting = await self._waiting(bench)
            await bench.arrived()
            enough = len(bench.delivered) + len(sent)
            bench.flip(k, period)
            await bench.provoke()
            with suppress(TimeoutError):  # a device that is asked may be asked no more
                async with asyncio.timeout(ASKED_S if is_asked else WAIT_S):
                    while not waiting.done() and len(bench.delivered) < enough:  # noqa: ASYNC110 - a poll
                        await asyncio.sleep(0.001)
                    await bench.settled(waiting)
            if waiting.done() and waiting.exception():  # giving up is right where every byte is an answer
                assert isinstance(waiting.exception(), LinkError | ProtocolError)
            elif integrity != "none":
                told = [news for news in bench.seen if repeats(news, granted)]
                if is_asked or sent[k] in self.case.unchecked:
                    told = [it for it in told if isinstance(it, Event) and it.identifier != granted.identifier]
                assert not told, f"integrity is {integrity}, yet byte {k} of {sent[:period]!r} may be damaged"
            waiting.cancel()
            await asyncio.wait({waiting})
            await bench.driver.stop()

        integrity = self.case.driver.info.integrity
        granted, sent, is_asked = run(undisturbed())
        tail = sent[len(sent) // 4 :]  # it may begin within a repetition
        period = next((size for size in range(1, len(sent) // 2 + 1) if tail[size:] == tail[:-size]), len(sent))
        for k in range(0, period, 1 + period // MOST_SPOILED):
            run(scenario(k))

    def test_a_device_that_vanishes_and_returns_is_heard_again(self) -> None:
        async def scenario() -> None:
            bench = self.bench()
            events = await bench.one_event()
            bench.peer.unplug()
            with pytest.raises(LinkError):
                await anext(events, None)
            await bench.driver.stop()
            await bench.undo()
            bench.come_back()
            await bench.works_again()

        run(scenario())

    def _granted(self) -> Event:
        """The event that is to be provoked, from an undisturbed run."""
        event = run(self._one_event(self.bench))[-1]
        assert isinstance(event, Event)
        return event

    async def _waiting(self, bench: ByteBench) -> asyncio.Task[Event]:
        """Start the driver; a task that waits for the event that is to be provoked."""
        await bench.driver.start()
        waiting = asyncio.create_task(bench.granted(bench.driver.events()))
        await bench.settled(waiting)
        return waiting


async def _or_link_error(inner: AtAwait) -> None:
    try:
        await inner
    except LinkError:
        assert inner.reached, "the link was not lost"

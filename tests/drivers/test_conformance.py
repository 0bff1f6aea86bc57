"""Every shipped driver keeps the driver contract, and so does the template that others copy."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest

from optima_bridge.errors import BridgeError, LinkLost
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_bridge.testing import ConformanceCase, DriverContract
from optima_bridge.testing.bench import WHOLE
from optima_drivers._template import TemplateDriver, TemplateSimulator
from optima_drivers.ds2480b import Ds2480bDriver
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.loopback import LoopbackDriver
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.rfid125 import Id12laDriver, Rdm6300Driver
from optima_drivers.rfid125.simulator import Rfid125Simulator

ROM = "01B7BA1000000075"
CARD = "67003B51C6"
Events = AsyncGenerator[Event | Observation, None]


class TestLoopback(DriverContract):
    case = ConformanceCase(
        driver=LoopbackDriver,
        simulator=LoopbackSimulator,
        provoke=lambda simulator: simulator.key_in(ROM),
        undo=lambda simulator: simulator.key_out(),
        grants=(Subject.KEY, "inserted"),
    )


class TestTemplate(DriverContract):
    case = ConformanceCase(
        driver=TemplateDriver,
        simulator=TemplateSimulator,
        provoke=lambda simulator: simulator.seal(is_open=True),
        undo=lambda simulator: simulator.seal(is_open=False),
        grants=(Subject.SEAL, "opened"),
        noise=b"\x00\xff\x55\n",
        registered=False,
    )


class TestRdm6300(DriverContract):
    case = ConformanceCase(
        driver=Rdm6300Driver,
        simulator=partial(Rfid125Simulator, "rdm6300", repeat_ms=25),
        provoke=lambda simulator: simulator.insert(CARD),
        undo=lambda simulator: simulator.remove(),
        grants=(Subject.CARD, "inserted"),
    )


class TestId12la(DriverContract):
    case = ConformanceCase(
        driver=Id12laDriver,
        simulator=partial(Rfid125Simulator, "id12la", repeat_ms=25),
        provoke=lambda simulator: simulator.insert(CARD),
        undo=lambda simulator: simulator.remove(),
        grants=(Subject.CARD, "presented"),
    )


class TestDs2480b(DriverContract):
    case = ConformanceCase(
        driver=Ds2480bDriver,
        simulator=Ds2480bSimulator,
        provoke=lambda simulator: simulator.put(ROM),
        undo=lambda simulator: simulator.lift(),
        grants=(Subject.KEY, "inserted"),
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
    ],
    ids=lambda it: it.__name__ if isinstance(it, type) else "",
)
def test_the_suite_notices_a_driver_that(broken: type[TemplateDriver], test: Callable[[DriverContract], None]) -> None:
    class Contract(DriverContract):
        case = replace(TestTemplate.case, driver=broken)

    test(TestTemplate())
    with pytest.raises((AssertionError, BridgeError, OSError, pytest.fail.Exception)):
        test(Contract())

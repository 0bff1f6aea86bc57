"""The drivers of contacts behind a terminal server: pyserial's RFC 2217 server on loopback, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from optima_bridge.driver import Driver
from optima_bridge.errors import LinkLost
from optima_bridge.link import Line, open_link
from optima_bridge.model import Event, Observation
from optima_drivers.contacts import ContactsDriver, SealDriver
from optima_drivers.contacts.simulator import ScaleSimulator
from tests.drivers.contacts_bench import found
from tests.terminal_server import TerminalServer

CTS, DSR = Line.CTS, Line.DSR
LIMIT_S = 20.0


class Bench:
    """A running driver behind a terminal server."""

    def __init__(self, server: TerminalServer, driver: Driver) -> None:
        self.server = server
        self.driver = driver
        self.events = driver.events()

    async def until(self, word: str) -> Event | Observation:
        """The next news with this action, or of this state."""
        async with asyncio.timeout(LIMIT_S):
            async for news in self.events:
                if word == (news.action if isinstance(news, Event) else found(news)):
                    return news
        raise AssertionError("events() ended without an error")


@asynccontextmanager
async def running(
    driver_class: type[Driver], simulator: ScaleSimulator, *, look_s: float = 0.005, **settings: object
) -> AsyncIterator[Bench]:
    async with TerminalServer(look_s) as server:
        simulator.attach(server.set_lines)
        server.port.on_outputs = simulator.outputs
        server.answer = simulator.receive
        link = await open_link(server.url, driver_class.info.serial_format)
        try:
            driver = driver_class(link, driver_class.Settings.model_validate(settings, strict=False))
            await driver.start()
            bench = Bench(server, driver)
            async with aclosing(bench.events):
                yield bench
        finally:
            link.close()


async def test_switches_are_read_and_their_wires_tested() -> None:
    simulator = ScaleSimulator({DSR})
    async with running(ContactsDriver, simulator, seal="dsr", keylock={"supervisor": "cts"}) as bench:
        await bench.until("intact")
        assert bench.driver.counters["loop_tests"] == 1
        simulator.close(CTS)
        turned = await bench.until("turned")
        assert turned.state == {"position": "supervisor", "position_code": 3}
        simulator.open(DSR)
        await bench.until("opened")


async def test_a_server_that_looks_at_its_lines_now_and_then_makes_no_turns_and_no_faults() -> None:
    told: list[object] = []
    async with running(
        ContactsDriver, ScaleSimulator({CTS}), look_s=0.6, keylock={"supervisor": "cts"}, loop_test_s=1
    ) as bench:

        async def collect() -> None:
            async for news in bench.events:
                told.append(news.action if isinstance(news, Event) else found(news))

        collecting = asyncio.create_task(collect())
        async with asyncio.timeout(LIMIT_S):
            while bench.driver.counters["loop_tests"] < 3:  # noqa: ASYNC110 - a poll
                await asyncio.sleep(0.1)
        collecting.cancel()
        await asyncio.wait({collecting})
    assert told == [False, "supervisor"]


async def test_a_wire_that_is_stuck_is_a_fault() -> None:
    simulator = ScaleSimulator({CTS})
    simulator.stick(CTS)
    async with running(ContactsDriver, simulator, keylock={"supervisor": "cts"}) as bench:
        await bench.until("raised")
        await bench.until("unknown")


async def test_a_sealed_scale_is_asked_and_its_contact_watched() -> None:
    simulator = ScaleSimulator({CTS}, oiml_calibration=10)
    async with running(
        SealDriver,
        simulator,
        profile="rinstrum-r400",
        baseline={"oiml-calibration": 10},
        check_interval_s=0.1,
        contact="cts",
    ) as bench:
        await bench.until("intact")
        simulator.adjust("oiml-calibration")
        await bench.until("broken")
        simulator.open(CTS)
        opened = await bench.until("opened")
        assert opened.state is not None
        assert opened.state["latched"] is True


async def test_a_server_that_goes_away_ends_the_events() -> None:
    async with running(ContactsDriver, ScaleSimulator({CTS}), seal="cts") as bench:
        await bench.until("intact")
        bench.server.hang_up()
        with pytest.raises(LinkLost):
            await bench.until("never")
        await bench.driver.stop()

"""The 125 kHz drivers and their simulator over real ptys, in real time."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, aclosing

import pytest

from optima_bridge.driver import Driver
from optima_bridge.errors import LinkLost
from optima_bridge.link import open_byte_link
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import Event
from optima_drivers.rfid125 import Id12laDriver, Rdm6300Driver
from optima_drivers.rfid125.codec import encode
from optima_drivers.rfid125.driver import Id12laSettings
from optima_drivers.rfid125.simulator import Layout, Rfid125Simulator

A, B = "67003B51C6", "0C000621A5"
LIMIT_S = 20.0  # only a hang takes as long
DRIVERS: dict[Layout, type[Driver]] = {"rdm6300": Rdm6300Driver, "id12la": Id12laDriver}


class Bench:
    """A reader on a pty with its driver on the other end."""

    def __init__(self, layout: Layout) -> None:
        self.reader = Rfid125Simulator(layout)
        self.pty = PtyServer(self.reader)
        self.reader.attach(self.pty.send)
        self._layout = layout
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Bench:
        await self._stack.enter_async_context(self.pty)
        driver_class = DRIVERS[self._layout]
        link = await open_byte_link(self.pty.path, driver_class.info.serial_format)
        self._stack.callback(link.close)
        self._stack.callback(self.reader.remove)
        self.driver = driver_class(link, driver_class.Settings())
        await self.driver.start()
        self.events = await self._stack.enter_async_context(aclosing(self.driver.events()))
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    async def until(self, action: str) -> Event:
        """The next event with this action."""
        async with asyncio.timeout(LIMIT_S):
            async for event in self.events:
                if isinstance(event, Event) and event.action == action:
                    return event
        raise AssertionError("events() ended without an error")


async def test_a_card_is_inserted_and_removed_over_a_pty() -> None:
    async with Bench("rdm6300") as bench:
        bench.reader.insert(A)
        inserted = await bench.until("inserted")
        bench.reader.remove()
        removed = await bench.until("removed")
    assert (inserted.identifier, removed.identifier) == (A, A)
    assert removed.mono_ns - inserted.mono_ns >= 500_000_000
    assert bench.driver.counters["frames"] >= 2


async def test_a_touch_is_presented_over_a_pty() -> None:
    async with Bench("id12la") as bench:
        for card in (A, B, A):
            bench.reader.insert(card)
            assert (await bench.until("presented")).identifier == card
            bench.reader.remove()


@pytest.mark.parametrize("layout", ["rdm6300", "id12la"])
async def test_the_plug_pulled_ends_the_events_by_link_lost(layout: Layout) -> None:
    async with Bench(layout) as bench:
        bench.reader.insert(A)
        await bench.until("inserted" if layout == "rdm6300" else "presented")
        bench.pty.unplug()
        with pytest.raises(LinkLost):
            await bench.until("never")
        await bench.driver.stop()
        await bench.driver.stop()


async def test_a_card_shown_before_the_port_was_opened_logs_nobody_in() -> None:
    async with PtyServer(Rfid125Simulator("id12la")) as pty:
        pty.send(encode(A))
        link = await open_byte_link(pty.path, Id12laDriver.info.serial_format)
        driver = Id12laDriver(link, Id12laSettings())
        await driver.start()
        pty.send(encode(B))
        async with asyncio.timeout(LIMIT_S), aclosing(driver.events()) as events:
            assert (await anext(events)).identifier == B
        link.close()

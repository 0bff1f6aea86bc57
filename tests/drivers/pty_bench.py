"""What every polled reader on a serial line must show over a real pty, in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing

import pytest

from optima_bridge.driver import Driver
from optima_bridge.errors import LinkLost, LinkNotFound
from optima_bridge.link import open_byte_link
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import Event

LIMIT_S = 20.0  # only a hang takes as long


async def comes_and_goes(
    path: str, driver_class: type[Driver], put: Callable[[], object], lift: Callable[[], None]
) -> str:
    """A token is put on the reader, and taken away when it counts; gives its identifier."""
    async with asyncio.timeout(LIMIT_S):
        link = await open_byte_link(path, driver_class.info.serial_format)
        driver = driver_class(link, driver_class.Settings.model_validate({"poll_interval_ms": 20}))
        assert (await driver.start()).model == driver_class.info.name.upper()
        put()
        seen: list[Event] = []
        async with aclosing(driver.events()) as events:
            async for event in events:
                if isinstance(event, Event):
                    seen.append(event)
                    if event.action == "inserted":
                        lift()
                    if event.action == "removed":
                        break
        assert [event.action for event in seen] == ["inserted", "suspect", "removed"]
        [identifier] = {event.identifier for event in seen}
        await driver.stop()
        link.close()
        return str(identifier)


async def is_usable_again_after_unplugging(
    adapter: PtyServer, driver_class: type[Driver], replug: Callable[[], None]
) -> None:
    """An unplugged adapter ends the events; plugged in again it is found under its path."""
    async with asyncio.timeout(LIMIT_S), adapter:
        for _ in range(2):
            link = await open_byte_link(adapter.path, driver_class.info.serial_format)
            driver = driver_class(link, driver_class.Settings())
            await driver.start()
            async with aclosing(driver.events()) as events:
                await anext(events)
                adapter.unplug()
                with pytest.raises(LinkLost):
                    async for _ in events:
                        pass
            await driver.stop()
            link.close()
            with pytest.raises(LinkNotFound):
                await open_byte_link(adapter.path, driver_class.info.serial_format)
            replug()
            adapter.replug()

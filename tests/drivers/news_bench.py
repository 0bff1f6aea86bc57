"""A bench for drivers in virtual time: collects what a driver says, and tells what was said in a stretch of time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import TypeVar

from optima_bridge.driver import Driver
from optima_bridge.errors import LinkError, ProtocolError
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from tests.virtual_time import run

B = TypeVar("B", bound="NewsBench")


class NewsBench:
    """A driver and its news; subclasses join it to a simulator.

    Attributes:
        news: what was said since the last `after`.
        failure: what ended the events.
    """

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.news: list[Event | Observation] = []
        self.failure: LinkError | ProtocolError | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> DeviceIdentity:
        """Start the driver and collect its news until the test ends."""
        identity = await self.driver.start()
        self._running = asyncio.create_task(self._collect())
        return identity

    async def _collect(self) -> None:
        try:
            async with aclosing(self.driver.events()) as events:
                async for news in events:
                    self.news.append(news)
        except (LinkError, ProtocolError) as error:
            self.failure = error

    async def after(self, duration_s: float) -> list[object]:
        """Let time pass; returns the actions and the observed states in it, those of faults by their name."""
        self.news.clear()
        await asyncio.sleep(duration_s)
        return [f"fault {_said(news)}" if news.subject is Subject.FAULT else _said(news) for news in self.news]

    def event(self, index: int = 0) -> Event:
        """One of the events in that time."""
        event = self.news[index]
        assert isinstance(event, Event)
        return event

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        await self.driver.stop()
        await self.driver.stop()


def _said(news: Event | Observation) -> object:
    return news.action if isinstance(news, Event) else news.state.get("presence", news.state.get("active"))


def play_with(bench: Callable[[], B], scenario: Callable[[B], Awaitable[None]], *, started: bool = True) -> None:
    """Run `scenario` with a bench, its driver started unless told otherwise, in virtual time."""

    async def main() -> None:
        made = bench()
        if started:
            await made.start()
        await scenario(made)
        await made.stop()

    run(main())

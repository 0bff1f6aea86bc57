"""A driver of contacts and its simulator, joined in memory."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import aclosing
from typing import Any

from optima_bridge.driver import Driver
from optima_bridge.errors import LinkError
from optima_bridge.link import Line, MemoryLink, MemoryPeer, memory_pair
from optima_bridge.model import Event, Observation, Subject
from optima_drivers.contacts.simulator import ScaleSimulator, SwitchSimulator
from tests.virtual_time import run, virtual_loop

News = Event | Observation


def join(simulator: SwitchSimulator, clock_ns: Callable[[], int] = time.monotonic_ns) -> tuple[MemoryLink, MemoryPeer]:
    """Put a link between the two."""
    link, peer = memory_pair(clock_ns=clock_ns)
    peer.on_outputs = simulator.outputs
    simulator.attach(peer.set_lines)
    if isinstance(simulator, ScaleSimulator):
        peer.on_write = lambda data: peer.feed(simulator.receive(data))
    return link, peer


class FollowingLater(ScaleSimulator):
    """Its lines follow the feed some time after it is switched.

    Attributes:
        off_s: how long after it is off.
        on_s: how long after it is on.
    """

    def __init__(self, closed: Iterable[Line], *, off_s: float = 0, on_s: float = 0, **counters: int) -> None:
        super().__init__(closed, **counters)
        self.off_s, self.on_s = off_s, on_s

    def outputs(self, dtr: bool, rts: bool) -> None:
        delay_s = self.on_s if rts else self.off_s
        asyncio.get_running_loop().call_later(delay_s, super().outputs, dtr, rts)


class Bench:
    """Collects a running driver's news in virtual time."""

    def __init__(self, driver: type[Driver], simulator: SwitchSimulator, settings: dict[str, object]) -> None:
        self.link, self.peer = join(simulator, virtual_loop().clock_ns)
        self.driver = driver(self.link, driver.Settings.model_validate(settings, strict=False))
        self.news: list[News] = []
        self.failure: LinkError | None = None
        self._running: asyncio.Task[None] | None = None

    async def start(self) -> None:
        await self.driver.start()
        self._running = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        try:
            async with aclosing(self.driver.events()) as events:
                async for news in events:
                    self.news.append(news)
        except LinkError as error:
            self.failure = error

    async def after(self, duration_s: float) -> list[tuple[Subject, object]]:
        """Let time pass; returns what was said in it, as (subject, action) or (subject, what was found)."""
        self.news.clear()
        await asyncio.sleep(duration_s)
        return [(news.subject, news.action if isinstance(news, Event) else found(news)) for news in self.news]

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        await self.driver.stop()


def found(news: Observation) -> object:
    """The word of an observation that matters."""
    return next(news.state[key] for key in ("seal", "position", "active") if key in news.state)


def play(
    driver: type[Driver],
    simulator: SwitchSimulator,
    scenario: Callable[[Bench], Awaitable[None]],
    *,
    started: bool = True,
    **settings: Any,
) -> None:
    """Run `scenario` in virtual time, the driver started unless told otherwise."""

    async def main() -> None:
        bench = Bench(driver, simulator, settings)
        if started:
            await bench.start()
        await scenario(bench)
        await bench.stop()

    run(main())

"""The conformance suite's bench: a driver and its simulator, joined in memory; byte pipes by a cable that can be bad."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import msgspec

from optima_bridge.driver import Driver
from optima_bridge.link import Link, MemoryPeer, memory_pair
from optima_bridge.model import Event, Observation, Subject
from optima_bridge.store import HasSecureStore
from optima_bridge.topics import is_segment

WAIT_S = 5.0  # an event that takes longer does not come
Told = tuple[Subject, str]
"""Subject and action of an event."""


class Peer(Protocol):
    """The device's end of a link."""

    def unplug(self) -> None:
        """Make every use of the driver's end fail with LinkLost, a pending one too."""

    async def drained(self) -> None:
        """Wait until the driver has taken all that there is, and waits for more."""


class Simulator(Protocol):
    """The device's side of a byte pipe. May also have ``attach(send)`` for what it says unasked, and ``break_()`` for a break."""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host; return the answers."""


@dataclass(frozen=True)
class ConformanceCase:
    """A driver and what it takes to prove it.

    Attributes:
        driver: the class.
        simulator: makes a fresh simulator, of a byte pipe a `Simulator`; called with a running event loop.
        provoke: makes one event happen at the simulator, function or coroutine function; again for a second driver.
        undo: takes it back, and what `second` put there too.
        grants: subject and action of the event that `provoke` makes happen; None: the driver has a secure store and no events.
        identifier: the one that the granting event must carry; None: any, or none.
        revokes: those of the event that `undo` makes happen; None: the device does not tell.
        suspects: those of the event that comes before `revokes`, where the driver first doubts.
        second: puts a second token beside the first; None: the reader takes one at a time.
        ambiguous: subject and action of the event that `second` makes happen.
        settings: the driver's keys in the configuration.
        unchecked: bytes that the protocol's check does not cover, such as a mark before each frame; damage to them may go
            unnoticed.
        noise: what a bad cable adds between frames; ends where the protocol finds its next frame.
        registered: whether an installed package offers the driver as an entry point.
        join: joins a simulator to a link that is no byte pipe; None: a byte pipe.
    """

    driver: type[Driver]
    simulator: Callable[[], Any]
    provoke: Callable[[Any], object] = lambda _: None
    undo: Callable[[Any], object] = lambda _: None
    grants: Told | None = None
    identifier: str | None = None
    revokes: Told | None = None
    suspects: Told | None = None
    second: Callable[[Any], object] | None = None
    ambiguous: Told | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    unchecked: bytes = b""
    noise: bytes = b"\x00\xff\x55"
    registered: bool = True
    join: Callable[[Any], tuple[Link, Peer]] | None = None


@dataclass(frozen=True)
class Cable:
    """How bytes travel from the device to the driver: at most `chunk_bytes` together, each chunk `delay_s` late."""

    chunk_bytes: int = 4096
    delay_s: float = 0.0


WHOLE = Cable()
BYTE_BY_BYTE = Cable(chunk_bytes=1)
GLUED = Cable(delay_s=0.005)


class Bench:
    """A driver and its simulator, joined by a link. Make it with a running event loop.

    Attributes:
        seen: all that the driver told while somebody waited for an event.
    """

    link: Link
    peer: Peer

    def __init__(self, case: ConformanceCase) -> None:
        self.case = case
        self.seen: list[Event | Observation] = []
        self.simulator = case.simulator()
        self.join()
        self.driver = self.new_driver()

    def join(self) -> None:
        """Put the link between the two."""
        assert self.case.join is not None
        self.link, self.peer = self.case.join(self.simulator)

    def new_driver(self) -> Driver:
        """Another driver on the same link, as after a restart of the first."""
        return self.case.driver(self.link, self.case.driver.Settings(**self.case.settings))

    def send(self, noise: bytes) -> None:
        """Put bytes that mean nothing between the two; only a byte pipe carries any."""
        assert not noise

    async def provoke(self) -> None:
        """Make the event happen."""
        await _maybe(self.case.provoke(self.simulator))

    async def undo(self) -> None:
        """Take it back."""
        await _maybe(self.case.undo(self.simulator))

    async def one_event(self, noise: bytes = b"") -> AsyncIterator[Event | Observation]:
        """Start the driver and see one event, checked, between `noise`; returns the rest of the events."""
        await self.driver.start()
        events = self.driver.events()
        waiting = asyncio.create_task(self.granted(events))
        earliest_ns = self.link.clock_ns()
        self.send(noise)
        await self.provoke()
        self.send(noise)
        event = await waiting
        assert type(event) is Event
        assert self.case.identifier in (None, event.identifier)
        assert is_segment(event.action)
        assert earliest_ns <= event.mono_ns <= self.link.clock_ns()
        published = msgspec.json.encode([event.data, event.state]).decode().lower()
        assert event.identifier is None or event.identifier.lower() not in published
        return events

    async def granted(self, events: AsyncIterator[Event | Observation]) -> Event:
        """Wait for the event that `provoke` makes happen; other events may come before it."""
        assert self.case.grants is not None
        return (await self.until(events, self.case.grants))[-1]

    async def until(self, events: AsyncIterator[Event | Observation], wanted: Told) -> list[Event]:
        """All events up to the `wanted` one, which must come within WAIT_S."""
        first = len(self.seen)
        limit = asyncio.timeout(WAIT_S)
        try:
            async with limit:
                async for news in events:
                    self.seen.append(news)
                    if isinstance(news, Event) and (news.subject, news.action) == wanted:
                        return [event for event in self.seen[first:] if isinstance(event, Event)]
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise AssertionError(self._missed(wanted, f"did not come within {WAIT_S:g} s")) from error
        raise AssertionError(self._missed(wanted, "did not come: events() ended, and only an error may end it"))

    def _missed(self, wanted: Told, how: str) -> str:
        told = ", ".join(f"{it.subject} {it.action if isinstance(it, Event) else 'observed'}" for it in self.seen)
        return f"{wanted[0]} {wanted[1]} {how}; seen: {told or 'nothing'}; counters: {dict(self.driver.counters)}"

    async def put_second(self) -> None:
        """Put a second token beside the first."""
        assert self.case.second is not None
        await _maybe(self.case.second(self.simulator))

    async def settled(self, waiting: asyncio.Task[Any]) -> None:
        """Wait until the driver has taken all that was delivered, or has given up."""
        drained = asyncio.create_task(self.peer.drained())
        await asyncio.wait({waiting, drained}, return_when=asyncio.FIRST_COMPLETED)
        drained.cancel()

    async def look(self, driver: Driver) -> None:
        """Use the driver's secure store once, without changing anything."""
        store = cast("HasSecureStore", driver).store
        await store.connect()
        slots = await store.inspect()
        assert [state.slot for state in slots] == list(range(store.traits.slots))

    async def works_again(self) -> None:
        """Prove that the link can be used by another driver."""
        driver = self.new_driver()
        await driver.start()
        if self.case.grants is None:
            await self.look(driver)
            await driver.stop()
            return
        waiting = asyncio.create_task(self.granted(driver.events()))
        await self.provoke()
        await waiting
        await driver.stop()


class ByteBench(Bench):
    """A driver and its simulator, joined by a cable.

    Attributes:
        delivered: all bytes that have come to the driver.
        garbled: set when the byte that `garble` means has passed.
    """

    peer: MemoryPeer

    def __init__(self, case: ConformanceCase, cable: Cable = WHOLE) -> None:
        self.delivered = bytearray()
        self._cable = cable
        self._travelling = bytearray()
        self._garble_at, self._garble_times = -1, 1
        self._flip_at, self._flip_period, self._flip = -1, 1, 0
        self.garbled = asyncio.Event()
        super().__init__(case)

    def join(self) -> None:
        self.link, self.peer = memory_pair()
        if attach := getattr(self.simulator, "attach", None):
            attach(self.send)
        self.peer.on_write = lambda data: self.send(self.simulator.receive(data))
        self.peer.on_break = getattr(self.simulator, "break_", None)

    def send(self, data: bytes) -> None:
        """Put bytes into the cable at the device's end."""
        if data and not self._travelling:
            asyncio.get_running_loop().call_later(self._cable.delay_s, self._deliver)
        self._travelling += data

    def garble(self, k: int, times: int) -> None:
        """Let the `k`-th byte from now on arrive so many times: 0 loses it."""
        self._garble_at, self._garble_times = len(self.delivered) + k, times

    def flip(self, k: int, period: int) -> None:
        """Let one bit of the `k`-th byte from now on arrive flipped, and so each time that many bytes later."""
        self._flip_at, self._flip_period = len(self.delivered) + k, period
        self._flip = 1 << k % 2  # one of the low two: a digit stays a digit

    async def arrived(self) -> None:
        """Wait until no byte is on its way."""
        while self._travelling:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0)

    def come_back(self) -> None:
        """Plug the lost device in again: a new link, and another driver on it."""
        self._travelling.clear()
        self.join()
        self.driver = self.new_driver()

    def _flipped(self, at: int) -> int:
        return self._flip if at >= self._flip_at and (at - self._flip_at) % self._flip_period == 0 else 0

    def _deliver(self) -> None:
        chunk = bytes(self._travelling[: self._cable.chunk_bytes])
        del self._travelling[: self._cable.chunk_bytes]
        first = len(self.delivered)
        self.delivered += chunk
        if self._flip:
            chunk = bytes(byte ^ self._flipped(at) for at, byte in enumerate(chunk, first))
        place = self._garble_at - first
        if 0 <= place < len(chunk):
            chunk = chunk[:place] + chunk[place : place + 1] * self._garble_times + chunk[place + 1 :]
            self.garbled.set()
        self.peer.feed(chunk)
        if self._travelling:
            asyncio.get_running_loop().call_later(self._cable.delay_s, self._deliver)


def repeats(news: Event | Observation, granted: Event) -> bool:
    """Whether `news` says what the granting event said: its subject and action, or the state that it left."""
    if news.subject != granted.subject:
        return False
    is_same_event = isinstance(news, Event) and news.action == granted.action
    return is_same_event or (granted.state is not None and news.state == granted.state)


async def _maybe(result: object) -> None:
    if inspect.isawaitable(result):
        await result

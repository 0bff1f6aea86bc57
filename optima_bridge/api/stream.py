"""The live stream: the present state, then past events, then new ones, without a gap or a double; NDJSON lines."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import msgspec

from optima_bridge.api.ndjson import too_slow
from optima_bridge.errors import BridgeError, Busy, DaemonUnavailable, TimedOut
from optima_bridge.journal import Position
from optima_bridge.model import Record
from optima_bridge.service import Service

MAX_STREAMS = 32
MAX_WAITING = 1000  # records; 450 KB
PAGE_RECORDS = 500

T = TypeVar("T")
Wanted = Callable[[Record], bool]
Listen = Callable[[Callable[[T], None]], Callable[[], None]]
"""Has what is news told to a listener; returns what ends that."""


class Subscription(Generic[T]):
    """News that one client has yet to take.

    Attributes:
        ended: why there will be no more, once that is known.
    """

    def __init__(self, wanted: Callable[[T], bool]) -> None:
        self.ended: BridgeError | None = None
        self._wanted = wanted
        self._waiting: deque[T] = deque()
        self._changed = asyncio.Event()

    def take(self, news: T) -> None:
        """Keep `news` for the client; a client that leaves too many lying is given up."""
        if self.ended is None and self._wanted(news):
            if len(self._waiting) < MAX_WAITING:
                self._waiting.append(news)
            else:
                self.ended = too_slow(f"more than {MAX_WAITING} events")
            self._changed.set()

    def end(self, error: BridgeError) -> None:
        """There will be no more, for this reason."""
        self.ended = self.ended or error
        self._changed.set()

    def restart(self) -> None:
        """Forget what waits: the journal has it."""
        self._waiting.clear()
        if isinstance(self.ended, TimedOut):
            self.ended = None

    async def batch(self) -> list[T]:
        """All that waits, as soon as there is something.

        Raises:
            BridgeError: `ended`, after everything before it was taken.
        """
        while not self._waiting:
            if self.ended is not None:
                raise self.ended
            self._changed.clear()
            await self._changed.wait()
        news = list(self._waiting)
        self._waiting.clear()
        return news


class Streams:
    """The open streams of one daemon."""

    def __init__(self) -> None:
        self._open: set[Subscription[Any]] = set()

    @contextmanager
    def subscribe(self, listen: Listen[T], wanted: Callable[[T], bool] = lambda _: True) -> Iterator[Subscription[T]]:
        """Collect the news that `listen` tells, and that are `wanted`, while the block runs.

        Raises:
            Busy: there are MAX_STREAMS already.
        """
        if len(self._open) >= MAX_STREAMS:
            raise Busy(f"{MAX_STREAMS} clients watch events already", next_step="end one of them: ps -C bridge")
        subscription = Subscription(wanted)
        stop_listening = listen(subscription.take)
        self._open.add(subscription)
        try:
            yield subscription
        finally:
            stop_listening()
            self._open.discard(subscription)

    def end(self) -> None:
        """The daemon stops: let every client know."""
        for subscription in self._open:
            subscription.end(DaemonUnavailable("the daemon is stopping", cause="the service was told to stop"))


async def lines(
    service: Service, subscription: Subscription[Record], wanted: Wanted, after: Position | None, snapshot: bool
) -> AsyncGenerator[bytes, None]:
    """What the client gets: a snapshot, the journal's records behind `after`, then new ones; ends by an error only.

    Args:
        after: None: new records only.

    Raises:
        BridgeError: the client is too slow, the daemon stops, the journal cannot be read.
    """
    subscription.restart()
    if snapshot:
        yield _snapshot(service)
    while after is not None:
        # A read sees everything appended before the call, so an empty one means: what comes next, and only that, is in
        # the subscription.
        subscription.restart()
        page = await service.journal.read(after, PAGE_RECORDS)
        if not page:
            break
        after = page[-1].position
        yield _lines(record for record in page if wanted(record))
    while True:
        yield _lines(await subscription.batch())


def _snapshot(service: Service) -> bytes:
    epoch, seq = service.journal.head
    document = {
        "type": "snapshot",
        "schema": "optima.events/1",
        "epoch": epoch,
        "seq": seq,
        "devices": list(service.devices()),
    }
    return msgspec.json.encode(document) + b"\n"


def _lines(records: Iterable[Record]) -> bytes:
    """One line a record; the payload, JSON already, goes in as it was published."""
    return b"".join(
        b'{"type":"event","topic":"%b","event":%b}\n' % (record.topic.encode(), record.payload) for record in records
    )

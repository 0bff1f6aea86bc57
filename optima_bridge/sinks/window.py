"""Publishes on their way to one broker: in order, a bounded number unacknowledged, and only a positive PUBACK counts.

One window of unacknowledged publishes is fed from one queue. While the broker is away the journal holds the records and
the queue stays small. A publish that the broker denied, or that is larger than it takes, stays in the journal, raises an
alert with the topic, and is tried again at each connect and each minute; the others go on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Mapping

import msgspec

from optima_bridge.errors import BrokerUnavailable, JournalError, SinkError
from optima_bridge.journal import Journal, Position
from optima_bridge.log import get_logger
from optima_bridge.model import Record
from optima_bridge.sinks.encoding import Encoding
from optima_bridge.sinks.mqtt_pipe import Acks, PublishPipe
from optima_bridge.sinks.refusals import TOO_LARGE

NAME = "mqtt"
WINDOW = 64
LIVE_RECORDS = 2000  # records kept in the queue; beyond, they are read from the journal when their turn comes
FETCH_RECORDS = 500
REPLAY_AFTER_NS = 30_000_000_000
DENIED_RETRY_S = 60.0
JOURNAL_RETRY_S = 1.0
REFUSED = 0x80  # PUBACK reasons from here up mean: not accepted (MQTT 5.0 §3.4.2.1)

log = get_logger(__name__)


class Resend(msgspec.Struct, frozen=True):
    """A record on its way once more: denied before, or asked for by a replay. Never moves the cursor."""

    record: Record
    denied: bool


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request; neither kept nor retained."""

    topic: str
    payload: bytes


class Retained(msgspec.Struct, frozen=True):
    """A retained document; the payload is the one of the moment when it is sent, unless it is given (the last word)."""

    topic: str
    payload: bytes | None = None


Outgoing = Record | Resend | Reply | Retained


class Window:
    """Publishes for one node. Used from the event loop's thread only.

    Args:
        journal: holds the records and this sink's cursor.
        retained: the hub's retained documents, read when they are sent; a topic that is not in it is cleared.
        encoding: makes the packets.
        on_denied: called with (topic, reason) when the broker denies a publish, (topic, None) when it takes it again.
        on_cleared: called with the topic when the broker took the clearing of a document that nobody stands for.
    """

    def __init__(
        self,
        journal: Journal,
        retained: Mapping[str, bytes],
        encoding: Encoding,
        on_denied: Callable[[str, int | None], None],
        on_cleared: Callable[[str], None],
    ) -> None:
        self._journal = journal
        self._retained = retained
        self._encoding = encoding
        self._on_denied = on_denied
        self._on_cleared = on_cleared
        self._queue: deque[Outgoing] = deque()
        self._inflight: dict[int, Outgoing] = {}
        self._dirty: set[str] = set()
        if journal.cursor(NAME) is None:
            journal.settle(NAME, (0, 0))  # from now on nothing is removed that the broker has not had
        self._last = journal.cursor(NAME) or (0, 0)  # position of the last record that was put into the queue
        self.behind = self._last < (journal.previous or (0, 0))
        self._denied: set[Position] = set()
        self.denied_topics: set[str] = set()
        self._pipe: PublishPipe | None = None
        self._size = WINDOW
        self._pump_due = False
        self._fetching = False
        self._replaying = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def is_open(self) -> bool:
        """Whether there is a session to publish in."""
        return self._pipe is not None

    @property
    def in_flight(self) -> int:
        """Publishes that are not acknowledged."""
        return len(self._inflight)

    @property
    def queued(self) -> int:
        """Publishes that wait for their turn."""
        return len(self._queue)

    # -- what is to be sent ---------------------------------------------------------------------------------------------

    def offer(self, record: Record) -> None:
        """Send a new record as soon as it is its turn."""
        if self.behind:
            return
        if len(self._queue) >= LIVE_RECORDS:
            self.behind = True
            return
        self._queue.append(record)
        self._last = record.position
        if self._inflight or self._pump_due or len(self._queue) > 1:
            self._schedule_pump()  # in a stream, what comes in one turn of the loop leaves in one write
        else:
            self._pump()

    def offer_retained(self, topic: str) -> None:
        """Send the retained document of this topic; nothing where there is no session, for open() tells everything."""
        if self._pipe is not None and topic not in self._dirty:
            self._dirty.add(topic)
            self._queue.append(Retained(topic))
            self._schedule_pump()

    def reply(self, topic: str, payload: bytes) -> None:
        """Send an answer, if the broker is there to carry it."""
        if self._pipe is not None:
            self._queue.append(Reply(topic, payload))
            self._schedule_pump()

    def last_word(self, topic: str, payload: bytes) -> None:
        """Send a retained document next, and nothing after it: what was not sent yet stays in the journal."""
        if self._pipe is not None:
            self._queue.clear()
            self.behind = False
            self._queue.append(Retained(topic, payload))
            self._schedule_pump()

    def abandon(self) -> None:
        """Break the connection off, so that the broker publishes the will."""
        if self._pipe is not None:
            self._pipe.close()

    def replay(self, first: Position, last: Position) -> None:
        """Send the records from `first` to `last` once more, flagged as replay, behind what is queued.

        Raises:
            SinkError: another replay is running, or the broker is away.
        """
        if self._pipe is None:
            raise BrokerUnavailable("the broker is away; a replay needs it")
        if self._replaying:
            raise SinkError("a replay is running already", cause="one at a time", next_step="wait for it to end")
        self._replaying = True
        self._own(self._replay(first, last))

    # -- the session ----------------------------------------------------------------------------------------------------

    def open(self, pipe: PublishPipe, topics: Iterable[str]) -> None:
        """A session begins: these retained documents first, for what is true comes before what happened."""
        self._size = max(1, min(WINDOW, pipe.receive_maximum))
        first = dict.fromkeys(topics)
        self._queue.extendleft(map(Retained, reversed(first)))
        self._dirty = set(first)
        self._pipe = pipe
        self._schedule_pump()
        self._own(self._retry_denied())

    async def close(self) -> None:
        """The session is over: what was not acknowledged goes back, in order, before all else."""
        self._pipe = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        self._fetching = self._replaying = False
        self._queue = deque(item for item in (*self._inflight.values(), *self._queue) if isinstance(item, Record))
        self._inflight.clear()
        self._dirty.clear()
        self._denied.clear()
        self._idle.set()

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all that was offered is acknowledged; False where time ran out or the broker is away."""
        try:
            async with asyncio.timeout(timeout_s):
                while self._pipe is not None and (self._queue or self._inflight or self.behind):
                    self._idle.clear()
                    self._schedule_pump()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return self._pipe is not None

    def _own(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` as long as the session lasts."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- sending --------------------------------------------------------------------------------------------------------

    def _schedule_pump(self) -> None:
        if not self._pump_due and self._pipe is not None:
            self._pump_due = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_due = False
        pipe = self._pipe
        if pipe is None:
            return
        queue, inflight = self._queue, self._inflight
        packets: list[bytes] = []
        too_large: Acks = []
        late_ns = time.time_ns() - REPLAY_AFTER_NS
        while queue and len(inflight) < self._size:
            item = queue.popleft()
            packet_id = pipe.take_id()
            inflight[packet_id] = item
            packet = self._packet(item, packet_id, late_ns)
            if len(packet) > pipe.maximum_packet_bytes:  # the broker would end the session, again and again
                too_large.append((packet_id, TOO_LARGE))
            else:
                packets.append(packet)
        if packets:
            pipe.write(b"".join(packets))
        if too_large:
            self.acknowledged(too_large)
        elif self.behind and not queue and not packets and not self._fetching:
            self._fetching = True
            self._own(self._fetch())
        if not queue and not inflight and not self.behind:
            self._idle.set()

    def _packet(self, item: Outgoing, packet_id: int, late_ns: int) -> bytes:
        match item:
            case Record():
                payload = item.payload if item.wall_ns > late_ns else flag_replay(item.payload)
                return self._encoding.event(item.topic, payload, packet_id)
            case Resend():
                return self._encoding.event(item.record.topic, flag_replay(item.record.payload), packet_id)
            case Reply():
                return self._encoding.reply(item.topic, item.payload, packet_id)
            case Retained():
                self._dirty.discard(item.topic)
                payload = self._retained.get(item.topic, b"") if item.payload is None else item.payload
                return self._encoding.retained(item.topic, payload, packet_id)

    async def _fetch(self) -> None:
        """Take the next records from the journal; when it has no more, new ones come straight from the hub again."""
        head = self._journal.head
        records = await self._read(self._last)
        self._fetching = False
        if records:
            self._queue.extend(records)
            self._last = records[-1].position
        elif head == self._journal.head:  # nothing came while we read, so nothing is passed over
            self._last = max(self._last, head)
        if self._last >= self._journal.head:
            self.behind = False
        self._schedule_pump()

    async def _read(self, after: Position, upto: Position | None = None) -> list[Record]:
        """From the journal, when its disk can be read: the journal itself says what is wrong with it."""
        while True:
            try:
                return await self._journal.read(after, FETCH_RECORDS, upto)
            except JournalError:
                await asyncio.sleep(JOURNAL_RETRY_S)

    async def _replay(self, first: Position, last: Position) -> None:
        after = (first[0], first[1] - 1)
        sent = 0
        while records := await self._read(after, last):
            self._queue.extend(Resend(record, denied=False) for record in records)
            self._schedule_pump()
            after = records[-1].position
            sent += len(records)
            while self._queue:  # one batch at a time: memory stays bounded
                self._idle.clear()
                await self._idle.wait()
        self._replaying = False
        log.info("mqtt.replayed", first=first, last=last, records=sent)

    # -- acknowledgements -----------------------------------------------------------------------------------------------

    def acknowledged(self, acks: Acks) -> None:
        """Take (packet id, reason) pairs; settles the journal up to the oldest record that is still in flight."""
        last: Position | None = None
        for packet_id, reason in acks:
            item = self._inflight.pop(packet_id, None)
            if item is None:
                continue
            if reason >= REFUSED:
                self._refused(item, reason)
            else:
                self._accepted(item)
            if isinstance(item, Record):
                last = item.position
        if last is not None and self._oldest_in_flight() > last:
            self._journal.settle(NAME, last)
        self._schedule_pump()

    def _oldest_in_flight(self) -> Position:
        for item in self._inflight.values():
            if isinstance(item, Record):
                return item.position
        return (1 << 62, 0)

    def _accepted(self, item: Outgoing) -> None:
        if isinstance(item, Resend) and item.denied:
            self._denied.discard(item.record.position)
            self._journal.allow(NAME, item.record.position)
        elif isinstance(item, Retained) and item.payload is None and item.topic not in self._retained:
            self._on_cleared(item.topic)
        if self.denied_topics and (topic := _topic(item)) in self.denied_topics:
            self.denied_topics.discard(topic)
            self._on_denied(topic, None)

    def _refused(self, item: Outgoing, reason: int) -> None:
        topic = _topic(item)
        if isinstance(item, Record):
            self._journal.deny(NAME, item.position, reason)
        if isinstance(item, Resend):
            self._denied.discard(item.record.position)
        if topic not in self.denied_topics:
            self.denied_topics.add(topic)
            self._on_denied(topic, reason)

    async def _retry_denied(self) -> None:
        """At each connect and each minute: what was denied is tried again; where all of it passes, the next ones follow."""
        while True:
            for topic in self.denied_topics & self._retained.keys():
                self.offer_retained(topic)
            try:
                records = await self._journal.denied(NAME, FETCH_RECORDS)
            except JournalError:
                records = []
            for record in records:
                if record.position not in self._denied and self._pipe is not None:
                    self._denied.add(record.position)
                    self._queue.append(Resend(record, denied=True))
            self._schedule_pump()
            await asyncio.sleep(DENIED_RETRY_S if not records or self.denied_topics else 1.0)


def flag_replay(payload: bytes) -> bytes:
    """The same document with ``"replay":true``: databases keep it, automations drop it."""
    return payload.replace(b'"replay":false', b'"replay":true', 1)


def _topic(item: Outgoing) -> str:
    return item.record.topic if isinstance(item, Resend) else item.topic

"""The MQTT sink: records leave in order, at least once, and only a positive PUBACK moves the cursor.

One window of unacknowledged publishes is fed from one queue. While the broker is away the journal holds the records and
the queue stays small; on connect the sink tells what is true (birth, retained documents), then goes on where its cursor
stands: unacknowledged records first, oldest first, with the same id. A publish that the broker denied stays in the
journal, raises an alert with the topic, and is tried again at each connect and each minute.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping

import aiomqtt
import msgspec
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from optima_bridge.backoff import Backoff
from optima_bridge.errors import BrokerRefused, BrokerUnavailable, SinkError
from optima_bridge.journal import Journal, Position
from optima_bridge.log import get_logger
from optima_bridge.model import JsonValue, Record
from optima_bridge.sinks.broker import BrokerSettings, cut_short, explain, is_loopback, tls_context
from optima_bridge.sinks.mqtt_pipe import Acks, PublishPipe, encode_publish, open_tcp

NAME = "mqtt"
WINDOW = 64
LIVE_RECORDS = 2000  # records kept in the queue; beyond, they are read from the journal when their turn comes
FETCH_RECORDS = 500
REPLAY_AFTER_NS = 30_000_000_000
DENIED_RETRY_S = 60.0
CONNECT_TIMEOUT_S = 5.0
SESSION_EXPIRY_S = 30
WILL_DELAY_S = 3
MAX_INCOMING_BYTES = 65536
STEADY_S = 1.0  # a session that lasts this long is a good one
REFUSED = 0x80  # PUBACK reasons from here up mean: not accepted (MQTT 5.0 §3.4.2.1)

log = get_logger(__name__)

Command = Callable[[str, bytes, bool], None]


class Resend(msgspec.Struct, frozen=True):
    """A record on its way once more: denied before, or asked for by a replay. Never moves the cursor."""

    record: Record
    denied: bool


class Reply(msgspec.Struct, frozen=True):
    """The answer to a request; neither kept nor retained."""

    topic: str
    payload: bytes


Outgoing = Record | Resend | Reply | str
"""A new record, a record once more, an answer, or the topic of a retained document."""


class Presentation(msgspec.Struct, frozen=True):
    """What the sink says of the bridge itself: payloads by the time it is said."""

    topic: str
    will: Callable[[int], bytes]
    birth: Callable[[int], None]
    stopped: Callable[[], bytes]


class MqttSink:
    """Publishes for one node. Used from the event loop's thread only.

    Args:
        settings: where the broker is and how to log in.
        journal: holds the records and this sink's cursor.
        retained: the hub's retained documents, read when they are sent.
        presentation: will, birth and stop documents.
        command_filter: topic filter of requests to this node.
        on_command: called with (topic, payload, retained) of each request.
        on_problem: called with the error when the connection fails or recovers (None).
        on_denied: called with (topic, error) when the broker denies a publish, (topic, None) when it takes it again.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        journal: Journal,
        retained: Mapping[str, bytes],
        presentation: Presentation,
        command_filter: str,
        on_command: Command,
        on_problem: Callable[[SinkError | None], None],
        on_denied: Callable[[str, SinkError | None], None],
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._retained = retained
        self._presentation = presentation
        self._command_filter = command_filter
        self._on_command = on_command
        self._on_problem = on_problem
        self._on_denied = on_denied
        self._queue: deque[Outgoing] = deque()
        self._inflight: dict[int, Outgoing] = {}
        self._dirty: set[str] = set()
        if journal.cursor(NAME) is None:
            journal.settle(NAME, (0, 0))  # from now on nothing is removed that the broker has not had
        self._last = journal.cursor(NAME) or (0, 0)  # position of the last record that was put into the queue
        self._behind = self._last < (journal.previous or (0, 0))
        self._denied: set[Position] = set()
        self._denied_topics: set[str] = set()
        self._pipe: PublishPipe | None = None
        self._window = WINDOW
        self._pump_due = False
        self._fetching: asyncio.Task[None] | None = None
        self._replaying: asyncio.Task[None] | None = None
        self._side_tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._idle = asyncio.Event()
        self._idle.set()
        self._connections = 0
        self._problem: SinkError | None = None
        self._up_since_s: float | None = None
        self._backoff = Backoff(0.1, 0.7 if is_loopback(settings.host) else 15.0)
        properties5 = settings.mqtt5
        content = b"\x03" + len(b"application/cloudevents+json").to_bytes(2, "big") + b"application/cloudevents+json"
        self._event_properties = b"\x02" + (7 * 86400).to_bytes(4, "big") + content if properties5 else None
        self._retained_properties = b"\x03\x00\x10application/json" if properties5 else None
        self._topic_bytes: dict[str, bytes] = {}

    # -- what the hub calls ------------------------------------------------------------------------------------------

    def offer(self, record: Record) -> None:
        """Send a new record as soon as it is its turn."""
        if self._behind:
            return
        if len(self._queue) >= LIVE_RECORDS:
            self._behind = True
            return
        self._queue.append(record)
        self._last = record.position
        self._schedule_pump()

    def offer_retained(self, topic: str) -> None:
        """Send the retained document of this topic; while the broker is away nothing is queued, for it is told at connect."""
        if self._pipe is not None and topic not in self._dirty:
            self._dirty.add(topic)
            self._queue.append(topic)
            self._schedule_pump()

    # -- what the service and the API call ---------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._pipe is not None

    def status(self) -> dict[str, JsonValue]:
        """Connection, queue and problems, for `bridge status`."""
        return {
            "state": "connected" if self.connected else "away",
            "broker": f"{self._settings.host}:{self._settings.port}",
            "tls": self._settings.tls is not None,
            "protocol": "5" if self._settings.mqtt5 else "3.1.1",
            "connections": self._connections,
            "in_flight": len(self._inflight),
            "queued": len(self._queue),
            "behind": self._behind,
            "denied_topics": sorted(self._denied_topics),
            "problem": self._problem.document() if self._problem else None,  # type: ignore[dict-item]
        }

    def replay(self, first: Position, last: Position) -> None:
        """Send the records from `first` to `last` once more, flagged as replay, behind what is queued.

        Raises:
            SinkError: another replay is running, or the broker is away.
        """
        if self._pipe is None:
            raise BrokerUnavailable("the broker is away; a replay needs it")
        if self._replaying is not None and not self._replaying.done():
            raise SinkError("a replay is running already", cause="one at a time", next_step="wait for it to end")
        self._replaying = self._own(self._replay(first, last))

    def reply(self, topic: str, payload: bytes) -> None:
        """Send an answer, if the broker is there to carry it."""
        if self._pipe is not None:
            self._queue.append(Reply(topic, payload))
            self._schedule_pump()

    async def run(self) -> None:
        """Keep a session with the broker for ever; ends by cancellation only."""
        duel = Backoff(1.0, 30.0)
        while True:
            self._up_since_s = None
            try:
                await self._session()
            except SinkError as error:
                problem = error
            finally:
                await self._down()
            pause_s = self._backoff.next_s()
            if self._up_since_s is None:
                duel.reset()
            elif self._loop.time() - self._up_since_s >= STEADY_S:
                self._backoff.reset()
                duel.reset()
            else:  # two programs with one client id throw each other out for ever: leave the other one some time
                pause_s = duel.next_s()
                if duel.tries >= 3:
                    problem = cut_short(problem, self._settings)
            if self._problem is None or self._problem.what != problem.what:
                log.warning("mqtt.lost" if self._connections else "mqtt.refused", why=problem.what, cause=problem.cause)
            self._problem = problem
            self._on_problem(problem)
            await asyncio.sleep(pause_s)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all that was offered is acknowledged; False where time ran out or the broker is away."""
        if self._pipe is None:
            return False
        try:
            async with asyncio.timeout(timeout_s):
                while self._queue or self._inflight or self._behind:
                    if self._pipe is None:
                        return False
                    self._idle.clear()
                    self._schedule_pump()
                    await self._idle.wait()
        except TimeoutError:
            return False
        return True

    async def say_stopped(self, timeout_s: float) -> None:
        """Replace the will by a document that says: stopped on purpose."""
        if self._pipe is not None:
            packet_id = self._pipe.take_id()
            topic = self._presentation.topic
            self._inflight[packet_id] = topic
            self._pipe.write(self._packet(topic, self._presentation.stopped(), packet_id))
            await self.drain(timeout_s)

    # -- one session --------------------------------------------------------------------------------------------------

    async def _session(self) -> None:
        settings = self._settings
        number = self._connections + 1
        try:
            password = await asyncio.to_thread(settings.password.read) if settings.password else None
            context = await asyncio.to_thread(tls_context, settings.tls) if settings.tls else None
            sock = await open_tcp(settings.host, settings.port, CONNECT_TIMEOUT_S)
        except OSError as error:
            raise explain(error, settings) from error
        client = aiomqtt.Client(
            settings.host,
            settings.port,
            identifier=settings.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if settings.mqtt5 else aiomqtt.ProtocolVersion.V311,
            username=settings.username or None,
            password=password.decode() if password is not None else None,
            keepalive=settings.keepalive_s,
            clean_session=None if settings.mqtt5 else True,
            clean_start=False,
            timeout=CONNECT_TIMEOUT_S,
            tls_context=context,
            will=aiomqtt.Will(
                self._presentation.topic,
                self._presentation.will(number),
                qos=1,
                retain=True,
                properties=_properties(PacketTypes.WILLMESSAGE, WillDelayInterval=WILL_DELAY_S)
                if settings.mqtt5
                else None,
            ),
            properties=_properties(
                PacketTypes.CONNECT, SessionExpiryInterval=SESSION_EXPIRY_S, MaximumPacketSize=MAX_INCOMING_BYTES
            )
            if settings.mqtt5
            else None,
            max_queued_incoming_messages=100,
        )
        pipe = PublishPipe(client, sock, self._acknowledged, mqtt5=settings.mqtt5)
        try:
            async with client:
                self._connections = number
                await self._up(pipe, client, number)
        except (aiomqtt.MqttError, OSError) as error:
            raise explain(error, settings, pipe) from error
        finally:
            pipe.close()

    async def _up(self, pipe: PublishPipe, client: aiomqtt.Client, number: int) -> None:
        self._window = max(1, min(WINDOW, pipe.receive_maximum))
        self._up_since_s = self._loop.time()
        self._presentation.birth(number)
        snapshot = dict.fromkeys(self._retained)
        self._queue.extendleft(reversed(snapshot))  # what is true comes before what happened
        self._dirty = set(snapshot)
        self._pipe = pipe
        log.info("mqtt.connected", broker=f"{self._settings.host}:{self._settings.port}", connection=number)
        self._schedule_pump()
        self._own(self._subscribe(client))
        self._own(self._settle_down())
        self._own(self._retry_denied())
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
            self._on_command(message.topic.value, payload, bool(message.retain))

    async def _settle_down(self) -> None:
        await asyncio.sleep(STEADY_S)
        self._problem = None
        self._on_problem(None)

    async def _subscribe(self, client: aiomqtt.Client) -> None:
        options = SubscribeOptions(qos=1, noLocal=True, retainAsPublished=True) if self._settings.mqtt5 else None
        try:
            codes = await client.subscribe(self._command_filter, qos=0 if options else 1, options=options)
        except aiomqtt.MqttError as error:
            log.warning("mqtt.refused", what="subscribe", topic=self._command_filter, why=str(error))
            return
        code = codes[0] if codes else 0
        if (code.value if isinstance(code, ReasonCode) else code) >= REFUSED:
            log.warning("mqtt.refused", what="subscribe", topic=self._command_filter, why=str(code))

    def _own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """Run `work` as long as the session lasts."""
        task = self._loop.create_task(work)
        self._side_tasks.add(task)
        return task

    async def _down(self) -> None:
        """The session is over: what was not acknowledged goes back, in order, before all else."""
        self._pipe = None
        for task in self._side_tasks:
            task.cancel()
        ended = await asyncio.gather(*self._side_tasks, return_exceptions=True)
        self._side_tasks.clear()
        self._fetching = self._replaying = None
        kept = [item for item in self._inflight.values() if isinstance(item, Record)]
        queued = [item for item in self._queue if isinstance(item, Record)]
        self._inflight.clear()
        self._dirty.clear()
        self._queue = deque(kept + queued)
        self._denied.clear()
        self._idle.set()
        for outcome in ended:
            if isinstance(outcome, Exception):
                raise outcome

    # -- the window ---------------------------------------------------------------------------------------------------

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
        late_ns = time.time_ns() - REPLAY_AFTER_NS
        while queue and len(inflight) < self._window:
            item = queue.popleft()
            packet_id = pipe.take_id()
            inflight[packet_id] = item
            if isinstance(item, Record):
                payload = item.payload if item.wall_ns > late_ns else flag_replay(item.payload)
                packets.append(self._packet(item.topic, payload, packet_id, retain=False))
            elif isinstance(item, Resend):
                packets.append(
                    self._packet(item.record.topic, flag_replay(item.record.payload), packet_id, retain=False)
                )
            elif isinstance(item, Reply):
                packets.append(self._packet(item.topic, item.payload, packet_id, retain=False))
            else:
                self._dirty.discard(item)
                packets.append(self._packet(item, self._retained.get(item, b""), packet_id))
        if packets:
            pipe.write(b"".join(packets))
        elif self._behind and not queue and self._fetching is None:
            self._fetching = self._own(self._fetch())
        if not queue and not inflight and not self._behind:
            self._idle.set()

    def _packet(self, topic: str, payload: bytes, packet_id: int, *, retain: bool = True) -> bytes:
        encoded = self._topic_bytes.get(topic)
        if encoded is None:
            encoded = self._topic_bytes[topic] = topic.encode()
        properties = self._retained_properties if retain else self._event_properties
        return encode_publish(encoded, payload, packet_id, retain=retain, properties=properties)

    async def _fetch(self) -> None:
        """Take the next records from the journal; when it has no more, new ones come straight from the hub again."""
        records = await self._journal.read(self._last, FETCH_RECORDS)
        self._fetching = None
        if records:
            self._queue.extend(records)
            self._last = records[-1].position
        if not records or self._last >= self._journal.head:
            self._last = max(self._last, self._journal.head)
            self._behind = False
        self._schedule_pump()

    def _acknowledged(self, acks: Acks) -> None:
        last: Position | None = None
        for packet_id, reason in acks:
            item = self._inflight.pop(packet_id, None)
            if item is None:
                continue
            if reason >= REFUSED:
                self._refuse(item, reason)
            elif isinstance(item, Resend):
                self._accept_again(item)
            elif self._denied_topics and _topic(item) in self._denied_topics:
                self._topic_works(_topic(item))
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

    # -- denied publishes -----------------------------------------------------------------------------------------------

    def _refuse(self, item: Outgoing, reason: int) -> None:
        topic = _topic(item)
        if isinstance(item, Record):
            self._journal.deny(NAME, item.position, reason)
        if isinstance(item, Resend):
            self._denied.discard(item.record.position)
        if topic in self._denied_topics:
            return
        self._denied_topics.add(topic)
        words = ReasonCode(PacketTypes.PUBACK, identifier=reason).getName() if _known(reason) else hex(reason)
        error = BrokerRefused(
            f"the broker denies {topic}: {words}",
            next_step=f"give user {self._settings.username or '(anonymous)'!r} write access to {topic} in the broker's access list",
            topic=topic,
            reason=reason,
        )
        log.error("mqtt.denied", topic=topic, reason=words)
        self._on_denied(topic, error)

    def _accept_again(self, item: Resend) -> None:
        if item.denied:
            self._denied.discard(item.record.position)
            self._journal.allow(NAME, item.record.position)
            self._topic_works(item.record.topic)

    def _topic_works(self, topic: str) -> None:
        if topic in self._denied_topics:
            self._denied_topics.discard(topic)
            self._on_denied(topic, None)

    async def _retry_denied(self) -> None:
        """At each connect and each minute: one denied record per topic is a probe; where it passes, the others follow."""
        while True:
            for topic in self._denied_topics & self._retained.keys():
                self.offer_retained(topic)
            records = await self._journal.denied(NAME, FETCH_RECORDS)
            for record in records:
                if record.position not in self._denied and self._pipe is not None:
                    self._denied.add(record.position)
                    self._queue.append(Resend(record, denied=True))
            self._schedule_pump()
            await asyncio.sleep(DENIED_RETRY_S if not records or self._denied_topics else 1.0)

    async def _replay(self, first: Position, last: Position) -> None:
        after = (first[0], first[1] - 1)
        sent = 0
        while records := await self._journal.read(after, FETCH_RECORDS, last):
            self._queue.extend(Resend(record, denied=False) for record in records)
            self._schedule_pump()
            after = records[-1].position
            sent += len(records)
            while self._queue:  # one batch at a time: memory stays bounded
                self._idle.clear()
                await self._idle.wait()
        log.info("mqtt.replayed", first=first, last=last, records=sent)


def flag_replay(payload: bytes) -> bytes:
    """The same document with ``"replay":true``: databases keep it, automations drop it."""
    return payload.replace(b'"replay":false', b'"replay":true', 1)


def _topic(item: Outgoing) -> str:
    if isinstance(item, str):
        return item
    return item.record.topic if isinstance(item, Resend) else item.topic


def _known(reason: int) -> bool:
    return reason in (0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)  # MQTT 5.0 §3.4.2.1


def _properties(packet: int, **values: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


__all__ = ["NAME", "MqttSink", "Presentation", "flag_replay"]

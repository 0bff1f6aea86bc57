"""The MQTT sink: keeps a session with the broker, tells it what is true at each connect, then lets the window run.

Birth, will and last word say whether the daemon lives; a ledger of retained topics lets no ghost stay on the broker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping

import aiomqtt
import msgspec
from paho.mqtt.client import MQTT_CLEAN_START_FIRST_ONLY
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from optima_bridge.backoff import Backoff
from optima_bridge.errors import BridgeError, BrokerUnavailable, SinkError
from optima_bridge.journal import Journal, Position
from optima_bridge.log import get_logger
from optima_bridge.model import JsonValue, Record
from optima_bridge.sinks.broker import BrokerSettings, is_loopback
from optima_bridge.sinks.dial import dial
from optima_bridge.sinks.encoding import Encoding
from optima_bridge.sinks.ledger import RetainedLedger
from optima_bridge.sinks.mqtt_pipe import PublishPipe
from optima_bridge.sinks.refusals import cut_short, denied, explain, no_echo
from optima_bridge.sinks.tls import OwnCertificate, tls_context
from optima_bridge.sinks.window import REFUSED, Window

CONNECT_TIMEOUT_S = 5.0
SESSION_EXPIRY_S = 30
WILL_DELAY_S = 3
MAX_INCOMING_BYTES = 65536
STEADY_S = 1.0  # a session that lasts this long is a good one
DUEL_S = 60.0  # sessions that end sooner, one after the other, are taken from us by a second daemon
ECHO_S = 5.0

log = get_logger(__name__)

Command = Callable[[str, bytes, bool], None]


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
        ledger: of the retained topics that the broker may hold.
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
        ledger: RetainedLedger,
        presentation: Presentation,
        command_filter: str,
        on_command: Command,
        on_problem: Callable[[SinkError | None], None],
        on_denied: Callable[[str, SinkError | None], None],
    ) -> None:
        self._settings = settings
        self._retained = retained
        self._ledger = ledger
        self._presentation = presentation
        self._command_filter = command_filter
        self._on_command = on_command
        self._on_problem = on_problem
        self._on_denied = on_denied
        self._window = Window(journal, retained, Encoding(mqtt5=settings.mqtt5), self._denied, self._cleared)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._connections = 0
        self._problem: SinkError | None = None
        self._up_since_s: float | None = None
        self._echoed = asyncio.Event()
        self._backoff = Backoff(0.1, 0.7 if is_loopback(settings.host) else 15.0)
        self._duel = Backoff(1.0, 30.0)
        if not settings.mqtt5:
            log.warning("config.warned", what='protocol = "3.1.1": what the broker denies is lost without a sign')

    # -- what the hub calls ------------------------------------------------------------------------------------------

    def offer(self, record: Record) -> None:
        """Send a new record as soon as it is its turn."""
        self._window.offer(record)

    def offer_retained(self, topic: str) -> None:
        """Send the retained document of this topic; while the broker is away nothing is queued, for it is told at connect."""
        if topic in self._ledger:
            self._window.offer_retained(topic)
        elif self.connected:
            self._own(self._list_first(topic))

    async def _list_first(self, topic: str) -> None:
        await self._ledger.add([topic])
        self._window.offer_retained(topic)

    # -- what the service and the API call ---------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the broker has accepted the connection."""
        return self._window.is_open

    def status(self) -> dict[str, JsonValue]:
        """Connection, queue and problems, for `bridge status`."""
        return {
            "state": "connected" if self.connected else "away",
            "broker": self._settings.where,
            "tls": self._settings.tls is not None,
            "protocol": "5" if self._settings.mqtt5 else "3.1.1",
            "denials": "named" if self._settings.mqtt5 else "invisible",
            "connections": self._connections,
            "in_flight": self._window.in_flight,
            "queued": self._window.queued,
            "behind": self._window.behind,
            "denied_topics": sorted(self._window.denied_topics),
            "problem": self._problem.document() if self._problem else None,  # type: ignore[dict-item]
        }

    def replay(self, first: Position, last: Position) -> None:
        """Send the records from `first` to `last` once more, flagged as replay, behind what is queued.

        Raises:
            SinkError: another replay is running, or the broker is away.
        """
        self._window.replay(first, last)

    def reply(self, topic: str, payload: bytes) -> None:
        """Send an answer, if the broker is there to carry it."""
        self._window.reply(topic, payload)

    async def drain(self, timeout_s: float) -> bool:
        """Wait until all that was offered is acknowledged; False where time ran out or the broker is away."""
        return await self._window.drain(timeout_s)

    async def say_stopped(self, timeout_s: float) -> None:
        """Replace the will by a document that says: stopped on purpose; where that fails, let the will speak."""
        self._window.last_word(self._presentation.topic, self._presentation.stopped())
        if not await self._window.drain(timeout_s):
            self._window.abandon()

    async def run(self) -> None:
        """Keep a session with the broker for ever; ends by cancellation only."""
        while True:
            self._up_since_s = None
            try:
                await self._session()
            except SinkError as error:
                problem = error
            finally:
                await self._down()
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # the goodbye failed while we were being cancelled
                raise asyncio.CancelledError
            pause_s = self._next_pause_s()
            if self._duel.tries > 2:
                problem = cut_short(problem, self._settings)
            if self._problem is None or self._problem.what != problem.what:
                log.warning("mqtt.lost" if self._connections else "mqtt.refused", why=problem.what, cause=problem.cause)
            self._set_problem(problem)
            await asyncio.sleep(pause_s)

    def _next_pause_s(self) -> float:
        """Seconds before the next try.

        Two programs with one client id throw each other out for ever. Not every broker says so, but sessions end soon, one
        after the other, at a broker that is there each time. So leave the other one some time.
        """
        if self._up_since_s is None:
            self._duel.reset()
            return self._backoff.next_s()
        lasted_s = self._loop.time() - self._up_since_s
        if lasted_s >= STEADY_S:
            self._backoff.reset()
        if lasted_s >= DUEL_S:
            self._duel.reset()
        duel_s = self._duel.next_s()
        return duel_s if self._duel.tries > 1 else self._backoff.next_s()

    def _set_problem(self, problem: SinkError | None) -> None:
        self._problem = problem
        self._on_problem(problem)

    # -- one session --------------------------------------------------------------------------------------------------

    async def _session(self) -> None:
        settings = self._settings
        number = self._connections + 1
        certificate: OwnCertificate | None = None
        context = None
        give_up_s = self._loop.time() + CONNECT_TIMEOUT_S
        try:
            password = await asyncio.to_thread(settings.password.read) if settings.password else None
            if settings.tls:
                context, certificate = await asyncio.to_thread(tls_context, settings.tls)
            sock = await dial(settings.host, settings.port, context, CONNECT_TIMEOUT_S)
        except OSError as error:
            raise explain(error, settings, certificate=certificate) from error
        except SinkError:
            raise
        except BridgeError as error:  # the secret's own words
            raise BrokerUnavailable(error.what, cause=error.cause, next_step=error.next_step) from error
        client = self._client(number, password, give_up_s - self._loop.time())
        pipe = PublishPipe(client, sock, self._window.acknowledged)
        try:
            async with client:
                client.timeout = CONNECT_TIMEOUT_S
                await self._up(pipe, client, number, certificate)
        except (aiomqtt.MqttError, OSError) as error:
            raise explain(error, settings, pipe, certificate) from error
        finally:
            pipe.close()

    def _client(self, number: int, password: bytes | None, timeout_s: float) -> aiomqtt.Client:
        settings, mqtt5 = self._settings, self._settings.mqtt5
        will_delay = _properties(PacketTypes.WILLMESSAGE, WillDelayInterval=WILL_DELAY_S)
        connect = _properties(
            PacketTypes.CONNECT, SessionExpiryInterval=SESSION_EXPIRY_S, MaximumPacketSize=MAX_INCOMING_BYTES
        )
        return aiomqtt.Client(
            settings.host,
            settings.port,
            identifier=settings.client_id,
            protocol=aiomqtt.ProtocolVersion.V5 if mqtt5 else aiomqtt.ProtocolVersion.V311,
            username=settings.username or None,
            password=password.decode() if password is not None else None,
            keepalive=settings.keepalive_s,
            clean_session=None if mqtt5 else True,
            clean_start=False if mqtt5 else MQTT_CLEAN_START_FIRST_ONLY,  # paho refuses any other word with 3.1.1
            timeout=max(0.0, timeout_s),
            will=aiomqtt.Will(
                self._presentation.topic,
                self._presentation.will(number),
                qos=1,
                retain=True,
                properties=will_delay if mqtt5 else None,
            ),
            properties=connect if mqtt5 else None,
            max_queued_incoming_messages=100,
        )

    async def _up(
        self, pipe: PublishPipe, client: aiomqtt.Client, number: int, certificate: OwnCertificate | None
    ) -> None:
        self._connections = number
        self._up_since_s = self._loop.time()
        self._presentation.birth(number)
        await self._ledger.add(self._retained)
        shown = {"certificate": str(certificate)} if certificate else {}
        log.info("mqtt.connected", broker=self._settings.where, connection=number, **shown)
        self._window.open(pipe, [*self._ledger.ghosts(self._retained), *self._retained])
        self._own(self._subscribe(client))
        self._own(self._settle_down(client))
        async for message in client.messages:
            payload = message.payload if isinstance(message.payload, bytes) else str(message.payload).encode()
            topic = message.topic.value
            if topic != self._presentation.topic:
                self._on_command(topic, payload, bool(message.retain))
            elif payload == self._retained[topic]:
                self._echoed.set()

    async def _settle_down(self, client: aiomqtt.Client) -> None:
        """The session is good once it has lasted, and, where denials are invisible, once our own birth came back."""
        topic = self._presentation.topic
        self._echoed.clear()
        problem: SinkError | None = None
        await asyncio.sleep(DUEL_S if self._duel.tries > 2 else STEADY_S)
        if not self._settings.mqtt5:
            try:
                async with asyncio.timeout(ECHO_S):
                    await client.subscribe(topic, qos=1)
                    await self._echoed.wait()
            except (aiomqtt.MqttError, TimeoutError):
                problem = no_echo(topic, self._settings)
                log.error("mqtt.denied", topic=topic, reason=problem.what)  # noqa: TRY400 - no trace of a missing message
        self._set_problem(problem)

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

    def _own(self, work: Coroutine[None, None, None]) -> None:
        """Run `work` as long as the session lasts."""
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _down(self) -> None:
        await self._window.close()
        tasks = tuple(self._tasks)
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, Exception):
                raise outcome

    # -- what the window reports ----------------------------------------------------------------------------------------

    def _denied(self, topic: str, reason: int | None) -> None:
        if reason is None:
            self._on_denied(topic, None)
            return
        error = denied(topic, reason, self._settings)
        log.error("mqtt.denied", topic=topic, reason=error.what)
        if topic in self._retained or topic not in self._ledger:  # a ghost is no open problem of this store PC
            self._on_denied(topic, error)

    def _cleared(self, topic: str) -> None:
        self._own(self._ledger.strike([topic]))


def _properties(packet: int, **values: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    for name, value in values.items():
        setattr(properties, name, value)
    return properties


__all__ = ["MqttSink", "Presentation"]

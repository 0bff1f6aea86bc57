"""The daemon: puts journal, hub, MQTT, keepers and control API together, starts them in order and stops them in order.

Start: the journal first (its new epoch is on disk before anything is published), then devices and MQTT at once, then the
API. Stop: finish reading, let the window empty, say "stopped", commit the rest.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from optima_bridge import __version__
from optima_bridge.audit import Actor, Audit, Head
from optima_bridge.clock import Clock
from optima_bridge.commands import Commands
from optima_bridge.config import Config
from optima_bridge.errors import AuditError, BridgeError, EnrollBusy, EnrollRefused, JournalError, NotFound, SinkError
from optima_bridge.hub import Hub
from optima_bridge.identifiers import IdentifierPolicy, load_or_make_secret
from optima_bridge.journal import Journal, Loss
from optima_bridge.keeper import DeviceKeeper
from optima_bridge.keepsake import Keepsake
from optima_bridge.link.portwatch import PortWatch
from optima_bridge.log import get_logger
from optima_bridge.model import Capability, JsonValue, Record, Subject
from optima_bridge.notify import notify, watchdog_interval_s
from optima_bridge.place import Place
from optima_bridge.redundancy import shared
from optima_bridge.sinks.broker import BrokerSettings, TlsFiles
from optima_bridge.sinks.ledger import RetainedLedger
from optima_bridge.sinks.mqtt import MqttSink, Presentation
from optima_bridge.topics import BRIDGE, Topics

if TYPE_CHECKING:
    from optima_bridge.enroll.enrollments import Enrollments

LAST_READ_S = 0.02  # bytes that are in the kernel when SIGTERM comes are read still
DRAIN_S = 0.6
STOPPED_S = 0.3
LAST_NOTE_S = 0.5
CLOSE_S = 5.0
HEALTH_S = 60.0

log = get_logger(__name__)

Serve = Callable[["Service", Callable[[], None]], Awaitable[None]]
"""Serves the control API until cancelled; calls the second argument once it listens."""


class Service:
    """One running daemon.

    Args:
        config: checked.
        journal: open, not yet attached.
        load_api: imports the control API and returns its ``serve(service, ready)``. It is called in a thread once events
            flow, for aiohttp takes longer to import than everything else together. None: no control API.
    """

    def __init__(self, config: Config, journal: Journal, load_api: Callable[[], Serve] | None = None) -> None:
        self.config = config
        self._load_api = load_api if config.api.enabled else None
        self.journal = journal
        self.clock = Clock()
        self.started_ns = time.monotonic_ns()
        self.topics = Topics(config.store.site, config.store.node)
        self.hub = Hub(self.topics, journal, self._policy(), self.clock)
        self.audit = Audit(Path(config.journal.directory), self._audit_head, self._audit_problem)
        self.watch = PortWatch()
        self.mqtt: MqttSink | None = None
        self.keepers: dict[str, DeviceKeeper] = {}
        self._places: dict[str, Place] = {}
        self._enrollments: Enrollments | None = None
        self.ready = asyncio.Event()
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """Begin an orderly end."""
        self._stop.set()

    async def run(self) -> None:
        """Run until stop() or SIGTERM; returns when everything is on disk."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self.journal.attach(loop, self._journal_problem, self._journal_loss)
        previous = self.journal.previous
        log.info("service.started", version=__version__, epoch=self.journal.epoch, devices=len(self.config.devices))
        if self.config.mqtt.enabled:
            self.mqtt = self._make_mqtt()
            self.hub.sinks.append(self.mqtt)
        self.hub.describe(BRIDGE, "info", self._info())
        self.hub.happened(
            BRIDGE,
            Subject.STATUS,
            "started",
            {
                "version": __version__,
                "previous": {"epoch": previous[0], "seq": previous[1]} if previous else None,
            },
        )
        try:
            await self.audit.note(
                "service.started", Actor.this("daemon"), version=__version__, epoch=self.journal.epoch
            )
            async with asyncio.TaskGroup() as tasks:
                running = [tasks.create_task(self.mqtt.run(), name="mqtt")] if self.mqtt else []
                self._places = self._make_places()
                for name, device in self.config.devices.items():
                    if device.enabled:
                        keeper = self.keepers[name] = DeviceKeeper(
                            name,
                            device,
                            self.hub,
                            self.watch,
                            self._arrived,
                            self._places.get(name),
                            Keepsake(Path(self.config.journal.directory) / f"device-{name}"),
                        )
                        running.append(tasks.create_task(keeper.run(), name=f"device {name}"))
                if any(Capability.SECURE_STORE in keeper.abilities for keeper in self.keepers.values()):
                    running.append(tasks.create_task(self._enroll(), name="enrollments"))
                running.append(tasks.create_task(self._serve_api(), name="api"))
                running.append(tasks.create_task(self._report_health(), name="health"))
                if (interval_s := watchdog_interval_s()) is not None:
                    running.append(tasks.create_task(self._feed_watchdog(interval_s), name="watchdog"))
                await self._stop.wait()
                notify("STOPPING=1")
                await self._end(running)
        finally:
            self.watch.close()
            await self.audit.close(LAST_NOTE_S)
            await self.journal.close(CLOSE_S)
            log.info("service.stopped", epoch=self.journal.epoch, seq=self.journal.head[1])

    async def _end(self, running: list[asyncio.Task[None]]) -> None:
        if self._enrollments is not None:
            await self._enrollments.close()
        await asyncio.sleep(LAST_READ_S)
        mqtt_task = next((task for task in running if task.get_name() == "mqtt"), None)
        for task in running:
            if task is not mqtt_task:
                task.cancel()
        await asyncio.wait([task for task in running if task is not mqtt_task], timeout=DRAIN_S)
        for place in self._places.values():
            place.close()
        await self.audit.note("service.stopped", Actor.this("daemon"), within_s=LAST_NOTE_S)
        self.hub.happened(BRIDGE, Subject.STATUS, "stopped", {})
        if self.mqtt is not None and mqtt_task is not None:
            await self.mqtt.drain(DRAIN_S)
            await self.mqtt.say_stopped(STOPPED_S)
            mqtt_task.cancel()

    # -- what people ask ------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, JsonValue]:
        """Everything on one screen: the document of `bridge status`."""
        stats = self.journal.stats()
        return {
            "schema": "optima.status/1",
            "version": __version__,
            "site": self.topics.site,
            "node": self.topics.node,
            "topic_prefix": self.topics.prefix,
            "pid": os.getpid(),
            "ready": self.ready.is_set(),
            "uptime_s": round((time.monotonic_ns() - self.started_ns) / 1e9, 1),
            "clock": self.clock.quality(time.monotonic_ns()),
            "epoch": self.journal.epoch,
            "seq": self.journal.head[1],
            "mqtt": self.mqtt.status() if self.mqtt else {"state": "off"},
            "journal": msgspec.to_builtins(stats),
            "audit": msgspec.to_builtins(self.audit.head),
            "devices": list(self.devices()),
            "alerts": list(self.hub.alerts.values()),
        }

    def devices(self) -> list[JsonValue]:
        """One short document per configured device."""
        return [self._device(keeper) for keeper in self.keepers.values()]

    def device(self, name: str) -> dict[str, JsonValue]:
        """Everything about one device.

        Raises:
            NotFound: no device of that name is configured; the message names those that are.
        """
        keeper = self.keepers.get(name)
        if keeper is None:
            raise NotFound(f"no device {name!r} is configured; there are: {', '.join(self.keepers) or 'none'}")
        return {
            **self._device(keeper),
            "identity": msgspec.to_builtins(keeper.status.identity),
            "opened": keeper.status.opened,
            "lost": keeper.status.lost,
            "events": keeper.status.events,
            "counters": dict(keeper.counters),
            "settings": keeper.config.settings.model_dump(mode="json"),
        }

    def _device(self, keeper: DeviceKeeper) -> dict[str, JsonValue]:
        status = keeper.status
        return {
            "name": keeper.name,
            "label": keeper.config.label,
            "driver": keeper.config.driver_class.info.name,
            "port": keeper.config.port,
            "standby_of": self.config.devices[keeper.name].standby_of,
            "link": status.link,
            "since_s": round((time.monotonic_ns() - status.since_ns) / 1e9, 1),
            "state": msgspec.to_builtins(self.hub.state_of(keeper.name)),
            "problem": status.error.document() if status.error else None,
        }

    @property
    def enrollments(self) -> Enrollments:
        """The jobs on secure memory.

        Raises:
            EnrollRefused: no device has any. EnrollBusy: not yet.
        """
        if self._enrollments is not None:
            return self._enrollments
        if any(Capability.SECURE_STORE in keeper.abilities for keeper in self.keepers.values()):
            raise EnrollBusy("the daemon is starting", cause="it has not opened its journal of enrolments yet")
        raise EnrollRefused(
            "no device of this store has secure memory",
            cause="no configured driver has the ability secure-store",
            next_step="see which drivers have it: bridge drivers list",
        )

    def replay(self, first: tuple[int, int], last: tuple[int, int]) -> None:
        """Send records once more over MQTT.

        Raises:
            SinkError: MQTT is off, away or busy with another replay.
        """
        if self.mqtt is None:
            raise SinkError("MQTT is switched off", next_step="set enabled = true in [mqtt]")
        self.mqtt.replay(first, last)

    def listen(self, listener: Callable[[Record], None]) -> Callable[[], None]:
        """Call `listener` with each new record; returns what ends that."""
        self.hub.listeners.add(listener)
        return lambda: self.hub.listeners.discard(listener)

    # -- parts ------------------------------------------------------------------------------------------------------------

    def _make_places(self) -> dict[str, Place]:
        """The places with two readers, by the name of each of the two."""
        places: dict[str, Place] = {}
        for name, device in self.config.devices.items():
            if device.enabled and device.standby_of is not None:
                primary = self.config.devices[device.standby_of]
                merged = shared(primary.abilities, device.abilities)
                places[name] = places[device.standby_of] = Place(device.standby_of, name, merged, self.hub)
        return places

    def _policy(self) -> IdentifierPolicy:
        settings = self.config.identifiers
        if settings.publish == "raw":
            return IdentifierPolicy(None)
        if settings.secret is not None:
            return IdentifierPolicy(settings.secret.read())
        return IdentifierPolicy(load_or_make_secret(Path(self.config.journal.directory) / "identifier-secret"))

    def _make_mqtt(self) -> MqttSink:
        settings = self.config.mqtt
        broker = BrokerSettings(
            host=settings.host,
            port=settings.port,
            client_id=settings.client_id or self._client_id(),
            username=settings.username,
            password=settings.password,
            tls=TlsFiles(*(str(path or "") for path in (settings.tls.ca, settings.tls.cert, settings.tls.key)))
            if settings.tls
            else None,
            mqtt5=settings.protocol == "5",
            keepalive_s=settings.keepalive_s,
        )
        status_topic = self.topics.state(BRIDGE, Subject.STATUS.value)

        def will(number: int) -> bytes:
            return self.hub.document(BRIDGE, Subject.STATUS, {"status": "lost", "conn": number})

        def birth(number: int) -> None:
            self.hub.set_state(BRIDGE, Subject.STATUS, {"status": "online", "conn": number, "version": __version__})

        def stopped() -> bytes:
            return self.hub.document(BRIDGE, Subject.STATUS, {"status": "stopped"})

        sink = MqttSink(
            broker,
            self.journal,
            self.hub.retained,
            RetainedLedger(Path(self.config.journal.directory) / "retained-topics"),
            Presentation(status_topic, will, birth, stopped),
            self.topics.command("+", "+"),
            lambda topic, payload, retained: commands.take(topic, payload, retained),  # noqa: PLW0108 - it is made below
            self._mqtt_problem,
            self._mqtt_denied,
        )
        commands = Commands(self.hub, sink.reply, sink.replay)
        return sink

    def _client_id(self) -> str:
        """The same at every start, and another one on another machine that was cloned with this configuration."""
        try:
            machine = Path("/etc/machine-id").read_text(encoding="ascii").strip()[:8]
        except OSError:
            machine = "unknown"
        return f"optima-bridge-{self.topics.site}-{self.topics.node}-{machine}"

    def _info(self) -> dict[str, JsonValue]:
        return {
            "version": __version__,
            "site": self.topics.site,
            "node": self.topics.node,
            "epoch": self.journal.epoch,
            "boot": self.clock.boot,
            "identifiers": self.config.identifiers.publish,
            "replay_window": {"days": self.config.journal.keep_days, "mb": self.config.journal.keep_mb},
            "devices": list(self.config.devices),
        }

    async def _enroll(self) -> None:
        def imported() -> Callable[[], Enrollments]:
            from optima_bridge.enrolling import make

            return lambda: make(self.config, self.keepers, self.hub, self.audit)

        self._enrollments = (await asyncio.to_thread(imported))()
        await self._enrollments.run()

    def _arrived(self, device: str) -> None:
        if self._enrollments is not None:
            self._enrollments.arrived(device)

    async def _serve_api(self) -> None:
        try:
            if self._load_api is None:
                self._became_ready()
                return
            serve = await asyncio.to_thread(self._load_api)
            await serve(self, self._became_ready)
        except BridgeError as error:
            log.error("api.failed", why=error.what, cause=error.cause)  # noqa: TRY400 - the words say it, no trace
            self.hub.raise_alert(BRIDGE, "api", error)
            self._became_ready()

    def _became_ready(self) -> None:
        if not self.ready.is_set():
            self.ready.set()
            notify(f"READY=1\nSTATUS=serving {len(self.keepers)} devices")
            log.info("service.ready", after_s=round((time.monotonic_ns() - self.started_ns) / 1e9, 3))

    async def _report_health(self) -> None:
        while True:
            await asyncio.sleep(HEALTH_S)
            await self.audit.mend()
            stats = self.journal.stats()
            self.hub.set_state(
                BRIDGE,
                Subject.HEALTH,
                {
                    "uptime_s": int((time.monotonic_ns() - self.started_ns) / 1e9),
                    "clock": self.clock.quality(time.monotonic_ns()),
                    "devices_up": sum(keeper.status.link == "up" for keeper in self.keepers.values()),
                    "devices": len(self.keepers),
                    "journal": msgspec.to_builtins(stats),
                },
            )

    async def _feed_watchdog(self, interval_s: float) -> None:
        """This runs on the loop, so a stalled loop starves systemd's watchdog; so does a stalled journal writer."""
        while True:
            if self.journal.alive:
                notify("WATCHDOG=1")
            await asyncio.sleep(interval_s)

    def _journal_problem(self, error: JournalError | None) -> None:
        if error is None:
            log.info("journal.recovered")
            self.hub.clear_alert(BRIDGE, "journal")
        else:
            log.error("journal.failed", why=error.what, cause=error.cause)
            self.hub.raise_alert(BRIDGE, "journal", error)

    def _journal_loss(self, loss: Loss) -> None:
        log.error("loss.recorded", first=loss.first, last=loss.last, count=loss.count, reason=loss.reason)
        self.hub.lost(loss)

    def _audit_head(self, head: Head) -> None:
        self.hub.describe(BRIDGE, "audit", msgspec.to_builtins(head))

    def _audit_problem(self, error: AuditError | None) -> None:
        known = self.hub.alerts.get((BRIDGE, "audit"))
        if error is None:
            if known:
                log.info("audit.recovered")
            self.hub.clear_alert(BRIDGE, "audit")
        else:
            if known is None or known["code"] != error.code:
                log.error("audit.failed", why=error.what, cause=error.cause)
            self.hub.raise_alert(BRIDGE, "audit", error)

    def _mqtt_problem(self, error: SinkError | None) -> None:
        if error is None:
            self.hub.clear_alert(BRIDGE, "mqtt")
        else:
            self.hub.raise_alert(BRIDGE, "mqtt", error)

    def _mqtt_denied(self, topic: str, error: SinkError | None) -> None:
        name = f"denied-{hashlib.sha256(topic.encode()).hexdigest()[:12]}"  # a topic may be longer than a segment
        if error is None:
            self.hub.clear_alert(BRIDGE, name)
        else:
            self.hub.raise_alert(BRIDGE, name, error)

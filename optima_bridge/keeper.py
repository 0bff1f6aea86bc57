"""The device keeper: open one device, run its driver, and when anything goes wrong back off and open it again.

This is the only place that catches every exception: a driver's bug restarts the device, never the daemon. Losing one
device never disturbs another, for each keeper is a task of its own and waits on its own file descriptor.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import aclosing
from typing import Protocol, cast

import msgspec

from optima_bridge.backoff import Backoff
from optima_bridge.driver import Driver, DriverSettings, wire_may_hold_secrets
from optima_bridge.errors import BridgeError, DeviceError, EnrollRefused, LinkLost, LinkNotFound, LinkTimeout
from optima_bridge.hub import Hub, Quality
from optima_bridge.keepsake import HasKeepsake, Keepsake
from optima_bridge.link import Link, open_byte_link, open_link
from optima_bridge.link.base import BYTE_OPENERS, device_path, scheme_of
from optima_bridge.link.portwatch import PortWatch, port_exists
from optima_bridge.link.tap import Wire
from optima_bridge.log import get_logger
from optima_bridge.model import Capability, Data, DeviceIdentity, Event, JsonValue, Observation, Subject
from optima_bridge.store import HasSecureStore, SecureStore

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 1.0
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MISSING_PAUSE_S = 30.0
STEADY_S = 5.0  # after this long without trouble the next trouble is a new one

NUMBER = re.compile(r"[^\W_]*\d[^\W_]*|\bx?[0-9A-Fa-f]{2}\b")  # 7, 1.5, 0x3f, 12ms, ff

log = get_logger(__name__)

UNKNOWN_STATES: dict[Capability, tuple[Subject, Data]] = {
    Capability.KEY_READER: (Subject.KEY, {"presence": "unknown"}),
    Capability.CARD_READER: (Subject.CARD, {"presence": "unknown"}),
    Capability.KEYLOCK: (Subject.KEYLOCK, {"position": "unknown", "position_code": 0}),
    Capability.SEAL_SWITCH: (Subject.SEAL, {"seal": "unknown"}),
    Capability.TERMINAL: (Subject.CONTROLLER, {"status": "unknown"}),
}
"""What stands in a device's state topics until it is heard: unknown is locked."""

HOLDS_TOKENS = frozenset({Subject.KEY, Subject.CARD})


class DeviceConfig(Protocol):
    """One device as configured."""

    @property
    def port(self) -> str:
        """Where it is."""

    @property
    def label(self) -> str:
        """Its name for people."""

    @property
    def driver_class(self) -> type[Driver]:
        """Its driver."""

    @property
    def settings(self) -> DriverSettings:
        """The driver's own settings."""


class Voice(Protocol):
    """Where a keeper says what its device said: the hub, or the place that the device serves together with another."""

    def record(self, device: str, event: Event) -> object:
        """It decided something."""

    def set_state(self, device: str, subject: Subject, data: Data, quality: Quality = "good") -> None:
        """It found something; quality ``unknown``: nothing is known yet."""

    def forget(self, device: str, unknown: Mapping[Subject, Data]) -> None:
        """It is lost; how its subjects look then."""

    def happened(self, device: str, subject: Subject, action: str, data: Data, state: Data) -> object:
        """Its link is up or down."""


class KeeperStatus(msgspec.Struct):
    """How a device is doing."""

    link: str = "unknown"
    since_ns: int = 0
    identity: DeviceIdentity = DeviceIdentity()
    error: BridgeError | None = None
    opened: int = 0
    lost: int = 0
    events: int = 0


class DeviceKeeper:
    """Keeps one device running; `name` is its segment in topics.

    Attributes:
        present: identifier of the key or card that is in the reader now; None: none, or it is not known.
        arrived: called when the device came up, and when a key or card was put in.
        wire: where its bytes can be heard; None: its link is no byte pipe.
    """

    def __init__(
        self,
        name: str,
        config: DeviceConfig,
        hub: Hub,
        watch: PortWatch,
        arrived: Callable[[str], None] = lambda _: None,
        voice: Voice | None = None,
        keepsake: Keepsake | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.present: str | None = None
        self.wire: Wire | None = None
        if scheme_of(config.port) in BYTE_OPENERS:
            self.wire = Wire(masked=wire_may_hold_secrets(config.driver_class))
        self._arrived = arrived
        self._seen: set[asyncio.Future[str]] = set()
        self.status = KeeperStatus(since_ns=hub.clock.now()[1])
        self._hub = hub
        self._voice = voice or hub
        self._keepsake = keepsake
        self._watch = watch
        self._backoff = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        self._driver: Driver | None = None
        info = config.driver_class.info
        self.abilities = config.settings.narrow(info.capabilities)
        self._unknown = {
            subject: unknown
            for capability, (subject, unknown) in UNKNOWN_STATES.items()
            if capability in self.abilities and (info.reports_removal or subject is not Subject.CARD)
        }
        for subject, unknown in self._unknown.items():
            self._voice.set_state(name, subject, unknown, "unknown")
        hub.describe(name, "device", self.description())

    async def run(self) -> None:
        """Keep the device running; ends by cancellation only."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            error = await self._live()
            if self.status.link == "up" and loop.time() - began > STEADY_S:
                self._backoff.reset()
            self._went_down(error)
            await self._pause(error)

    @property
    def counters(self) -> dict[str, int]:
        """The driver's running totals, empty while it does not run."""
        return dict(self._driver.counters) if self._driver else {}

    async def next_identifier(self) -> str:
        """Identifier of the key or card that is put in or shown next."""
        seen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._seen.add(seen)
        try:
            return await seen
        finally:
            self._seen.discard(seen)

    def controller(self) -> tuple[str, str]:
        """Its status as the controller reports it, and since when; empty where it reports none."""
        state = self._hub.state_of(self.name).get(Subject.CONTROLLER, {})
        return str(state.get("status", "")), str(state.get("since", ""))

    def secure_store(self) -> tuple[SecureStore, DeviceIdentity]:
        """Its open secure memory, and who answered.

        Raises:
            BridgeError: why it cannot be used now; EnrollRefused: it has none.
        """
        if Capability.SECURE_STORE not in self.abilities:
            raise EnrollRefused(f"{self.name} has no secure memory")
        if self.status.link != "up" or self._driver is None:
            raise self.status.error or LinkLost(f"{self.name} is not open yet", cause="the daemon has just started")
        return cast("HasSecureStore", self._driver).store, self.status.identity

    def description(self) -> dict[str, JsonValue]:
        """What the device is: published once as ``meta/{device}/device``."""
        info = self.config.driver_class.info
        identity = self.status.identity
        return {
            "label": self.config.label,
            "driver": info.name,
            "capabilities": sorted(map(str, self.abilities)),
            "maturity": str(info.maturity),
            "reports_removal": info.reports_removal,
            "model": identity.model,
            "serial": identity.serial,
            "firmware": identity.firmware,
        }

    async def _live(self) -> BridgeError:
        """Open the device and run it until something ends it; returns what did."""
        try:
            link = await self._open()
            try:
                error = await self._run_driver(link)
            finally:
                self._driver = None
                link.close()
        except BridgeError as caught:
            error = caught
        except asyncio.CancelledError as caught:
            if _being_cancelled():
                raise
            error = self._bug(caught)  # the driver awaited something of its own that was cancelled
        except Exception as caught:  # noqa: BLE001 - the keeper's boundary: a driver's bug restarts the device
            error = self._bug(caught)
        if _being_cancelled():
            raise asyncio.CancelledError  # the driver made something else of it; the daemon must end all the same
        return error

    async def _open(self) -> Link:
        port = self.config.port
        serial_format = self.config.settings.serial_format(self.config.driver_class.info.serial_format)
        if self.wire is None:
            return await open_link(port, serial_format)
        return self.wire.tap(await open_byte_link(port, serial_format))

    async def _run_driver(self, link: Link) -> BridgeError:
        driver = self._driver = self.config.driver_class(link, self.config.settings)
        if isinstance(driver, HasKeepsake):
            driver.keepsake = self._keepsake
        try:
            try:
                async with asyncio.timeout(START_TIMEOUT_S) as starting:
                    identity = await driver.start()
            except TimeoutError:
                if not starting.expired():
                    raise
                return LinkTimeout(f"{link.name}: the driver did not start within {START_TIMEOUT_S:.0f} s")
            self._came_up(identity)
            async with aclosing(driver.events()) as events:
                async for event in events:
                    if isinstance(event, Event):
                        self.status.events += 1
                        self._voice.record(self.name, event)
                        if self.wire is not None:
                            self.wire.told(event.subject, event.action)
                    else:
                        self._voice.set_state(self.name, event.subject, event.state)
                    if event.subject in HOLDS_TOKENS:
                        self._note_token(event)
            return LinkLost(f"the driver {driver.info.name} ended by itself")
        finally:
            await self._stop_driver(driver)

    def _note_token(self, told: Event | Observation) -> None:
        """Remember which key or card is there, for those who wait for one."""
        identifier = told.identifier if isinstance(told, Event) else None
        if told.state is not None:
            self.present = identifier if told.state.get("presence") == "present" else None
        if identifier is not None:
            for seen in self._seen:
                if not seen.done():
                    seen.set_result(identifier)
            if told.state is not None and self.present is not None:
                self._arrived(self.name)

    async def _stop_driver(self, driver: Driver) -> None:
        """Have the driver say goodbye; nothing that goes wrong here may hide why it is stopped."""
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await driver.stop()
        except (BridgeError, TimeoutError):
            pass  # it is gone, or does not listen: that is no news
        except Exception as error:  # noqa: BLE001 - the keeper's boundary
            self._bug(error)

    def _bug(self, error: BaseException) -> BridgeError:
        log.error("device.failed", device=self.name, error=repr(error), exc_info=error)
        return BridgeError(f"the driver {self.config.driver_class.info.name} failed: {error!r}", device=self.name)

    def _came_up(self, identity: DeviceIdentity) -> None:
        status = self.status
        status.identity, status.error, status.link = identity, None, "up"
        status.opened += 1
        if self.wire is not None:
            self.wire.started()
        status.since_ns = self._hub.clock.now()[1]
        log.info("link.opened", device=self.name, port=self.config.port, model=identity.model)
        self._hub.describe(self.name, "device", self.description())
        self._voice.happened(self.name, Subject.LINK, "up", {}, {"link": "up"})
        self._hub.clear_alert(self.name, "link")
        self._arrived(self.name)

    def _went_down(self, error: BridgeError) -> None:
        status, name = self.status, self.name
        was_up, before = status.link == "up", status.error
        status.error, status.link, self.present = error, "down", None
        if not was_up and before is not None and _reason(before) == _reason(error):
            self._hub.raise_alert(name, "link", error)  # with the numbers of now; quietly
            return
        status.since_ns = self._hub.clock.now()[1]
        status.lost += was_up
        log.warning("link.lost" if was_up else "link.refused", device=name, code=error.code, why=error.what)
        reason: Data = {"code": error.code, "what": error.what}
        self._voice.forget(name, self._unknown)
        self._voice.happened(name, Subject.LINK, "down", reason, {"link": "down", **reason})
        self._hub.raise_alert(name, "link", error)

    async def _pause(self, error: BridgeError) -> None:
        pause_s = self._backoff.next_s()
        port = self.config.port
        if isinstance(error, LinkNotFound | LinkLost | DeviceError) and not port_exists(port):
            # Of a port that is no path nobody knows whether it is there, so it is also tried now and then.
            if await self._watch.wait_for(port, pause_s if device_path(port) is None else MISSING_PAUSE_S):
                self._backoff.reset()
            return
        await asyncio.sleep(pause_s)


def _reason(error: BridgeError) -> tuple[str, str]:
    """What makes a reason another one: its code and words, but no number, time or byte, which may differ at each try."""
    return error.code, NUMBER.sub("0", error.what)


def _being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0

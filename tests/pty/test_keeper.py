"""The device keeper with real ptys, real simulators and a real journal: replugging, losing, drivers with bugs."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
import structlog
from structlog.testing import LogCapture

from optima_bridge import keeper as keeper_module
from optima_bridge.demo.store import Attachable
from optima_bridge.driver import Driver, DriverSettings
from optima_bridge.errors import BridgeError, LinkBusy, LinkLost, LinkNotFound
from optima_bridge.hub import Hub
from optima_bridge.keeper import DeviceKeeper
from optima_bridge.link import ByteLink, Link, SerialFormat, memory_pair
from optima_bridge.link.base import OPENERS
from optima_bridge.link.portwatch import PortWatch
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_drivers.ds2480b.driver import Ds2480bDriver
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.loopback.codec import Card, encode
from optima_drivers.loopback.driver import LoopbackDriver, LoopbackSettings
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.rfid125.driver import Rdm6300Driver
from optima_drivers.rfid125.simulator import Rfid125Simulator
from tests.support import until
from tests.uevent_sender import pretend_udev, send

KEY = "01B7BA1000000075"
UNKNOWN_LOCK = {"position": "unknown", "position_code": 0, "quality": "unknown"}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What the keeper logs."""
    capture = LogCapture()
    monkeypatch.setattr(keeper_module, "log", structlog.wrap_logger(None, processors=[capture]))
    return capture


HubAndPayloads = tuple[Hub, list[dict[str, Any]]]


class Configured(msgspec.Struct, frozen=True):
    """One device as configured, with any driver."""

    port: str
    driver_class: type[Driver] = LoopbackDriver
    settings: DriverSettings = LoopbackDriver.Settings()
    label: str = ""


class Device:
    """A simulator on a pty and the keeper that keeps it."""

    def __init__(
        self,
        name: str,
        hub: Hub,
        watch: PortWatch,
        directory: Path,
        driver: type[Driver],
        simulator: Attachable | None = None,
    ) -> None:
        self.simulator = LoopbackSimulator()  # what most tests talk to
        served = simulator or self.simulator
        self.pty = PtyServer(served, symlink=directory / name)
        served.attach(self.pty.send)
        self.keeper = DeviceKeeper(name, Configured(self.pty.path, driver, driver.Settings()), hub, watch)

    def is_up(self) -> bool:
        return self.keeper.status.link == "up"

    def is_down(self) -> bool:
        return self.keeper.status.link == "down"


@asynccontextmanager
async def kept(
    hub: Hub,
    directory: Path,
    name: str = "front",
    driver: type[Driver] = LoopbackDriver,
    watch: PortWatch | None = None,
    simulator: Attachable | None = None,
) -> AsyncIterator[Device]:
    """A device and its running keeper."""
    own = PortWatch()
    device = Device(name, hub, watch or own, directory, driver, simulator)
    async with device.pty:
        task = asyncio.create_task(device.keeper.run())
        try:
            yield device
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, 10)
            own.close()


def seen(payloads: list[dict[str, Any]], subject: str, device: str = "front") -> list[str]:
    """Actions of one subject, in order."""
    return [p["data"]["action"] for p in payloads if p["type"].split(".")[2] == subject and p["subject"] == device]


class DiesAtOnce(LoopbackDriver):
    """Opening and starting work; then it is gone."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        raise LinkLost("gone")
        yield


class Buggy(LoopbackDriver):
    """Fails with what no driver may raise, in one `place`."""

    place: ClassVar[str]
    lives: ClassVar[int]

    def __init__(self, link: ByteLink, settings: LoopbackSettings) -> None:
        super().__init__(link, settings)
        type(self).lives += 1
        self._fail_in("__init__")

    async def start(self) -> DeviceIdentity:
        self._fail_in("start")
        if self.place == "never starts":
            await asyncio.Event().wait()
        return await super().start()

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        self._fail_in("events")
        match self.place:
            case "stop":
                if self.lives < 4:
                    return
            case "data":
                yield Event(Subject.KEY, "inserted", self._link.clock_ns(), {"no json": object()})  # type: ignore[dict-item]
            case "cancelled":
                raise asyncio.CancelledError
            case "bare timeout":
                raise TimeoutError
        try:
            async for event in super().events():
                yield event
        finally:
            self._fail_in("cleanup")
            if self.place == "cleanup link":
                raise LinkLost("a cancellation taken for a loss")

    async def stop(self) -> None:
        self._fail_in("stop")

    def _fail_in(self, place: str) -> None:
        if self.place == place:
            raise ValueError(f"a bug in {place}")


def failing_in(place: str) -> type[Buggy]:
    """A driver of its own for each test, for it counts its lives."""

    class Failing(Buggy):
        pass

    Failing.place, Failing.lives = place, 0
    return Failing


async def test_a_thousand_replugs_cost_no_memory_and_no_descriptor_while_another_device_goes_on(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, _ = hub_and_payloads
    hub.listeners.clear()  # payloads kept by the test would grow
    watch = PortWatch()
    async with kept(hub, tmp_path, "front", watch=watch) as front, kept(hub, tmp_path, "back", watch=watch) as back:
        await until(lambda: front.is_up() and back.is_up())
        baseline = (0, 0)
        for number in range(1, 1001):
            front.pty.unplug()
            await until_soon(front.is_down)
            back.simulator.card(f"{number:010X}")
            front.pty.replug()
            await until_soon(front.is_up)
            if number == 300:
                baseline = resident_bytes(), open_descriptors()
        await until(lambda: back.keeper.status.events == 1000)
        grown_bytes = resident_bytes() - baseline[0]
        descriptors = open_descriptors()
        front.simulator.card("67003B51C6")  # the last pty is heard as well as the first
        await until(lambda: front.keeper.status.events == 1)
    assert front.keeper.status.opened == 1001
    assert front.keeper.status.lost == 1000
    assert back.keeper.status.opened == 1
    assert descriptors == baseline[1]
    assert grown_bytes < 2 << 20


async def test_a_device_that_has_no_path_is_opened_when_something_is_plugged_in(
    hub_and_payloads: HubAndPayloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def open_usb(port: str, _: SerialFormat) -> Link:
        attempts.append(port)
        if not plugged:
            raise LinkNotFound("nothing there")
        return memory_pair(port)[0]

    attempts: list[str] = []
    plugged = False
    pretend_udev(monkeypatch, runs=True)
    monkeypatch.setitem(OPENERS, "usb", open_usb)
    monkeypatch.setattr(keeper_module, "FIRST_PAUSE_S", 60.0)
    monkeypatch.setattr(keeper_module, "LONGEST_PAUSE_S", 60.0)
    watch = PortWatch()
    keeper = DeviceKeeper(
        "front", Configured("usb:04fa:2490", Rdm6300Driver, Rdm6300Driver.Settings()), hub_and_payloads[0], watch
    )
    running = asyncio.create_task(keeper.run())
    await until(lambda: watch._pathless)
    plugged = True
    send("add")
    await until(lambda: keeper.status.link == "up")
    running.cancel()
    await asyncio.wait({running})
    watch.close()
    assert attempts == ["usb:04fa:2490"] * 2


async def test_a_device_that_dies_as_soon_as_it_is_opened_is_opened_more_and_more_seldom(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    async with kept(hub_and_payloads[0], tmp_path, driver=DiesAtOnce) as front:
        loop = asyncio.get_running_loop()
        await until(lambda: front.keeper.status.opened == 1)
        began = loop.time()
        await until(lambda: front.keeper.status.opened == 6)
        # Nominal pauses are 0.1, 0.2, 0.4, 0.8, 1.6 s, and jitter halves them at most.
        assert loop.time() - began >= 0.5 * (0.1 + 0.2 + 0.4 + 0.8 + 1.6)


async def test_what_a_lost_reader_said_is_unknown_until_it_is_heard_again(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, payloads = hub_and_payloads
    async with kept(hub, tmp_path) as front:
        assert hub.state_of("front")["keylock"] == UNKNOWN_LOCK | {"since": hub.state_of("front")["keylock"]["since"]}
        front.simulator.key_in(KEY)
        front.simulator.lock(3)
        await until(lambda: hub.state_of("front")["keylock"]["position_code"] == 3)
        assert hub.state_of("front")["key"]["presence"] == "present"
        front.pty.unplug()
        await until(front.is_down)
        state = hub.state_of("front")
        assert state["key"].items() >= {"presence": "unknown", "quality": "unknown"}.items()
        assert "key_ref" not in state["key"]
        assert state["keylock"] == UNKNOWN_LOCK | {"since": state["keylock"]["since"]}
        assert state["link"].items() >= {"link": "down", "code": "E-LINK-LOST"}.items()
        front.pty.replug()
        await until(lambda: hub.state_of("front")["keylock"]["position_code"] == 3)
    assert seen(payloads, "link") == ["up", "down", "up"]
    assert seen(payloads, "fault") == ["raised", "cleared"]


def ds2480b_with_a_key() -> Attachable:
    simulator = Ds2480bSimulator()
    simulator.put(KEY)
    return simulator


def rdm6300_with_a_card() -> Attachable:
    simulator = Rfid125Simulator()
    simulator.insert("67003B51C6")
    return simulator


def loopback_with_a_key() -> Attachable:
    simulator = LoopbackSimulator()
    simulator.key_in(KEY)
    return simulator


@pytest.mark.parametrize(
    ("driver", "make", "subject"),
    [
        (Ds2480bDriver, ds2480b_with_a_key, "key"),
        (Rdm6300Driver, rdm6300_with_a_card, "card"),
        (LoopbackDriver, loopback_with_a_key, "key"),
    ],
)
async def test_what_stays_on_the_reader_is_found_again_after_each_replug(
    driver: type[Driver],
    make: Callable[[], Attachable],
    subject: str,
    hub_and_payloads: HubAndPayloads,
    tmp_path: Path,
) -> None:
    hub, payloads = hub_and_payloads

    def presence() -> object:
        return hub.state_of("front")[subject]["presence"]

    async with kept(hub, tmp_path, driver=driver, simulator=make()) as front:
        for _ in range(3):
            await until(lambda: presence() == "present")
            front.pty.unplug()
            await until(front.is_down)
            assert presence() == "unknown"
            front.pty.replug()
        await until(lambda: presence() == "present")
    assert seen(payloads, subject) == ["inserted"] * 4
    assert seen(payloads, "link") == ["up"] + ["down", "up"] * 3


async def test_the_reason_why_a_device_is_down_is_told_once_and_anew_where_it_changes(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, payloads = hub_and_payloads
    (tmp_path / "front").mkdir()  # in the place of the port
    watch = PortWatch()
    keeper = DeviceKeeper("front", Configured(str(tmp_path / "front")), hub, watch)
    task = asyncio.create_task(keeper.run())
    await until(lambda: keeper.status.error)
    (tmp_path / "front").rmdir()
    await until(lambda: keeper.status.error and keeper.status.error.code == "E-PORT-MISSING")
    task.cancel()
    await asyncio.wait({task})
    watch.close()
    downs = [p["data"]["code"] for p in payloads if p["type"] == "com.optima.link.down.v1"]
    assert downs == ["E-LINK", "E-PORT-MISSING"]
    assert seen(payloads, "fault") == ["raised"]


@pytest.mark.parametrize(
    ("first", "then", "is_another"),
    [
        ("/dev/ttyUSB0 is held by bash", "/dev/ttyUSB0 is held by mmcli", True),
        ("nothing came", "the wrong device answers", True),
        ("nothing came within 1.5 s", "nothing came within 1.25 s", False),
        ("3 of 8 answers were cut off", "7 of 8 answers were cut off", False),
        ("it answered ff 0a in place of 3e", "it answered 17 fe in place of 3e", False),
        ("a reply of b'\\xff'", "a reply of b'\\x0b'", False),
    ],
)
async def test_another_reason_of_the_same_code_is_told_and_another_number_in_it_only_shown(
    first: str, then: str, is_another: bool, hub_and_payloads: HubAndPayloads, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, payloads = hub_and_payloads
    why = first
    tries = 0

    async def refuse(port: str, serial_format: SerialFormat) -> Link:
        nonlocal tries
        tries += 1
        raise LinkBusy(why, port=port)

    async def no_pause(keeper: DeviceKeeper, error: BridgeError) -> None:
        await asyncio.sleep(0.001)

    monkeypatch.setattr(keeper_module, "open_byte_link", refuse)
    monkeypatch.setattr(DeviceKeeper, "_pause", no_pause)
    watch = PortWatch()
    keeper = DeviceKeeper("front", Configured("/dev/front"), hub, watch)
    task = asyncio.create_task(keeper.run())
    await until(lambda: tries > 2)
    why, tries = then, 0
    await until(lambda: tries > 2)
    task.cancel()
    await asyncio.wait({task})
    watch.close()
    downs = [p["data"]["what"] for p in payloads if p["type"] == "com.optima.link.down.v1"]
    assert downs == ([first, then] if is_another else [first])
    assert keeper.status.error is not None
    assert keeper.status.error.what == hub.alerts["front", "link"]["what"] == then
    assert seen(payloads, "fault") == ["raised"]


@pytest.mark.parametrize("place", ["__init__", "start", "events", "stop", "data", "cancelled", "bare timeout"])
async def test_a_bug_in_a_driver_restarts_its_device_and_nothing_else(
    place: str, hub_and_payloads: HubAndPayloads, tmp_path: Path, logged: LogCapture
) -> None:
    hub, payloads = hub_and_payloads
    watch = PortWatch()
    buggy = failing_in(place)
    async with kept(hub, tmp_path, "buggy", buggy, watch) as bad, kept(hub, tmp_path, "back", watch=watch) as good:
        await until(lambda: good.is_up() and buggy.lives >= 3)
        good.simulator.card("67003B51C6")
        await until(lambda: good.keeper.status.events == 1)
        assert bad.keeper.status.error is not None
    assert good.keeper.status.lost == 0
    failures = [entry for entry in logged.entries if entry["event"] == "device.failed"]
    assert {entry["device"] for entry in failures} == {"buggy"}
    assert len(failures) >= 2
    assert [p["seq"] for p in payloads] == list(range(1, len(payloads) + 1)), "a bug costs no sequence number"


@pytest.mark.parametrize("place", ["stop", "cleanup", "cleanup link"])
async def test_a_driver_that_fails_while_it_is_cancelled_cannot_keep_the_daemon_from_ending(
    place: str, hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    buggy = failing_in(place)
    async with kept(hub_and_payloads[0], tmp_path, driver=buggy) as front:
        await until(front.is_up)  # leaving the block cancels the keeper, and waits for it


async def test_a_driver_that_never_starts_is_told_from_one_that_raises_a_timeout(
    hub_and_payloads: HubAndPayloads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "START_TIMEOUT_S", 0.05)
    buggy = failing_in("never starts")
    async with kept(hub_and_payloads[0], tmp_path, driver=buggy) as front:
        await until(lambda: front.keeper.status.error)
        assert front.keeper.status.error is not None
        assert front.keeper.status.error.code == "E-LINK-TIMEOUT"


@pytest.mark.parametrize("what", ["garbage", "frames"])
async def test_a_flood_on_one_reader_neither_grows_memory_nor_holds_up_another_reader(
    what: str, hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, _ = hub_and_payloads
    hub.listeners.clear()
    async with kept(hub, tmp_path) as front, kept(hub, tmp_path, "back") as back:
        await until(lambda: front.is_up() and back.is_up())
        chunk = bytes(range(256)) * 128 if what == "garbage" else b"".join(map(encode, map(card, range(2000))))
        pouring = asyncio.create_task(pour(front.pty, chunk))
        try:
            await until(lambda: sum(front.keeper.counters.values()) > 5_000)
            before = resident_bytes()
            back.simulator.card("67003B51C6")
            marked = sum(front.keeper.counters.values())
            await until(lambda: back.keeper.status.events == 1)
            await until(lambda: sum(front.keeper.counters.values()) > marked + 5_000)  # the flood goes on
            assert resident_bytes() - before < 32 << 20
            assert front.is_up()
        finally:
            pouring.cancel()


async def pour(pty: PtyServer, chunk: bytes) -> None:
    """As fast as it is read."""
    while True:
        pty.send(chunk)
        await asyncio.sleep(0)


def card(number: int) -> Card:
    return Card(f"{number:010X}")


async def until_soon(condition: Callable[[], bool]) -> None:
    """`until` without its pauses, for a thousand rounds."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0)


def resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())

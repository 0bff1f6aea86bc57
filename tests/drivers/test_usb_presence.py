"""Dongles in a folder that looks like the kernel's list of USB devices; its messages are real netlink ones."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from tempfile import mkdtemp

import pytest
from pydantic import ValidationError

from optima_bridge.errors import LinkLost, LinkNotFound, LinkTimeout
from optima_bridge.link import SerialFormat, open_link, sysfs, uevents
from optima_bridge.link.sysfs import SysfsLink, find
from optima_bridge.model import Event, Observation, Subject
from optima_bridge.presence import ABSENT
from optima_bridge.testing import ConformanceCase
from optima_bridge.testing.contract import LinkContract
from optima_drivers.usb_presence import UsbPresenceDriver
from optima_drivers.usb_presence.simulator import UsbBusSimulator
from tests.support import TIMEOUT_S, until
from tests.uevent_sender import pretend_udev, send

IDS = ("0529", "0001")
SERIAL = "A50285BI"
FAST = {"vendor_id": "0529", "product_id": "0001", "settle_ms": 20, "poll_interval_ms": 100}
USB_DEVICES = Path("/sys/bus/usb/devices")
HERE = {"bus_path": "1-1.4"}
opened: list[SysfsLink] = []
scratch: list[Path] = []


@pytest.fixture(autouse=True)
def _links_are_closed(tmp_path: Path) -> Iterator[None]:
    scratch[:] = [tmp_path]
    yield
    while opened:
        opened.pop().close()


class WatchedLink(SysfsLink):
    """Tells whether the driver waits for more."""

    waiting = False

    async def changed(self, timeout_s: float) -> bool:
        self.waiting = True
        try:
            return await super().changed(timeout_s)
        finally:
            self.waiting = False


class Sockets:
    """The sockets of the PC, as the conformance suite sees them: all of USB may go."""

    def __init__(self, bus: UsbBusSimulator, link: WatchedLink) -> None:
        self._bus, self._link = bus, link

    def unplug(self) -> None:
        self._bus.unload()

    async def drained(self) -> None:
        await until(lambda: self._link.waiting)


def joined(bus: UsbBusSimulator) -> tuple[WatchedLink, Sockets]:
    link = WatchedLink.open(f"sysfs:{bus.directory}")
    opened.append(link)
    return link, Sockets(bus, link)


def pull_both(bus: UsbBusSimulator) -> None:
    for bus_path in ("1-1.4", "1-1.3"):
        bus.pull(bus_path)


class TestUsbPresence(LinkContract):
    case = ConformanceCase(
        driver=UsbPresenceDriver,
        simulator=lambda: UsbBusSimulator(Path(mkdtemp(dir=scratch[0])) / "devices"),
        provoke=lambda bus: bus.plug("1-1.4", *IDS, SERIAL),
        undo=pull_both,
        grants=(Subject.KEY, "inserted"),
        identifier=SERIAL,
        revokes=(Subject.KEY, "removed"),
        suspects=(Subject.KEY, "suspect"),
        second=lambda bus: bus.plug("1-1.3", *IDS, "another"),
        ambiguous=(Subject.KEY, "ambiguous"),
        settings=FAST,
        join=joined,
    )


@pytest.fixture
def bus(tmp_path: Path) -> UsbBusSimulator:
    return UsbBusSimulator(tmp_path / "devices")


class Reader:
    """A driver on a bus, and what it says, without the times."""

    def __init__(self, bus: UsbBusSimulator, **settings: object) -> None:
        self.link, _ = joined(bus)
        self.driver = UsbPresenceDriver(self.link, UsbPresenceDriver.Settings(**(FAST | settings)))  # type: ignore[arg-type]
        self._events: AsyncGenerator[Event | Observation, None] = self.driver.events()

    async def next(self) -> tuple[object, ...]:
        async with asyncio.timeout(TIMEOUT_S):
            said = await anext(self._events)
        if isinstance(said, Observation):
            return (said.state,)
        assert said.subject is Subject.KEY
        data = {key: value for key, value in said.data.items() if key != "last_seen_ms"}
        assert said.state is not None
        return said.action, said.identifier, data, said.state["presence"]


async def test_a_dongle_is_known_by_its_serial_number_and_a_strange_device_is_not_looked_at(
    bus: UsbBusSimulator,
) -> None:
    reader = Reader(bus, vendor_id="0A5C", product_id="00aB")
    assert (await reader.driver.start()).model == "USB 0a5c:00ab"
    bus.plug("1-1.3", *IDS, "another")
    assert await reader.next() == (ABSENT,)
    bus.plug("1-1.4", "0a5c", "00ab", SERIAL)
    assert await reader.next() == ("inserted", SERIAL, HERE, "present")
    bus.pull("1-1.4")
    assert await reader.next() == ("suspect", SERIAL, HERE, "suspect")
    assert await reader.next() == ("removed", SERIAL, HERE, "absent")


async def test_a_dongle_without_a_serial_number_has_its_place_only(bus: UsbBusSimulator) -> None:
    bus.plug("1-1.4", *IDS)
    assert await Reader(bus).next() == ("inserted", None, HERE, "present")


async def test_two_dongles_are_ambiguous_until_one_is_left(bus: UsbBusSimulator) -> None:
    reader = Reader(bus)
    bus.plug("1-1.4", *IDS, SERIAL)
    assert await reader.next() == ("inserted", SERIAL, HERE, "present")
    bus.plug("1-2", *IDS, "second")
    assert await reader.next() == ("removed", SERIAL, HERE, "absent")
    assert await reader.next() == ("ambiguous", None, {"dongles": 2}, "ambiguous")
    bus.pull("1-1.4")
    assert await reader.next() == ("inserted", "second", {"bus_path": "1-2"}, "present")


async def test_where_a_serial_number_is_configured_another_dongle_does_not_count(bus: UsbBusSimulator) -> None:
    bus.plug("1-2", *IDS, "second")
    bus.plug("1-3", *IDS)
    bus.plug("1-1.4", *IDS, SERIAL)
    assert await Reader(bus, serial=SERIAL).next() == ("inserted", SERIAL, HERE, "present")


async def test_a_plug_that_bounces_grants_no_earlier_for_that(
    bus: UsbBusSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_udev(monkeypatch, runs=True)
    reader = Reader(bus, settle_ms=200)
    bus.plug("1-1.4", *IDS, SERIAL)
    began_s = asyncio.get_running_loop().time()
    waiting = asyncio.ensure_future(reader.next())
    await until(lambda: reader.driver.counters.get("looks"))
    send("add")
    assert (await waiting)[0] == "inserted"
    assert asyncio.get_running_loop().time() - began_s >= 0.2
    assert reader.driver.counters["looks"] == 2


async def test_a_dongle_that_was_pulled_out_and_put_back_between_two_looks_was_away(bus: UsbBusSimulator) -> None:
    reader = Reader(bus)
    bus.plug("1-1.4", *IDS, SERIAL)
    assert await reader.next() == ("inserted", SERIAL, HERE, "present")
    bus.pull("1-1.4")
    bus.plug("1-1.4", *IDS, SERIAL)
    said = [(await reader.next())[0] for _ in range(3)]
    assert said == ["suspect", "removed", "inserted"]


async def test_a_device_that_is_half_there_is_looked_at_again(bus: UsbBusSimulator) -> None:
    reader = Reader(bus)
    half = bus.directory / "1-1.4"
    half.mkdir()
    (half / "idVendor").write_text("0529\n")
    assert await reader.next() == (ABSENT,)
    (half / "idProduct").write_text("0001\n")
    (half / "devnum").write_text("7\n")
    assert await reader.next() == ("inserted", None, HERE, "present")


@pytest.mark.parametrize("wake", ["add", "remove", "too many"])
async def test_a_message_of_the_kernel_makes_the_next_look_earlier(
    bus: UsbBusSimulator, monkeypatch: pytest.MonkeyPatch, wake: str
) -> None:
    pretend_udev(monkeypatch, runs=True)
    monkeypatch.setattr(uevents, "RECEIVE_BUFFER_BYTES", 4096)
    reader = Reader(bus, poll_interval_ms=10_000)
    assert await reader.next() == (ABSENT,)
    waiting = asyncio.ensure_future(reader.next())
    await until(lambda: reader.link.waiting)
    bus.plug("1-1.4", *IDS, SERIAL)
    for _ in range(100 if wake == "too many" else 1):
        send("change" if wake == "too many" else wake, "tty" if wake == "too many" else "usb")
    async with asyncio.timeout(5):
        assert (await waiting)[0] == "inserted"
    assert reader.driver.counters["wakes"] == 1


async def test_without_messages_of_the_kernel_the_next_look_finds_it(
    bus: UsbBusSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uevents, "NETLINK_KOBJECT_UEVENT", 31)  # no such protocol
    reader = Reader(bus)
    assert await reader.next() == (ABSENT,)
    bus.plug("1-1.4", *IDS, SERIAL)
    assert (await reader.next())[0] == "inserted"
    assert reader.driver.counters["wakes"] == 0


async def test_files_that_cannot_be_read_are_given_up(bus: UsbBusSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sysfs, "SCAN_TIMEOUT_S", 0.05)
    reader = Reader(bus)
    bus.plug("1-1.4", *IDS)
    held_up = bus.directory / "1-1.4" / "serial"
    os.mkfifo(held_up)  # opening it takes as long as a reset does
    with pytest.raises(LinkTimeout):
        await reader.driver.start()
    os.close(os.open(held_up, os.O_RDWR))


async def test_a_closed_link_is_lost(bus: UsbBusSimulator) -> None:
    reader = Reader(bus, poll_interval_ms=10_000)
    assert await reader.next() == (ABSENT,)
    waiting = asyncio.ensure_future(reader.next())
    await until(lambda: reader.link.waiting)
    reader.link.close()
    with pytest.raises(LinkLost):
        await waiting
    assert reader.link.name == f"sysfs:{bus.directory}"


async def test_a_port_is_the_list_itself(bus: UsbBusSimulator) -> None:
    link = await open_link(f"sysfs:{bus.directory}", SerialFormat())
    link.close()
    with pytest.raises(LinkNotFound, match="is no directory"):
        await open_link(f"sysfs:{bus.directory}/none", SerialFormat())


def test_the_list_of_this_pc_can_be_read() -> None:
    if not USB_DEVICES.is_dir():
        pytest.skip("this kernel has no USB")
    hubs = find(USB_DEVICES, ("1d6b", "0002"))
    assert all(hub.bus_path.startswith("usb") and hub.number == 1 for hub in hubs)


@pytest.mark.parametrize("bad", [{"vendor_id": "529"}, {"product_id": "00g1"}, {"settle_ms": 0}, {"serial": 7}])
def test_settings_that_cannot_be_right_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UsbPresenceDriver.Settings.model_validate(FAST | bad)

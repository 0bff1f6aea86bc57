"""The keylock drivers on devices that the kernel itself makes: a keyboard by uinput, a HID device by uhid. Needs root and both
modules (modprobe -a uinput uhid); what only real nodes can show: ioctls, the grab, the question, the end."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from optima_bridge.errors import LinkBusy, LinkLost
from optima_bridge.link import SerialFormat, open_link
from optima_bridge.link.evdev import EvdevLink
from optima_bridge.link.hidraw import HidrawLink
from optima_bridge.link.records import ioc_read, ioc_write
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_bridge.wire.evdev import EV_KEY
from optima_drivers.keylock import HidKeylockDriver, TypedKeylockDriver
from optima_drivers.keylock.hid import HidKeylockSettings
from optima_drivers.keylock.keys import KEYS
from optima_drivers.keylock.simulator import NCR_DESCRIPTOR, HidKeylockSimulator, TypedKeylockSimulator
from optima_drivers.keylock.typed import TypedKeylockSettings
from tests.support import until

LIMIT_S = 60.0  # the machine may be an emulated one
NAME, SERIAL = "optima test keylock", "T-1"
UINPUT, UHID = Path("/dev/uinput"), Path("/dev/uhid")

BUS_USB = 3
UI_DEV_CREATE, UI_DEV_DESTROY = 0x5501, 0x5502
UI_SET_EVBIT, UI_SET_KEYBIT = ioc_write("U", 100, 4), ioc_write("U", 101, 4)
UI_DEV_SETUP, UI_GET_SYSNAME = ioc_write("U", 3, 92), ioc_read("U", 44, 64)
UHID_START, UHID_GET_REPORT, UHID_GET_REPORT_REPLY, UHID_CREATE2, UHID_INPUT2 = 2, 9, 10, 11, 12


def usable(node: Path) -> bool:
    return os.access(node, os.R_OK | os.W_OK)


@asynccontextmanager
async def keyboard() -> AsyncIterator[tuple[Path, int]]:
    """A keyboard that the kernel makes: its node, and the descriptor that types."""
    fd = os.open(UINPUT, os.O_RDWR)
    fcntl.ioctl(fd, UI_SET_EVBIT, EV_KEY)
    for code in KEYS.values():
        fcntl.ioctl(fd, UI_SET_KEYBIT, code)
    fcntl.ioctl(fd, UI_DEV_SETUP, struct.pack("@HHHH80sI", BUS_USB, 0x1209, 1, 1, NAME.encode(), 0))
    fcntl.ioctl(fd, UI_DEV_CREATE)
    sysname = fcntl.ioctl(fd, UI_GET_SYSNAME, bytes(64)).rstrip(b"\0").decode()
    try:
        yield await node_of(lambda: Path("/sys/class/input", sysname).glob("event*"), "/dev/input"), fd
    finally:
        os.close(fd)


async def node_of(entries: Callable[[], Iterable[Path]], directory: str) -> Path:
    """The node of the only one of these entries of sysfs, as soon as it can be used."""
    found: list[Path] = []

    def usable_nodes() -> bool:
        found[:] = [node for entry in entries() if usable(node := Path(directory, entry.name))]
        return bool(found)

    await until(usable_nodes, LIMIT_S)
    return found[0]


@pytest.mark.skipif(not usable(UINPUT), reason="no /dev/uinput here")
async def test_a_keylock_types_on_a_keyboard_of_the_kernel_and_is_grabbed_when_asked() -> None:
    async with asyncio.timeout(LIMIT_S), keyboard() as (node, fd):
        link, other = [await open_link(f"evdev:{node}", SerialFormat()) for _ in range(2)]
        assert isinstance(link, EvdevLink)
        assert isinstance(other, EvdevLink)
        simulator = TypedKeylockSimulator()
        simulator.attach(partial(write, fd))
        driver = TypedKeylockDriver(link, TypedKeylockSettings(profile="posiflex"))
        simulator.turn(1)
        assert await driver.start() == DeviceIdentity(NAME)
        simulator.turn(3)
        event = await anext(driver.events())
        assert isinstance(event, Event)
        assert (event.action, event.state) == ("turned", {"position": "supervisor", "position_code": 3})
        assert len(await other.read()) > 0

        link.grab()
        link.grab()
        with pytest.raises(LinkBusy):
            other.grab()
        other.discard_input()
        simulator.turn(1)
        assert await link.read()
        assert other.discard_input() == 0, "a grabbed device is heard by nobody else"
        other.close()
        fcntl.ioctl(fd, UI_DEV_DESTROY)
        with pytest.raises(LinkLost):
            await link.read()
        with pytest.raises(LinkLost):
            link.grab()
        link.close()


class Hid:
    """A HID device that the kernel makes of a descriptor; it answers questions like `simulator`."""

    def __init__(self, simulator: HidKeylockSimulator) -> None:
        self._simulator = simulator
        self._fd = os.open(UHID, os.O_RDWR | os.O_NONBLOCK)
        self.started = asyncio.Event()
        create = struct.pack(
            "=I128s64s64sHHIIII4096s",
            UHID_CREATE2, NAME.encode(), b"", SERIAL.encode(), len(NCR_DESCRIPTOR), BUS_USB, 0x1209, 1, 1, 0, NCR_DESCRIPTOR,
        )  # fmt: skip
        os.write(self._fd, create)
        asyncio.get_running_loop().add_reader(self._fd, self._readable)

    def send(self, report: bytes) -> None:
        os.write(self._fd, struct.pack("=IH4096s", UHID_INPUT2, len(report), report))

    def unplug(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        os.close(self._fd)

    def _readable(self) -> None:
        event = os.read(self._fd, 8192)
        [kind] = struct.unpack_from("=I", event)
        if kind == UHID_START:
            self.started.set()
        elif kind == UHID_GET_REPORT:
            number, report_id = struct.unpack_from("=IB", event, 4)
            report = self._simulator.answer(report_id)
            answer = (errno.EIO, 0, b"") if report is None else (0, len(report), report)
            os.write(self._fd, struct.pack("=IIHH4096s", UHID_GET_REPORT_REPLY, number, *answer))


@pytest.mark.skipif(not usable(UHID), reason="no /dev/uhid here")
@pytest.mark.parametrize("tells", [True, False])
async def test_a_keylock_reports_as_a_hid_device_of_the_kernel_and_tells_where_it_is(tells: bool) -> None:
    async with asyncio.timeout(LIMIT_S):
        simulator = HidKeylockSimulator(tells=tells)
        device = Hid(simulator)
        simulator.attach(device.send)
        await device.started.wait()
        link = await open_link(f"hidraw:{await node_of(ours, '/dev')}", SerialFormat())
        assert isinstance(link, HidrawLink)
        assert link.descriptor == NCR_DESCRIPTOR
        simulator.turn(2)
        driver = HidKeylockDriver(link, HidKeylockSettings(profile="ncr"))
        assert await driver.start() == DeviceIdentity(NAME, SERIAL)
        events = driver.events()
        if tells:
            assert await anext(events) == Observation(Subject.KEYLOCK, {"position": "normal", "position_code": 2})
        simulator.turn(3)
        event = await anext(events)
        assert isinstance(event, Event)
        assert event.state == {"position": "supervisor", "position_code": 3}
        device.unplug()
        with pytest.raises(LinkLost):
            await (link.ask(5, 1) if tells else anext(events))
        with pytest.raises(LinkLost):
            await link.read()
        link.close()


def ours() -> Iterable[Path]:
    """The entry of our device."""
    for entry in Path("/sys/class/hidraw").glob("*"):
        if f"HID_UNIQ={SERIAL}" in (entry / "device/uevent").read_text():
            yield entry


def write(fd: int, data: bytes) -> None:
    assert os.write(fd, data) == len(data)

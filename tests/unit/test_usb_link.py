"""USB links on a simulated bus behind the real pyusb: finding the device, taking it from the kernel, giving it back, errors."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import usb.backend.libusb1
import usb.core

from optima_bridge.errors import (
    LinkBusy,
    LinkError,
    LinkLost,
    LinkNotFound,
    LinkPermission,
    LinkTimeout,
    TransferRefused,
)
from optima_bridge.link import SerialFormat, open_link, usbfind
from optima_bridge.link.usb import UsbLink
from optima_bridge.link.usbfind import UsbPort, find
from optima_bridge.link.usbsim import Plug, UsbBus
from tests.support import until

PORT = "usb:04fa:2490"
OUT, IN = 0x02, 0x83
BULK = 2


class Echo:
    """Gives back what it is told, one packet after the other; can be held up."""

    vendor, product = 0x04FA, 0x2490

    def __init__(self) -> None:
        self.alternates = [{}, {OUT: (BULK, 64), IN: (BULK, 64)}]
        self.packets: list[bytes] = []
        self.room_bytes = 64
        self.reading = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()

    def control(self, request: int, value: int, index: int) -> bool:
        return request == 0

    def write(self, endpoint: int, data: bytes) -> int:
        self.packets.append(data[: self.room_bytes])
        return len(self.packets[-1])

    def read(self, endpoint: int, size_bytes: int) -> bytes | None:
        self.reading.set()
        assert self.go_on.wait(10)
        return self.packets.pop(0) if self.packets else None


@pytest.fixture
def bus() -> UsbBus:
    return UsbBus()


@pytest.fixture
def plug(bus: UsbBus) -> Plug:
    return bus.plug(Echo(), "1-2.3")


@asynccontextmanager
async def opened(bus: UsbBus, port: str = PORT) -> AsyncIterator[UsbLink]:
    """An open link with the endpoints at hand; the device is given back before this ends."""
    link = await UsbLink.open(port, bus)
    try:
        await link.select_alternate(1)
        yield link
    finally:
        link.close()
        await asyncio.to_thread(link._owner.shutdown)


@pytest.mark.parametrize(
    ("text", "port"),
    [
        ("usb:04fa:2490", UsbPort(0x04FA, 0x2490)),
        ("usb:04FA:2490@1-2.3", UsbPort(0x04FA, 0x2490, place="1-2.3")),
        ("usb:0403:6001#A50285BI", UsbPort(0x0403, 0x6001, serial="A50285BI")),
    ],
)
def test_a_port_names_ids_and_a_place_or_a_serial_number(text: str, port: UsbPort) -> None:
    assert UsbPort.from_text(text) == port


@pytest.mark.parametrize(
    "text", ["usb:", "usb:4fa:2490", "usb:04fa:2490@", "usb:04fa:2490@1", "usb:04fa:2490#", "usb:04fa"]
)
def test_another_form_of_port_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(LinkNotFound, match="is not a USB port") as caught:
        UsbPort.from_text(text)
    assert "usb:04fa:2490@1-2" in caught.value.next_step


async def test_opening_takes_the_device_from_the_kernels_driver_and_closing_gives_it_back(
    bus: UsbBus, plug: Plug
) -> None:
    async with opened(bus) as link:
        assert (link.name, link.place) == (PORT, "1-2.3")
        assert plug.log == ["open", "detach kernel driver", "claim", "alternate 1"]
        assert not plug.bound
        plug.log.clear()
    assert plug.log == ["release", "attach kernel driver", "close"]
    assert plug.bound


async def test_where_the_kernel_has_no_driver_none_is_detached(bus: UsbBus) -> None:
    plug = bus.plug(Echo(), "1-1", kernel_driver=False)
    async with opened(bus):
        pass
    assert plug.log == ["open", "claim", "alternate 1", "release", "close"]


async def test_a_released_device_is_the_kernels_until_the_next_transfer(bus: UsbBus, plug: Plug) -> None:
    async with opened(bus) as link:
        await link.release()
        await link.release()
        assert plug.bound
        await link.control_out(0, 0, 0)
        assert not plug.bound
    assert plug.bound
    await link.release()


async def test_bytes_go_out_and_come_in(bus: UsbBus, plug: Plug) -> None:
    async with opened(bus) as link:
        await link.write(OUT, b"\x01\x02\x03")
        assert await link.read(IN, 64) == b"\x01\x02\x03"
        await link.clear_halt(IN)
        assert plug.log[-3:] == ["write 02", "read 83", "clear halt 83"]


async def test_a_device_is_told_from_its_likes_by_its_place_or_its_serial_number(bus: UsbBus) -> None:
    first, second = bus.plug(Echo(), "1-2", serial="A1"), bus.plug(Echo(), "1-3", serial="B2")
    for port, wanted, other in [
        (f"{PORT}@1-2", first, second),
        (f"{PORT}@1-3", second, first),
        (f"{PORT}#A1", first, second),
        (f"{PORT}#B2", second, first),
    ]:
        async with opened(bus, port):
            assert (wanted.bound, other.bound) == (False, True)


async def test_several_devices_that_fit_are_listed_as_ports_to_write(bus: UsbBus) -> None:
    for place in ("1-3", "1-2.1"):
        bus.plug(Echo(), place)
    with pytest.raises(LinkError, match=f"2 devices fit {PORT}") as caught:
        await UsbLink.open(PORT, bus)
    assert caught.value.next_step.endswith("usb:04fa:2490@1-2.1, usb:04fa:2490@1-3")
    assert caught.value.data["ports"] == ["usb:04fa:2490@1-2.1", "usb:04fa:2490@1-3"]


@pytest.mark.parametrize("port", ["usb:04fa:2491", f"{PORT}@1-2", f"{PORT}#A1"])
async def test_a_device_that_is_not_plugged_in_is_not_found(bus: UsbBus, plug: Plug, port: str) -> None:
    with pytest.raises(LinkNotFound, match="is not plugged in"):
        await UsbLink.open(port, bus)
    assert "claim" not in plug.log


@pytest.mark.parametrize("transfers", [0, 1])
async def test_a_device_that_is_pulled_out_while_its_serial_number_is_read_is_not_found(
    bus: UsbBus, transfers: int
) -> None:
    bus.plug(Echo(), "1-2", serial="A1").unplug_after = transfers
    with pytest.raises(LinkNotFound, match="is not plugged in"):
        await UsbLink.open(f"{PORT}#A1", bus)


@pytest.mark.parametrize(("serial", "refused"), [("A1", 1), ("\ud800", 0)])
async def test_a_device_that_cannot_tell_its_serial_number_is_not_the_one_that_is_meant(
    bus: UsbBus, serial: str, refused: int
) -> None:
    bus.plug(Echo(), "1-1", serial=serial).refused = refused
    wanted = bus.plug(Echo(), "1-2", serial="A1")
    async with opened(bus, f"{PORT}#A1"):
        assert not wanted.bound


@pytest.mark.parametrize("port", [PORT, f"{PORT}#A1"])
async def test_a_device_that_may_not_be_opened_is_an_error_with_the_udev_rule(bus: UsbBus, port: str) -> None:
    bus.plug(Echo(), "1-2", serial="A1").denied = True
    with pytest.raises(LinkPermission, match="may not be opened by this user") as caught:
        await UsbLink.open(port, bus)
    assert 'ATTR{idVendor}=="04fa", ATTR{idProduct}=="2490", GROUP="optima-bridge"' in caught.value.next_step


async def test_a_device_in_use_is_busy_and_the_kernels_driver_gets_it_back(bus: UsbBus, plug: Plug) -> None:
    plug.taken = True
    with pytest.raises(LinkBusy, match="held by another program"):
        await UsbLink.open(PORT, bus)
    assert plug.bound


async def test_a_second_link_to_the_same_device_is_busy(bus: UsbBus, plug: Plug) -> None:
    async with opened(bus):
        with pytest.raises(LinkBusy):
            await UsbLink.open(f"{PORT}@1-2.3", bus)
    async with opened(bus, f"{PORT}@1-2.3"):
        pass


@pytest.fixture
def holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Another process that has the device's node open; gives its pid."""
    node = tmp_path / "001"
    node.touch()
    monkeypatch.setattr(usbfind, "node", lambda _device: str(node))
    program = "import sys; held = open(sys.argv[1]); print(flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(node)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.communicate(b"\n", timeout=10)


async def test_a_busy_device_names_its_holder(bus: UsbBus, plug: Plug, holder: int) -> None:
    plug.taken = True
    with pytest.raises(LinkBusy, match=f"held by pid {holder} ") as caught:
        await UsbLink.open(PORT, bus)
    assert caught.value.data["holder"] == {"pid": holder, "program": Path(f"/proc/{holder}/comm").read_text().strip()}


async def test_each_failure_of_a_transfer_has_its_error(bus: UsbBus, plug: Plug) -> None:
    async with opened(bus) as link:
        with pytest.raises(LinkTimeout, match="not done in time"):
            await link.read(IN, 64)
        with pytest.raises(TransferRefused):
            await link.control_out(9, 0, 0)
        plug.refused = plug.late = 1
        with pytest.raises(TransferRefused):
            await link.write(OUT, b"x")
        with pytest.raises(LinkTimeout):
            await link.write(OUT, b"x")
        assert isinstance(plug.device, Echo)
        plug.device.room_bytes = 2
        with pytest.raises(LinkTimeout, match="took 2 of 3 bytes"):
            await link.write(OUT, b"xyz")
        with pytest.raises(LinkError, match="no alternate setting 2"):
            await link.select_alternate(2)
        await link.control_out(0, 0, 0)


async def test_an_unplugged_device_is_lost_for_every_use_and_can_be_closed(bus: UsbBus, plug: Plug) -> None:
    async with opened(bus) as link:
        plug.unplug()
        for use in (link.control_out(0, 0, 0), link.write(OUT, b"x"), link.read(IN, 1), link.clear_halt(IN)):
            with pytest.raises(LinkLost, match="went away"):
                await use
        await link.release()
    bus.plug(Echo(), "1-2.3")
    async with opened(bus) as link:
        await link.control_out(0, 0, 0)


async def test_a_closed_link_is_lost_and_closing_twice_is_safe(bus: UsbBus, plug: Plug) -> None:
    async with opened(bus) as link:
        link.close()
        link.close()
        with pytest.raises(LinkLost, match="was closed"):
            await link.control_out(0, 0, 0)


async def test_a_cancelled_transfer_is_waited_for_by_the_next_and_by_the_closing(bus: UsbBus, plug: Plug) -> None:
    device = plug.device
    assert isinstance(device, Echo)
    async with opened(bus) as link:
        device.go_on.clear()
        read = asyncio.create_task(link.read(IN, 64))
        await until(device.reading.is_set)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read
        written = asyncio.create_task(link.write(OUT, b"x"))
        await asyncio.sleep(0.01)
        assert "write 02" not in plug.log
        device.go_on.set()
        await written
        device.go_on.clear()
        device.reading.clear()
        read = asyncio.create_task(link.read(IN, 64))
        await until(device.reading.is_set)
        link.close()
        assert not plug.bound
        device.go_on.set()
        assert await read == b"x"
    assert plug.bound


async def test_an_opening_that_is_cancelled_gives_the_device_back(bus: UsbBus, plug: Plug) -> None:
    for awaits in range(8):
        opening = asyncio.create_task(UsbLink.open(PORT, bus))
        for _ in range(awaits):
            await asyncio.sleep(0.001)
        opening.cancel()
        [result] = await asyncio.gather(opening, return_exceptions=True)
        if isinstance(result, UsbLink):
            result.close()
        await until(lambda: plug.bound and plug.owner is None)


class BrokenBus(UsbBus):
    def enumerate_devices(self) -> Iterator[Plug]:
        raise usb.core.USBError("Insufficient memory", -11, 12)


async def test_a_bus_that_cannot_be_listed_is_an_error_of_ours() -> None:
    with pytest.raises(LinkError, match="cannot be listed"):
        await UsbLink.open(PORT, BrokenBus())


@pytest.mark.parametrize(("plugged_in", "expected"), [(True, LinkError), (False, LinkLost)])
async def test_an_unknown_error_of_libusb_is_a_loss_once_the_device_has_no_node(
    bus: UsbBus,
    plug: Plug,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    plugged_in: bool,
    expected: type[LinkError],
) -> None:
    node = tmp_path / "node"
    if plugged_in:
        node.touch()
    monkeypatch.setattr(usbfind, "node", lambda _: str(node))
    monkeypatch.setattr(
        bus, "clear_halt", lambda *_: (_ for _ in ()).throw(usb.core.USBError("Other error", -99, None))
    )
    async with opened(bus) as link:
        with pytest.raises(LinkError, match="Other error") as caught:
            await link.clear_halt(IN)
    assert caught.type is expected


async def test_without_libusb_the_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usb.backend.libusb1, "get_backend", lambda: None)
    with pytest.raises(LinkError, match=r"libusb-1\.0 is not installed") as caught:
        await UsbLink.open(PORT)
    assert "libusb-1.0-0" in caught.value.next_step


async def test_a_usb_port_is_opened_by_its_scheme(bus: UsbBus, plug: Plug, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(usb.backend.libusb1, "get_backend", lambda: bus)
    link = await open_link(PORT, SerialFormat())
    assert isinstance(link, UsbLink)
    link.close()
    await until(lambda: plug.bound)


@pytest.mark.skipif(usb.backend.libusb1.get_backend() is None, reason="Debian package libusb-1.0-0")
def test_the_real_libusb_is_asked_and_knows_no_such_device() -> None:
    with pytest.raises(LinkNotFound):
        find("usb:ffff:fffe")


async def test_a_closed_link_leaves_no_thread_behind(bus: UsbBus, plug: Plug) -> None:
    before = set(threading.enumerate())
    async with opened(bus):
        [thread] = [one for one in set(threading.enumerate()) - before if one.name.startswith(PORT)]
    assert not thread.is_alive()

"""The simulated DS9490R byte by byte, through pyusb as any program uses it: status, results, search, blocks."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Any

import pytest
import usb.core

from optima_bridge.errors import FrameError
from optima_bridge.hub import Hub
from optima_bridge.keeper import DeviceKeeper
from optima_bridge.link.portwatch import PortWatch
from optima_bridge.link.usb import UsbLink
from optima_bridge.model import Event
from optima_drivers.ds2490 import Ds2490Driver
from optima_drivers.ds2490.codec import Status, decode_roms
from optima_drivers.ds2490.driver import Ds2490Settings
from optima_drivers.ds2490.simulator import Ds2490Simulator
from tests.support import until

A, B = "017856341200004E", "0101EFCDAB00002C"
SOLDERED_IN = "81EA8A3000000072"
LIMIT_S = 20.0  # only a hang takes as long


class Program:
    """What a program that uses pyusb does with the adapter."""

    def __init__(self, simulator: Ds2490Simulator) -> None:
        self.device = usb.core.find(idVendor=0x04FA, idProduct=0x2490, backend=simulator.usb)
        self.device.detach_kernel_driver(0)
        self.device.set_interface_altsetting(0, 3)

    def tell(self, request: int, value: int, index: int = 0) -> None:
        self.device.ctrl_transfer(0x40, request, value, index, None, 100)

    def status(self) -> str:
        return str(self.device.read(0x81, 32, 100).tobytes().hex(" "))

    def line(self, value: int, index: int, sent: str = "") -> str:
        """Bytes to the line, a command, and the bytes from it."""
        if sent:
            self.device.write(0x02, bytes.fromhex(sent), 100)
        self.tell(1, value, index)
        waiting = bytes.fromhex(self.status())[13]
        return self.device.read(0x83, 128, 100).tobytes().hex().upper() if waiting else ""


@pytest.fixture
def simulator() -> Ds2490Simulator:
    return Ds2490Simulator()


@pytest.fixture
def program(simulator: Ds2490Simulator) -> Program:
    return Program(simulator)


def test_a_status_packet_has_sixteen_bytes_and_the_results_behind_them(
    simulator: Ds2490Simulator, program: Program
) -> None:
    assert program.status() == "00 00 00 20 05 04 08 00 20 00 00 00 00 00 00 00"
    program.tell(1, 0x0C4B)
    assert program.status() == "00 00 00 20 05 04 08 00 20 4b 0c 00 00 00 00 00 00"
    assert program.status() == "00 00 00 20 05 04 08 00 20 4b 0c 00 00 00 00 00"
    simulator.put(A)
    assert program.status().endswith(" 00 00 a5 a5")


@pytest.mark.parametrize(("state", "result"), [("somebody", "00"), ("nobody", "01"), ("short", "02")])
def test_a_reset_tells_who_is_there(simulator: Ds2490Simulator, program: Program, state: str, result: str) -> None:
    simulator.chip.line.short = state == "short"
    if state == "nobody":
        simulator.chip.line.lift()
    program.tell(1, 0x0C4B)
    assert program.status()[48:] == result


def test_a_search_brings_all_that_are_there(simulator: Ds2490Simulator, program: Program) -> None:
    start = "00" * 8
    assert program.line(0x49FD, 0x00F0, start) == SOLDERED_IN
    simulator.put(A)
    assert program.line(0x49FD, 0x00F0, start) == A + SOLDERED_IN
    assert program.line(0x49FD, 0x08F0, start) == A + SOLDERED_IN
    simulator.put(B)
    assert program.line(0x49FD, 0x00F0, start) == A + B + SOLDERED_IN
    program.tell(1, 0x0C4B)
    assert program.line(0x48FD, 0x00F0, start) == A + B + SOLDERED_IN


def test_a_search_ends_with_fewer_or_with_the_fork_to_go_on_from(simulator: Ds2490Simulator, program: Program) -> None:
    simulator.put(A)
    start = "00" * 8
    program.device.write(0x02, bytes(8), 100)
    program.tell(1, 0x49FD, 0x08F0)
    status = bytes.fromhex(program.status())
    assert (status[13], status[-1]) == (16, 0x80)
    program.device.read(0x83, 128, 100)
    found = program.line(0x49FD, 0x01F0, start)
    assert found == A + "8100000000000000"
    assert program.line(0x49FD, 0x01F0, found[16:]) == SOLDERED_IN


def test_read_rom_in_a_block_gives_the_one_that_is_there(simulator: Ds2490Simulator, program: Program) -> None:
    program.tell(1, 0x0C4B)
    program.status()
    assert program.line(0x0875, 9, "33" + "FF" * 8) == "33" + SOLDERED_IN
    program.tell(1, 0x0C4B)
    program.status()
    assert program.line(0x0053, 0x33) == "33"
    assert [program.line(0x0029, 0) for _ in range(8)] == ["01"] + ["00"] * 6 + ["01"]


def test_what_was_not_read_can_be_flushed_and_too_small_a_read_loses_it(program: Program) -> None:
    program.device.write(0x02, bytes(20), 100)
    program.tell(0, 9)
    assert bytes.fromhex(program.status())[12] == 0
    for loss in (lambda: program.tell(0, 8), lambda: program.device.read(0x83, 4, 100)):
        program.device.write(0x02, bytes(8), 100)
        program.tell(1, 0x49FD, 0xF0)
        assert bytes.fromhex(program.status())[13] == 8
        with suppress(usb.core.USBTimeoutError):
            loss()
        assert bytes.fromhex(program.status())[13] == 0


@pytest.mark.parametrize(("request_", "value"), [(0, 0x0A), (1, 0x0001), (2, 8), (3, 0)])
def test_an_unknown_request_is_refused(program: Program, request_: int, value: int) -> None:
    with pytest.raises(usb.core.USBError, match="Pipe error"):
        program.tell(request_, value)
    program.tell(0, 1)
    program.tell(1, 0x0013)
    program.tell(2, 0, 2)


@pytest.mark.parametrize("size", [0, 15, 33])
def test_a_status_packet_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(FrameError, match="status packet"):
        Status.from_packet(bytes(size))


def test_a_detected_device_is_not_taken_for_a_result() -> None:
    packet = bytes.fromhex("0000002005040800204b0c0000100000 a5 80 a5")
    assert Status.from_packet(packet) == Status(True, 16, (0x80,), 2)


@pytest.mark.parametrize("data", ["00" * 8, A + SOLDERED_IN[:-2], A[:-2] + "4F", A * 10])
def test_what_a_search_brings_must_be_whole_roms(data: str) -> None:
    with pytest.raises(FrameError):
        decode_roms(bytes.fromhex(data))


async def test_two_adapters_of_the_same_ids_are_two_devices_by_their_places(simulator: Ds2490Simulator) -> None:
    other = Ds2490Simulator("1-3")
    plug = simulator.usb.plug(other.chip, "1-3")
    other.put(B)
    simulator.put(A)
    async with asyncio.timeout(LIMIT_S):
        for port, key in ((f"{simulator.port}@1-2", A), (f"{simulator.port}@1-3", B)):
            link = await UsbLink.open(port, simulator.usb)
            driver = Ds2490Driver(link, Ds2490Settings(poll_interval_ms=20))
            assert (await driver.start()).serial == port.partition("@")[2]
            async with aclosing(driver.events()) as events:
                assert not isinstance(await anext(events), Event)  # no short
                inserted = await anext(events)
            assert isinstance(inserted, Event)
            assert inserted.identifier == key
            await driver.stop()
            link.close()
    assert plug.bound


async def test_a_kept_adapter_comes_back_after_it_was_pulled_out(
    simulator: Ds2490Simulator, hub_and_payloads: tuple[Hub, list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Configured:
        port, label = f"{simulator.port}@1-2", ""
        driver_class, settings = Ds2490Driver, Ds2490Settings(poll_interval_ms=20)

    monkeypatch.setattr("usb.backend.libusb1.get_backend", lambda: simulator.usb)
    hub, payloads = hub_and_payloads
    watch = PortWatch()
    keeper = DeviceKeeper("front", Configured(), hub, watch)
    running = asyncio.create_task(keeper.run())

    def actions() -> list[object]:
        return [one["data"]["action"] for one in payloads if one["type"].split(".")[2] in ("link", "key")]

    simulator.put(A)
    await until(lambda: "inserted" in actions())
    simulator.plug.unplug()
    await until(lambda: keeper.status.link == "down")
    simulator.replug()
    await until(lambda: actions().count("inserted") == 2)
    assert actions() == ["up", "inserted", "down", "up", "inserted"]
    running.cancel()
    await asyncio.wait({running})
    watch.close()
    assert simulator.plug.bound  # the kernel's driver has it back before the daemon ends

"""SerialLink on real ptys: the test is the device, at the master's end."""

from __future__ import annotations

import asyncio
import fcntl
import os
import resource
import select
import struct
import subprocess
import sys
import termios
import time
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from optima_bridge.errors import LinkBusy, LinkError, LinkLost, LinkNotFound, LinkTimeout
from optima_bridge.link import SerialFormat, open_link
from optima_bridge.link.serial import MAX_BUFFER_BYTES, MAX_READ_BYTES, SerialLink

LIMIT_S = 20.0


class Device:
    """The master's end of a pty. `path` is the port; its slave stays open, so the port outlives its clients."""

    def __init__(self) -> None:
        self.master, self._slave = os.openpty()
        tty.setraw(self._slave)
        os.set_blocking(self.master, False)
        self.path = os.ttyname(self._slave)

    def send(self, data: bytes) -> None:
        assert os.write(self.master, data) == len(data)

    def send_ahead(self, data: bytes) -> None:
        """Send, and wait until the kernel has all of it ready for a reader that does not read now."""
        self.send(data)
        while struct.unpack("i", fcntl.ioctl(self._slave, termios.FIONREAD, bytes(4)))[0] < len(data):
            time.sleep(0.001)

    def receive(self, size_bytes: int) -> bytes:
        """What the host wrote; a pty hands it over a little later."""
        received = b""
        while len(received) < size_bytes and select.select([self.master], [], [], LIMIT_S)[0]:
            received += os.read(self.master, size_bytes)
        return received

    def unplug(self) -> None:
        for fd in (self.master, self._slave):
            if fd >= 0:
                os.close(fd)
        self.master = self._slave = -1


@pytest.fixture
def device() -> Iterator[Device]:
    device = Device()
    yield device
    device.unplug()


@asynccontextmanager
async def opened(device: Device) -> AsyncIterator[SerialLink]:
    link = await open_link(device.path, SerialFormat())
    assert isinstance(link, SerialLink)
    try:
        async with asyncio.timeout(LIMIT_S):
            yield link
    finally:
        link.close()


async def waiting_read(link: SerialLink) -> asyncio.Task[bytes]:
    """A read that has nothing yet."""
    read = asyncio.create_task(link.read())
    await asyncio.sleep(0)
    assert not read.done()
    return read


def sleeps() -> int:
    """How often this thread went to sleep so far; being preempted by others does not count."""
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


async def test_bytes_travel_both_ways_unchanged(device: Device) -> None:
    every_byte = bytes(range(256))
    async with opened(device) as link:
        device.send(every_byte)
        received = b""
        while len(received) < len(every_byte):
            received += await link.read()
        assert received == every_byte
        await link.write(every_byte)
        assert device.receive(len(every_byte)) == every_byte


async def test_a_waiting_read_costs_nothing_until_bytes_come(device: Device) -> None:
    async with opened(device) as link:
        read = await waiting_read(link)
        slept = sleeps()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.shield(read), 0.5)
        assert sleeps() - slept < 10  # one is the time-out's; polling each 10 ms would be 50
        device.send(b"key")
        assert await read == b"key"


async def test_a_read_returns_what_is_here_and_at_most_4096_bytes(device: Device) -> None:
    sent = b""
    async with opened(device) as link:
        first = await waiting_read(link)
        for _ in range(10):
            device.send(b"x" * 1000)
            sent += b"x" * 1000
            await asyncio.sleep(0.01)  # let the loop take it in, so that much is waiting
        received = [await first]
        while sum(map(len, received)) < len(sent):
            received.append(await link.read())
        assert max(map(len, received)) <= MAX_READ_BYTES
        assert b"".join(received) == sent


async def test_a_read_times_out_and_the_link_goes_on(device: Device) -> None:
    async with opened(device) as link:
        with pytest.raises(LinkTimeout, match=r"nothing came within 0\.01 s"):
            await link.read(timeout_s=0.01)
        device.send(b"late")
        assert await link.read(timeout_s=LIMIT_S) == b"late"


async def test_a_cancelled_read_loses_no_byte(device: Device) -> None:
    async with opened(device) as link:
        received = b""
        for number in range(100):
            read = await waiting_read(link)
            device.send(bytes([number]))
            if number % 2:
                await asyncio.sleep(0)  # at some cancellations the byte is on its way into the read
            read.cancel()
            with suppress(asyncio.CancelledError):
                received += await read
            while len(received) <= number:
                received += await link.read()
        assert received == bytes(range(100))


async def test_unplugging_ends_a_waiting_read_and_everything_after(device: Device) -> None:
    async with opened(device) as link:
        read = await waiting_read(link)
        device.unplug()
        with pytest.raises(LinkLost, match="went away"):
            await read
        with pytest.raises(LinkLost):
            await link.read()
        with pytest.raises(LinkLost):
            await link.write(b"?")
        with pytest.raises(LinkLost):
            link.discard_input()
        with pytest.raises(LinkLost):
            await link.send_break()


async def test_unplugging_is_noticed_by_a_write_first(device: Device) -> None:
    async with opened(device) as link:
        device.unplug()
        with pytest.raises(LinkLost, match="went away"):
            await link.write(b"?")


async def test_unplugging_is_noticed_by_dropping_input_first(device: Device) -> None:
    async with opened(device) as link:
        device.unplug()
        with pytest.raises(LinkLost, match="went away"):
            link.discard_input()


async def test_a_device_that_takes_nothing_is_a_timeout(device: Device) -> None:
    async with opened(device) as link:
        with pytest.raises(LinkTimeout, match="took no bytes"):
            await link.write(bytes(1 << 20))


async def test_a_large_write_arrives_whole_as_the_device_takes_it(device: Device) -> None:
    sent = bytes(range(256)) * 400
    taken = bytearray()
    complete = asyncio.Event()

    def take() -> None:
        taken.extend(os.read(device.master, 1000))
        if len(taken) >= len(sent):
            complete.set()

    async with opened(device) as link:
        asyncio.get_running_loop().add_reader(device.master, take)
        await link.write(sent)
        await complete.wait()
        asyncio.get_running_loop().remove_reader(device.master)
    assert taken == sent


async def test_closing_ends_a_waiting_read(device: Device) -> None:
    async with opened(device) as link:
        read = await waiting_read(link)
        link.close()
        link.close()
        with pytest.raises(LinkLost, match="was closed"):
            await read


async def test_a_read_of_a_lost_port_lets_others_run_and_can_be_cancelled(device: Device) -> None:
    async with opened(device) as link:
        link.close()
        read = await waiting_read(link)
        read.cancel()
        with pytest.raises(asyncio.CancelledError):
            await read


async def test_what_waited_is_dropped_and_counted(device: Device) -> None:
    async with opened(device) as link:
        device.send(b"taken in")
        assert await link.read() == b"taken in"
        device.send_ahead(b"still in the kernel")
        assert link.discard_input() == len(b"still in the kernel")
        assert link.discard_input() == 0
        device.send(b"news")
        assert await link.read() == b"news"


async def test_bytes_from_before_the_opening_are_dropped(device: Device) -> None:
    async with opened(device):
        pass
    device.send_ahead(b"late")
    async with opened(device) as link:
        device.send(b"news")
        assert await link.read() == b"news"


async def test_a_flood_stays_bounded_and_complete_while_the_reader_sleeps(device: Device) -> None:
    """Numbered bytes show that what the kernel held back is not lost either."""
    numbers = bytes(range(256)) * 16
    sent = 0

    def send() -> None:
        nonlocal sent
        with suppress(BlockingIOError):
            sent += os.write(device.master, numbers[sent % 256 :])

    async with opened(device) as link:
        asyncio.get_running_loop().add_writer(device.master, send)
        stalled_at = -1
        while sent != stalled_at:
            stalled_at = sent
            await asyncio.sleep(0.1)
        assert MAX_BUFFER_BYTES // 2 < len(link._buffer) <= MAX_BUFFER_BYTES
        received = bytearray()
        while len(received) < 4 * MAX_BUFFER_BYTES:
            received += await link.read()
            assert len(link._buffer) <= MAX_BUFFER_BYTES
        asyncio.get_running_loop().remove_writer(device.master)
        assert received == (numbers * (len(received) // 256 + 1))[: len(received)]


async def test_dropping_a_flood_lets_new_bytes_in(device: Device) -> None:
    full = asyncio.Event()

    def send() -> None:
        with suppress(BlockingIOError):
            os.write(device.master, b"x" * 4096)
        if link._paused:
            full.set()

    async with opened(device) as link:
        asyncio.get_running_loop().add_writer(device.master, send)
        await full.wait()
        asyncio.get_running_loop().remove_writer(device.master)
        assert link.discard_input() > MAX_BUFFER_BYTES // 2
        received = b""
        device.send(b"news")
        while not received.endswith(b"news"):
            received += await link.read()


async def test_a_missing_port_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(LinkNotFound, match="does not exist now"):
        await open_link(str(tmp_path / "usb-gone"), SerialFormat())
    with pytest.raises(LinkNotFound, match="'COM3' is not a port"):
        await open_link("COM3", SerialFormat())


async def test_something_that_is_no_port_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LinkError, match="is not a serial port"):
        await open_link(str(tmp_path / "file"), SerialFormat())


async def test_a_held_port_names_its_holder(device: Device) -> None:
    hold = "import serial, sys; port = serial.Serial(sys.argv[1], exclusive=True); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, device.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin
        assert holder.stdout
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(LinkBusy) as caught:
            await open_link(device.path, SerialFormat())
        program = Path(f"/proc/{holder.pid}/comm").read_text().strip()
        assert caught.value.data == {"port": device.path, "holder": {"pid": holder.pid, "program": program}}
        assert str(caught.value) == f"{device.path} is held by pid {holder.pid} ({program})"
        holder.stdin.close()
    async with opened(device):
        pass


async def test_an_open_port_is_ours_alone(device: Device) -> None:
    async with opened(device):
        with pytest.raises(LinkBusy):
            await open_link(device.path, SerialFormat())
    async with opened(device):
        pass


async def test_a_closed_port_is_free_for_others(device: Device) -> None:
    async with opened(device):
        pass


async def test_a_pty_has_no_line_to_break_and_says_nothing(device: Device) -> None:
    async with opened(device) as link:
        await link.send_break()
        await link.write(b"after")
        assert device.receive(len(b"after")) == b"after"


async def test_the_port_is_opened_as_the_driver_declares(device: Device) -> None:
    link = SerialLink.open(device.path, SerialFormat(baud=57600, stop_bits=2))
    _, _, control, _, speed_in, speed_out, _ = termios.tcgetattr(link._fd)
    assert (speed_in, speed_out) == (termios.B57600, termios.B57600)
    assert control & termios.CSTOPB
    link.close()


async def test_a_thousand_openings_leave_no_descriptor_behind(device: Device) -> None:
    async def reopen(times: int) -> int:
        for _ in range(times):
            (await open_link(device.path, SerialFormat())).close()
            with pytest.raises(LinkNotFound):
                await open_link(device.path + "-gone", SerialFormat())
        return len(list(Path("/proc/self/fd").iterdir()))

    assert await reopen(1) == await reopen(999)

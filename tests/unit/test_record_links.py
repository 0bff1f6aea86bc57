"""Links that carry records, on real descriptors of this kernel: a pipe in the place of an input device, a socket pair that
keeps borders in the place of a hidraw device."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from optima_bridge.errors import LinkError, LinkLost, LinkNotFound, LinkPermission, LinkTimeout
from optima_bridge.link import SerialFormat, memory_records, open_link
from optima_bridge.link.base import device_path, scheme_of, why_not_opened
from optima_bridge.link.evdev import EVIOCGRAB, EVIOCSCLOCKID, MAX_PACKET_BYTES, EvdevLink
from optima_bridge.link.hidraw import HIDIOCGRDESC, HIDIOCGRDESCSIZE, HidrawLink, hidiocginput
from optima_bridge.link.portwatch import PortWatch
from optima_bridge.link.records import MAX_WAITING_RECORDS, FdLink, ioc_read
from optima_bridge.model import DeviceIdentity
from optima_bridge.wire.evdev import EV_KEY, EV_SYN, PRESSED, InputEvent, encode

LIMIT_S = 20.0
PACKETS = [
    encode(InputEvent(key * 1_000_000, EV_KEY, key, PRESSED), InputEvent(key * 1_000_000, EV_SYN, 0, 0))
    for key in (37, 38, 3)
]


@asynccontextmanager
async def piped() -> AsyncIterator[tuple[EvdevLink, int]]:
    """A link on a pipe, and the end to write to."""
    ours, theirs = os.pipe()
    link = EvdevLink(ours, "evdev:pipe")
    try:
        async with asyncio.timeout(LIMIT_S):
            yield link, theirs
    finally:
        link.close()
        os.close(theirs)


@asynccontextmanager
async def paired() -> AsyncIterator[tuple[HidrawLink, socket.socket]]:
    """A link on a socket pair, and the device's end."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    link = HidrawLink(ours.detach(), "hidraw:pair")
    with theirs:
        async with asyncio.timeout(LIMIT_S):
            yield link, theirs
        link.close()


async def waiting_read(link: FdLink) -> asyncio.Task[bytes]:
    """A read that has nothing yet."""
    reading = asyncio.create_task(link.read())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not reading.done()
    return reading


async def test_packets_come_one_by_one_however_the_bytes_are_torn() -> None:
    async with piped() as (link, pipe):
        for size in (1, 37, len(PACKETS[0]), 1000):
            data = b"".join(PACKETS)
            reading = asyncio.create_task(read_all(link, len(PACKETS)))
            for start in range(0, len(data), size):
                os.write(pipe, data[start : start + size])
                await asyncio.sleep(0)
            assert await reading == PACKETS


async def read_all(link: FdLink, count: int) -> list[bytes]:
    return [await link.read() for _ in range(count)]


async def test_a_packet_without_an_end_is_given_up_in_pieces() -> None:
    async with piped() as (link, pipe):
        endless = encode(InputEvent(0, EV_KEY, 37, PRESSED)) * (MAX_PACKET_BYTES // 24 + 1)
        os.write(pipe, endless)
        assert await link.read() == endless[:MAX_PACKET_BYTES]
        with pytest.raises(LinkTimeout):
            await link.read(0.01)


async def test_reports_keep_their_borders() -> None:
    async with paired() as (link, device):
        for report in (b"\x05\x01", b"\x05\x02\x03", b"\x05"):
            device.send(report)
        assert await read_all(link, 3) == [b"\x05\x01", b"\x05\x02\x03", b"\x05"]


async def test_a_read_ends_in_time_and_loses_nothing_when_it_is_cancelled() -> None:
    async with paired() as (link, device):
        with pytest.raises(LinkTimeout):
            await link.read(0.01)
        with pytest.raises(LinkTimeout):
            await link.read(0)
        reading = await waiting_read(link)
        device.send(b"\x05\x01")
        reading.cancel()
        await asyncio.wait({reading})
        assert await link.read(0) == b"\x05\x01"


async def test_late_records_are_dropped_and_counted() -> None:
    async with piped() as (link, pipe):
        os.write(pipe, b"".join(PACKETS))
        assert link.discard_input() == 3
        assert link.discard_input() == 0
        os.write(pipe, PACKETS[0] * (MAX_WAITING_RECORDS + 1))
        assert link.discard_input() == MAX_WAITING_RECORDS
        assert await link.read() == PACKETS[0]


async def test_an_unplugged_device_ends_a_read_and_everything_after_it() -> None:
    async with paired() as (link, device):
        reading = await waiting_read(link)
        device.close()
        for attempt in (reading, link.read(), link.ask(5, 1)):
            with pytest.raises(LinkLost):
                await attempt
        with pytest.raises(LinkLost):
            link.discard_input()


async def test_a_reset_by_the_device_is_a_lost_link() -> None:
    link = FdLink(os.open("/", os.O_RDONLY), "evdev:directory")  # read(2) says EISDIR
    with pytest.raises(LinkLost, match="directory"):
        await link.read()
    link.close()


async def test_closing_ends_a_read_and_is_safe_twice() -> None:
    async with piped() as (link, _):
        reading = await waiting_read(link)
        link.close()
        link.close()
        with pytest.raises(LinkLost, match="closed"):
            await reading
        with pytest.raises(LinkLost):
            link.grab()


async def test_a_read_of_a_lost_device_lets_others_run_and_can_be_cancelled() -> None:
    in_memory, _ = memory_records()
    async with piped() as (piped_link, _):
        for link in (piped_link, in_memory):
            link.close()
            reading = asyncio.create_task(link.read())
            await asyncio.sleep(0)
            assert not reading.done()
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading


async def test_a_device_that_does_not_tell_is_one_that_answers_no_question() -> None:
    async with paired() as (link, device):
        assert await link.ask(5, 1) is None
        asking = asyncio.create_task(link.ask(5, 1))
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait({asking})
        device.send(b"\x05\x01")
        assert await link.read() == b"\x05\x01"


async def test_a_device_that_fails_to_answer_is_lost_only_when_it_is_read() -> None:
    master, slave = os.openpty()  # a tty that hung up says EIO to every ioctl, as a HID device that refuses does
    link = HidrawLink(slave, "hidraw:pty")
    os.close(master)
    assert await link.ask(5, 1) is None
    with pytest.raises(LinkLost):
        await link.read()
    link.close()


async def test_what_cannot_be_grabbed_is_lost() -> None:
    async with piped() as (link, _):
        with pytest.raises(LinkLost):
            link.grab()


@pytest.mark.parametrize(("scheme", "kind"), [("evdev", "an input device"), ("hidraw", "a hidraw device")])
async def test_a_node_of_another_kind_is_refused_and_closed(scheme: str, kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "fifo")
    before = descriptors()
    for path in (tmp_path / "file", tmp_path / "fifo", Path("/dev/null"), tmp_path):
        with pytest.raises(LinkError, match=f"is not {kind}"):
            await open_link(f"{scheme}:{path}", SerialFormat())
    with pytest.raises(LinkNotFound):
        await open_link(f"{scheme}:{tmp_path}/none", SerialFormat())
    assert descriptors() == before


@pytest.mark.parametrize(
    ("scheme", "rule"), [("evdev", 'SUBSYSTEM=="input", KERNEL=="event*", '), ("hidraw", 'SUBSYSTEM=="hidraw", ')]
)
async def test_who_may_not_open_a_node_is_told_the_rule_for_it(
    scheme: str, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may open all, and a test has no unit around it, so what open(2) says is put in its place."""

    def refuse(number: int) -> Callable[..., int]:
        def refused(*_: object) -> int:
            raise OSError(number, os.strerror(number))

        return refused

    monkeypatch.setattr(os, "open", refuse(errno.EACCES))
    with pytest.raises(LinkPermission) as by_its_mode:
        await open_link(f"{scheme}:/dev/x", SerialFormat())
    assert (
        f'{rule}ATTRS{{idVendor}}=="XXXX", ATTRS{{idProduct}}=="XXXX", GROUP="optima-bridge"'
        in by_its_mode.value.next_step
    )
    assert "--install" not in by_its_mode.value.next_step
    monkeypatch.setattr(os, "open", refuse(errno.EPERM))
    with pytest.raises(LinkPermission) as by_the_unit:
        await open_link(f"{scheme}:/dev/x", SerialFormat())
    word = {"evdev": "input", "hidraw": "hidraw"}[scheme]
    assert f"DeviceAllow=char-{word} r" in by_the_unit.value.next_step
    page = {"evdev": "typed", "hidraw": "hid"}[scheme]
    text = (Path(__file__).parents[2] / f"docs/reference/devices/keylock-{page}.md").read_text()
    assert f"DeviceAllow=char-{word} r\n" in text
    assert f"\n{rule}ATTRS{{idVendor}}==" in text


def test_what_open_says_has_its_own_error() -> None:
    assert type(why_not_opened("/x", errno.EPERM, "")) is LinkPermission
    assert type(why_not_opened("/x", errno.ENAMETOOLONG, "long")) is LinkError


def test_the_requests_are_those_of_the_kernels_headers() -> None:
    """As computed by a C compiler from linux/input.h and linux/hidraw.h."""
    assert (EVIOCGRAB, EVIOCSCLOCKID, ioc_read("E", 0x06, 256)) == (0x40044590, 0x400445A0, 0x81004506)
    assert (HIDIOCGRDESCSIZE, HIDIOCGRDESC) == (0x80044801, 0x90044802)
    assert (ioc_read("H", 0x04, 256), hidiocginput(64)) == (0x81004804, 0xC040480A)


@pytest.mark.parametrize(
    ("port", "scheme", "path"),
    [
        ("/dev/ttyUSB0", "serial", "/dev/ttyUSB0"),
        ("/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0", "serial", "/dev/serial/by-path/pci-0000:00:14.0-usb-0:1:1.0-port0"),
        ("evdev:/dev/input/by-path/pci-0000:00:14.0-event-kbd", "evdev", "/dev/input/by-path/pci-0000:00:14.0-event-kbd"),
        ("hidraw:/dev/optima/keylock", "hidraw", "/dev/optima/keylock"),
        ("evdev:event3", "", None),
        ("hidraw:", "", None),
        ("memory:front", "memory", None),
        ("COM3", "", None),
    ],
)  # fmt: skip
def test_a_port_names_a_kind_of_link_and_its_node(port: str, scheme: str, path: str | None) -> None:
    assert (scheme_of(port), device_path(port)) == (scheme, path)


async def test_a_node_that_comes_back_is_seen_behind_its_scheme(tmp_path: Path) -> None:
    watch = PortWatch()
    waiting = asyncio.create_task(watch.wait_for(f"evdev:{tmp_path}/by-id/keylock", LIMIT_S))
    await asyncio.sleep(0)
    (tmp_path / "by-id").mkdir()
    await asyncio.sleep(0)
    (tmp_path / "by-id" / "keylock").touch()
    assert await waiting
    watch.close()


async def test_a_memory_link_behaves_like_the_real_ones() -> None:
    who = DeviceIdentity("lock", "1")
    link, peer = memory_records(identity=who, descriptor=b"\x05\x01")
    assert (link.identity, link.descriptor, link.name) == (who, b"\x05\x01", "memory:test")
    peer.feed(b"late")
    assert link.discard_input() == 1
    with pytest.raises(LinkTimeout):
        await link.read(0)
    link.grab()
    assert link.grabbed
    assert await link.ask(5, 1) is None
    peer.feed(b"one")
    peer.feed(b"two")
    peer.unplug()
    assert [await link.read(), await link.read()] == [b"one", b"two"]
    for attempt in (link.read(), link.ask(5, 1)):
        with pytest.raises(LinkLost, match="gone"):
            await attempt
    link.close()
    link.close()


def descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())

"""Uevents: both forms of the message, every damage; then a real netlink socket."""

from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import FrameError
from optima_bridge.link import uevents
from optima_bridge.link.uevents import KERNEL_GROUP, Uevents
from optima_bridge.wire.uevent import Uevent, decode, encode
from tests.support import until
from tests.uevent_sender import ANY_DEVICE, genuine, multicast, pretend_udev, send

PLUGGED = {
    "ACTION": "add",
    "DEVPATH": "/devices/pci0000:00/0000:00:14.0/usb1/1-1",
    "SUBSYSTEM": "usb",
    "DEVTYPE": "usb_device",
    "PRODUCT": "4fa/2490/200",
    "SEQNUM": "892",
}
BODY = "".join(f"{key}={value}\0" for key, value in PLUGGED.items()).encode()
KERNEL = b"add@/devices/pci0000:00/0000:00:14.0/usb1/1-1\0" + BODY
# Recorded from udev's group: 169 bytes of properties.
UDEV_HEAD = bytes.fromhex("6c6962756465760 0feedcafe 28000000 28000000 a9000000".replace(" ", "")) + bytes(16)


def test_a_message_of_the_kernel_is_understood() -> None:
    assert decode(KERNEL) == Uevent("add", PLUGGED["DEVPATH"], "usb", PLUGGED)


def test_a_message_of_udev_is_understood() -> None:
    body = BODY + b"X=" + b"x" * (169 - len(BODY) - 3) + b"\0"
    assert decode(UDEV_HEAD + body).properties.items() >= PLUGGED.items()


def test_what_is_written_is_what_udev_writes_and_is_read_back() -> None:
    written = encode(PLUGGED)
    assert written == UDEV_HEAD[:20] + struct.pack("=I", len(BODY)) + bytes(16) + BODY
    assert decode(written).properties == PLUGGED


def test_text_that_is_no_utf_8_does_no_harm() -> None:
    event = decode(encode(PLUGGED)[:20] + struct.pack("=I", len(BODY) + 4) + bytes(16) + BODY + b"X=\xff\0")
    assert event.properties["X"] == "\ufffd"


@pytest.mark.parametrize("message", [KERNEL, encode(PLUGGED)], ids=["kernel", "udev"])
def test_half_a_message_is_refused_wherever_it_ends(message: bytes) -> None:
    whole_entries = 0
    for end in range(len(message)):
        try:
            event = decode(message[:end])
        except FrameError:
            continue
        whole_entries += 1  # the kernel's form says nowhere how long it is
        assert message == KERNEL
        assert message[end - 1] == 0
        assert event.properties.items() <= PLUGGED.items()
    assert whole_entries == (3 if message == KERNEL else 0)


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        b"\0",
        b"libudev\0",
        BODY,  # no head
        b"remove@/devices/x\0" + BODY,  # another head
        KERNEL.replace(b"SUBSYSTEM=usb\0", b""),
        KERNEL + b"no sign\0",
        KERNEL + b"=no key\0",
        KERNEL[:-1],
        encode(PLUGGED).replace(b"\xfe\xed\xca\xfe", b"\xfe\xed\xca\xff"),
        encode(PLUGGED)[:16] + struct.pack("=I", 39) + encode(PLUGGED)[20:],
        encode(PLUGGED) + b"X=\0",
    ],
)
def test_what_is_no_uevent_is_refused(damaged: bytes) -> None:
    with pytest.raises(FrameError):
        decode(damaged)


@given(st.binary(max_size=64), st.integers(0, len(encode(PLUGGED))))
def test_only_a_frame_error_comes_out_of_bad_bytes(noise: bytes, at: int) -> None:
    for message in (encode(PLUGGED), KERNEL):
        with suppress(FrameError):
            decode(message[:at] + noise + message[at + len(noise) :])


Heard = list[Uevent | None]


@asynccontextmanager
async def listening() -> AsyncIterator[Heard]:
    heard: Heard = []
    listener = Uevents(heard.append)
    try:
        yield heard
    finally:
        listener.close()


def about(heard: Heard, devpath: str) -> list[Uevent]:
    """Other tests and programs send too."""
    return [event for event in heard if event is not None and event.devpath == devpath]


async def test_the_kernel_itself_is_heard_where_there_is_no_udev(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_udev(monkeypatch, runs=False)
    devpath = os.path.realpath(ANY_DEVICE).removeprefix("/sys")
    async with listening() as heard:
        genuine()
        await until(lambda: about(heard, devpath))
    event = about(heard, devpath)[0]
    assert (event.action, event.subsystem, event.properties["DEVNAME"]) == ("add", "tty", "tty0")


async def test_where_udev_runs_it_is_heard_and_nobody_else_is_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_udev(monkeypatch, runs=True)
    async with listening() as heard:
        multicast(b"libudev\0 and then noise")
        multicast(KERNEL, KERNEL_GROUP)
        send("add", devpath="/devices/last")
        await until(lambda: about(heard, "/devices/last"))
    assert about(heard, PLUGGED["DEVPATH"]) == []


async def test_what_only_looks_like_the_kernel_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_udev(monkeypatch, runs=False)
    devpath = os.path.realpath(ANY_DEVICE).removeprefix("/sys")
    async with listening() as heard:
        multicast(KERNEL, KERNEL_GROUP)
        genuine()
        await until(lambda: about(heard, devpath))
    assert about(heard, PLUGGED["DEVPATH"]) == []


async def test_messages_that_did_not_fit_are_told_as_one_none(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_udev(monkeypatch, runs=True)
    monkeypatch.setattr(uevents, "RECEIVE_BUFFER_BYTES", 4096)
    async with listening() as heard:
        for _ in range(100):
            send("add")
        await until(lambda: None in heard)
        send("add", devpath="/devices/after")
        await until(lambda: about(heard, "/devices/after"))
    assert len(heard) < 100


async def test_whoever_hears_may_close_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_udev(monkeypatch, runs=True)
    heard: Heard = []

    def once(event: Uevent | None) -> None:
        heard.append(event)
        listener.close()

    listener = Uevents(once)
    send("add")
    send("add")
    await until(lambda: heard)
    await asyncio.sleep(0)
    assert len(heard) == 1
    listener.close()


async def test_a_kernel_without_that_group_leaks_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uevents, "NETLINK_KOBJECT_UEVENT", 31)  # no such protocol
    with pytest.raises(OSError, match="not supported"):
        Uevents(lambda _: None)

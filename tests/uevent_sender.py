"""Uevents for tests: forged ones over real netlink, as udev sends them, and genuine ones of the kernel."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from optima_bridge.link import uevents
from optima_bridge.wire.uevent import encode

ANY_DEVICE = Path("/sys/class/tty/tty0")


def send(action: str, subsystem: str = "usb", devpath: str = "/devices/x/1-1") -> None:
    """Say it as udev does; skips the test where only root may."""
    multicast(encode({"ACTION": action, "DEVPATH": devpath, "SUBSYSTEM": subsystem}))


def multicast(datagram: bytes, group: int = uevents.UDEV_GROUP) -> None:
    """Send anything to all who listen to `group`; skips the test where only root may."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, uevents.NETLINK_KOBJECT_UEVENT) as sender:
        try:
            sender.sendto(datagram, (0, group))
        except PermissionError:
            pytest.skip("only root may send uevents")


def genuine() -> None:
    """Have the kernel say that `ANY_DEVICE` was added; skips the test where only root may."""
    try:
        (ANY_DEVICE / "uevent").write_text("add")
    except OSError as error:
        pytest.skip(f"the kernel sends no uevent on demand here: {error}")


def pretend_udev(monkeypatch: pytest.MonkeyPatch, *, runs: bool) -> None:
    """Have new sockets listen to udev, or to the kernel."""
    monkeypatch.setattr(uevents, "UDEV_CONTROL", Path("/proc/self" if runs else "/nowhere"))

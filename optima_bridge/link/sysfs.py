"""What is plugged into USB, as sysfs shows it: attribute files are read, no device is opened.

1-1.4/          a device, by its place: bus 1, port 1, port 4 of the hub there
    idVendor idProduct devnum serial    text with a line feed; serial only where the device has one
1-1.4:1.0/      an interface of it; usb1/ a root hub
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import msgspec

from optima_bridge.errors import LinkLost, LinkNotFound, LinkTimeout
from optima_bridge.link.base import device_path
from optima_bridge.link.uevents import Uevents
from optima_bridge.wire.uevent import Uevent

SCAN_TIMEOUT_S = 5.0


class UsbDevice(msgspec.Struct, frozen=True):
    """One device that is plugged in.

    Attributes:
        bus_path: where, ``1-1.4``; stays the same over replugging into the same socket.
        number: given anew each time it is plugged in.
        serial: its serial number; empty where it has none.
    """

    bus_path: str
    number: int
    serial: str


class SysfsLink:
    """A directory of USB devices, and a wake-up when something in it may have changed."""

    def __init__(self, name: str, directory: Path) -> None:
        self._name = name
        self._directory = directory
        self._changed = asyncio.Event()
        # A device's serial number cannot be read while the kernel resets it: this is not for the loop, nor for the
        # threads that others wait for.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sysfs")
        self._uevents: Uevents | None = None
        with contextlib.suppress(OSError):  # then what changes is found by the next look
            self._uevents = Uevents(self._heard)

    @classmethod
    def open(cls, port: str) -> Self:
        """The link of a configured port.

        Raises:
            LinkNotFound: no such directory.
        """
        if (path := device_path(port)) is None or not Path(path).is_dir():
            cause = "this kernel has no USB, or the path is another one than /sys/bus/usb/devices"
            raise LinkNotFound(f"{port} is no directory", cause=cause, port=port)
        return cls(port, Path(path))

    @property
    def name(self) -> str:
        return self._name

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    async def find(self, vendor_id: str, product_id: str) -> list[UsbDevice]:
        """The devices with these ids (four lower-case hex digits each) that are plugged in now.

        Raises:
            LinkLost: the directory is gone.
            LinkTimeout: the kernel does not let its files be read.
        """
        self._changed.clear()
        try:
            async with asyncio.timeout(SCAN_TIMEOUT_S):
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._thread, find, self._directory, (vendor_id, product_id))
        except TimeoutError as error:
            raise LinkTimeout(f"{self._name} could not be read within {SCAN_TIMEOUT_S:.0f} s") from error
        except (OSError, RuntimeError) as error:  # RuntimeError: the link was closed
            raise LinkLost(f"{self._name} cannot be read: {error}") from error

    async def changed(self, timeout_s: float) -> bool:
        """Wait until a device came or went since the last `find` began; False: not within `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self._changed.wait()
        except TimeoutError:
            return False

    def close(self) -> None:
        """Stop listening. Safe to call twice."""
        if self._uevents is not None:
            self._uevents.close()
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._changed.set()

    def _heard(self, event: Uevent | None) -> None:
        if event is None or event.subsystem == "usb":
            self._changed.set()


def find(directory: Path, ids: tuple[str, str]) -> list[UsbDevice]:
    """Look through the directory. A device that is half there, for it comes or goes now, does not count.

    Raises:
        OSError: the directory itself cannot be read.
    """
    found = []
    for device in sorted(directory.iterdir()):
        if ":" in device.name:
            continue
        with contextlib.suppress(OSError, ValueError):
            if (_attribute(device, "idVendor"), _attribute(device, "idProduct")) == ids:
                serial = _attribute(device, "serial") if (device / "serial").exists() else ""
                found.append(UsbDevice(device.name, int(_attribute(device, "devnum")), serial))
    return found


def _attribute(device: Path, name: str) -> str:
    return (device / name).read_text(encoding="utf-8", errors="replace").strip()

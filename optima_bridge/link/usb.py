"""USB devices through pyusb: interface 0 of a device ours alone, every transfer on one thread of its own.

Linux only: the kernel's own driver is detached, and gets the interface back when we let go of it.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import usb.backend
import usb.core
import usb.util

from optima_bridge.errors import LinkBusy, LinkError, LinkLost, LinkTimeout, TransferRefused
from optima_bridge.link import usbfind

INTERFACE = 0
MAX_TIMEOUT_S = 1.0  # of one transfer: a closed link's thread must come to an end
VENDOR_OUT = 0x40  # request type: to the device as a whole

T = TypeVar("T")


class UsbLink:
    """An open USB device: its interface 0, claimed for us.

    A cancelled transfer goes on by itself until its timeout; what it read is lost, and the next one waits for its end.

    Args:
        name: the port as configured.
        device: as found.
        owner: runs everything that touches the device, one after the other.
        clock_ns: see `Link.clock_ns`.
    """

    def __init__(
        self,
        name: str,
        device: usb.core.Device,
        owner: Executor | None = None,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._name = name
        self._device = device
        self._owner = owner or ThreadPoolExecutor(1, thread_name_prefix=name)
        self._claimed = self._detached = False
        self._closed = False
        self.clock_ns = clock_ns

    @classmethod
    async def open(cls, port: str, backend: usb.backend.IBackend | None = None) -> UsbLink:
        """Find the device, take it from the kernel's driver, and claim it.

        Args:
            port: see `usbfind`.
            backend: pyusb's; None is libusb-1.0.

        Raises:
            LinkNotFound, LinkPermission, LinkBusy, LinkError: several devices fit, or libusb is missing.
        """
        link = cls(port, await asyncio.to_thread(usbfind.find, port, backend))
        try:
            await link._call(lambda _: None)
        except BaseException:
            link.close()
            raise
        return link

    @property
    def name(self) -> str:
        return self._name

    @property
    def place(self) -> str:
        """Where it is plugged in: bus and ports. All the identity that a device without a serial number has."""
        return usbfind.place(self._device)

    async def control_out(self, request: int, value: int, index: int, timeout_s: float = MAX_TIMEOUT_S) -> None:
        """A vendor request to the device, without data.

        Raises:
            LinkTimeout: the device did not take it in time.
            TransferRefused: it does not know it.
            LinkLost: the device is gone.
        """
        await self._call(lambda device: device.ctrl_transfer(VENDOR_OUT, request, value, index, None, _ms(timeout_s)))

    async def write(self, endpoint: int, data: bytes, timeout_s: float = MAX_TIMEOUT_S) -> None:
        """Hand all bytes to a bulk or interrupt endpoint. Raises as control_out()."""
        taken: int = await self._call(lambda device: device.write(endpoint, data, _ms(timeout_s)))
        if taken != len(data):
            raise LinkTimeout(f"{self._name} took {taken} of {len(data)} bytes", port=self._name)

    async def read(self, endpoint: int, size_bytes: int, timeout_s: float = MAX_TIMEOUT_S) -> bytes:
        """What a bulk or interrupt endpoint has, at most `size_bytes`. Raises as control_out()."""
        return bytes(await self._call(lambda device: device.read(endpoint, size_bytes, _ms(timeout_s))))

    async def select_alternate(self, setting: int) -> None:
        """Choose an alternate setting of the interface. Raises as control_out(); LinkError: it has none of this number."""
        await self._call(lambda device: _select_alternate(device, setting, self._name))

    async def clear_halt(self, endpoint: int) -> None:
        """Let an endpoint that refused a transfer go on. Raises as control_out()."""
        await self._call(lambda device: device.clear_halt(endpoint))

    async def release(self) -> None:
        """Give the interface back to the kernel's driver; the next transfer takes it again. Never raises LinkError."""
        if not self._closed:
            await asyncio.wrap_future(self._owner.submit(self._give_back))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._owner.submit(self._give_back)  # behind a transfer that may still be under way
            self._owner.shutdown(wait=False)

    async def _call(self, transfer: Callable[[usb.core.Device], T]) -> T:
        if self._closed:
            raise LinkLost(f"{self._name} was closed", port=self._name)
        done: Future[T] = self._owner.submit(self._work, transfer)
        return await asyncio.wrap_future(done)

    def _work(self, transfer: Callable[[usb.core.Device], T]) -> T:
        with _translated(self._name, self._device):
            if not self._claimed:
                self._claim()
            return transfer(self._device)

    def _claim(self) -> None:
        self._claimed = True  # to be given back, even if only half of this succeeds
        try:
            if self._device.is_kernel_driver_active(INTERFACE):
                self._device.detach_kernel_driver(INTERFACE)
                self._detached = True
            usb.util.claim_interface(self._device, INTERFACE)
        except usb.core.USBError:
            self._give_back()
            raise

    def _give_back(self) -> None:
        if not self._claimed:
            return
        self._claimed = False
        with suppress(usb.core.USBError):  # it may be gone
            usb.util.release_interface(self._device, INTERFACE)
            if self._detached:
                self._device.attach_kernel_driver(INTERFACE)
        self._detached = False
        with suppress(usb.core.USBError):
            usb.util.dispose_resources(self._device)


def _select_alternate(device: usb.core.Device, setting: int, name: str) -> None:
    try:
        device.set_interface_altsetting(INTERFACE, setting)
    except ValueError as error:
        raise LinkError(
            f"{name} has no alternate setting {setting}", cause="another kind of device has the same ids", port=name
        ) from error


def _ms(timeout_s: float) -> int:
    assert 0 < timeout_s <= MAX_TIMEOUT_S, "every transfer is bounded"
    return max(1, round(timeout_s * 1000))  # 0 would be for ever


@contextmanager
def _translated(name: str, device: usb.core.Device) -> Iterator[None]:
    """pyusb's errors become ours."""
    try:
        yield
    except usb.core.USBError as error:
        raise _explain(name, device, error) from error


def _explain(name: str, device: usb.core.Device, error: usb.core.USBError) -> LinkError:
    match error.errno:
        case errno.ETIMEDOUT:
            return LinkTimeout(f"{name}: a transfer was not done in time", port=name)
        case errno.EPIPE:
            return TransferRefused(f"{name} refused a transfer", port=name)
        case errno.EACCES | errno.EPERM:
            return usbfind.denied(name, device)
        case errno.EBUSY:
            return _busy(name, device)
        case errno.ENODEV | errno.ENXIO | errno.ESHUTDOWN | errno.ENOENT | errno.EIO | errno.EPROTO:
            return LinkLost(f"{name} went away ({error.strerror})", port=name)
        case _ if not Path(usbfind.node(device)).exists():
            # In the middle of a removal libusb says "Other error", without a number.
            return LinkLost(f"{name} went away ({error.strerror})", port=name)
        case _:
            return LinkError(f"{name}: {error.strerror}", port=name)


def _busy(name: str, device: usb.core.Device) -> LinkBusy:
    from optima_bridge.link.serial import find_holder

    if (holder := find_holder(usbfind.node(device))) is None:
        return LinkBusy(f"{name} is held by another program", port=name)
    pid, program = holder
    return LinkBusy(
        f"{name} is held by pid {pid} ({program})",
        next_step=f"stop {program} (pid {pid}), or keep it away from this device",
        port=name,
        holder={"pid": pid, "program": program},
    )

"""Simulated USB devices: a bus in this process, as a back end of pyusb, so that all of pyusb above it is real.

Each call fails as libusb's would: with the same errno, and in the same order of causes.
"""

from __future__ import annotations

import errno
import itertools
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Protocol

import usb.backend
import usb.core

GET_DESCRIPTOR, STRING = 0x06, 0x03
DEVICE_IN = 0x80
US_ENGLISH = 0x0409
SERIAL_INDEX = 1


class UsbDevice(Protocol):
    """A simulated device, sans-io: one configuration, one interface.

    Attributes:
        vendor, product: its ids.
        alternates: for each alternate setting its endpoints: address -> (type as in bmAttributes, packet size in bytes).
    """

    vendor: int
    product: int
    alternates: list[dict[int, tuple[int, int]]]

    def control(self, request: int, value: int, index: int) -> bool:
        """Take a vendor request without data; False refuses it."""

    def write(self, endpoint: int, data: bytes) -> int:
        """Take bytes; returns how many."""

    def read(self, endpoint: int, size_bytes: int) -> bytes | None:
        """What the host gets that asks for at most `size_bytes`; None while there is nothing."""


@dataclass
class Plug:
    """One device on the bus, and what is wrong with it.

    Attributes:
        device: what is plugged in.
        bus, address, ports: where.
        serial: its serial number, empty: it has none; with a lone surrogate its bytes are no text.
        kernel_driver: whether the kernel has a driver for it.
        denied: this user may not open it.
        taken: another program has its interface.
        refused, late: so many of the next transfers are refused, or time out.
        unplug_after: goes away at the transfer of this number from now on; None: stays.
        log: what was asked for, in order.
    """

    device: UsbDevice
    bus: int
    address: int
    ports: tuple[int, ...]
    serial: str = ""
    kernel_driver: bool = True
    denied: bool = False
    taken: bool = False
    refused: int = 0
    late: int = 0
    unplug_after: int | None = None
    log: list[str] = field(default_factory=list)
    gone: bool = False
    bound: bool = False
    owner: Handle | None = None

    def unplug(self) -> None:
        """Pull the plug."""
        self.gone = True


@dataclass(eq=False)
class Handle:
    """An open device."""

    plug: Plug
    alternate: int = 0


class UsbBus(usb.backend.IBackend):  # type: ignore[misc]  # pyusb has no types
    """The bus: what is plugged in now."""

    def __init__(self) -> None:
        super().__init__()
        self._plugs: list[Plug] = []
        self._addresses = itertools.count(1)

    def plug(self, device: UsbDevice, place: str, *, serial: str = "", kernel_driver: bool = True) -> Plug:
        """Plug a device in; the same place gives another address each time."""
        bus, _, ports = place.partition("-")
        plug = Plug(device, int(bus), next(self._addresses), tuple(map(int, ports.split("."))), serial, kernel_driver)
        plug.bound = kernel_driver
        self._plugs.append(plug)
        return plug

    # -- descriptors ---------------------------------------------------------------------------------------------------

    def enumerate_devices(self) -> Iterator[Plug]:
        return (plug for plug in self._plugs if not plug.gone)

    def get_device_descriptor(self, dev: Plug) -> _Descriptor:
        return _Descriptor(
            idVendor=dev.device.vendor, idProduct=dev.device.product, bNumConfigurations=1, bus=dev.bus, address=dev.address,
            port_number=dev.ports[-1], port_numbers=dev.ports, iSerialNumber=SERIAL_INDEX if dev.serial else 0,
        )  # fmt: skip

    def get_configuration_descriptor(self, dev: Plug, config: int) -> _Descriptor:
        if config:
            raise IndexError(config)
        return _Descriptor(bConfigurationValue=1, bNumInterfaces=1)

    def get_interface_descriptor(self, dev: Plug, intf: int, alt: int, config: int) -> _Descriptor:
        if intf:
            raise IndexError(intf)
        return _Descriptor(bAlternateSetting=alt, bNumEndpoints=len(dev.device.alternates[alt]), bInterfaceClass=0xFF)

    def get_endpoint_descriptor(self, dev: Plug, ep: int, intf: int, alt: int, config: int) -> _Descriptor:
        address, (kind, size) = list(dev.device.alternates[alt].items())[ep]
        return _Descriptor(bEndpointAddress=address, bmAttributes=kind, wMaxPacketSize=size)

    # -- handles -------------------------------------------------------------------------------------------------------

    def open_device(self, dev: Plug) -> Handle:
        dev.log.append("open")
        _check(dev)
        if dev.denied:
            raise _error(errno.EACCES, "Access denied (insufficient permissions)")
        return Handle(dev)

    def close_device(self, dev_handle: Handle) -> None:
        dev_handle.plug.log.append("close")

    def get_configuration(self, dev_handle: Handle) -> int:
        _check(dev_handle.plug)
        return 1

    def is_kernel_driver_active(self, dev_handle: Handle, intf: int) -> bool:
        _check(dev_handle.plug)
        return dev_handle.plug.bound

    def detach_kernel_driver(self, dev_handle: Handle, intf: int) -> None:
        dev_handle.plug.log.append("detach kernel driver")
        _check(dev_handle.plug)
        dev_handle.plug.bound = False

    def attach_kernel_driver(self, dev_handle: Handle, intf: int) -> None:
        plug = dev_handle.plug
        plug.log.append("attach kernel driver")
        _check(plug)
        if plug.owner is not None:
            raise _error(errno.EBUSY, "Resource busy")
        plug.bound = plug.kernel_driver

    def claim_interface(self, dev_handle: Handle, intf: int) -> None:
        plug = dev_handle.plug
        plug.log.append("claim")
        _check(plug)
        if plug.bound or plug.taken or plug.owner not in (None, dev_handle):
            raise _error(errno.EBUSY, "Resource busy")
        plug.owner = dev_handle

    def release_interface(self, dev_handle: Handle, intf: int) -> None:
        dev_handle.plug.log.append("release")
        _check(dev_handle.plug)
        dev_handle.plug.owner = None

    def set_interface_altsetting(self, dev_handle: Handle, intf: int, altsetting: int) -> None:
        dev_handle.plug.log.append(f"alternate {altsetting}")
        _check(dev_handle.plug)
        dev_handle.alternate = altsetting

    def clear_halt(self, dev_handle: Handle, ep: int) -> None:
        dev_handle.plug.log.append(f"clear halt {ep:02x}")
        _check(dev_handle.plug)

    # -- transfers -----------------------------------------------------------------------------------------------------

    def ctrl_transfer(
        self,
        dev_handle: Handle,
        bmRequestType: int,  # noqa: N803 - pyusb's name
        bRequest: int,  # noqa: N803 - pyusb's name
        wValue: int,  # noqa: N803 - pyusb's name
        wIndex: int,  # noqa: N803 - pyusb's name
        data: array[int],
        timeout: int,
    ) -> int:
        plug = dev_handle.plug
        self._transfer(plug, f"control {bRequest:02x} {wValue:04x} {wIndex:04x}", timeout)
        if (bmRequestType, bRequest) == (DEVICE_IN, GET_DESCRIPTOR):
            return _fill(data, _string(plug.serial, wValue))
        if not plug.device.control(bRequest, wValue, wIndex):
            raise _error(errno.EPIPE, "Pipe error")
        return 0

    def bulk_write(self, dev_handle: Handle, ep: int, intf: int, data: array[int], timeout: int) -> int:
        self._transfer(dev_handle.plug, f"write {ep:02x}", timeout)
        return dev_handle.plug.device.write(ep, data.tobytes())

    def bulk_read(self, dev_handle: Handle, ep: int, intf: int, buff: array[int], timeout: int) -> int:
        plug = dev_handle.plug
        self._transfer(plug, f"read {ep:02x}", timeout)
        answer = plug.device.read(ep, len(buff))
        if answer is None:
            raise _timeout()
        return _fill(buff, answer)

    intr_write, intr_read = bulk_write, bulk_read

    def _transfer(self, plug: Plug, what: str, timeout: int) -> None:
        assert 0 < timeout <= 1000, "a transfer without end"
        plug.log.append(what)
        if plug.unplug_after is not None:
            plug.unplug_after -= 1
            if plug.unplug_after < 0:
                plug.unplug()
        _check(plug)
        if plug.refused:
            plug.refused -= 1
            raise _error(errno.EPIPE, "Pipe error")
        if plug.late:
            plug.late -= 1
            raise _timeout()


class _Descriptor:
    """A descriptor; what nobody asks about is 0."""

    def __init__(self, **fields: object) -> None:
        self.extra_descriptors: list[int] = []
        self.__dict__.update(fields)

    def __getattr__(self, name: str) -> int:
        return 0


def _check(plug: Plug) -> None:
    if plug.gone:
        raise _error(errno.ENODEV, "No such device (it may have been disconnected)")


def _error(number: int, text: str) -> usb.core.USBError:
    return usb.core.USBError(text, None, number)


def _timeout() -> usb.core.USBTimeoutError:
    return usb.core.USBTimeoutError("Operation timed out", None, errno.ETIMEDOUT)


def _fill(buffer: array[int], data: bytes) -> int:
    size = min(len(buffer), len(data))
    buffer[:size] = array("B", data[:size])
    return size


def _string(text: str, value: int) -> bytes:
    """A string descriptor (USB 2.0, 9.6.7); index 0 is the list of languages."""
    body = text.encode("utf-16-le", "surrogatepass") if value & 0xFF else US_ENGLISH.to_bytes(2, "little")
    return bytes([2 + len(body), STRING]) + body

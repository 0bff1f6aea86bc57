"""Which USB device a configured port names, and which one that is of those plugged in.

usb:04fa:2490            the device with these ids, vendor and product
usb:04fa:2490@1-2.3      the one at this place: bus 1, port 2, port 3 of the hub there; as in /sys/bus/usb/devices
usb:04fa:2490#A50285BI   the one with this serial number
"""

from __future__ import annotations

import errno
import re

import msgspec
import usb.backend.libusb1
import usb.core
import usb.util

from optima_bridge.errors import LinkError, LinkNotFound, LinkPermission


class UsbPort(msgspec.Struct, frozen=True):
    """A configured port: which device is meant.

    Attributes:
        vendor, product: its ids.
        place: bus and ports, empty where any will do.
        serial: its serial number, empty where any will do.
    """

    vendor: int
    product: int
    place: str = ""
    serial: str = ""

    @classmethod
    def from_text(cls, text: str) -> UsbPort:
        """Raises LinkNotFound: not a port of these forms."""
        if not (found := _PORT.fullmatch(text)):
            raise LinkNotFound(
                f"{text!r} is not a USB port",
                cause="it has the form usb:VENDOR:PRODUCT, four hex digits each, with @BUS-PORT or #SERIAL where there are several",
                next_step="write it as in usb:04fa:2490@1-2; see the ids: lsusb",
                port=text,
            )
        return cls(int(found[1], 16), int(found[2], 16), found[3] or "", found[4] or "")

    def __str__(self) -> str:
        return f"usb:{self.vendor:04x}:{self.product:04x}" + (self.place and f"@{self.place}")


_PORT = re.compile(r"usb:([0-9a-f]{4}):([0-9a-f]{4})(?:@(\d+-\d+(?:\.\d+)*)|#(.+))?", re.IGNORECASE)


def find(port: str, backend: usb.backend.IBackend | None = None) -> usb.core.Device:
    """The one device that `port` names; blocks for some milliseconds.

    Raises:
        LinkNotFound: none fits.
        LinkPermission: serial numbers may not be read.
        LinkError: several fit, or there is no libusb.
    """
    wanted = UsbPort.from_text(port)
    backend = backend or usb.backend.libusb1.get_backend()
    if backend is None:
        raise LinkError(
            "USB devices cannot be reached: libusb-1.0 is not installed, or may not be used here",
            cause="it is a library of its own, and the service needs netlink sockets for it (RestrictAddressFamilies=AF_NETLINK)",
            next_step="sudo apt install libusb-1.0-0",
            port=port,
        )
    ids = {"idVendor": wanted.vendor, "idProduct": wanted.product}
    try:
        fitting = [
            device
            for device in usb.core.find(find_all=True, backend=backend, **ids)
            if wanted.place in ("", place(device)) and wanted.serial in ("", _serial(device, wanted))
        ]
    except usb.core.USBError as error:
        raise LinkError(f"{port}: the USB devices cannot be listed ({error.strerror})", port=port) from error
    if not fitting:
        raise LinkNotFound(f"{port} is not plugged in", port=port)
    if len(fitting) > 1:
        ports = sorted(str(msgspec.structs.replace(wanted, place=place(device))) for device in fitting)
        raise LinkError(
            f"{len(fitting)} devices fit {port}",
            cause="the port in the configuration names a kind of device, and several are plugged in",
            next_step=f"write one of these as its port: {', '.join(ports)}",
            port=port,
            ports=ports,
        )
    return fitting[0]


def place(device: usb.core.Device) -> str:
    """Bus and ports, as in /sys/bus/usb/devices; stays the same when the device is plugged in again there."""
    return f"{device.bus}-{'.'.join(map(str, device.port_numbers or ()))}"


def _serial(device: usb.core.Device, wanted: UsbPort) -> str:
    """Its serial number where it matters; empty: it has none, or is being pulled out."""
    if not wanted.serial or not device.iSerialNumber:
        return ""
    try:
        languages = usb.util.get_langids(device)  # device.serial_number would hide why there are none
        return usb.util.get_string(device, device.iSerialNumber, languages[0]) if languages else ""
    except usb.core.USBError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise denied(str(wanted), device) from error
        return ""
    except ValueError:  # bytes that are no text
        return ""
    finally:
        usb.util.dispose_resources(device)


def denied(name: str, device: usb.core.Device) -> LinkPermission:
    """The error of a device that this user may not open; it has the udev rule."""
    ids = f'ATTR{{idVendor}}=="{device.idVendor:04x}", ATTR{{idProduct}}=="{device.idProduct:04x}"'
    return LinkPermission(
        f"{name} ({node(device)}) may not be opened by this user",
        cause="a udev rule must give the device to the service's group",
        next_step=f'write into /etc/udev/rules.d/70-optima-bridge.rules: SUBSYSTEM=="usb", {ids}, GROUP="optima-bridge", '
        'MODE="0660" and plug it in again',
        port=name,
    )


def node(device: usb.core.Device) -> str:
    """The file that stands for it."""
    return f"/dev/bus/usb/{device.bus:03}/{device.address:03}"

"""What every link offers, and the one place that turns a configured port into an open link.

    /dev/serial/by-id/…             serial      a byte pipe through pyserial
    rfc2217://HOST:PORT             rfc2217     a byte pipe to a port of a terminal server, through pyserial
    evdev:/dev/input/by-id/…        evdev       key presses of an input device
    hidraw:/dev/…                   hidraw      reports of a HID device
    usb:VENDOR:PRODUCT              usb         USB transfers through pyusb; @BUS-PORT or #SERIAL where there are several
    pkcs11:token=…?module-path=/…   pkcs11      a token behind a PKCS#11 module (RFC 7512)
    pcsc:READER NAME                pcsc        a card reader of the PC/SC daemon
    memory:NAME                     memory      a byte pipe in this process; tests and simulators
    sysfs:/sys/bus/usb/devices      sysfs       what is plugged in; opens no device, so several may share it

What stands before the colon is the port's *scheme*; a driver declares those it works on. A new kind of link is a module
here and a line in OPENERS.
"""

from __future__ import annotations

import asyncio
import errno
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from optima_bridge.errors import LinkBusy, LinkError, LinkNotFound, LinkPermission, UsageError


class SerialFormat(msgspec.Struct, frozen=True):
    """How a serial device speaks when it is first addressed: always 8 data bits, no parity, no flow control."""

    baud: int = 9600
    stop_bits: int = 1


class Link(Protocol):
    """What all links have in common: a name, a clock, an end."""

    @property
    def name(self) -> str:
        """The port as configured, for messages."""

    def clock_ns(self) -> int:
        """Monotonic time in nanoseconds; tests put their own clock here."""

    def close(self) -> None:
        """Give the device back. Safe to call twice."""


class ByteLink(Link, Protocol):
    """An open byte pipe and the clock that belongs to it.

    Exactly one task uses a link. Every method may raise LinkLost once the device is gone; after that only close() makes
    sense. Cancelling a read loses no byte.
    """

    async def read(self, timeout_s: float | None = None) -> bytes:
        """Wait for bytes and return all that are here, at least one, at most 4096.

        Args:
            timeout_s: seconds to wait; None waits for ever (passive readers).

        Raises:
            LinkTimeout: nothing came in time.
            LinkLost: the device is gone.
        """

    async def write(self, data: bytes) -> None:
        """Hand all bytes to the device.

        Raises:
            LinkTimeout: the device took nothing for one second.
            LinkLost: the device is gone.
        """

    def discard_input(self) -> int:
        """Drop bytes that came and were not read; returns how many. They are late: they must not count as answers."""

    async def send_break(self) -> None:
        """Hold the line in the break state for at least one character time, where the link has such a thing."""


def scheme_of(port: str) -> str:
    """The kind of link that a port names; a path is ``serial``. Empty: it names none."""
    if port.startswith("/"):
        return "serial"
    scheme = found[1] if (found := SCHEME.match(port)) else ""
    return "" if scheme in NODE_SCHEMES and device_path(port) is None else scheme


def port_fault(port: str) -> str:
    """What is wrong with a port as it is written; empty: nothing. Opens nothing, and repeats nothing that may be secret."""
    scheme = scheme_of(port)
    if scheme not in OPENERS:
        return f"must be {PORT_FORMS}"
    if scheme == "pkcs11":
        from optima_bridge.link.pkcs11_uri import parse

        try:
            parse(port)
        except UsageError as error:
            return error.what
    return ""


def device_path(port: str) -> str | None:
    """The path that exists while the device is plugged in; None where the port is not a path."""
    scheme, _, path = port.partition(":")
    if scheme not in NODE_SCHEMES:
        path = port
    return path if path.startswith("/") else None


async def open_link(port: str, serial_format: SerialFormat) -> Link:
    """Open the configured port and nothing else.

    Args:
        port: see the table above.
        serial_format: what the driver declares; only serial links use it.

    Raises:
        LinkNotFound, LinkBusy, LinkPermission, LinkError: why it cannot be opened now.
    """
    opener = OPENERS.get(scheme_of(port))
    if opener is None:
        raise LinkNotFound(
            f"{port!r} is not a port",
            cause=f"a port is {PORT_FORMS}; memory:NAME in tests",
            port=port,
        )
    return await opener(port, serial_format)


async def open_byte_link(port: str, serial_format: SerialFormat) -> ByteLink:
    """`open_link` where only a byte pipe will do."""
    return await BYTE_OPENERS[scheme_of(port)](port, serial_format)


async def _open_serial(port: str, serial_format: SerialFormat) -> ByteLink:
    from optima_bridge.link.serial import SerialLink, name_holder

    try:
        return SerialLink.open(port, serial_format)
    except LinkBusy as error:
        raise await asyncio.to_thread(name_holder, port, error) from error


async def _open_rfc2217(port: str, serial_format: SerialFormat) -> ByteLink:
    from optima_bridge.link.rfc2217 import Rfc2217Link

    return await Rfc2217Link.open(port, serial_format)


async def _open_evdev(port: str, _: SerialFormat) -> Link:
    from optima_bridge.link.evdev import EvdevLink

    return EvdevLink.open(port)


async def _open_hidraw(port: str, _: SerialFormat) -> Link:
    from optima_bridge.link.hidraw import HidrawLink

    return HidrawLink.open(port)


async def _open_usb(port: str, _: SerialFormat) -> Link:
    from optima_bridge.link.usb import UsbLink

    return await UsbLink.open(port)


async def _open_sysfs(port: str, _: SerialFormat) -> Link:
    from optima_bridge.link.sysfs import SysfsLink

    return SysfsLink.open(port)


async def _open_memory(port: str, _: SerialFormat) -> ByteLink:
    from optima_bridge.link.memory import take

    return take(port)


async def _open_pkcs11(port: str, _: SerialFormat) -> Link:
    from optima_bridge.link.pkcs11 import open_pkcs11

    return await open_pkcs11(port)


async def _open_pcsc(port: str, _: SerialFormat) -> Link:
    from optima_bridge.link.pcsc import PcscLink

    return await PcscLink.open(port)


def why_not_opened(path: str, number: int | None, text: str) -> LinkError:
    """The error for what open(2) said; `number` is its errno."""
    if number in (errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO):
        return LinkNotFound(f"{path} does not exist now", port=path)
    if number in (errno.EACCES, errno.EPERM):
        return LinkPermission(
            f"{path} may not be opened by this user",
            next_step=f"see who owns it: ls -lL {path}; then give it to the service: sudo bridge service udev --install",
            port=path,
        )
    if number in (errno.EBUSY, errno.EAGAIN):
        return LinkBusy(f"{path} is held by another program", port=path)
    return LinkError(f"{path} cannot be opened: {text}", port=path)


SCHEME = re.compile(r"([a-z][a-z0-9]*):")
NODE_SCHEMES = frozenset({"evdev", "hidraw", "sysfs"})
"""Those whose port is a path behind the colon."""
BYTE_OPENERS: dict[str, Callable[[str, SerialFormat], Awaitable[ByteLink]]] = {
    "serial": _open_serial,
    "rfc2217": _open_rfc2217,
    "memory": _open_memory,
}
OPENERS: dict[str, Callable[[str, SerialFormat], Awaitable[Link]]] = {
    **BYTE_OPENERS,
    "evdev": _open_evdev,
    "hidraw": _open_hidraw,
    "usb": _open_usb,
    "pkcs11": _open_pkcs11,
    "sysfs": _open_sysfs,
    "pcsc": _open_pcsc,
}
"""By scheme; each imports what it needs only when it is used."""
PORT_FORMS = (
    "an absolute path such as /dev/serial/by-id/…, rfc2217://HOST:PORT, evdev:PATH, hidraw:PATH, usb:VENDOR:PRODUCT, "
    "sysfs:PATH, pkcs11:token=…?module-path=PATH or pcsc:READER"
)
"""How ports are written, for messages."""
SHARED = frozenset({"sysfs"})
"""Schemes of which several devices may have the same port."""

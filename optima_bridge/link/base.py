"""What every link offers, and the one place that turns a configured port into an open link.

    /dev/serial/by-id/…     serial      a byte pipe through pyserial
    memory:NAME             memory      a byte pipe in this process; tests and simulators

What stands before the colon is the port's *scheme*; a driver declares those it works on. A new kind of link is a module
here and a line in OPENERS.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

from optima_bridge.errors import LinkBusy, LinkNotFound


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
    """The kind of link that a port names; a path is ``serial``."""
    if port.startswith("/"):
        return "serial"
    return found[1] if (found := SCHEME.match(port)) else ""


def device_path(port: str) -> str | None:
    """The path that exists while the device is plugged in; None where the port is not a path."""
    return port if port.startswith("/") else None


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
            f"{port!r} is not a port", cause="a port is an absolute path, or memory:NAME in tests", port=port
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


async def _open_memory(port: str, _: SerialFormat) -> ByteLink:
    from optima_bridge.link.memory import take

    return take(port)


SCHEME = re.compile(r"([a-z][a-z0-9]*):")
BYTE_OPENERS: dict[str, Callable[[str, SerialFormat], Awaitable[ByteLink]]] = {
    "serial": _open_serial,
    "memory": _open_memory,
}
OPENERS: dict[str, Callable[[str, SerialFormat], Awaitable[Link]]] = {**BYTE_OPENERS}
"""By scheme; each imports what it needs only when it is used."""

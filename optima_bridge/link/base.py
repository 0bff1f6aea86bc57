"""What every link offers, and the one place that turns a configured port into an open link."""

from __future__ import annotations

import asyncio
from typing import Protocol

import msgspec

from optima_bridge.errors import LinkBusy, LinkNotFound


class SerialFormat(msgspec.Struct, frozen=True):
    """How a serial device speaks when it is first addressed: always 8 data bits, no parity, no flow control."""

    baud: int = 9600
    stop_bits: int = 1


class ByteLink(Protocol):
    """An open byte pipe and the clock that belongs to it.

    Exactly one task uses a link. Every method may raise LinkLost once the device is gone; after that only close() makes
    sense. Cancelling a read loses no byte.
    """

    @property
    def name(self) -> str:
        """The port as configured, for messages."""

    def clock_ns(self) -> int:
        """Monotonic time in nanoseconds; tests put their own clock here."""

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

    def close(self) -> None:
        """Give the device back. Safe to call twice."""


async def open_link(port: str, serial_format: SerialFormat) -> ByteLink:
    """Open the configured port and nothing else.

    Args:
        port: a device path (``/dev/serial/by-id/…``) or ``memory:NAME`` for a pair made by `memory_pair`.
        serial_format: what the driver declares; unused by memory links.

    Raises:
        LinkNotFound, LinkBusy, LinkPermission, LinkError: why it cannot be opened now.
    """
    if port.startswith("memory:"):
        from optima_bridge.link.memory import take

        return take(port)
    if not port.startswith("/"):
        raise LinkNotFound(
            f"{port!r} is not a port", cause="a port is an absolute path, or memory:NAME in tests", port=port
        )
    from optima_bridge.link.serial import SerialLink, name_holder

    try:
        return SerialLink.open(port, serial_format)
    except LinkBusy as error:
        raise await asyncio.to_thread(name_holder, port, error) from error

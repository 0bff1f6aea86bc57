"""Linux input devices (evdev): packets of key presses, read on readiness of the device node; nothing of them is ever logged.

Sources: linux/input.h, Documentation/input/input.rst. The kernel drops nothing while it is read in time: it keeps 64 packets
or so, and says SYN_DROPPED where it had to forget some.
"""

from __future__ import annotations

import errno
import fcntl
import struct
import time

from optima_bridge.errors import LinkBusy
from optima_bridge.link.records import FdLink, ask_text, ioc_write, opening
from optima_bridge.model import DeviceIdentity
from optima_bridge.wire.evdev import RECORD_BYTES, packet_bytes

MAX_PACKET_BYTES = 64 * RECORD_BYTES
NAME, UNIQ = 0x06, 0x08
EVIOCGRAB = ioc_write("E", 0x90, 4)
EVIOCSCLOCKID = ioc_write("E", 0xA0, 4)


class EvdevLink(FdLink):
    """An open input device, its records in monotonic time."""

    _rest = b""  # of what was read, behind the last whole packet
    _grabbed = False

    @classmethod
    def open(cls, port: str) -> EvdevLink:
        """Open the node behind ``evdev:``.

        Raises:
            LinkNotFound, LinkPermission, LinkError: why it cannot be opened.
        """
        with opening(port, "an input device") as fd:
            identity = DeviceIdentity(ask_text(fd, "E", NAME), ask_text(fd, "E", UNIQ, needed=False))
            fcntl.ioctl(fd, EVIOCSCLOCKID, struct.pack("@i", time.CLOCK_MONOTONIC))
            return cls(fd, port, identity)

    def grab(self) -> None:
        if self._error:
            raise self._error
        if self._grabbed:
            return  # twice is once; the kernel would say EBUSY
        try:
            fcntl.ioctl(self._fd, EVIOCGRAB, 1)
            self._grabbed = True
        except OSError as error:
            if error.errno == errno.EBUSY:
                raise LinkBusy(f"{self.name} is taken by another program", port=self.name) from error
            raise self._lose(error) from error

    def _next(self) -> bytes | None:
        while not (size := packet_bytes(self._rest)):
            if len(self._rest) >= MAX_PACKET_BYTES:
                size = MAX_PACKET_BYTES  # no end in sight: the kernel makes no such packets
                break
            if (chunk := self._read()) is None:
                return None
            self._rest += chunk
        packet, self._rest = self._rest[:size], self._rest[size:]
        return packet

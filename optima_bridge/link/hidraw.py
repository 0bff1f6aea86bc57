"""Linux hidraw devices: input reports, read on readiness of the device node, the report descriptor, and asking for a report.

Sources: linux/hidraw.h, Documentation/hid/hidraw.rst. HIDIOCGINPUT came with Linux 5.11; a kernel without it counts as a
device that does not tell.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import struct
from concurrent.futures import ThreadPoolExecutor

from optima_bridge.link.records import UNNAMED, FdLink, ask_text, ioc_read, opening
from optima_bridge.model import DeviceIdentity

DESCRIPTOR_BYTES = 4096
NAME, UNIQ = 0x04, 0x08
HIDIOCGRDESCSIZE = ioc_read("H", 0x01, 4)
HIDIOCGRDESC = ioc_read("H", 0x02, 4 + DESCRIPTOR_BYTES)


def hidiocginput(size_bytes: int) -> int:
    """The request for an input report of `size_bytes`, the byte for its id included (_IOWR)."""
    return 3 << 30 | size_bytes << 16 | ord("H") << 8 | 0x0A


class HidrawLink(FdLink):
    """An open HID device. Asking waits for the device, up to 5 s for a USB one that is stuck: it has a thread of its own."""

    def __init__(self, fd: int, name: str, identity: DeviceIdentity = UNNAMED, *, descriptor: bytes = b"") -> None:
        super().__init__(fd, name, identity)
        self.descriptor = descriptor
        self._asker = ThreadPoolExecutor(1, "hidraw")  # its thread starts with the first question

    @classmethod
    def open(cls, port: str) -> HidrawLink:
        """Open the node behind ``hidraw:``.

        Raises:
            LinkNotFound, LinkPermission, LinkError: why it cannot be opened.
        """
        with opening(port, "a hidraw device") as fd:
            size = bytearray(4)
            fcntl.ioctl(fd, HIDIOCGRDESCSIZE, size)
            descriptor = size + bytes(DESCRIPTOR_BYTES)
            fcntl.ioctl(fd, HIDIOCGRDESC, descriptor)
            [size_bytes] = struct.unpack("@I", size)
            identity = DeviceIdentity(ask_text(fd, "H", NAME), ask_text(fd, "H", UNIQ, needed=False))
            return cls(fd, port, identity, descriptor=bytes(descriptor[4 : 4 + size_bytes]))

    async def ask(self, report_id: int, size_bytes: int) -> bytes | None:
        if self._error:
            raise self._error
        own = os.dup(self._fd)  # the number must mean this device for as long as the thread needs it
        asked = self._asker.submit(_get_input_report, own, report_id, size_bytes)
        asked.add_done_callback(lambda _: os.close(own))
        try:
            return await asyncio.wrap_future(asked)
        except OSError as error:
            if error.errno == errno.ENODEV:
                raise self._lose(error) from error
            return None  # EIO, EPIPE, ETIMEDOUT: the device refuses; EINVAL, ENOTTY: the kernel knows no such question

    def close(self) -> None:
        super().close()
        self._asker.shutdown(wait=False, cancel_futures=True)


def _get_input_report(fd: int, report_id: int, size_bytes: int) -> bytes:
    """The report as read(2) would give it. The kernel puts the id in front of it, 0 where there are none."""
    report = bytearray([report_id]) + bytes(size_bytes)
    size_bytes = fcntl.ioctl(fd, hidiocginput(len(report)), report)
    return bytes(report[0 if report_id else 1 : size_bytes])

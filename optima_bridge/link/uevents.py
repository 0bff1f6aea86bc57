"""Hearing of devices that come and go, over netlink: a hint to look, never a fact to publish.

Messages may get lost, and a container may get none: whoever listens also looks now and then.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from pathlib import Path

from optima_bridge.errors import FrameError
from optima_bridge.wire.uevent import Uevent, decode

NETLINK_KOBJECT_UEVENT = 15
KERNEL_GROUP, UDEV_GROUP = 1, 2
UDEV_CONTROL = Path("/run/udev/control")  # is there while udev runs
MAX_MESSAGE_BYTES = 16384  # the kernel's are at most 2 KiB, udev's about twice that
RECEIVE_BUFFER_BYTES = 1 << 20
CREDENTIALS = struct.Struct("3i")  # pid, uid, gid


class Uevents:
    """One socket, read on readiness by the running loop.

    Where udev runs it is udev that is listened to, for by then nodes, links and their modes are as the rules want them; else
    the kernel.

    Args:
        heard: called with each message, and with None after some were lost: anything may have happened.

    Raises:
        OSError: there is no such socket here.
    """

    def __init__(self, heard: Callable[[Uevent | None], None]) -> None:
        self._heard = heard
        self._loop = asyncio.get_running_loop()
        self._socket = socket.socket(
            socket.AF_NETLINK, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT
        )
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            self._socket.bind((0, UDEV_GROUP if UDEV_CONTROL.exists() else KERNEL_GROUP))
        except OSError:
            self._socket.close()
            raise
        self._loop.add_reader(self._socket, self._readable)

    def close(self) -> None:
        """Give the socket back. Safe to call twice, and after the loop has ended."""
        if self._socket.fileno() >= 0 and not self._loop.is_closed():
            self._loop.remove_reader(self._socket)
        self._socket.close()

    def _readable(self) -> None:
        while self._socket.fileno() >= 0:  # who hears it may close us
            try:
                datagram, ancillary, _, sender = self._socket.recvmsg(
                    MAX_MESSAGE_BYTES, socket.CMSG_SPACE(CREDENTIALS.size)
                )
            except BlockingIOError:
                return
            except OSError:  # ENOBUFS: the buffer ran over
                self._heard(None)
                return
            if _is_trusted(sender, ancillary):
                try:
                    event = decode(datagram)
                except FrameError:
                    continue
                self._heard(event)


def _is_trusted(sender: tuple[int, int], ancillary: list[tuple[int, int, bytes]]) -> bool:
    """Sent to all by the kernel (which has no port number) or, in udev's group, by root."""
    port, groups = sender
    uids = [
        CREDENTIALS.unpack(data)[1]
        for level, kind, data in ancillary
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS)
    ]
    return (groups == UDEV_GROUP and uids == [0]) or (groups == KERNEL_GROUP and port == 0)

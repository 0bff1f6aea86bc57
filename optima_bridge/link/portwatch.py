"""Waiting for ports to appear, so that a replug is seen at once and idle costs nothing.

A port that is a path is waited for with inotify on the directory it will be in; one that is none, with the uevents of the
subsystem that its device belongs to.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from optima_bridge.link.base import device_path, scheme_of
from optima_bridge.link.uevents import Uevents
from optima_bridge.wire.uevent import Uevent

if TYPE_CHECKING:
    from asyncinotify import Inotify

SUBSYSTEMS = {"usb": "usb", "pcsc": "usb", "pkcs11": "usb"}
"""Where a device turns up that is reached by a port of this scheme; readers and tokens are on USB."""


class PortWatch:
    """Shared by all keepers; holds one inotify descriptor and one netlink socket, each from the first wait that needs it on.

    Closing an inotify descriptor holds the loop for 10 ms.
    """

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self._pathless: dict[asyncio.Event, str] = {}
        self._uevents: Uevents | None = None
        self._inotify: Inotify | None = None
        self._watched: set[Path] = set()

    async def wait_for(self, port: str, timeout_s: float) -> bool:
        """Wait until `port` exists, or a device was plugged in that may be it; False where none was after `timeout_s` seconds.

        Where the kernel gives no inotify descriptor or watch (fs.inotify.max_user_*), or no netlink socket (containers), only
        the end of the time is left.
        """
        if (path := device_path(port)) is None:
            return await self._plugged_in(SUBSYSTEMS.get(scheme_of(port)), timeout_s)
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed.clear()
                    with contextlib.suppress(OSError):
                        self._watch(Path(path))
                    if port_exists(port):
                        return True
                    await changed.wait()
        except TimeoutError:
            return port_exists(port)
        finally:
            self._waiting.discard(changed)

    def close(self) -> None:
        """Give the descriptors back."""
        if self._uevents is not None:
            self._uevents.close()
            self._uevents = None
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._watched.clear()

    async def _plugged_in(self, subsystem: str | None, timeout_s: float) -> bool:
        if subsystem is None:
            await asyncio.sleep(timeout_s)
            return False
        added = asyncio.Event()
        self._pathless[added] = subsystem
        try:
            if self._uevents is None:
                with contextlib.suppress(OSError):
                    self._uevents = Uevents(self._heard)
            async with asyncio.timeout(timeout_s):
                return await added.wait()
        except TimeoutError:
            return False
        finally:
            del self._pathless[added]

    def _heard(self, event: Uevent | None) -> None:
        for added, subsystem in self._pathless.items():
            if event is None or (event.action, event.subsystem) == ("add", subsystem):
                added.set()

    def _watch(self, port: Path) -> None:
        from asyncinotify import Inotify, Mask

        if self._inotify is None:
            # Its own get() is not used: cancelled, it forgets the descriptor a turn of the loop later, when the number
            # may belong to the port that was just opened.
            self._inotify = Inotify(sync_timeout=0)
            asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)
        # Once more after each new watch: a deeper directory may have come up in between.
        while (directory := next(parent for parent in port.parents if parent.is_dir())) not in self._watched:
            self._inotify.add_watch(directory, Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB | Mask.DELETE_SELF)
            self._watched.add(directory)

    def _readable(self) -> None:
        assert self._inotify is not None
        while (event := self._inotify.sync_get()) is not None:
            if event.watch is None or event.watch.path not in self._watched or not event.watch.path.is_dir():
                self._watched.clear()  # a directory went away, or the queue ran over: look again from the start
        for changed in self._waiting:
            changed.set()


def port_exists(port: str) -> bool:
    """Whether something is at this port's path; False too where it has none, or this user may not look."""
    path = device_path(port)
    try:
        return path is not None and Path(path).exists()
    except OSError:
        return False

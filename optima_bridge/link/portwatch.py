"""Waiting for ports to appear: inotify on the directory they will be in, so that a replug is seen at once and idle costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from optima_bridge.link.base import device_path

if TYPE_CHECKING:
    from asyncinotify import Inotify


class PortWatch:
    """Shared by all keepers; holds one inotify descriptor from the first wait on: closing one holds the loop for 10 ms."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self._inotify: Inotify | None = None
        self._watched: set[Path] = set()

    async def wait_for(self, port: str, timeout_s: float) -> bool:
        """Wait until `port` exists; False where it does not after `timeout_s` seconds.

        Where the kernel gives no inotify descriptor or watch (fs.inotify.max_user_*), only the end of the time is left.
        """
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed.clear()
                    with contextlib.suppress(OSError):
                        if (path := device_path(port)) is not None:
                            self._watch(Path(path))
                    if port_exists(port):
                        return True
                    await changed.wait()
        except TimeoutError:
            return port_exists(port)
        finally:
            self._waiting.discard(changed)

    def close(self) -> None:
        """Give the descriptor back."""
        if self._inotify is not None:
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._watched.clear()

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
    """Whether something is at this port's path, if it has one; False too where this user may not look."""
    path = device_path(port)
    try:
        return path is None or Path(path).exists()
    except OSError:
        return False

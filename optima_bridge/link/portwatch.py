"""Waiting for ports to appear: inotify on the directory they will be in, so that a replug is seen at once and idle costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from asyncinotify import Inotify


class PortWatch:
    """Shared by all keepers; holds one inotify descriptor, and only while somebody waits."""

    def __init__(self) -> None:
        self._waiting: set[asyncio.Event] = set()
        self._inotify: Inotify | None = None
        self._watched: set[Path] = set()

    async def wait_for(self, port: str, timeout_s: float) -> bool:
        """Wait until `port` exists or its permissions change; False after `timeout_s` seconds without either."""
        changed = asyncio.Event()
        self._waiting.add(changed)
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    changed.clear()
                    self._watch(Path(port))
                    if Path(port).exists():
                        return True
                    await changed.wait()
        except TimeoutError:
            return False
        finally:
            self._waiting.discard(changed)
            if not self._waiting:
                self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        if self._inotify is not None:
            # Not asyncinotify's own get(): cancelled, it forgets the descriptor a turn of the loop later, when the
            # number belongs to the port that was just opened.
            asyncio.get_running_loop().remove_reader(self._inotify.fd)
            self._inotify.close()
            self._inotify = None
        self._watched.clear()

    def _watch(self, port: Path) -> None:
        from asyncinotify import Inotify, Mask

        if self._inotify is None:
            self._inotify = Inotify(sync_timeout=0)
            asyncio.get_running_loop().add_reader(self._inotify.fd, self._readable)
        directory = next(parent for parent in port.parents if parent.is_dir())
        if directory not in self._watched:
            with contextlib.suppress(OSError):  # it went away just now, or no watch is left: the time-out remains
                self._inotify.add_watch(directory, Mask.CREATE | Mask.MOVED_TO | Mask.ATTRIB | Mask.DELETE_SELF)
                self._watched.add(directory)

    def _readable(self) -> None:
        assert self._inotify is not None
        while (event := self._inotify.sync_get()) is not None:
            if event.watch is None or event.watch.path not in self._watched or not event.watch.path.is_dir():
                self._watched.clear()  # a directory went away, or the queue ran over: look again from the start
        for changed in self._waiting:
            changed.set()

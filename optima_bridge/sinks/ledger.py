"""Which retained topics the broker may hold of us: a small file that outlives configurations.

A retained document stays on the broker until somebody clears it. When a device is removed or renamed, or the node gets
another name, nobody stands for its documents any more and subscribers see a ghost. So each topic is listed here before
its first document leaves, and is struck off once the broker took its clearing.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from optima_bridge.log import get_logger

WAIT_S = 1.0  # a hanging disk delays a document by this and holds nothing up for good

log = get_logger(__name__)


class RetainedLedger:
    """Topics in a text file, one a line. Used from the event loop's thread only.

    Args:
        path: read now, blocking; an absent or unreadable file is an empty ledger.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._topics = _read(path)
        self._thread = ThreadPoolExecutor(1, "ledger")  # one, so that no older content replaces a newer one

    def __contains__(self, topic: str) -> bool:
        return topic in self._topics

    def ghosts(self, retained: Mapping[str, bytes]) -> list[str]:
        """Topics that are listed and that nobody stands for now."""
        return sorted(self._topics - retained.keys())

    async def add(self, topics: Iterable[str]) -> None:
        """List `topics` durably; returns after WAIT_S at the latest, for documents are worth more than the ledger."""
        if not self._topics.issuperset(new := set(topics)):
            self._topics |= new
            await self._save()

    async def strike(self, topics: Iterable[str]) -> None:
        """These are cleared."""
        self._topics -= set(topics)
        await self._save()

    async def _save(self) -> None:
        text = "".join(f"{topic}\n" for topic in sorted(self._topics))
        try:
            async with asyncio.timeout(WAIT_S):
                await asyncio.get_running_loop().run_in_executor(self._thread, _replace, self._path, text)
        except OSError as error:  # TimeoutError among them
            log.warning("journal.failed", what="the list of retained topics", path=str(self._path), why=str(error))


def _read(path: Path) -> set[str]:
    try:
        return set(path.read_text(encoding="utf-8").split())
    except (OSError, UnicodeDecodeError):
        return set()


def _replace(path: Path, text: str) -> None:
    """Write the file anew: after a power cut there is the old one or the new one, whole."""
    new = path.with_name(path.name + ".new")
    with new.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

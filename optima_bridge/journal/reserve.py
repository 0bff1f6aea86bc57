"""Room on the disk that is ours already: given up when the disk is full, so that the journal can tidy itself.

With no byte free SQLite can neither append to its log nor fold the log into a growing database, not even to delete. The
reserve is larger than the log, so folding works once it is gone; then delivered records make room inside the file.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

RESERVE_BYTES = 4 << 20  # twice the log's usual size


class Reserve:
    """A file of RESERVE_BYTES in the journal's directory, while the disk has room to spare."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / "journal.reserve"

    def hold(self) -> None:
        """Take the room, unless it is held or taking it would make the disk nearly full."""
        with suppress(OSError):  # without a reserve everything works, until the disk is full
            disk = os.statvfs(self._path.parent)
            if self._path.exists() or disk.f_bavail * disk.f_frsize < 4 * RESERVE_BYTES:
                return
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, RESERVE_BYTES)
            finally:
                os.close(descriptor)

    def give_up(self) -> None:
        """Give the room back to the disk."""
        with suppress(OSError):
            self._path.unlink(missing_ok=True)

"""What a device must not forget when the daemon ends: a few words in a file of its own, beside the journal."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Protocol, runtime_checkable

from optima_bridge.errors import DeviceError


class Keepsake:
    """The words that one device keeps; whole, the old ones or the new ones, whenever the power fails."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def read(self) -> str:
        """The words; empty: there are none. Raises DeviceError: there may be some, and they cannot be read."""
        try:
            return await asyncio.to_thread(self._path.read_text, encoding="utf-8")
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            raise DeviceError(
                f"{self._path} cannot be read: {error}",
                cause="what this device must not forget stands there",
                next_step=f"make it readable for the service: ls -l {self._path}",
            ) from error

    async def write(self, words: str) -> None:
        """Keep these in place of the others; they are on disk when this returns. Raises OSError."""
        await asyncio.to_thread(self._write, words)

    def _write(self, words: str) -> None:
        new = self._path.with_name(self._path.name + ".new")
        with new.open("w", encoding="utf-8") as file:
            file.write(words)
            file.flush()
            os.fsync(file.fileno())
        new.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


@runtime_checkable
class HasKeepsake(Protocol):
    """A driver whose device must not forget. The keeper sets `keepsake` before start(); None: there is nowhere to keep it."""

    keepsake: Keepsake | None

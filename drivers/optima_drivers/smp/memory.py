"""The simulated controller's memory: files and settings, and the power that can be cut at each operation on them.

An operation is one request: a part of a file written, settings saved, a setting deleted, or anything that changes nothing
which outlives the power. In the middle of one a part of the bytes, or of the settings, is there and the rest is not. Each setting by itself is old or new, as Zephyr's
NVS, ZMS and FCB keep it: a record counts once its check is written.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum

import msgspec


class PowerCut(BaseException):
    """The power of the device is gone; raised out of the operation in which it went."""


class When(StrEnum):
    """Where in an operation the power goes."""

    BEFORE = "before"
    TORN = "torn"
    AFTER = "after"


class Image(msgspec.Struct):
    """What outlives the power: `files` by path, and the `saved` settings."""

    files: dict[str, bytes] = {}
    saved: dict[str, bytes] = {}


class Memory:
    """Files and settings of one device.

    Attributes:
        image: what outlives the power.
        settings: their present values, lost with the power where they were not saved.
        operations: how many were begun since `cut_at` was called last.
        writes: how many operations since it was made changed what outlives the power.
        powered: False after a cut, until restart().
        on_operation: called before each operation; `on_write` after each write.
    """

    def __init__(self) -> None:
        self.image = Image()
        self.settings: dict[str, bytes] = {}
        self.operations = 0
        self.writes = 0
        self.on_operation: Callable[[], None] = lambda: None
        self.on_write: Callable[[], None] = lambda: None
        self.powered = True
        self._cut: tuple[int, When] | None = None
        self._chance = random.Random(0)  # noqa: S311 - tears, the same ones each time

    def cut_at(self, operation: int, when: When = When.BEFORE, seed: int = 0) -> None:
        """Cut the power at that operation from now, 1 is the next one; `seed` chooses a tear."""
        self.operations = 0
        self._cut = operation, when
        self._chance.seed(seed)

    def restart(self) -> None:
        """Give the power back; the settings are those that were saved."""
        self.powered, self._cut = True, None
        self.settings = dict(self.image.saved)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One operation that changes nothing which outlives the power."""
        with self._operation():
            yield

    def write(self, name: str, offset: int, data: bytes) -> None:
        """Write into a file from `offset` on; what was there behind it is gone before that."""
        with self._operation() as part:
            kept = self.image.files[name][:offset] if offset else b""
            self.image.files[name] = kept + data[: int(len(data) * part)]
            self._wrote()

    def save(self, root: str) -> None:
        """Keep the settings below `root` (all: ``""``), one after the other."""
        with self._operation() as part:
            changed = [name for name, value in self.settings.items() if self.image.saved.get(name) != value]
            below = [name for name in changed if not root or name == root or name.startswith(f"{root}/")]
            for name in below[: round(len(below) * part)]:
                self.image.saved[name] = self.settings[name]
            if below:
                self._wrote()

    def delete(self, name: str) -> None:
        """Forget the saved value of a setting; the present one stays."""
        with self._operation() as part:
            if round(part):
                self.image.saved.pop(name, None)
            self._wrote()

    def _wrote(self) -> None:
        self.writes += 1
        self.on_write()

    @contextmanager
    def _operation(self) -> Iterator[float]:
        """Gives how much of it happens: 1.0, or less where it is torn."""
        if not self.powered:
            raise PowerCut
        self.on_operation()
        self.operations += 1
        if self._cut is None or self.operations != self._cut[0]:
            yield 1.0
            return
        self.powered = False
        if self._cut[1] is not When.BEFORE:
            yield self._chance.random() if self._cut[1] is When.TORN else 1.0
        raise PowerCut

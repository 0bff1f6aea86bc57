"""The loopback device's memory, and the power that can be cut at each single operation of it.

An operation is one byte programmed, one page erased, or one read of any length. Memory outlives the power; what is in
the middle of an operation when the power goes is torn: some of its bits have changed, the others not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import StrEnum

from optima_drivers.loopback.slots import BLANK, PAGE_BYTES


class PowerCut(BaseException):
    """The power of the device is gone; raised out of the operation in which it went, and out of all later ones."""


class When(StrEnum):
    """Where in an operation the power goes."""

    BEFORE = "before"
    TORN = "torn"
    AFTER = "after"


class Flash:
    """Memory of `size_bytes`, all FF when new.

    Attributes:
        content: what is in it; survives the power.
        operations: how many were begun since `cut_at` was called last.
        writes: how many operations since it was made could change something.
        powered: False after a cut, until restart().
        on_operation: called before each operation.
    """

    def __init__(self, size_bytes: int) -> None:
        self.content = bytearray([BLANK]) * size_bytes
        self.operations = 0
        self.writes = 0
        self.on_operation: Callable[[], None] = lambda: None
        self.powered = True
        self._cut: tuple[int, When] | None = None
        self._chance = random.Random(0)  # noqa: S311 - tears, the same ones each time

    def cut_at(self, operation: int | None, when: When = When.BEFORE, seed: int = 0) -> None:
        """Cut the power at that operation from now, 1 is the next one; None: not any more. `seed` chooses a tear."""
        self.operations = 0
        self._cut = None if operation is None else (operation, when)
        self._chance.seed(seed)

    def restart(self) -> None:
        """Give the power back."""
        self.powered = True
        self._cut = None

    def read(self, address: int, size_bytes: int) -> bytes:
        self._begin()
        data = bytes(self.content[address : address + size_bytes])
        self._end()
        return data

    def program(self, address: int, data: bytes) -> None:
        """Turn bits from 1 to 0; none goes back to 1."""
        for place, byte in enumerate(data, address):
            kept = self._begin()
            self.writes += 1
            self.content[place] &= byte | kept()
            self._end()

    def erase(self, address: int) -> None:
        """Turn all bits of the page at `address` to 1."""
        first = address - address % PAGE_BYTES
        kept = self._begin()
        self.writes += 1
        page = self.content[first : first + PAGE_BYTES]
        erased = bytes([BLANK]) * PAGE_BYTES if kept is _none else bytes(byte | BLANK & ~kept() for byte in page)
        self.content[first : first + PAGE_BYTES] = erased
        self._end()

    def _begin(self) -> Callable[[], int]:
        """Returns the bits of a byte that keep their old value: none, unless the operation is torn."""
        if not self.powered:
            raise PowerCut
        self.on_operation()
        self.operations += 1
        if self._cut is None or self.operations != self._cut[0]:
            return _none
        self.powered = False
        if self._cut[1] is When.BEFORE:
            raise PowerCut
        return self._some if self._cut[1] is When.TORN else _none

    def _end(self) -> None:
        if not self.powered:
            raise PowerCut

    def _some(self) -> int:
        return self._chance.getrandbits(8)


def _none() -> int:
    return 0

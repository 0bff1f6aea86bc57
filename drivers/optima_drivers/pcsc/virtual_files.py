"""What a simulated card keeps without power: objects, keys, the PIN's counter; and how it loses them half-way.

Cards differ in what a power cut leaves of an object that was being written (`Writes`), so the simulation is each of them.
Kept in one JSON file that is replaced as a whole, so that killing the process is a power cut.
"""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path

from optima_drivers.pcsc import tlv

PIN_TRIES = 3


class Writes(StrEnum):
    """How a card replaces an object that comes in several pieces."""

    ATOMIC = "atomic"
    """All of it after the last piece."""
    IN_PLACE = "in-place"
    """Each piece over the old content as it comes; the new length first."""
    ANEW = "anew"
    """The old content is deleted first, and the new one grows."""


class CardFiles:
    """A card's memory; `path` None: it lives as long as the process."""

    def __init__(self, path: Path | None, writes: Writes) -> None:
        self.writes = writes
        self.objects: dict[int, bytes] = {}
        self.keys: dict[int, tuple[int, bytes]] = {}  # slot: algorithm, PKCS#8 DER
        self.pin_tries = PIN_TRIES
        self._path = path
        if path is not None and path.exists():
            self.load(path.read_bytes())

    def dump(self) -> bytes:
        """All of it."""
        return json.dumps(
            {
                "objects": {f"{tag:06X}": value.hex() for tag, value in self.objects.items()},
                "keys": {f"{slot:02X}": [algorithm, key.hex()] for slot, (algorithm, key) in self.keys.items()},
                "pin_tries": self.pin_tries,
            }
        ).encode()

    def load(self, dumped: bytes) -> None:
        """Put it back."""
        document = json.loads(dumped)
        self.objects = {int(tag, 16): bytes.fromhex(value) for tag, value in document["objects"].items()}
        self.keys = {int(slot, 16): (kind, bytes.fromhex(key)) for slot, (kind, key) in document["keys"].items()}
        self.pin_tries = document["pin_tries"]

    def save(self) -> None:
        """Make what was changed last through a loss of power."""
        if self._path is not None:
            beside = self._path.with_suffix(".new")
            beside.write_bytes(self.dump())
            beside.replace(self._path)

    def write(self, come: bytes, *, whole: bool) -> bool:
        """Take ``5C … 53 …`` as far as it has `come`; False where it is no such thing."""
        try:
            tag, size, content = _split(come)
        except IndexError:
            return not whole
        if whole and size != len(content):
            return False
        if whole or self.writes is Writes.ANEW:
            self.objects[tag] = content
        elif self.writes is Writes.IN_PLACE:
            stale = self.objects.get(tag, b"")[len(content) : size]
            self.objects[tag] = (content + stale).ljust(size, b"\x00")
        if not self.objects.get(tag, b"\x00"):
            del self.objects[tag]
        self.save()
        return True


def _split(come: bytes) -> tuple[int, int, bytes]:
    """Tag, length and content so far of an object that comes. Raises IndexError: not enough of it is here, or it is none."""
    if come[0] != 0x5C or come[1] != 3 or come[5] != 0x53:
        raise IndexError
    first = come[6]
    count = first & 0x7F if first & 0x80 else 0
    size = int.from_bytes(come[7 : 7 + count]) if count else first
    content = come[7 + count :]
    if tlv.encode(0x53, bytes(size))[: 2 + count] != come[5 : 7 + count]:  # the shortest form, as the standard wants
        raise IndexError
    return int.from_bytes(come[2:5]), size, content

"""How two files and four settings are one credential that no power cut can take away. Sans-io.

    {directory}/optima_a, optima_b   file      a certificate, DER, nothing else
    optima/a, optima/b               32 bytes  SHA-256 of what the file is meant to hold: it is valid if it does
    optima/active                    5 bytes   slot u8, generation u32: the file that the terminal uses, FF none; big-endian
    optima/confirmed                 4 bytes   the generation that was used once
    optima/serial                    text      who the device is; the firmware's own, never written

The spare file is written first, its digest after it, and five bytes make it count. No value is longer than 32 bytes,
which is what a Zephyr firmware passes if nobody has configured it for more (CONFIG_MCUMGR_GRP_SETTINGS_VALUE_LEN).
"""

from __future__ import annotations

import struct

import msgspec

SLOTS = ("a", "b")
NO_SLOT = 0xFF
ACTIVE, CONFIRMED, SERIAL = "optima/active", "optima/confirmed", "optima/serial"
ROOT = "optima"
NOTHING = b"\x00"
"""What an erased file holds: the protocol can neither delete a file nor make it empty."""
_POINTER = struct.Struct(">BI")
_GENERATION = struct.Struct(">I")


class Pointer(msgspec.Struct, frozen=True):
    """Which slot the terminal uses, or NO_SLOT; `generation` counts how often one was activated."""

    slot: int
    generation: int

    def encode(self) -> bytes:
        return _POINTER.pack(self.slot, self.generation)


def pointer(value: bytes | None) -> Pointer | None:
    """From the value of ACTIVE; None where it is none: nothing was activated yet."""
    if value is None or len(value) != _POINTER.size or value[0] not in (*range(len(SLOTS)), NO_SLOT):
        return None
    return Pointer(*_POINTER.unpack(value))


def generation(number: int) -> bytes:
    """The value of CONFIRMED."""
    return _GENERATION.pack(number)


def digest_key(slot: int) -> str:
    """The setting that has the SHA-256 of a slot."""
    return f"{ROOT}/{SLOTS[slot]}"


def file(directory: str, slot: int) -> str:
    """The file of a slot."""
    return f"{directory}/{ROOT}_{SLOTS[slot]}"

"""Certificates in raw memory: how two regions of it are one credential that no power cut can take away. Sans-io.

    region (2,304 bytes)                       record (16 bytes, big-endian)
    ┌────────┬─────────────────────┐           ┌────────────┬──────┬────────┬────┬───────────┬───────────┐
    │ page 0 │ pages 1 … 8         │           │ generation │ size │ CRC-32 │ FF │ activated │ confirmed │
    │records │ data, 2,048 bytes   │           │     4      │  2   │   4    │ 4  │     1     │     1     │
    └────────┴─────────────────────┘           └────────────┴──────┴────────┴────┴───────────┴───────────┘

The CRC is over generation, size and data. Flash programs bits from 1 to 0 and erases pages of 256 bytes to FF, so each of
the last two bytes is written once, to 00. The data comes first, the record after it, and one byte makes it count: of all
valid records with `activated` 00 in both regions the highest generation is the terminal's certificate. A region that is
activated again gets one more record with the next generation.
"""

from __future__ import annotations

import struct
import zlib

import msgspec

PAGE_BYTES = 256
DATA_PAGES = 8
REGION_BYTES = PAGE_BYTES * (1 + DATA_PAGES)
MAX_SIZE_BYTES = PAGE_BYTES * DATA_PAGES
RECORD_BYTES = 16
MAX_GENERATION = 0xFFFF_FFFE
ACTIVATED_AT, CONFIRMED_AT = 14, 15  # in a record
DONE, BLANK = 0x00, 0xFF
_HEADER = struct.Struct(">IHI")


class Record(msgspec.Struct, frozen=True):
    """A valid record, as it was found.

    Attributes:
        index: place in the page, 0 … 15.
        generation, size_bytes: of the certificate in the same region.
        activated, confirmed: the bytes; DONE, BLANK, or torn in between.
    """

    index: int
    generation: int
    size_bytes: int
    activated: int
    confirmed: int

    @property
    def active(self) -> bool:
        """Whether it takes part in the choice of the terminal."""
        return self.activated == DONE


def header(generation: int, certificate: bytes) -> bytes:
    """The first 10 bytes of a record: written after the data, before anything counts."""
    return _HEADER.pack(generation, len(certificate), _crc(generation, certificate))


def newest(page: bytes, data: bytes) -> Record | None:
    """The valid record that counts in a region: the active one of the highest generation, else the highest.

    Args:
        page: the region's page of records, 256 bytes.
        data: what follows it, at least `longest(page)` bytes.
    """
    valid = [record for index in range(len(page) // RECORD_BYTES) if (record := _parse(page, index, data))]
    return max(valid, key=lambda record: (record.active, record.generation), default=None)


def free_index(page: bytes) -> int | None:
    """Where the next record goes: behind everything that was ever programmed; None where the page is full."""
    used = len(page.rstrip(bytes([BLANK])))
    index = -(-used // RECORD_BYTES)
    return index if index < len(page) // RECORD_BYTES else None


def longest(page: bytes) -> int:
    """How much data any record of the page could be about, bytes."""
    return max(_fields(page, index)[1] for index in range(len(page) // RECORD_BYTES))


def _fields(page: bytes, index: int) -> tuple[int, int, int]:
    """Generation, size and CRC; size 0 where the record cannot be valid."""
    generation, size_bytes, crc = _HEADER.unpack_from(page, index * RECORD_BYTES)
    return generation, size_bytes if 0 < size_bytes <= MAX_SIZE_BYTES else 0, crc


def _parse(page: bytes, index: int, data: bytes) -> Record | None:
    generation, size_bytes, crc = _fields(page, index)
    if size_bytes == 0 or generation > MAX_GENERATION or _crc(generation, data[:size_bytes]) != crc:
        return None
    at = index * RECORD_BYTES
    return Record(index, generation, size_bytes, page[at + ACTIVATED_AT], page[at + CONFIRMED_AT])


def _crc(generation: int, data: bytes) -> int:
    return zlib.crc32(data, zlib.crc32(struct.pack(">IH", generation, len(data))))

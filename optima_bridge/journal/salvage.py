"""Reads rows out of a damaged SQLite file and its write-ahead log, page by page, without SQLite.

SQLite stops at the first page that is wrong. The rows on all other pages are intact, and a journal's rows say by
themselves what they are and where they belong. So every b-tree page found anywhere is read on its own:

    database   page, page, page, …                              file format, section 1.3
    log        header (32) [frame header (24) page] [ … ] …     section 4.1
    page       type, cell count, … cell pointers … cells        section 1.6; 0x0a index leaf, 0x02 index interior
    cell       [left child (4)] size, header, values [overflow] section 1.6, 2.1

(https://www.sqlite.org/fileformat2.html.) Old versions of a page come along: they hold rows that were once true. Records
never change; for cursors the highest wins.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

import msgspec

from optima_bridge.journal.store import PAGE_BYTES
from optima_bridge.journal.words import Denial, Position
from optima_bridge.model import Record

LOG_HEADER_BYTES = 32
FRAME_HEADER_BYTES = 24
FRAME_BYTES = FRAME_HEADER_BYTES + PAGE_BYTES
INDEX_LEAF, INDEX_INTERIOR = 0x0A, 0x02
MAX_LOCAL = (PAGE_BYTES - 12) * 64 // 255 - 23  # section 1.6: an index cell keeps at most this many bytes on its page
MIN_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
INTEGER_BYTES = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # serial types, section 2.1
MAX_ROW_BYTES = 1 << 20

Row = Record | Denial | tuple[str, Position] | tuple[str, int]
"""A record, a denial, a cursor ``(sink, position)`` or a number of the table meta ``(key, value)``."""


class _NotARow(Exception):
    """Bytes that cannot be a row; never seen outside."""


def read_rows(database: Path) -> Iterator[Row]:
    """Every row that can still be read, in no order, some more than once."""
    log = database.with_name(database.name + "-wal")
    with ExitStack() as files:
        pages: BinaryIO = files.enter_context(database.open("rb"))
        versions = [(number, (pages, offset)) for number, offset in _pages_of(pages)]
        if log.exists():
            frames: BinaryIO = files.enter_context(log.open("rb"))
            versions += [(number, (frames, offset)) for number, offset in _frames_of(frames)]
        newest = dict(versions)
        for _, place in versions:
            yield from _read_page(_load(place), newest)


def log_is_broken(log: Path, accepted: int) -> bool:
    """Whether committed frames follow behind the `accepted` ones: SQLite ends a log silently at the first bad checksum.

    A frame carries the log's salts while it belongs to it, and a size where it ends a transaction (section 4.1). An end of
    the program leaves frames behind without such a last one; damage leaves it out of reach.
    """
    try:
        raw = log.read_bytes()
    except FileNotFoundError:
        return False
    if accepted == 0 and not _header_is_sound(raw):
        return len(raw) >= LOG_HEADER_BYTES + FRAME_BYTES
    salts = raw[16:24]
    for start in range(LOG_HEADER_BYTES + accepted * FRAME_BYTES, len(raw) - FRAME_BYTES + 1, FRAME_BYTES):
        if raw[start + 8 : start + 16] == salts and raw[start + 4 : start + 8] != bytes(4):
            return True
    return False


def _header_is_sound(raw: bytes) -> bool:
    """The checksum of the log's own header: section 4.2."""
    if len(raw) < LOG_HEADER_BYTES:
        return False
    order = ">" if raw[3] & 1 else "<"
    words = struct.unpack(f"{order}6I", raw[:24])
    first = second = 0
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return struct.unpack(">2I", raw[24:32]) == (first, second)


def _pages_of(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """(page number, offset) of each page of the database; numbers start at 1."""
    for index in range(file.seek(0, 2) // PAGE_BYTES):
        yield index + 1, index * PAGE_BYTES


def _frames_of(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """(page number, offset) of each page in the log, oldest first as far as the log tells."""
    for start in range(LOG_HEADER_BYTES, file.seek(0, 2) - FRAME_BYTES + 1, FRAME_BYTES):
        file.seek(start)
        yield int.from_bytes(file.read(4), "big"), start + FRAME_HEADER_BYTES


_Place = tuple[BinaryIO, int]


def _read_page(page: bytes, newest: dict[int, _Place]) -> Iterator[Row]:
    """The rows on one page; `newest` finds the pages that their ends overflowed to."""
    if page[0] not in (INDEX_LEAF, INDEX_INTERIOR):
        return
    header, child = (8, 0) if page[0] == INDEX_LEAF else (12, 4)
    count = min(int.from_bytes(page[3:5], "big"), (PAGE_BYTES - header) // 2)
    for (pointer,) in struct.iter_unpack(">H", page[header : header + 2 * count]):
        try:
            yield _row(_values(_payload(page, pointer + child, newest)))
        except (_NotARow, IndexError, msgspec.MsgspecError, UnicodeDecodeError):
            continue


def _load(place: _Place) -> bytes:
    file, offset = place
    file.seek(offset)
    return file.read(PAGE_BYTES)


def _payload(page: bytes, at: int, newest: dict[int, _Place]) -> bytes:
    """The bytes of one cell, joined from its page and its overflow pages."""
    size, at = _varint(page, at)
    if size > MAX_ROW_BYTES:
        raise _NotARow
    if size <= MAX_LOCAL:
        payload = page[at : at + size]
    else:
        local = MIN_LOCAL + (size - MIN_LOCAL) % (PAGE_BYTES - 4)
        local = local if local <= MAX_LOCAL else MIN_LOCAL
        parts, have = [page[at : at + local]], local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        while have < size:
            if following not in newest:
                raise _NotARow
            overflow = _load(newest[following])
            following = int.from_bytes(overflow[:4], "big")
            parts.append(overflow[4 : 4 + size - have])
            have += PAGE_BYTES - 4
        payload = b"".join(parts)
    if len(payload) != size:
        raise _NotARow
    return payload


def _values(payload: bytes) -> tuple[int | str | bytes, ...]:
    """The values of a record in SQLite's sense (section 2.1)."""
    header_end, at = _varint(payload, 0)
    body = header_end
    values: list[int | str | bytes] = []
    while at < header_end:
        kind, at = _varint(payload, at)
        size = INTEGER_BYTES.get(kind, 0) if kind < 12 else (kind - 12) // 2
        raw, body = payload[body : body + size], body + size
        if kind in INTEGER_BYTES:
            values.append(int.from_bytes(raw, "big", signed=True))
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind >= 12:
            values.append(raw.decode() if kind & 1 else raw)
        else:
            raise _NotARow
    if body != len(payload):
        raise _NotARow
    return tuple(values)


def _row(values: tuple[int | str | bytes, ...]) -> Row:
    """The row of the journal that has values of these types; section by section the columns of store.SCHEMA."""
    match values:
        case (int() as epoch, int() as seq, int() as wall_ns, str() as topic, bytes() as payload) if epoch > 0 < seq:
            msgspec.json.decode(payload)  # what is damaged inside is no document any more
            return Record(epoch, seq, wall_ns, topic, payload)
        case (int() as epoch, int() as seq, str() as sink, int() as reason):
            return Denial(sink, (epoch, seq), reason)
        case (str() as sink, int() as epoch, int() as seq):
            return sink, (epoch, seq)
        case (str() as key, int() as value):
            return key, value
    raise _NotARow


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A big-endian base-128 number of one to nine bytes and where it ends (section 1.6). Raises IndexError at the end."""
    value = 0
    for index in range(at, at + 8):
        value = value << 7 | data[index] & 0x7F
        if data[index] < 0x80:
            return value, index + 1
    return value << 8 | data[at + 8], at + 9

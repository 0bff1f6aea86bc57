"""BER-TLV, as PIV cards use it: tag, length, value. Sans-io; only FrameError comes out of bad bytes.

    53 05 …                 length below 80h: one byte
    53 81 80 …              81h: one byte of length follows
    53 82 01 2c …           82h: two bytes
    7f 49 …                 a first byte whose low five bits are all set: the tag has a second one

Source: ISO/IEC 7816-4:2020, 5.2.2.
"""

from __future__ import annotations

from collections.abc import Iterator

from optima_bridge.errors import FrameError

MAX_LENGTH_BYTES = 3


def encode(tag: int, value: bytes) -> bytes:
    """One element; `value` has less than 65536 bytes."""
    size = len(value)
    if size < 0x80:
        length = bytes([size])
    elif size < 0x100:
        length = bytes([0x81, size])
    else:
        length = b"\x82" + size.to_bytes(2)
    return tag.to_bytes(2 if tag > 0xFF else 1) + length + value


def elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and value of each element; they fill `data` exactly.

    Raises:
        FrameError: ``length``: it ends too early, or a length is of another form than the three above.
    """
    at = 0
    while at < len(data):
        tag, at = _tag(data, at)
        size, at = _size(data, at)
        value = data[at : at + size]
        if len(value) < size:
            raise _too_short()
        yield tag, value
        at += size


def only(tag: int, data: bytes) -> bytes:
    """The value of the one element that `data` consists of.

    Raises:
        FrameError: ``tag``: it is another one, or there are several; ``length``.
    """
    found = list(elements(data))
    if len(found) != 1 or found[0][0] != tag:
        raise FrameError(f"an answer without the tag {tag:02X} alone in it", kind="tag")
    return found[0][1]


def _tag(data: bytes, at: int) -> tuple[int, int]:
    tag = data[at]
    if tag & 0x1F != 0x1F:
        return tag, at + 1
    if at + 1 >= len(data):
        raise _too_short()
    return tag << 8 | data[at + 1], at + 2


def _size(data: bytes, at: int) -> tuple[int, int]:
    if at >= len(data):
        raise _too_short()
    first = data[at]
    if first < 0x80:
        return first, at + 1
    count = first & 0x7F
    if not 1 <= count < MAX_LENGTH_BYTES:
        raise FrameError(f"a length that begins with {first:02X}", kind="length")
    end = at + 1 + count
    if end > len(data):
        raise _too_short()
    return int.from_bytes(data[at + 1 : end]), end


def _too_short() -> FrameError:
    return FrameError("an element that ends before its length", kind="length")

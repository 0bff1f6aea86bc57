"""Frames of 125 kHz readers: RDM6300 and ID-2LA/12LA/20LA in ASCII format. Sans-io.

    RDM6300    02 | n n n n n n n n n n | x x |       03     14 bytes
    ID-12LA    02 | n n n n n n n n n n | x x | 0D 0A 03     16 bytes

    n  card number, 5 bytes as 10 hexadecimal characters, most significant first
    x  XOR of the 5 bytes as 2 hexadecimal characters: the XOR over all 6 bytes is 0

One decoder reads both, so a frame of the other layout is understood too. The XOR notices every single wrong character,
lets 3 % of double faults through and is blind to the order of bytes: what unlocks something should ask for two equal frames.
Sources: ID-Innovations "ID-2LA, ID-12LA, ID-20LA" data sheet (2013), Seeed "RDM6300" data sheet.
"""

from __future__ import annotations

import re
from functools import reduce
from operator import xor

import msgspec

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong

STX = b"\x02"
ETX = b"\x03"
CR_LF = b"\r\n"
BODY_CHARS = 12
MAX_BODY_CHARS = 16

# int(text, 16) and bytes.fromhex() forgive blanks, signs or underscores: the characters are looked at first.
_is_hex = re.compile(rb"[0-9A-Fa-f]{12}").fullmatch


class CardFrame(msgspec.Struct, frozen=True, gc=False):
    """One good frame; `identifier` is the card number as 10 upper-case hexadecimal characters."""

    identifier: str


class FrameDecoder:
    """Incremental decoder; how the bytes are cut into chunks makes no difference to what comes out."""

    def __init__(self) -> None:
        self._begun = b""  # a frame that has begun: STX and at most MAX_BODY_CHARS characters; empty while hunting

    def feed(self, chunk: bytes) -> list[CardFrame | FrameError]:
        """Take the next bytes; returns what they completed, in order. Never raises.

        An STX always starts afresh: a half frame before it is dropped without a word, as are bytes between frames.
        Kinds of errors: ``length``, ``hex``, ``checksum``, ``overrun`` (no ETX within MAX_BODY_CHARS).
        """
        _, *bodies = (self._begun + chunk).split(STX)
        found: list[CardFrame | FrameError] = []
        for body in bodies:
            self._begun = b""
            text, end, _ = body.partition(ETX)
            if len(text) > MAX_BODY_CHARS:
                found.append(FrameTooLong(f"no end of frame within {MAX_BODY_CHARS} characters"))
            elif end:
                found.append(_decode(text))
            else:
                self._begun = STX + text
        return found


def _decode(text: bytes) -> CardFrame | FrameError:
    """The frame whose characters between STX and ETX are `text`."""
    text = text.removesuffix(CR_LF)
    if not _is_hex(text):
        if len(text) != BODY_CHARS:
            return FrameError(f"a frame of {len(text)} characters in place of {BODY_CHARS}", kind="length")
        return FrameError("a character that is not hexadecimal", kind="hex")
    folded = (number := int(text, 16)) ^ number >> 24
    if (folded ^ folded >> 8 ^ folded >> 16) & 0xFF:
        return ChecksumError("the XOR over card number and checksum is not 0")
    return CardFrame(text[:10].decode("ascii").upper())


def encode(identifier: str, *, cr_lf: bool = False) -> bytes:
    """The frame a reader sends for a card number of 10 hexadecimal characters; `cr_lf` for the ID-12LA layout."""
    checksum = reduce(xor, bytes.fromhex(identifier))
    return STX + f"{identifier}{checksum:02X}".encode("ascii") + (CR_LF if cr_lf else b"") + ETX

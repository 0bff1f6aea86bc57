"""The reader's lines, built as NMEA 0183 builds its sentences: a dollar sign, fields, a star, the XOR of all between them.

    $CARD*14                        nobody is in the field            115200 baud, 8N1; each line ends in CR LF;
    $CARD,04A3B2C1*4C               one card                          ten looks a second, one line each
    $CARD,04A3B2C1,77F00A12*64      two cards at once
    ?                               the host asks who is there (and LF)
    $ID,rc522-serial,1.0*2B         the answer: model, firmware

Card numbers (UID, ISO/IEC 14443-3) are 4, 7 or 10 bytes: 8, 14 or 20 upper-case hexadecimal digits. Specification: DEVICE.md.
"""

from __future__ import annotations

import re
from functools import reduce
from operator import xor

import msgspec

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong

ASK = b"?\n"
MAX_LINE_BYTES = 80
LINE = re.compile(rb"\$(?P<body>[A-Za-z0-9.,-]+)\*(?P<sum>[0-9A-F]{2})")
UID = re.compile(r"[0-9A-F]{8}|[0-9A-F]{14}|[0-9A-F]{20}")


class Look(msgspec.Struct, frozen=True):
    """The cards that are in the field now."""

    uids: frozenset[str]


class Identity(msgspec.Struct, frozen=True):
    """Who answers."""

    model: str
    firmware: str


Message = Look | Identity


def encode(*fields: str) -> bytes:
    """One line of these fields."""
    body = ",".join(fields).encode("ascii")
    return b"$%b*%02X\r\n" % (body, reduce(xor, body))


def decode(line: bytes) -> Message:
    """The message in one line, without its end.

    Raises:
        FrameError: it is damaged, or no line of this protocol; ``kind`` says how.
    """
    match = LINE.fullmatch(line)
    if match is None:
        raise FrameError("not of the form $FIELDS*XX", kind="characters")
    if reduce(xor, match["body"]) != int(match["sum"], 16):
        raise ChecksumError("the XOR of the line is another one")
    kind, *fields = match["body"].decode("ascii").split(",")
    if kind == "CARD" and all(map(UID.fullmatch, fields)):
        return Look(frozenset(fields))
    if kind == "ID" and len(fields) == 2:
        return Identity(*fields)
    raise FrameError(f"no line of this protocol begins with {kind}", kind="fields")


class Decoder:
    """Bytes in, messages out, cut anywhere; holds at most one line and never raises."""

    def __init__(self) -> None:
        self._line = bytearray()

    def feed(self, data: bytes) -> list[Message | FrameError]:
        """Take bytes as they come; damaged lines come out as errors."""
        results: list[Message | FrameError] = []
        for byte in data:
            if byte != ord("\n"):
                if len(self._line) <= MAX_LINE_BYTES:  # one more than allowed is enough to know that it is too long
                    self._line.append(byte)
                continue
            line = bytes(self._line).rstrip(b"\r")
            self._line.clear()
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise FrameTooLong(f"a line of more than {MAX_LINE_BYTES} bytes")
                if line:
                    results.append(decode(line))
            except FrameError as error:
                results.append(error)
        return results

"""Commands and answers of smart cards. Sans-io: which bytes to send for a command, and what an answer says.

    00 db 3f ff 08 …           CLA INS P1 P2 Lc data          one command
    10 db 3f ff ff …           CLA 10h: more of it follows     … in pieces of 255 bytes, the last one with CLA 00
    … 90 00                    data and status word

Source: ISO/IEC 7816-4:2020, 5.1, 5.3; short form only, since not all cards and readers know the extended one.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from optima_bridge.errors import FrameError

PIECE_BYTES = 255
CHAINED = 0x10
OK = 0x9000


class Command(msgspec.Struct, frozen=True):
    """What a card is to do; `answers` whether it has more to say than a status word."""

    ins: int
    p1: int
    p2: int
    data: bytes = b""
    answers: bool = True
    cla: int = 0x00

    def pieces(self) -> Iterator[bytes]:
        """The bytes to send, one after the other; each but the last is answered by 9000."""
        head = bytes([self.ins, self.p1, self.p2])
        rest = self.data
        while len(rest) > PIECE_BYTES:
            yield bytes([self.cla | CHAINED]) + head + bytes([PIECE_BYTES]) + rest[:PIECE_BYTES]
            rest = rest[PIECE_BYTES:]
        body = bytes([len(rest)]) + rest if rest else b""
        yield bytes([self.cla]) + head + body + (b"\x00" if self.answers else b"")


class Answer(msgspec.Struct, frozen=True):
    """What a card said: data and status word."""

    data: bytes
    status: int


def decode(answer: bytes) -> Answer:
    """Raises FrameError: ``length``: not even a status word."""
    if len(answer) < 2:
        raise FrameError(f"an answer of {len(answer)} bytes", kind="length")
    return Answer(answer[:-2], int.from_bytes(answer[-2:]))

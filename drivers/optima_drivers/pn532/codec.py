"""Frames between a host and a PN532. Sans-io; only FrameError comes out of bad bytes, and it is returned.

    normal    00 00 FF | LEN LCS             | TFI code data… | DCS 00    LEN bytes from TFI to the end of data
    extended  00 00 FF | FF FF LENH LENL LCS | TFI code data… | DCS 00
    ACK       00 00 FF   00 FF   00     host to chip: stop what you are doing
    NACK      00 00 FF   FF 00   00     say your last answer again
    error     00 00 FF   01 FF 7F 81 00 the chip does not understand the command

LEN + LCS, LENH + LENL + LCS and TFI + … + DCS are 0 modulo 256. TFI is D4 to the chip, D5 from it; an answer's code is
the command's + 1. Any number of 00 may stand before and after a frame. Every flipped bit of a frame is noticed.
Source: PN532 user manual UM0701-02, 6.2.1.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong

START = b"\x00\xff"
TO_CHIP, FROM_CHIP = 0xD4, 0xD5
MAX_BODY_BYTES = 265  # TFI, code and 263 bytes of data
MAX_NORMAL_BODY_BYTES = 255
_HEAD_BYTES, _EXTENDED_HEAD_BYTES = 4, 7  # from START to the length's checksum


class Signal(Enum):
    """Frames without content."""

    ACK = b"\x00\x00\xff\x00\xff\x00"
    NACK = b"\x00\x00\xff\xff\x00\x00"
    ERROR = b"\x00\x00\xff\x01\xff\x7f\x81\x00"


_ERROR_BODY = Signal.ERROR.value[5:7]


class Message(msgspec.Struct, frozen=True):
    """A command or an answer.

    Attributes:
        direction: TO_CHIP or FROM_CHIP.
        code: of the command; of an answer, the command's + 1.
        data: what follows.
    """

    direction: int
    code: int
    data: bytes = b""


Frame = Signal | Message


def encode(message: Message) -> bytes:
    """The frame of a message, normal where it fits into one."""
    body = bytes([message.direction, message.code]) + message.data
    size = len(body)
    assert size <= MAX_BODY_BYTES, "no frame takes so much"
    if size <= MAX_NORMAL_BODY_BYTES:
        head = bytes([size, -size & 0xFF])
    else:
        high, low = divmod(size, 256)
        head = bytes([0xFF, 0xFF, high, low, -(high + low) & 0xFF])
    return b"\x00" + START + head + body + bytes([-sum(body) & 0xFF, 0])


class FrameDecoder:
    """Incremental decoder for either direction; how the bytes are cut makes no difference to what comes out."""

    def __init__(self) -> None:
        self._buffer = bytearray()  # at most one frame that has begun

    def feed(self, chunk: bytes) -> list[Frame | FrameError]:
        """Take the next bytes; returns what they completed, in order. Never raises.

        Kinds of errors: ``length`` (its checksum, or a length that no frame has), ``overrun`` (longer than any frame),
        ``checksum``, ``direction``. After a bad length the hunt goes on at the next byte. A frame whose length is right is
        skipped as a whole: what a card put into it must not be taken for a frame.
        """
        buffer = self._buffer
        buffer += chunk
        found: list[Frame | FrameError] = []
        while (start := buffer.find(START)) >= 0:
            del buffer[:start]
            taken = self._take(found)
            if not taken:
                return found
            del buffer[:taken]
        del buffer[: len(buffer) - buffer.endswith(START[:1])]
        return found

    def _take(self, found: list[Frame | FrameError]) -> int:
        """Decode at the start of the buffer; returns how many bytes are done with, 0 where more are needed."""
        buffer = self._buffer
        if len(buffer) < _HEAD_BYTES:
            return 0
        head, size = _HEAD_BYTES, buffer[2]
        match buffer[2], buffer[3]:
            case 0x00, 0xFF:
                found.append(Signal.ACK)
                return head
            case 0xFF, 0x00:
                found.append(Signal.NACK)
                return head
            case 0xFF, 0xFF:
                head = _EXTENDED_HEAD_BYTES
                if len(buffer) < head:
                    return 0
                size = buffer[4] << 8 | buffer[5]
                length_sum = buffer[4] + buffer[5] + buffer[6]
            case length, checksum:
                length_sum = length + checksum
        if length_sum & 0xFF or not size:
            found.append(FrameError("the length of a frame does not match its checksum", kind="length"))
            return 1
        if size > MAX_BODY_BYTES:
            found.append(FrameTooLong(f"a frame of {size} bytes; the longest has {MAX_BODY_BYTES}"))
            return 1
        if len(buffer) < head + size + 1:
            return 0
        found.append(_decode(bytes(buffer[head : head + size + 1])))
        return head + size + 1


def _decode(body: bytes) -> Frame | FrameError:
    """The frame that carries `body`: from TFI to DCS."""
    if sum(body) & 0xFF:
        return ChecksumError("the checksum over a frame's content does not match")
    if body == _ERROR_BODY:
        return Signal.ERROR
    if len(body) < 3:
        return FrameError("a frame without a command code", kind="length")
    if body[0] not in (TO_CHIP, FROM_CHIP):
        return FrameError(f"a frame begins with {body[0]:02x}; only d4 and d5 are known", kind="direction")
    return Message(body[0], body[1], body[2:-1])

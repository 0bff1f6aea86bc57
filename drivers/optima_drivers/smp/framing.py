"""SMP on a serial line: lines of base64 between whatever else the console says, to messages and back. Sans-io.

    06 09  base64, at most 124 characters  0A       the first line of a frame
    04 14  base64                          0A       each further one

    all base64 of a frame together:  ┌──────────┬─────────┬────────────┐
                                     │ size u16 │ message │ CRC-16 u16 │    big-endian
                                     └──────────┴─────────┴────────────┘
    size is that of message and CRC; the CRC is XMODEM's (polynomial 1021, from 0), over the message

    06 09 41 41 73 49 41 41 41 42 41 41 41 41 42 71 42 7a 45 77 3d 3d 0a     08 00 00 01 00 00 00 06 a0, "parameters?"

Source: Zephyr, "SMP Transport Specification", UART/serial and console; subsys/mgmt/mcumgr/transport/src/serial_util.c.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterator

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong

FIRST, FURTHER, END = b"\x06\x09", b"\x04\x14", b"\n"
LINE_CHARACTERS = 124  # of base64; 127 bytes with what is around them, as Zephyr's own buffers have it
OVERHEAD_BYTES = 4  # size and CRC
MAX_FRAME_BYTES = 4096
MAX_LINE_BYTES = 6144  # MAX_FRAME_BYTES in one line, and some text before it


def encode(message: bytes) -> bytes:
    """The lines of one message."""
    raw = (len(message) + 2).to_bytes(2) + message + binascii.crc_hqx(message, 0).to_bytes(2)
    text = binascii.b2a_base64(raw, newline=False)
    parts = [text[at : at + LINE_CHARACTERS] for at in range(0, len(text), LINE_CHARACTERS)]
    return FIRST + (END + FURTHER).join(parts) + END


class Decoder:
    """Cuts a stream of bytes into messages. Holds at most one unfinished frame and one line; skips what is no frame."""

    def __init__(self) -> None:
        self._line = bytearray()
        self._raw = b""  # of the frame that was begun; empty: none was

    def feed(self, data: bytes) -> list[bytes | FrameError]:
        """Take bytes as they come, cut anywhere; returns messages and damaged frames in their order. Never raises."""
        results: list[bytes | FrameError] = []
        *ended, rest = data.split(END)
        for line in ended:
            self._line += line
            results += self._take(bytes(self._line[-MAX_LINE_BYTES:]))
            self._line.clear()
        self._line += rest
        del self._line[:-MAX_LINE_BYTES]
        return results

    def _take(self, line: bytes) -> Iterator[bytes | FrameError]:
        """One line; what stands before a marker in it is console text that somebody cut short."""
        at = max(line.rfind(FIRST), line.rfind(FURTHER))
        if at < 0:
            return
        if line.startswith(FIRST, at):
            if self._raw:
                yield FrameError("a frame without its end", kind="length")
            self._raw = b""
        elif not self._raw:
            yield FrameError("a line that continues nothing", kind="order")
            return
        try:
            self._raw += binascii.a2b_base64(line[at + len(FIRST) :], strict_mode=True)
        except binascii.Error:
            self._raw = b""
            yield FrameError("a line that is no base64", kind="characters")
            return
        size_bytes = 2 + int.from_bytes(self._raw[:2])
        if len(self._raw) < size_bytes <= MAX_FRAME_BYTES:
            return
        raw, self._raw = self._raw, b""
        if size_bytes > MAX_FRAME_BYTES:
            yield FrameTooLong(f"a frame of {size_bytes} bytes")
        elif len(raw) != size_bytes or size_bytes < OVERHEAD_BYTES:
            yield FrameError(f"a frame of {len(raw)} bytes that says it has {size_bytes}", kind="length")
        elif binascii.crc_hqx(raw[2:], 0):
            yield ChecksumError("the CRC does not match the frame")
        else:
            yield raw[2:-2]

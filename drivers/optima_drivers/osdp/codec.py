"""OSDP frames: bytes on the line to frames and back. Sans-io; only FrameError comes out of bad bytes.

    53 | address | length 2 | control | security block | code | data | MAC | check
                                         0, 2, 3 bytes    1            0, 4  1, 2

    address   0 to 7E; a reply has bit 7 set
    length    little endian, of the whole frame
    control   bits 0-1 sequence number, bit 2: the check is a CRC-16, bit 3: there is a security block
    security  its own length, its type 11 to 18, for types 11 to 14 one byte of data; 15 to 18: a MAC follows the data
    check     CRC-16 (polynomial 1021, begins with 1D0F), little endian; or one byte that makes the sum of all 0

A mark byte FF may stand before a frame; it belongs to none. Source: IEC 60839-11-5 / SIA OSDP 2.2, section 5.
"""

from __future__ import annotations

import binascii

import msgspec

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong

MARK = b"\xff"
START = 0x53
HEADER_BYTES = 5
MAC_BYTES = 4
MAX_FRAME_BYTES = 1440
REPLY_BIT = 0x80
SEQUENCE_BITS, CRC_BIT, SECURITY_BIT = 0x03, 0x04, 0x08
MAC_TYPES = range(0x15, 0x19)  # of security blocks: the frame carries a MAC


class Frame(msgspec.Struct, frozen=True):
    """One frame.

    Attributes:
        address: of the peripheral, 0 to 127, whichever way the frame goes.
        is_reply: it comes from the peripheral.
        sequence: 0 to 3.
        body: code and data, as they are on the line.
        security: type and data of the security block; empty: there is none.
        mac: 4 bytes where the security block says so; none where there is no room for them, as before a session with some panels.
        crc: whether the check is a CRC-16, else a sum.
    """

    address: int
    is_reply: bool
    sequence: int
    body: bytes
    security: bytes = b""
    mac: bytes = b""
    crc: bool = True

    def covered(self) -> bytes:
        """What the MAC is over: all bytes before it, with the length of the whole frame."""
        block = bytes([1 + len(self.security)]) + self.security if self.security else b""
        size_bytes = HEADER_BYTES + len(block) + len(self.body) + len(self.mac) + (2 if self.crc else 1)
        control = self.sequence | (CRC_BIT if self.crc else 0) | (SECURITY_BIT if block else 0)
        address = self.address | (REPLY_BIT if self.is_reply else 0)
        return bytes([START, address, *size_bytes.to_bytes(2, "little"), control]) + block + self.body

    def encode(self) -> bytes:
        """The frame as it is sent, without a mark."""
        content = self.covered() + self.mac
        return content + _check(content, crc=self.crc)


class FrameDecoder:
    """Incremental decoder; how the bytes are cut into chunks makes no difference to what comes out."""

    def __init__(self) -> None:
        self._buffer = b""

    @property
    def begun(self) -> bool:
        """Whether more bytes of a frame are expected."""
        return bool(self._buffer)

    def feed(self, chunk: bytes) -> list[Frame | FrameError]:
        """Take the next bytes; returns what they completed, in order. Never raises.

        Kinds of errors: ``length``, ``overrun``, ``checksum``, ``security``. What stood in a damaged frame is searched for
        another one: its start may have been noise.
        """
        self._buffer += chunk
        found: list[Frame | FrameError] = []
        while (start := self._buffer.find(START)) >= 0:
            self._buffer = self._buffer[start:]
            if len(self._buffer) < HEADER_BYTES:
                return found
            size_bytes = int.from_bytes(self._buffer[2:4], "little")
            if size_bytes > MAX_FRAME_BYTES:
                found.append(FrameTooLong(f"a frame of {size_bytes} bytes, at most {MAX_FRAME_BYTES} are possible"))
            elif len(self._buffer) < size_bytes:
                return found
            else:
                try:
                    found.append(_decode(self._buffer[:size_bytes]))
                except FrameError as error:
                    found.append(error)
                else:
                    self._buffer = self._buffer[size_bytes:]
                    continue
            self._buffer = self._buffer[1:]
        self._buffer = b""
        return found

    def give_up(self) -> list[Frame | FrameError]:
        """Its rest does not come: look for a frame behind the start of the one that has begun."""
        self._buffer = self._buffer[1:]
        return self.feed(b"")


def _decode(data: bytes) -> Frame:
    """The frame that these bytes are. Raises FrameError."""
    control = data[4] if len(data) >= HEADER_BYTES else 0
    crc = bool(control & CRC_BIT)
    end = len(data) - (2 if crc else 1)
    if end <= HEADER_BYTES:
        raise FrameError(f"a frame of {len(data)} bytes has no room for a code", kind="length")
    if data[end:] != _check(data[:end], crc=crc):
        raise ChecksumError("the check at the end of the frame does not match")
    at = HEADER_BYTES
    security = b""
    if control & SECURITY_BIT:
        at += data[at]
        security = data[HEADER_BYTES + 1 : at]
    has_mac = security[:1] != b"" and security[0] in MAC_TYPES and end - at > MAC_BYTES
    mac_at = end - MAC_BYTES if has_mac else end
    if at >= mac_at or (control & SECURITY_BIT and not security):
        raise FrameError("a security block that does not fit its frame", kind="security")
    return Frame(
        address=data[1] & ~REPLY_BIT,
        is_reply=bool(data[1] & REPLY_BIT),
        sequence=control & SEQUENCE_BITS,
        body=data[at:mac_at],
        security=security,
        mac=data[mac_at:end],
        crc=crc,
    )


def _check(data: bytes, *, crc: bool) -> bytes:
    if crc:
        return binascii.crc_hqx(data, 0x1D0F).to_bytes(2, "little")
    return bytes([-sum(data) & 0xFF])

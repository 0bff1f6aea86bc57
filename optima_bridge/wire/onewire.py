"""1-Wire without a wire: the ROM number, its CRC-8, its textual forms, and the walk of SEARCH ROM. Sans-io.

ROM, in the order sent, least significant bit of each byte first (Book of iButton Standards, ch. 5):

family  serial, low byte first  crc8
01      B7 BA 10 00 00 00       75
"""

from __future__ import annotations

import re

import msgspec

from optima_bridge.errors import ChecksumError, FrameError

ROM_SIZE_BYTES = 8

# x^8 + x^5 + x^4 + 1, reflected 0x8C, start 0, no final xor (Maxim application note 27).
_CRC8_TABLE = bytearray(256)
for _value in range(256):
    _crc = _value
    for _ in range(8):
        _crc = _crc >> 1 ^ (0x8C if _crc & 1 else 0)
    _CRC8_TABLE[_value] = _crc

_WIRE_OR_PRINTED = re.compile(r"[0-9A-F]{16}")
_OWFS = re.compile(r"([0-9A-F]{2})\.([0-9A-F]{12})(?:\.([0-9A-F]{2}))?")
_LINUX = re.compile(r"([0-9A-F]{2})-([0-9A-F]{12})")
_NO_CRC = re.compile(r"([0-9A-F]{2})([0-9A-F]{12})")


def crc8(data: bytes) -> int:
    """The 1-Wire CRC-8; 0 over eight bytes of which the last is the CRC of the seven before it."""
    crc = 0
    for byte in data:
        crc = _CRC8_TABLE[crc ^ byte]
    return crc


class Rom(msgspec.Struct, frozen=True):
    """The number of one key: an identifier, not a secret. ``str()`` is its canonical form.

    Attributes:
        wire: 8 bytes in the order sent.
    """

    wire: bytes

    @classmethod
    def from_wire(cls, wire: bytes) -> Rom:
        """A ROM as read from the bus.

        Raises:
            ChecksumError: the CRC does not match: poor contact.
            FrameError: not 8 bytes, or family 00. All zeros has a correct CRC and is what a shorted line reads as.
        """
        if len(wire) != ROM_SIZE_BYTES:
            raise FrameError(f"a ROM has {ROM_SIZE_BYTES} bytes, not {len(wire)}", kind="length")
        if crc8(wire):
            raise ChecksumError(f"ROM {wire.hex(' ')}: its CRC is {crc8(wire[:-1]):02x}")
        if wire[0] == 0:
            raise FrameError(f"ROM {wire.hex(' ')}: no key has family 00", kind="zero")
        return cls(bytes(wire))

    @classmethod
    def from_text(cls, text: str) -> Rom:
        """A ROM as people and programs write it, upper or lower case.

        ``01B7BA1000000075`` wire order (canonical, digitemp), ``7500000010BAB701`` as printed on the can,
        ``01.B7BA10000000`` OWFS, with ``.75`` too, ``01-00000010bab7`` Linux w1, ``0100000010BAB7`` Vectron.
        The printed form of one key in 256 is a valid wire order as well; wire order wins.

        Raises:
            ValueError: none of these forms, or its CRC does not match.
        """
        form = text.strip().upper()
        try:
            if _WIRE_OR_PRINTED.fullmatch(form):
                wire = bytes.fromhex(form)
                return cls.from_wire(wire[::-1] if crc8(wire) else wire)
            if match := _OWFS.fullmatch(form):
                body = bytes.fromhex(match[1] + match[2])
                return cls.from_wire(body + (bytes.fromhex(match[3]) if match[3] else bytes([crc8(body)])))
            if match := _LINUX.fullmatch(form) or _NO_CRC.fullmatch(form):
                body = bytes.fromhex(match[1]) + bytes.fromhex(match[2])[::-1]
                return cls.from_wire(body + bytes([crc8(body)]))
        except FrameError as error:
            raise ValueError(f"{text!r} is not the number of a key: {error}") from error
        raise ValueError(f"{text!r} is not the number of a key: write 16 hex digits, as in 01B7BA1000000075")

    @property
    def family(self) -> str:
        """What kind of chip it is: two hex digits, ``01`` for a DS1990A."""
        return f"{self.wire[0]:02X}"

    def __str__(self) -> str:
        return self.wire.hex().upper()


class SearchPass(msgspec.Struct, frozen=True):
    """What one pass of SEARCH ROM found. Bit n of each number belongs to the n-th bit on the wire, 0..63.

    Attributes:
        bits: the direction taken at each bit: the ROM of the one chip that is left.
        conflicts: where chips with a 0 and chips with a 1 both answered.
    """

    bits: int
    conflicts: int

    def rom(self) -> Rom:
        """The chip found. Raises as `Rom.from_wire`."""
        return Rom.from_wire(self.bits.to_bytes(ROM_SIZE_BYTES, "little"))

    def next_path(self) -> int | None:
        """Directions for the next pass, or None after the last: take the 1 at the last conflict where the 0 was taken."""
        untried = self.conflicts & ~self.bits
        if not untried:
            return None
        fork = 1 << untried.bit_length() - 1
        return self.bits & fork - 1 | fork

    def follows(self, path: int) -> bool:
        """Whether this pass went the way that was asked for, up to the last fork of `path`."""
        mask = (1 << path.bit_length()) - 1
        return self.bits & mask == path

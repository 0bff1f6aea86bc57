"""The other names of a 125 kHz card: as printed on it, and as Wiegand bits.

The 10 hexadecimal characters of the frame are the canonical form. Every form here drops bytes of it, so two cards may
share one: use them as a search key, never to tell cards apart. Wiegand sources: H10301 (26 bits), IDTECK SR10 manual (34).
"""

from __future__ import annotations


def decimal10(identifier: str) -> str:
    """The last 4 bytes as 10 decimal digits."""
    return f"{int(identifier, 16) & 0xFFFF_FFFF:010}"


def facility_and_card(identifier: str) -> str:
    """Byte 2 and bytes 3–4 (counted from 0) in decimal: ``fff,ccccc``."""
    number = int(identifier, 16)
    return f"{number >> 16 & 0xFF:03},{number & 0xFFFF:05}"


def wiegand26(number: int) -> str:
    """H10301 as 26 characters 0 and 1, first bit first; `number` is 8 bits facility and 16 bits card.

    Raises:
        ValueError: `number` does not fit 24 bits.
    """
    return _with_parity(number, 24)


def wiegand34(number: int) -> str:
    """The 34-bit form of a 32-bit `number`, as characters 0 and 1, first bit first.

    Raises:
        ValueError: `number` does not fit 32 bits.
    """
    return _with_parity(number, 32)


def _with_parity(number: int, bits: int) -> str:
    """Even parity over the first half in front, odd parity over the second half behind."""
    if not 0 <= number < 1 << bits:
        raise ValueError(f"{number} does not fit {bits} bits")
    half = bits // 2
    even = (number >> half).bit_count() % 2
    odd = 1 - (number & (1 << half) - 1).bit_count() % 2
    return f"{even}{number:0{bits}b}{odd}"

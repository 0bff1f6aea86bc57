"""The PN532's commands that this driver uses, and the cards in an answer to InListPassiveTarget. Sans-io.

    D4 4A max 00               -> D5 4B count, then for each card:
                                  Tg  ATQA(2)  SAK  UID length  UID…  [ATS length  ATS…]

ATS is there if SAK has bit 5: the card speaks ISO/IEC 14443-4, and the chip has sent RATS. Its length counts itself.
Source: PN532 user manual UM0701-02, 7.2.2, 7.2.9, 7.2.10, 7.3.1, 7.3.5; ISO/IEC 14443-3, 6.5.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from optima_bridge.errors import FrameError

MAX_CARDS = 2  # the chip finds no more
ISO_14443_4 = 0x20  # in SAK
UID_SIZES_BYTES = (4, 7, 10)
_RANDOM_UID = 0x08


class Command(IntEnum):
    """Command codes."""

    DIAGNOSE = 0x00
    GET_FIRMWARE_VERSION = 0x02
    SET_PARAMETERS = 0x12
    SAM_CONFIGURATION = 0x14
    RF_CONFIGURATION = 0x32
    IN_LIST_PASSIVE_TARGET = 0x4A


LINE_TEST = b"\x00"  # DIAGNOSE: send back what follows
PARAMETERS = b"\x14"  # the chip's own after power-up: automatic ATR_RES, automatic RATS
NORMAL_MODE = bytes([0x01, 0x00, 0x00])  # SAM_CONFIGURATION: no secure module, no time-out, no use of the IRQ pin
FIELD_OFF = bytes([0x01, 0x00])  # RF_CONFIGURATION item 1
TRY_TWICE = bytes(
    [0x05, 0xFF, 0x01, 0x01]
)  # RF_CONFIGURATION item 5: retries for ATR, PSL (as after power-up), activation
LIST_CARDS = bytes([MAX_CARDS, 0x00])  # IN_LIST_PASSIVE_TARGET: 106 kbit/s type A

CHIP = 0x32


class Firmware(msgspec.Struct, frozen=True):
    """The answer to GET_FIRMWARE_VERSION."""

    chip: int
    version: int
    revision: int

    @classmethod
    def from_answer(cls, data: bytes) -> Firmware:
        """Raises FrameError: not the four bytes of a PN532."""
        if len(data) != 4 or data[0] != CHIP:
            raise FrameError(
                f"{data.hex(' ') or 'nothing'} is not a PN532's firmware version (32 vv rr ss)", kind="chip"
            )
        return cls(data[0], data[1], data[2])

    def __str__(self) -> str:
        return f"{self.version}.{self.revision}"


class Card(msgspec.Struct, frozen=True):
    """One card in the field.

    Attributes:
        uid: 4, 7 or 10 bytes, as anticollision gave them, without cascade tags.
        atqa, sak: what kind of card it is.
        ats: answer to select of an ISO/IEC 14443-4 card, with its length byte; else empty.
    """

    uid: bytes
    atqa: int
    sak: int
    ats: bytes = b""

    @property
    def has_random_uid(self) -> bool:
        """Whether its UID is another one each time the field comes up: it names nobody (ISO/IEC 14443-3, 6.5.4)."""
        return len(self.uid) == 4 and self.uid[0] == _RANDOM_UID


def decode_cards(data: bytes) -> tuple[Card, ...]:
    """The cards in an answer to IN_LIST_PASSIVE_TARGET.

    Raises:
        FrameError: it is not such an answer.
    """
    rest = _Rest(data)
    cards = tuple(_decode_card(rest) for _ in range(rest.byte()))
    if rest.data or len(cards) > MAX_CARDS:
        raise FrameError(f"{data.hex(' ')} is not a list of at most {MAX_CARDS} cards", kind="cards")
    return cards


def _decode_card(rest: _Rest) -> Card:
    rest.byte()  # Tg, the number that the chip gave it
    atqa, sak, uid = int.from_bytes(rest.take(2), "big"), rest.byte(), rest.take(rest.byte())
    if len(uid) not in UID_SIZES_BYTES:
        raise FrameError(f"a UID of {len(uid)} bytes", kind="cards")
    if not sak & ISO_14443_4:
        return Card(uid, atqa, sak)
    size = rest.byte()
    return Card(uid, atqa, sak, bytes([size]) + rest.take(size - 1))


class _Rest:
    """What has not been decoded yet."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def take(self, size: int) -> bytes:
        if not 0 <= size <= len(self.data):
            raise FrameError("a list of cards ends too early", kind="cards")
        taken, self.data = self.data[:size], self.data[size:]
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

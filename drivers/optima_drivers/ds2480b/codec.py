"""The DS2480B's bytes: commands to it, answers from it. Sans-io; only FrameError comes out of bad bytes.

    command mode                                    data mode (after E1; only E3 is special)
    C1                      reset -> 11x011rr       any byte -> 8 slots, the byte read back
    0pppvvv1                write -> 0pppvvv0       E3 E3    -> one E3 as data
    0000ppp1                read  -> 0000vvv0       E3 other -> command mode, then `other` as a command
    10110001 / 10100001     search on / off, silent

Source: DS2480B data sheet 19-5047, pages 5 to 13 and figure 3; detection as in application note 192.
"""

from __future__ import annotations

from enum import Enum

from optima_bridge.errors import FrameError
from optima_bridge.wire.onewire import SearchPass

DATA_MODE = b"\xe1"
COMMAND_MODE = b"\xe3"
END_PULSE = b"\xf1"
RESET = b"\xc1"  # regular speed; also the byte that calibrates the chip after a break, then without an answer
SEARCH_ON = b"\xb1"
SEARCH_OFF = b"\xa1"
SEARCH_ROM = b"\xf0"

RECOVER = COMMAND_MODE + END_PULSE  # out of data mode, out of a pulse; neither answers when there was nothing to leave

# Slew rate 1.37 V/us, write-1 low time 10 us, sample offset 8 us; read the baud code; write a 1 bit.
CONFIGURE = bytes.fromhex("17 45 5b 0f 91")
CONFIGURE_ANSWER_SIZE_BYTES = 5
_CONFIGURE_ECHO = bytes.fromhex("16 44 5a 00")  # 00: 9600 baud
_BIT_ANSWERS = (0x93, 0x90)  # 90: the 1-Wire line is held low, the chip is fine

CHIP_REVISION = 0b011  # of the DS2480B; 010 is the DS2480
RESET_ANSWER_SIZE_BYTES = 1
_SEARCH_PATH_SIZE_BYTES = 16
SEARCH_ANSWER_SIZE_BYTES = 1 + _SEARCH_PATH_SIZE_BYTES
_NOBODY = 0b11 << 126  # both answers to the last bit were 1


class Bus(Enum):
    """What a reset found on the 1-Wire line: the low bits of its answer."""

    SHORT = 0b00
    PRESENCE = 0b01
    ALARM = 0b10  # presence of a chip that wants service (DS1994)
    NONE = 0b11


def escape(data: bytes) -> bytes:
    """`data` as it is sent in data mode: E3 doubled, and nothing else."""
    return data.replace(COMMAND_MODE, COMMAND_MODE * 2)


def search(path: int) -> bytes:
    """One pass of SEARCH ROM from command mode back to command mode; the bus must have been reset just before.

    Args:
        path: 64 bits; bit n is the direction to take where chips disagree at ROM bit n.
    """
    # Bit n goes into bit 2n + 1: one path byte carries the directions of four ROM bits.
    spread = sum(1 << 2 * n + 1 for n in range(64) if path >> n & 1)
    body = escape(spread.to_bytes(_SEARCH_PATH_SIZE_BYTES, "little"))
    return DATA_MODE + SEARCH_ROM + COMMAND_MODE + SEARCH_ON + DATA_MODE + body + COMMAND_MODE + SEARCH_OFF


def is_arrival(byte: int) -> bool:
    """Whether an unasked byte is the chip's ``xxxxxx01``: a key was put on the probe (data sheet p. 5)."""
    return byte & 0b11 == 0b01


def without_arrivals(answer: bytes) -> bytes:
    """`answer` without the arrival bytes that slipped in before it. One that looks like a reset's answer stays."""
    for index, byte in enumerate(answer):
        if not is_arrival(byte) or _is_reset_answer(byte):
            return answer[index:]
    return b""


def _is_reset_answer(byte: int) -> bool:
    return byte & 0b1101_1100 == 0b1100_0000 | CHIP_REVISION << 2


def decode_reset(answer: bytes) -> Bus:
    """The answer to RESET.

    Raises:
        FrameError: it is not such an answer, or one of another chip revision.
    """
    if len(answer) != RESET_ANSWER_SIZE_BYTES or not _is_reset_answer(answer[0]):
        raise FrameError(
            f"{answer.hex(' ') or 'nothing'} is not a DS2480B's answer to a reset (11x011rr)", kind="reset"
        )
    return Bus(answer[0] & 0b11)


def check_configured(answer: bytes) -> None:
    """The answer to CONFIGURE, which only a DS2480B at 9600 baud gives.

    Raises:
        FrameError: anything else answered.
    """
    if len(answer) != CONFIGURE_ANSWER_SIZE_BYTES or answer[:4] != _CONFIGURE_ECHO or answer[4] not in _BIT_ANSWERS:
        raise FrameError(f"{answer.hex(' ') or 'nothing'} is not a DS2480B's answer (16 44 5a 00 93)", kind="configure")


def decode_search(answer: bytes) -> SearchPass | None:
    """The answer to `search`; None where nobody was left at the last bit: the key was lifted.

    Raises:
        FrameError: not F0 and 16 bytes.
    """
    if len(answer) != SEARCH_ANSWER_SIZE_BYTES or not answer.startswith(SEARCH_ROM):
        raise FrameError(
            f"{answer.hex(' ') or 'nothing'} is not the answer to a search (f0 and 16 bytes)", kind="search"
        )
    pairs = int.from_bytes(answer[1:], "little")
    if pairs & _NOBODY == _NOBODY:
        return None
    conflicts = bits = 0
    for n in range(64):
        conflicts |= (pairs >> 2 * n & 1) << n
        bits |= (pairs >> 2 * n + 1 & 1) << n
    return SearchPass(bits, conflicts)

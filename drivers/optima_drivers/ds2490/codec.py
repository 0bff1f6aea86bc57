"""The DS2490's bytes: requests to it, its status packet, what a search brings. Sans-io; only FrameError comes out of bad bytes.

    control requests 40   request 0 control, 1 communication, 2 mode    value: what to do    index: with what
    EP 02, bulk out       bytes for the 1-Wire line
    EP 83, bulk in        bytes from it
    EP 81, interrupt in   status: 16 bytes, then a result byte for each thing that is to be told

Source: DS2490 data sheet, communication commands and device feedback; application note 117; Linux drivers/w1/masters/ds2490.c.
"""

from __future__ import annotations

from enum import IntFlag

import msgspec

from optima_bridge.errors import FrameError
from optima_bridge.wire.onewire import ROM_SIZE_BYTES, Rom

STATUS_ENDPOINT, OUT_ENDPOINT, IN_ENDPOINT = 0x81, 0x02, 0x83
ALTERNATE = 3  # status every millisecond, bulk packets of 64 bytes
CONTROL, COMMUNICATION = 0, 1

RESET_DEVICE, FLUSH_IN, FLUSH_OUT = 0x00, 0x08, 0x09  # of CONTROL

# Of COMMUNICATION: the command and its flags. IM: now. F: empty the FIFOs after an error. NTF: a result in any case.
_IM, _F, _NTF, _RESET_FIRST = 0x0001, 0x0800, 0x0400, 0x0100
_RETURN_ROMS, _RETURN_FORK, _SET_SPEED = 0x0008, 0x4000, 0x0008
RESET_LINE = 0x0042 | _IM | _F | _NTF | _SET_SPEED
SEARCH_LINE = 0x00F4 | _IM | _F | _NTF | _RETURN_ROMS | _RETURN_FORK | _RESET_FIRST
SEARCH_ROM = 0xF0
REGULAR_SPEED = 0

MAX_CHIPS = 8  # of one search; more are not news: two keys are already ambiguous
SEARCH_START = bytes(ROM_SIZE_BYTES)  # the path to begin with
IN_FIFO_SIZE_BYTES = 128  # to ask for less than there is fails, and loses it
STATUS_SIZE_BYTES, MAX_STATUS_SIZE_BYTES = 16, 32
_IDLE = 0x20
DEVICE_DETECTED = 0xA5  # a whole byte, though its bits would mean something too


class Result(IntFlag):
    """What went wrong, as far as it matters here."""

    NO_PRESENCE = 0x01
    SHORT = 0x02
    SEARCH_ENDED = 0x80  # with fewer chips than asked for: as usual


class Status(msgspec.Struct, frozen=True):
    """A status packet.

    Attributes:
        is_idle: nothing is being done.
        waiting_bytes: in the FIFO of IN_ENDPOINT.
        results: since the last packet, without DEVICE_DETECTED; each is a mask, 0 is success.
        arrivals: how often DEVICE_DETECTED was among them; several for one key.
    """

    is_idle: bool
    waiting_bytes: int
    results: tuple[int, ...]
    arrivals: int

    @classmethod
    def from_packet(cls, packet: bytes) -> Status:
        """Raises FrameError: shorter or longer than any status packet."""
        if not STATUS_SIZE_BYTES <= len(packet) <= MAX_STATUS_SIZE_BYTES:
            raise FrameError(f"a status packet of {len(packet)} bytes; it has 16 to 32", kind="status")
        told = packet[STATUS_SIZE_BYTES:]
        results = tuple(result for result in told if result != DEVICE_DETECTED)
        return cls(bool(packet[8] & _IDLE), packet[13], results, len(told) - len(results))


def search_index() -> int:
    """The parameter of SEARCH_LINE."""
    return MAX_CHIPS << 8 | SEARCH_ROM


def decode_roms(data: bytes) -> frozenset[Rom]:
    """The chips that a search found. Where there are more than MAX_CHIPS, the fork to go on from stands behind them.

    Raises:
        FrameError: not whole ROMs, or a wrong CRC: poor contact.
    """
    if len(data) % ROM_SIZE_BYTES or len(data) > (MAX_CHIPS + 1) * ROM_SIZE_BYTES:
        raise FrameError(f"a search brought {len(data)} bytes, which are no ROMs", kind="length")
    roms = data[: MAX_CHIPS * ROM_SIZE_BYTES]
    return frozenset(Rom.from_wire(roms[at : at + ROM_SIZE_BYTES]) for at in range(0, len(roms), ROM_SIZE_BYTES))

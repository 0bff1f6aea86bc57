"""Records of Linux input devices (struct input_event) to bytes and back. Sans-io.

    byte   0        8        16     18     20      24
         ┌────────┬────────┬──────┬──────┬───────┐
         │ s      │ µs     │ type │ code │ value │     native byte order; two words of 4 bytes, 16 in all, on 32 bits
         └────────┴────────┴──────┴──────┴───────┘

    e8 03 00 00 00 00 00 00 00 00 00 00 00 00 00 00 04 00 04 00 0e 00 07 00     1000 s, MSC_SCAN 0x7000e: HID usage of K

A key is EV_MSC with the scan code, EV_KEY with code and value (1 pressed, 0 released, 2 repeated), and EV_SYN SYN_REPORT at
the end: a *packet*. Sources: linux/input.h, linux/input-event-codes.h, Documentation/input/event-codes.rst.
"""

from __future__ import annotations

import struct

import msgspec

from optima_bridge.errors import FrameError

EV_SYN, EV_KEY, EV_MSC = 0, 1, 4
SYN_REPORT, SYN_DROPPED = 0, 3
MSC_SCAN = 4
RELEASED, PRESSED, REPEATED = 0, 1, 2

_record = struct.Struct("@llHHi")
RECORD_BYTES = _record.size
_TYPE_AND_CODE = slice(RECORD_BYTES - 8, RECORD_BYTES - 4)
_END = struct.pack("@HH", EV_SYN, SYN_REPORT)


class InputEvent(msgspec.Struct, frozen=True, gc=False):
    """One record; `time_ns` on the clock that the device was set to."""

    time_ns: int
    type: int
    code: int
    value: int


def decode(packet: bytes) -> list[InputEvent]:
    """The records of a packet.

    Raises:
        FrameError: not whole records; kind ``length``.
    """
    if len(packet) % RECORD_BYTES:
        raise FrameError(f"{len(packet)} bytes are not whole records of {RECORD_BYTES}", kind="length")
    return [
        InputEvent(seconds * 1_000_000_000 + microseconds * 1000, kind, code, value)
        for seconds, microseconds, kind, code, value in _record.iter_unpack(packet)
    ]


def encode(*events: InputEvent) -> bytes:
    """The bytes of records, as the kernel gives them; it tells whole microseconds."""
    return b"".join(
        _record.pack(
            event.time_ns // 1_000_000_000, event.time_ns % 1_000_000_000 // 1000, event.type, event.code, event.value
        )
        for event in events
    )


def packet_bytes(data: bytes | bytearray) -> int:
    """How many bytes the first packet in `data` has, its SYN_REPORT included; 0 while that has not come."""
    for start in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        if data[start : start + RECORD_BYTES][_TYPE_AND_CODE] == _END:
            return start + RECORD_BYTES
    return 0

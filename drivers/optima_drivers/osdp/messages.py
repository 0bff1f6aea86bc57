"""OSDP messages: code and data of a frame's body, in the clear. Sans-io; only FrameError comes out of bad bytes.

    to the peripheral                          from the peripheral
    60 poll             61 00 who are you      40 ack        41 code          nak        79 busy
    62 00 capabilities  64 tamper and power    45 identity   46 3 bytes each  capabilities
    65 inputs  67 heads 69 LED   6A buzzer     48 tamper, power               49 inputs  4B heads
    75 01 10 key        76 RND.A               50 reader, format, bits 2, card           53 reader, count, digits
    77 cryptogram       7C file   A2 abort     76 cUID 8, RND.B 8, cryptogram 16         78 R-MAC   7A file status

All numbers are little endian. What happened comes as the answer to a poll. Source: SIA OSDP 2.2, sections 6 and 7.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeAlias

import msgspec

from optima_bridge.errors import FrameError

POLL = b"\x60"
IDENTIFY = b"\x61\x00"
CAPABILITIES = b"\x62\x00"
LOCAL_STATUS = b"\x64"
INPUT_STATUS = b"\x65"
HEAD_STATUS = b"\x67"
ABORT = b"\xa2"
KEY_SET, CHALLENGE, SERVER_CRYPTOGRAM = 0x75, 0x76, 0x77
LED, BUZZER, FILE_TRANSFER = 0x69, 0x6A, 0x7C

ACK, NAK, BUSY = 0x40, 0x41, 0x79
IDENTITY, CAPABILITY_LIST, CLIENT_CRYPTOGRAM, INITIAL_R_MAC = 0x45, 0x46, 0x76, 0x78
LOCAL, INPUTS, READERS, CARD, KEYPAD, FILE_STATUS = 0x48, 0x49, 0x4B, 0x50, 0x53, 0x7A

_IDENTITY = struct.Struct("<3s2BI3B")
_FILE_HEADER = struct.Struct("<BIIH")
_FILE_STATUS = struct.Struct("<BHhH")
FILE_HEADER_BYTES = _FILE_HEADER.size


class NakCode(IntEnum):
    """Why a command was refused (section 7.3)."""

    CHECK = 1
    LENGTH = 2
    UNKNOWN_COMMAND = 3
    SEQUENCE = 4
    SECURITY_UNSUPPORTED = 5
    SECURITY_NEEDED = 6
    BIOMETRIC_TYPE = 7
    BIOMETRIC_FORMAT = 8
    RECORD = 9


class Function(IntEnum):
    """What a capability is about (annex B); only those that are looked at."""

    INPUTS = 1
    SECURITY = 9
    RECEIVE_BUFFER = 10


class Ack(msgspec.Struct, frozen=True):
    """Done, or: nothing happened."""


class Busy(msgspec.Struct, frozen=True):
    """Not now: the same command again, later."""


class Nak(msgspec.Struct, frozen=True):
    """Refused; `code` is a NakCode where it is a known one."""

    code: int

    def __str__(self) -> str:
        known = {code.value: code.name.lower().replace("_", " ") for code in NakCode}
        return f"NAK {self.code} ({known.get(self.code, 'unknown')})"


class Identity(msgspec.Struct, frozen=True):
    """Who answers: `vendor` is its OUI, 6 hexadecimal characters."""

    vendor: str
    model: int
    version: int
    serial: int
    firmware: str


class CapabilityList(msgspec.Struct, frozen=True):
    """What it can do: function, compliance, count."""

    entries: tuple[tuple[int, int, int], ...]

    def of(self, function: Function) -> tuple[int, int]:
        """Compliance and count; zeros where it does not have the function."""
        return next(((compliance, count) for number, compliance, count in self.entries if number == function), (0, 0))


class ClientCryptogram(msgspec.Struct, frozen=True):
    """The peripheral's half of the handshake."""

    client_uid: bytes
    random_b: bytes
    cryptogram: bytes


class InitialRMac(msgspec.Struct, frozen=True):
    """The first MAC of the session."""

    mac: bytes


class Local(msgspec.Struct, frozen=True):
    """The housing and the supply."""

    tampered: bool
    power_failed: bool


class Inputs(msgspec.Struct, frozen=True):
    """Contacts, the first one first; True: active."""

    active: tuple[bool, ...]


class Readers(msgspec.Struct, frozen=True):
    """The heads behind a peripheral: 0 normal, 1 not connected, 2 tampered with."""

    status: tuple[int, ...]


class Card(msgspec.Struct, frozen=True):
    """A card was read.

    Attributes:
        reader: the head that read it.
        wiegand: whether the bits have Wiegand parity, else raw.
        bits: how many.
        data: the bits, first one first, packed; those behind the last are 0.
    """

    reader: int
    wiegand: bool
    bits: int
    data: bytes


class Keypad(msgspec.Struct, frozen=True):
    """Keys were pressed: how many. Which ones is a person's secret and is dropped here."""

    reader: int
    count: int


class FileStatus(msgspec.Struct, frozen=True):
    """What became of a fragment (section 7.25).

    Attributes:
        interleave: other commands may come between the fragments.
        delay_ms: how long to wait before the next one.
        status: 0 go on, 1 all was processed, 2 and a restart follows, 3 not yet: keep asking; negative: refused.
        max_message_bytes: what the peripheral takes from now on; 0: as before.
    """

    interleave: bool
    delay_ms: int
    status: int
    max_message_bytes: int


class Other(msgspec.Struct, frozen=True):
    """A reply that means nothing here."""

    code: int


Reply: TypeAlias = (
    Ack | Busy | Nak | Identity | CapabilityList | ClientCryptogram | InitialRMac | Local | Inputs | Readers | Card | Keypad
    | FileStatus | Other
)  # fmt: skip


def challenge(random_a: bytes) -> bytes:
    """Begin a handshake."""
    return bytes([CHALLENGE]) + random_a


def server_cryptogram(cryptogram: bytes) -> bytes:
    """The panel's half of the handshake."""
    return bytes([SERVER_CRYPTOGRAM]) + cryptogram


def key_set(key: bytes) -> bytes:
    """Give the peripheral its key; only inside a session."""
    return bytes([KEY_SET, 1, len(key)]) + key


def led(reader: int, color: int, on_ms: int) -> bytes:
    """Light LED 0 of a reader for a time, then as before; colours: 1 red, 2 green, 3 amber, 4 blue."""
    temporary = struct.pack("<5BH", 2, 1, 0, color, 0, on_ms // 100)
    return bytes([LED, reader, 0]) + temporary + bytes(5)


def buzzer(reader: int, on_ms: int) -> bytes:
    """One beep."""
    return bytes([BUZZER, reader, 2, on_ms // 100, 0, 1])


def file_fragment(kind: int, size_bytes: int, offset: int, fragment: bytes) -> bytes:
    """A part of a file; `size_bytes` is the whole file's."""
    return bytes([FILE_TRANSFER]) + _FILE_HEADER.pack(kind, size_bytes, offset, len(fragment)) + fragment


def decode_reply(body: bytes) -> Reply:
    """The reply that a body in the clear is.

    Raises:
        FrameError: kind ``data``: its data do not fit its code.
    """
    try:
        return _decode(body[0], body[1:])
    except (struct.error, IndexError, ValueError) as error:
        raise FrameError(f"a reply {body[:1].hex()} of {len(body)} bytes, which do not fit it", kind="data") from error


def _decode(code: int, data: bytes) -> Reply:
    match code:
        case 0x40:
            return Ack()
        case 0x79:
            return Busy()
        case 0x41:
            return Nak(data[0])
        case 0x45:
            vendor, model, version, serial, *firmware = _IDENTITY.unpack(data)
            return Identity(vendor[::-1].hex().upper(), model, version, serial, ".".join(map(str, firmware)))
        case 0x46:
            return CapabilityList(tuple(struct.iter_unpack("3B", data)))
        case 0x76:
            uid, random_b, cryptogram = struct.unpack("8s8s16s", data)
            return ClientCryptogram(uid, random_b, cryptogram)
        case 0x78:
            (mac,) = struct.unpack("16s", data)
            return InitialRMac(mac)
        case 0x48:
            tamper, power = struct.unpack("2B", data)
            return Local(tamper != 0, power != 0)
        case 0x49:
            return Inputs(tuple(byte != 0 for byte in data))
        case 0x4B:
            return Readers(tuple(data))
        case 0x50:
            return _card(data)
        case 0x53:
            reader, count, *digits = data
            if count != len(digits):
                raise ValueError("the count does not fit")
            return Keypad(reader, count)
        case 0x7A:
            action, delay_ms, status, max_message_bytes = _FILE_STATUS.unpack(data)
            return FileStatus(bool(action & 1), delay_ms, status, max_message_bytes)
        case _:
            return Other(code)


def _card(data: bytes) -> Card:
    reader, form, bits = struct.unpack_from("<2BH", data)
    packed = data[4:]
    if bits == 0 or len(packed) != -(-bits // 8):
        raise ValueError("the bit count does not fit")
    spare = len(packed) * 8 - bits
    kept = int.from_bytes(packed, "big") >> spare << spare
    return Card(reader, form == 1, bits, kept.to_bytes(len(packed), "big"))

"""The loopback protocol: bytes to messages and back. Sans-io.

    byte   0     1 … n      n+1   n+2
         ┌─────┬──────────┬─────┬─────┐
         │ STX │   text   │ ETX │ LRC │      STX 02, ETX 03
         └─────┴──────────┴─────┴─────┘      text: 1 … 144 characters 20 … 7E
               └── LRC = XOR of these ─┘     so LRC is 00 … 7F and may itself be 02 or 03

    02 4c 4f 43 4b 20 33 03 1b      STX "LOCK 3" ETX LRC

    device to host                                      host to device
    KEY IN 01B7BA1000000075   ROM id, 16 hex digits     ?       who are you, and what is true now?
    KEY OUT
    CARD 67003B51C6           number, 10 hex digits
    LOCK 3                    UnifiedPOS position 1 LOCK, 2 NORM, 3 SUPR; 0 between two
    SEAL OPEN | CLOSED
    CTRL READY | BUSY | PENDING | ERROR code            code: 1 … 4 digits
    ID model serial firmware  1 … 12 of [AC-Za-z0-9._-] each, firmware of [a-z0-9._-]

    host to device            device to host            raw memory; address 4, bytes 2 lower-case hex digits each
    READ address size         DATA address bytes        size 01 … 40
    WRITE address bytes       WROTE address             1 … 64 bytes; bits go from 1 to 0 only
    ERASE address             ERASED address            the page of 256 bytes there, to FF
                              DENIED address            outside of the memory

The device answers `?` by one message for each state it has, then `ID`: what comes later has happened since.

There is no length byte that a flipped bit could change to move the check. A flip that makes an ETX of a character (only
of `C`) or an STX (only of `B`) ends or begins a frame early; the lengths and letters above are chosen so that no message
begins another one up to a `C`, and none ends another one after a `B`. So every single flipped bit is refused.
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import reduce
from operator import xor

import msgspec

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong

STX, ETX = 0x02, 0x03
MAX_TEXT_BYTES = 144
MAX_DATA_BYTES = 64  # in one memory message
CONTROLLER_STATUS = {"READY": "ready", "BUSY": "busy", "PENDING": "pending-transaction", "ERROR": "error"}
_STATUS_WORDS = {status: word for word, status in CONTROLLER_STATUS.items()}


class KeyIn(msgspec.Struct, frozen=True):
    """A key was put in; `rom` is 16 upper-case hex digits."""

    rom: str


class KeyOut(msgspec.Struct, frozen=True):
    """The key was taken out, or there is none."""


class Card(msgspec.Struct, frozen=True):
    """A card was shown; `number` is 10 upper-case hex digits."""

    number: str


class Lock(msgspec.Struct, frozen=True):
    """The keylock's position: UnifiedPOS 1, 2, 3, or 0 between two."""

    position_code: int


class Seal(msgspec.Struct, frozen=True):
    """The seal switch."""

    is_open: bool


class Controller(msgspec.Struct, frozen=True):
    """The controller's `status` as in CONTROLLER_STATUS's values; `code` of an error, else empty."""

    status: str
    code: str = ""


class Identity(msgspec.Struct, frozen=True):
    """The end of the answer to `Query`; the present states come before it."""

    model: str
    serial: str
    firmware: str


class Verb(StrEnum):
    """What a memory message asks or answers."""

    READ = "READ"
    DATA = "DATA"
    WRITE = "WRITE"
    WROTE = "WROTE"
    ERASE = "ERASE"
    ERASED = "ERASED"
    DENIED = "DENIED"


class Memory(msgspec.Struct, frozen=True):
    """Raw memory: `address` 0 … FFFF; `data` as the verb has it, the size for READ."""

    verb: Verb
    address: int
    data: bytes = b""


class Query(msgspec.Struct, frozen=True):
    """The host asks who is there and what is true now."""


Message = KeyIn | KeyOut | Card | Lock | Seal | Controller | Identity | Memory | Query

_GRAMMAR = re.compile(
    r"KEY IN (?P<rom>[0-9A-F]{16})"
    r"|(?P<key_out>KEY OUT)"
    r"|CARD (?P<number>[0-9A-F]{10})"
    r"|LOCK (?P<lock>[0-3])"
    r"|SEAL (?P<seal>OPEN|CLOSED)"
    r"|CTRL (?P<status>READY|BUSY|PENDING)"
    r"|CTRL ERROR (?P<error>[0-9]{1,4})"
    r"|ID (?P<model>[AC-Za-z0-9._-]{1,12}) (?P<serial>[AC-Za-z0-9._-]{1,12}) (?P<firmware>[a-z0-9._-]{1,12})"
    rf"|(?P<with_data>READ|DATA|WRITE) (?P<address>[0-9a-f]{{4}}) (?P<memory>(?:[0-9a-f]{{2}}){{1,{MAX_DATA_BYTES}}})"
    r"|(?P<verb>WROTE|ERASE|ERASED|DENIED) (?P<place>[0-9a-f]{4})"
    r"|(?P<query>\?)"
)


def encode(message: Message) -> bytes:
    """The frame of one message.

    Raises:
        ValueError: a field has characters or a length that the protocol does not allow.
    """
    text = _text(message)
    if _GRAMMAR.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a loopback message")
    checked = text.encode("ascii") + bytes([ETX])
    return bytes([STX]) + checked + bytes([_lrc(checked)])


def parse(text: str) -> Message:
    """The message of one frame's text.

    Raises:
        FrameError: not a message of this protocol; kind ``message``.
    """
    match = _GRAMMAR.fullmatch(text)
    if match is None:
        raise FrameError("the frame is whole, its text is no message of this protocol", kind="message")
    match match.lastgroup, match[match.lastgroup or 0]:
        case "rom", rom:
            return KeyIn(rom)
        case "key_out", _:
            return KeyOut()
        case "number", number:
            return Card(number)
        case "lock", code:
            return Lock(int(code))
        case "seal", word:
            return Seal(word == "OPEN")
        case "status", word:
            return Controller(CONTROLLER_STATUS[word])
        case "error", code:
            return Controller("error", code)
        case "firmware", firmware:
            return Identity(match["model"], match["serial"], firmware)
        case "memory", _:
            return Memory(Verb(match["with_data"]), int(match["address"], 16), bytes.fromhex(match["memory"]))
        case "place", place:
            return Memory(Verb(match["verb"]), int(place, 16))
        case _:
            return Query()


class Decoder:
    """Cuts a stream of bytes into messages. Holds at most one unfinished frame; skips what is outside of frames."""

    def __init__(self) -> None:
        self._text: bytearray | None = None  # None: outside of a frame
        self._expects_lrc = False

    def feed(self, data: bytes) -> list[Message | FrameError]:
        """Take bytes as they come, cut anywhere; returns messages and damaged frames in their order. Never raises."""
        results: list[Message | FrameError] = []
        for byte in data:
            try:
                if (message := self._take(byte)) is not None:
                    results.append(message)
            except FrameError as error:
                results.append(error)
        return results

    def _take(self, byte: int) -> Message | None:
        text = self._text
        if text is None:
            self._restart(byte)
            return None
        if self._expects_lrc:
            self._text = None
            if byte != _lrc(bytes([*text, ETX])):
                self._restart(byte)  # where the LRC was lost, this may be the next frame's STX
                raise ChecksumError("the LRC does not match the frame")
            return parse(text.decode("ascii"))
        if byte == ETX:
            self._expects_lrc = True
        elif not 0x20 <= byte <= 0x7E:
            self._restart(byte)
            raise FrameError(f"byte {byte:02x} inside of a frame", kind="characters")
        elif len(text) == MAX_TEXT_BYTES:
            self._text = None
            raise FrameTooLong(f"no ETX after {MAX_TEXT_BYTES} characters")
        else:
            text.append(byte)
        return None

    def _restart(self, byte: int) -> None:
        self._text = bytearray() if byte == STX else None
        self._expects_lrc = False


def _lrc(data: bytes) -> int:
    return reduce(xor, data, 0)


def _text(message: Message) -> str:
    match message:
        case KeyIn(rom=rom):
            return f"KEY IN {rom}"
        case KeyOut():
            return "KEY OUT"
        case Card(number=number):
            return f"CARD {number}"
        case Lock(position_code=code):
            return f"LOCK {code}"
        case Seal(is_open=is_open):
            return "SEAL OPEN" if is_open else "SEAL CLOSED"
        case Controller(status=status, code=code):
            return " ".join(filter(None, ("CTRL", _STATUS_WORDS.get(status), code)))
        case Identity(model=model, serial=serial, firmware=firmware):
            return f"ID {model} {serial} {firmware}"
        case Memory(verb=verb, address=address, data=data):
            return f"{verb} {address:04x} {data.hex()}".rstrip()
        case Query():
            return "?"

"""How indicators tell their counters: bytes to answers and back. Sans-io.

    rinCMD   21 11 0012 ;              ->  81 11 0012 : 0000000A ;          or CR LF in place of ;
             │  │  └ register              └ address, 80 set: a response; 40 set too: an error, its code for data
             │  └ 11: read, hexadecimal
             └ address 01 … 1F, 20 set: answer me
    TCR      TCR? ;                    ->  12 CR LF

Neither has a check: of the 144 single flipped bits of the answer above 31 read as another answer. So two equal answers in a row
are asked for (`readout`).
Source: Rinstrum R300/R400 reference manuals, rinCMD; HBM WE2107 manual, TCR. The answer to ``TCR?`` is read as decimal
digits with or without leading blanks or zeros; its exact width was not seen.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Protocol

import msgspec

from optima_bridge.errors import FrameError, FrameTooLong

MAX_LINE_BYTES = 64
READ_HEX = 0x11
REPLY, RESPONSE, ERROR, ADDRESS = 0x20, 0x80, 0x40, 0x1F
REGISTERS: Mapping[str, int] = {
    "serial": 0x0005,
    "oiml-calibration": 0x0012,
    "ntep-calibration": 0x0013,
    "ntep-configuration": 0x0014,
}
_NAMES = {register: name for name, register in REGISTERS.items()}
_rincmd = re.compile(rb"([0-9A-F]{2})([0-9A-F]{2})([0-9A-F]{4}):([0-9A-F]{1,8})").fullmatch
_number = re.compile(rb" *([0-9]{1,8}) *").fullmatch


class Answer(msgspec.Struct, frozen=True):
    """The indicator's answer about one counter; `value` None: it refused."""

    name: str
    value: int | None


class Dialect(Protocol):
    """One kind of dialogue."""

    def ask(self, name: str) -> bytes:
        """The question for one counter."""

    def feed(self, data: bytes) -> list[Answer | FrameError]:
        """Take bytes as they come, cut anywhere. Never raises, never holds more than a line."""


class _Lines:
    """Cuts bytes into lines and has each parsed; empty ones are skipped."""

    def __init__(self, ends: bytes, parse: Callable[[bytes], Answer]) -> None:
        self._ends = ends
        self._parse = parse
        self._line = bytearray()

    def feed(self, data: bytes) -> list[Answer | FrameError]:
        results: list[Answer | FrameError] = []
        for byte in data:
            if byte not in self._ends:
                if len(self._line) <= MAX_LINE_BYTES:  # one more than allowed is enough to know that it is too long
                    self._line.append(byte)
                continue
            line = bytes(self._line)
            self._line.clear()
            try:
                if len(line) > MAX_LINE_BYTES:
                    raise FrameTooLong(f"a line of more than {MAX_LINE_BYTES} characters")
                if line:
                    results.append(self._parse(line))
            except FrameError as error:
                results.append(error)
        return results


class Rincmd(_Lines):
    """Rinstrum's dialogue with the indicator of one address."""

    def __init__(self, address: int) -> None:
        super().__init__(b";\r\n", self._answer)
        self._address = address

    def ask(self, name: str) -> bytes:
        return b"%02X%02X%04X;" % (REPLY | self._address, READ_HEX, REGISTERS[name])

    def _answer(self, line: bytes) -> Answer:
        if (match := _rincmd(line)) is None:
            raise FrameError("a line that is no rinCMD response", kind="characters")
        address, command, register, value = (int(field, 16) for field in match.groups())
        if (
            not address & RESPONSE
            or address & ADDRESS != self._address
            or command != READ_HEX
            or register not in _NAMES
        ):
            raise FrameError("a rinCMD message that answers no question of ours", kind="message")
        return Answer(_NAMES[register], None if address & ERROR else value)


class Tcr(_Lines):
    """HBM's dialogue: the trade counter."""

    def __init__(self) -> None:
        super().__init__(b"\r\n", self._answer)

    def ask(self, name: str) -> bytes:
        del name  # there is one
        return b"TCR?;"

    @staticmethod
    def _answer(line: bytes) -> Answer:
        if line == b"?":
            return Answer("trade", None)
        if (match := _number(line)) is None:
            raise FrameError("a line that is no number", kind="characters")
        return Answer("trade", int(match[1]))

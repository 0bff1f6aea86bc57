"""A DS2480B, byte exact, with a 1-Wire line and keys behind it. Sans-io; `simulator_on_pty` gives it a port.

Refereed by digitemp and owserver. Not simulated: overdrive, 12 V, the length of pulses.
Source: DS2480B data sheet 19-5047, pages 5 to 13.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from optima_bridge.link.ptys import PtyServer
from optima_bridge.wire.onewire_slaves import OneWireBus, OneWireSlave
from optima_drivers.ds2480b.codec import CHIP_REVISION, Bus

DATA_MODE, COMMAND_MODE, END_PULSE = 0xE1, 0xE3, 0xF1
# Configuration parameters 1 to 7 after a master reset; 3 is the pull-up's length, 7 the baud rate.
DEFAULT_CONFIGURATION = {1: 0, 2: 4, 3: 4, 4: 0, 5: 0, 6: 0, 7: 0}
PULL_UP_DURATION, ENDLESS = 3, 7


class Mode(Enum):
    """How the next byte from the host is taken."""

    UNCALIBRATED = "uncalibrated"  # swallowed: it sets the time base
    COMMAND = "command"
    DATA = "data"
    CHECK = "check"  # after E3 in data mode
    PULSE = "pulse"  # an endless pulse: only F1 ends it


@dataclass
class Faults:
    """Faults to order; counts run down to 0 by themselves.

    Attributes:
        no_presence: resets see no key, whatever is on the probe.
        alarm: resets see the alarm presence of a DS1994.
        dead: nothing is taken and nothing answered.
        revision: 3 is the DS2480B, 2 the DS2480; other adapters have others.
        lost_answers: answer bytes that get lost on their way to the host.
        lost_bytes: bytes from the host that get lost.
        late_answers: answers that come only with the next one.
        arrival_byte: what tells that a key was put on; None: this clone does not tell.
    """

    no_presence: bool = False
    alarm: bool = False
    dead: bool = False
    revision: int = CHIP_REVISION
    lost_answers: int = 0
    lost_bytes: int = 0
    late_answers: int = 0
    arrival_byte: int | None = 0x01


class Ds2480bSimulator:
    """The chip and its 1-Wire line.

    Attributes:
        bus: the line; ``bus.keys``, ``bus.short``, ``bus.lift_after_slots``.
        faults: what is wrong with the adapter.
    """

    def __init__(self) -> None:
        self.bus = OneWireBus()
        self.faults = Faults()
        self._send: Callable[[bytes], None] = lambda _data: None
        self._late = b""
        self.break_()

    def break_(self) -> None:
        """Master reset: power-up, or a break. The next byte calibrates."""
        self.mode = Mode.UNCALIBRATED
        self.configuration = dict(DEFAULT_CONFIGURATION)
        self._searching = False
        self._armed = False
        self._pulse_answer = b""
        self._mode_after_pulse = Mode.COMMAND

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say where bytes go that the host did not ask for."""
        self._send = send

    def put(self, rom: str | bytes) -> OneWireSlave:
        """Put a key on the probe, beside those that are there; in command mode the chip tells."""
        slave = self.bus.put(rom)
        if self.mode is Mode.COMMAND and self.faults.arrival_byte is not None and not self.faults.dead:
            self._send(bytes([self.faults.arrival_byte]))
        return slave

    def lift(self, slave: OneWireSlave | None = None) -> None:
        """Take this key away, or all."""
        self.bus.lift(slave)

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host, split or glued as they came; return the answers."""
        if self.faults.dead:
            return b""
        lost = min(self.faults.lost_bytes, len(data))
        self.faults.lost_bytes -= lost
        answer = b"".join(map(self._byte, data[lost:]))
        lost = min(self.faults.lost_answers, len(answer))
        self.faults.lost_answers -= lost
        answer = answer[lost:]
        if answer and self.faults.late_answers:
            self.faults.late_answers -= 1
            self._late += answer
            return b""
        if answer and self._late:
            answer, self._late = self._late + answer, b""
        return answer

    def _byte(self, byte: int) -> bytes:
        match self.mode:
            case Mode.UNCALIBRATED:
                self.mode = Mode.COMMAND
                return b""
            case Mode.PULSE:
                if byte != END_PULSE:
                    return b""
                self.mode = self._mode_after_pulse
                return self._pulse_answer
            case Mode.DATA if byte == COMMAND_MODE:
                self.mode = Mode.CHECK
                return b""
            case Mode.CHECK if byte != COMMAND_MODE:
                self.mode = Mode.COMMAND
                return self._command(byte)
            case Mode.DATA | Mode.CHECK:
                self.mode = Mode.DATA
                return self._search(byte) if self._searching else self._data(byte)
            case Mode.COMMAND:
                return self._command(byte)

    def _command(self, byte: int) -> bytes:
        if byte == DATA_MODE:
            self.mode = Mode.DATA
        if byte in (DATA_MODE, COMMAND_MODE, END_PULSE) or not byte & 1:
            return b""
        if not byte & 0x80:
            return self._configure(byte >> 4, byte >> 1 & 0b111)
        match byte >> 5:
            case 0b100:
                bit = self.bus.slot(byte >> 4 & 1)
                return bytes([byte & 0xFC | 0b11 * bit]) + (self._pulse(0xEC | 0b11 * bit) if byte & 2 else b"")
            case 0b101:
                self._searching = bool(byte & 0x10)
                return b""
            case 0b110:
                return bytes([0xC0 | self.faults.revision << 2 | self._reset().value]) if not byte & 2 else b""
            case _:
                self._armed = bool(byte & 2)
                return self._pulse(byte & 0xFC) if byte & 0x0C == 0x0C else b""

    def _configure(self, parameter: int, value: int) -> bytes:
        if parameter == 0:
            return bytes([self.configuration.get(value, 0) << 1])
        self.configuration[parameter] = value
        return bytes([parameter << 4 | value << 1])

    def _reset(self) -> Bus:
        self.bus.reset()
        if self.bus.short:
            return Bus.SHORT
        if self.faults.no_presence or not self.bus.keys:
            return Bus.NONE
        return Bus.ALARM if self.faults.alarm else Bus.PRESENCE

    def _pulse(self, answer: int) -> bytes:
        if self.configuration[PULL_UP_DURATION] != ENDLESS:
            return bytes([answer])
        self._mode_after_pulse, self._pulse_answer = self.mode, bytes([answer])
        self.mode = Mode.PULSE
        return b""

    def _data(self, byte: int) -> bytes:
        read = sum(self.bus.slot(byte >> index & 1) << index for index in range(8))
        if not self._armed:
            return bytes([read])
        return bytes([read]) + self._pulse(0xF6 if read & 0x80 else 0x76)

    def _search(self, path: int) -> bytes:
        """The search accelerator: twelve slots for four ROM bits."""
        answer = 0
        for shift in (0, 2, 4, 6):
            bit, complement = self.bus.slot(1), self.bus.slot(1)
            conflict = bit == complement
            # In a conflict the host's direction counts; two ones mean that nobody is left.
            direction = path >> shift + 1 & 1 if conflict and not bit else bit
            self.bus.slot(direction)
            answer |= (direction << 1 | conflict) << shift
        return bytes([answer])


@asynccontextmanager
async def simulator_on_pty(
    simulator: Ds2480bSimulator, *, symlink: Path | None = None, baud: int | None = None
) -> AsyncIterator[str]:
    """Serve `simulator` on a pty; gives the path to open. Arguments as in `PtyServer`; ``baud=9600`` for a real pace."""
    async with PtyServer(simulator, symlink=symlink, baud=baud) as server:
        simulator.attach(server.send)
        yield server.path

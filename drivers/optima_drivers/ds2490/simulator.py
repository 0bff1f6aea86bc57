"""A DS9490R: a DS2490, byte by byte, its 1-Wire line with the chip that is soldered in, and the USB bus that it is plugged into.

Not simulated: overdrive, pulses, macros, the time that things take.
Source: DS2490 data sheet, communication commands and device feedback; application note 117.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from enum import IntEnum

from optima_bridge.link.usbsim import Plug, UsbBus
from optima_bridge.wire.onewire import ROM_SIZE_BYTES, SearchPass, crc8
from optima_bridge.wire.onewire_slaves import ROM_BITS, OneWireBus, OneWireSlave
from optima_drivers.ds2490.codec import DEVICE_DETECTED, IN_ENDPOINT, OUT_ENDPOINT, STATUS_ENDPOINT, Result

VENDOR, PRODUCT = 0x04FA, 0x2490
_INTERRUPT, _BULK = 3, 2  # kinds of endpoints
_RESULTS_MAX = 16
_OUT_FIFO_SIZE_BYTES = 128
_IDLE = 0x20


class Request(IntEnum):
    """Vendor requests."""

    CONTROL = 0
    COMMUNICATION = 1
    MODE = 2


class Control(IntEnum):
    """Of CONTROL: its value. Those that steer macros do nothing here."""

    RESET_DEVICE = 0
    START = 1
    RESUME = 2
    HALT_WHEN_IDLE = 3
    HALT_WHEN_DONE = 4
    FLUSH_COMMANDS = 7
    FLUSH_IN = 8
    FLUSH_OUT = 9


class Line(IntEnum):
    """Of COMMUNICATION: the command in its value; the other bits are flags."""

    SET_DURATION = 0x12
    BIT = 0x20
    RESET = 0x42
    BYTE = 0x52
    BLOCK = 0x74
    SEARCH = 0xF4


_COMMAND_MASK, _DATA_BIT, _RESET_FIRST, _ALWAYS_RESULT, _RETURN_FORK = 0x00F6, 0x0008, 0x0100, 0x0400, 0x4000
_MODES = range(8)


def soldered_in(serial: int = 0x308AEA) -> bytes:
    """The ROM of the DS1420 in an adapter."""
    body = b"\x81" + serial.to_bytes(6, "little")
    return body + bytes([crc8(body)])


@dataclass
class Faults:
    """Faults to order; counts run down to 0 by themselves.

    Attributes:
        busy: status packets that say that the chip is at work.
        never_idle: so do all, until the chip is reset.
        stale_packets: status packets that tell of rest and of nothing else, as from before the last command.
        lost_results: results that are not told.
        only_failures: of results only what went wrong is told, whatever a command asks for.
        status: what every status packet is instead.
        refused_flushes: requests to empty a FIFO that are refused.
    """

    busy: int = 0
    never_idle: bool = False
    stale_packets: int = 0
    lost_results: int = 0
    only_failures: bool = False
    status: bytes | None = None
    refused_flushes: int = 0


@dataclass
class Ds2490Chip:
    """The chip: a `UsbDevice`.

    Attributes:
        line: who is on its 1-Wire line.
        faults: what is wrong.
        searches: how many have been made.
    """

    vendor: int = VENDOR
    product: int = PRODUCT
    line: OneWireBus = field(default_factory=OneWireBus)
    faults: Faults = field(default_factory=Faults)
    searches: int = 0

    def __post_init__(self) -> None:
        self.alternates = [
            {STATUS_ENDPOINT: (_INTERRUPT, 32), OUT_ENDPOINT: (_BULK, size), IN_ENDPOINT: (_BULK, size)}
            for size in (16, 64, 16, 64)
        ]
        self._reset_device()

    def _reset_device(self) -> None:
        self._out, self._in, self._results = bytearray(), bytearray(), bytearray()
        self._command = 0
        self.faults.never_idle = False

    def detect(self) -> None:
        """Tell, more than once as the real one does, that something was put on the line."""
        self._results += bytes([DEVICE_DETECTED]) * 2

    # -- USB -----------------------------------------------------------------------------------------------------------

    def control(self, request: int, value: int, index: int) -> bool:
        match request:
            case Request.CONTROL if value in (Control.FLUSH_IN, Control.FLUSH_OUT) and self.faults.refused_flushes:
                self.faults.refused_flushes -= 1
                return False
            case Request.CONTROL if value in list(Control):
                self._control(value)
            case Request.COMMUNICATION if value & _COMMAND_MASK in list(Line):
                self._command = value
                self._communicate(value, index)
            case Request.MODE if value in _MODES:
                pass
            case _:
                return False
        return True

    def _control(self, command: int) -> None:
        if command == Control.RESET_DEVICE:
            self._reset_device()
        elif command == Control.FLUSH_IN:
            self._in.clear()
        elif command == Control.FLUSH_OUT:
            self._out.clear()

    def write(self, endpoint: int, data: bytes) -> int:
        taken = data[: _OUT_FIFO_SIZE_BYTES - len(self._out)]
        self._out += taken
        return len(taken)

    def read(self, endpoint: int, size_bytes: int) -> bytes | None:
        if endpoint == STATUS_ENDPOINT:
            return self._status()[:size_bytes]
        if not self._in:
            return None
        data, self._in = bytes(self._in), bytearray()
        return data if len(data) <= size_bytes else None  # to ask for less than there is loses it

    def _status(self) -> bytes:
        if self.faults.status is not None:
            return self.faults.status
        if self.faults.stale_packets:
            self.faults.stale_packets -= 1
            return bytes([*bytes(8), _IDLE, *bytes(7)])
        busy = self.faults.busy > 0 or self.faults.never_idle
        self.faults.busy = max(0, self.faults.busy - 1)
        head = [0, 0, 0, 0x20, 5, 4, 8, 0, 0 if busy else _IDLE, self._command & 0xFF, self._command >> 8, 0]
        results, self._results = self._results[:_RESULTS_MAX], self._results[_RESULTS_MAX:]
        return bytes([*head, len(self._out), len(self._in), 0, 0]) + results

    # -- the line ------------------------------------------------------------------------------------------------------

    def _communicate(self, word: int, index: int) -> None:
        result = self._reset_line() if word & _RESET_FIRST else 0
        match word & _COMMAND_MASK:
            case Line.RESET:
                result |= self._reset_line()
            case Line.SEARCH:
                result |= self._search(index & 0xFF, index >> 8, with_fork=bool(word & _RETURN_FORK))
            case Line.BIT:
                self._in.append(self.line.slot(bool(word & _DATA_BIT)))
            case Line.BYTE:
                self._in.append(self._byte(index & 0xFF))
            case Line.BLOCK if index > len(self._out):
                self.faults.never_idle = True  # it waits for the rest
            case Line.BLOCK:
                block, self._out = self._out[:index], self._out[index:]
                self._in += bytes(map(self._byte, block))
        if self.faults.lost_results:
            self.faults.lost_results -= 1
        elif result or (word & _ALWAYS_RESULT and not self.faults.only_failures):
            self._results.append(result)

    def _reset_line(self) -> int:
        self.line.reset()
        if self.line.short:
            return Result.SHORT
        return 0 if self.line.keys else Result.NO_PRESENCE

    def _byte(self, byte: int) -> int:
        return sum(self.line.slot(byte >> index & 1) << index for index in range(8))

    def _search(self, command: int, most: int, *, with_fork: bool) -> int:
        """Walk the line from the path in the FIFO on, until nobody is left or `most` chips are found (0: all)."""
        self.searches += 1
        path: int | None = int.from_bytes(self._out[:ROM_SIZE_BYTES], "little")
        del self._out[:ROM_SIZE_BYTES]
        for found in itertools.count(1):
            assert path is not None
            self._byte(command)
            if (one := self._pass(path)) is None:
                return Result.NO_PRESENCE
            self._in += one.bits.to_bytes(ROM_SIZE_BYTES, "little")
            path = one.next_path()
            if found == most and path is not None and with_fork:
                self._in += path.to_bytes(ROM_SIZE_BYTES, "little")
            if found == most or path is None:
                return Result.SEARCH_ENDED if found < most else 0
            self._reset_line()
        raise AssertionError

    def _pass(self, path: int) -> SearchPass | None:
        """One pass along `path`; None: nobody was left."""
        bits = conflicts = 0
        for n in range(ROM_BITS):
            bit, complement = self.line.slot(1), self.line.slot(1)
            if bit and complement:
                return None
            conflict = bit == complement
            direction = path >> n & 1 if conflict else bit
            self.line.slot(direction)
            bits |= direction << n
            conflicts |= conflict << n
        return SearchPass(bits, conflicts)


class Ds2490Simulator:
    """A DS9490R in a USB port.

    Attributes:
        chip: its DS2490; ``chip.line``, ``chip.faults``.
        usb: the bus.
        plug: where it is; what is wrong with the connection.
    """

    def __init__(self, place: str = "1-2") -> None:
        self.chip = Ds2490Chip()
        self.chip.line.put(soldered_in())
        self.usb = UsbBus()
        self.plug: Plug = self.usb.plug(self.chip, place)

    @property
    def port(self) -> str:
        """What the configuration calls it."""
        return f"usb:{VENDOR:04x}:{PRODUCT:04x}"

    def put(self, rom: str | bytes) -> OneWireSlave:
        """Put a key on the probe, beside those that are there; the chip tells."""
        key = self.chip.line.put(rom)
        self.chip.detect()
        return key

    def lift(self, key: OneWireSlave | None = None) -> None:
        """Take this key away, or all; not the chip that is soldered in."""
        line = self.chip.line
        line.keys = [other for other in line.keys if other is line.keys[0] or (key is not None and other is not key)]

    def replug(self, place: str = "1-2") -> None:
        """Pull it out, and plug it in again."""
        self.plug.unplug()
        self.chip.control(Request.CONTROL, Control.RESET_DEVICE, 0)
        self.plug = self.usb.plug(self.chip, place)

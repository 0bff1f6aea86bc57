"""Switches between an output and the inputs of a port, and a scale that counts its adjustments, in software."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from optima_bridge.link import Line
from optima_drivers.contacts.dialects import ERROR, READ_HEX, REGISTERS, RESPONSE


class SwitchSimulator:
    """Contacts fed by RTS; `outputs` is what the port does, `attach` says where the lines go."""

    def __init__(self, closed: Iterable[Line] = ()) -> None:
        self.closed = {*closed}
        self.stuck: set[Line] = set()
        self.fed = False
        self._set_lines: Callable[[Iterable[Line]], None] = _nowhere

    def attach(self, set_lines: Callable[[Iterable[Line]], None]) -> None:
        """Say where the levels go."""
        self._set_lines = set_lines
        self._update()

    def outputs(self, dtr: bool, rts: bool) -> None:
        """Take what the port puts out."""
        del dtr
        self.fed = rts
        self._update()

    def close(self, *lines: Line) -> None:
        """Close these contacts."""
        self.closed |= {*lines}
        self._update()

    def open(self, *lines: Line) -> None:
        """Open these contacts."""
        self.closed -= {*lines}
        self._update()

    def stick(self, *lines: Line) -> None:
        """Short these lines to a voltage of their own, in place of those before."""
        self.stuck = {*lines}
        self._update()

    def _update(self) -> None:
        self._set_lines(self.stuck | (self.closed if self.fed else set()))


class ScaleSimulator(SwitchSimulator):
    """A scale with a contact under its seal and counters; it answers rinCMD and ``TCR?``.

    Attributes:
        counters: by name; those of rinCMD, and ``trade``.
        silent: it answers nothing.
        spoil: garbles the next answers, one character each.
    """

    def __init__(self, closed: Iterable[Line] = (), address: int = 1, **counters: int) -> None:
        super().__init__(closed)
        self.counters = {name.replace("_", "-"): value for name, value in counters.items()}
        self.silent = False
        self.spoil = 0
        self._address = address
        self._line = b""

    def adjust(self, name: str) -> None:
        """Break the seal and adjust something: the counter goes up."""
        self.counters[name] += 1

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host; return the answers."""
        *questions, self._line = (self._line + data).split(b";")
        answers = b"".join(map(self._answer, questions))
        if self.spoil and answers:
            self.spoil -= 1
            answers = answers[:-3] + bytes([answers[-3] ^ 0x01]) + answers[-2:]
        return b"" if self.silent else answers

    def _answer(self, question: bytes) -> bytes:
        if question == b"TCR?":
            return b"%07d\r\n" % self.counters["trade"] if "trade" in self.counters else b"?\r\n"
        address, register = int(question[:2], 16), int(question[4:8], 16)
        if address & 0x1F != self._address:
            return b""
        for name, number in REGISTERS.items():
            if number == register and name in self.counters:
                return b"%02X%02X%04X:%08X;" % (RESPONSE | self._address, READ_HEX, register, self.counters[name])
        return b"%02X%02X%04X:C5;" % (RESPONSE | ERROR | self._address, READ_HEX, register)


def _nowhere(lines: Iterable[Line]) -> None:
    """Where levels go before attach()."""

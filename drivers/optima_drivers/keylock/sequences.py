"""Packets of key presses to positions: finds a keylock's sequences in whatever else is typed. Sans-io.

    K pressed | K released | L pressed | L released | 2 pressed        is the position of "K L 2"; each a packet

Only presses count, by their own time: all gaps of a sequence must be at most `gap_ns`, which hardly anybody types. **Nothing of what
people type leaves this module or stays in it**: of the last keys it holds those, and only those, that begin a sequence.
"""

from __future__ import annotations

from collections.abc import Mapping

from optima_bridge.errors import FrameError
from optima_bridge.wire.evdev import EV_KEY, EV_SYN, PRESSED, SYN_DROPPED, decode
from optima_drivers.keylock.keys import PASSED_OVER

Keys = tuple[int, ...]


class SequenceDecoder:
    """Finds sequences; none of them may be a part of another."""

    def __init__(self, sequences: Mapping[Keys, int], gap_ns: int) -> None:
        self._sequences = sequences
        self._beginnings = {keys[:length] for keys in sequences for length in range(1, len(keys) + 1)}
        self._gap_ns = gap_ns
        self._begun: Keys = ()
        self._last_ns = 0

    def feed(self, packet: bytes) -> list[int | FrameError]:
        """Take one packet; returns the positions whose sequences it completed. Never raises.

        Kinds of errors: ``length``; ``overrun``: the kernel had to forget presses, so a position may have been missed.
        """
        try:
            events = decode(packet)
        except FrameError as error:
            return [error]
        if any((event.type, event.code) == (EV_SYN, SYN_DROPPED) for event in events):
            self._begun = ()
            return [FrameError("the kernel had to forget key presses", kind="overrun")]
        presses = [event for event in events if (event.type, event.value) == (EV_KEY, PRESSED)]
        found = [self._press(event.code, event.time_ns) for event in presses if event.code not in PASSED_OVER]
        return [position for position in found if position is not None]

    def _press(self, key: int, at_ns: int) -> int | None:
        begun = (*self._begun, key) if 0 <= at_ns - self._last_ns <= self._gap_ns else (key,)
        while begun and begun not in self._beginnings:
            begun = begun[1:]
        position = self._sequences.get(begun)
        self._begun, self._last_ns = begun if position is None else (), at_ns
        return position

"""Packets of key presses to positions: finds a keylock's sequences in whatever else is typed. Sans-io.

    K pressed | K released | L pressed | L released | 2 pressed        is the position of "K L 2"; each a packet

Only presses count, by their own time: all gaps of a sequence must be at most `gap_ns`, which hardly anybody types. Scanners and card
readers on the same keyboard type as fast as it does, so a sequence with another key less than that before it is none; whoever takes
the positions must wait as long after the last key, for one behind it is told only when it comes. **Nothing of what people type leaves
this module or stays in it**: of the last keys it holds those, and only those, that begin a sequence, and whether others were among them.
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
        self._is_alone = True  # since the last gap nothing but sequences, and beginnings of them
        self._has_ended = False  # the last key was the end of such a sequence

    def feed(self, packet: bytes) -> list[int | FrameError]:
        """Take one packet; returns the positions whose sequences it completed. Never raises.

        Kinds of errors: ``length``; ``overrun``: the kernel had to forget presses, so a position may have been missed;
        ``typing``: a sequence has other keys before it, or the one told last has another key behind it.
        """
        try:
            events = decode(packet)
        except FrameError as error:
            return [error]
        if any((event.type, event.code) == (EV_SYN, SYN_DROPPED) for event in events):
            self._begun, self._is_alone, self._has_ended = (), False, False
            self._last_ns = max(event.time_ns for event in events)
            return [FrameError("the kernel had to forget key presses", kind="overrun")]
        presses = [event for event in events if (event.type, event.value) == (EV_KEY, PRESSED)]
        return [
            result
            for event in presses
            if event.code not in PASSED_OVER
            for result in self._press(event.code, event.time_ns)
        ]

    def _press(self, key: int, at_ns: int) -> list[int | FrameError]:
        gap_ns, self._last_ns = at_ns - self._last_ns, at_ns
        if not 0 <= gap_ns <= self._gap_ns:
            self._begun, self._is_alone, self._has_ended = (), gap_ns > 0, False
        results: list[int | FrameError] = []
        if self._has_ended:
            results.append(FrameError("a key right behind a sequence", kind="typing"))
        begun = (*self._begun, key)
        while begun and begun not in self._beginnings:
            begun, self._is_alone = begun[1:], False
        position = self._sequences.get(begun)
        self._begun, self._has_ended = begun if position is None else (), position is not None and self._is_alone
        if position is not None:
            results.append(position if self._is_alone else FrameError("a sequence behind other keys", kind="typing"))
        return results

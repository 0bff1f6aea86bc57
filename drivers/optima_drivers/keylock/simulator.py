"""Keylocks in software, byte exact, of each of the three kinds: say where the records go with `attach`, then `turn` the key.

link, peer = memory_records(descriptor=NCR_DESCRIPTOR)      # optima_bridge.link
lock = HidKeylockSimulator()
lock.attach(peer.feed)
lock.turn(3)                                                # UnifiedPOS numbers, as in the profiles
"""

from __future__ import annotations

import time
from collections.abc import Callable

from optima_bridge.wire.evdev import EV_KEY, EV_MSC, EV_SYN, MSC_SCAN, PRESSED, RELEASED, SYN_REPORT, InputEvent, encode
from optima_drivers.keylock.keys import KEYS
from optima_drivers.keylock.profiles import REPORTED, TEXT, TYPED

NCR_DESCRIPTOR = bytes.fromhex("068fff0901a101850505091901290415002501750195048102750495018103c0")
NCR_REPORT_ID = 5
REST_NS = 250_000_000  # before it types again: longer than any gap of a sequence may be set to


class _Simulator:
    def __init__(self) -> None:
        self._send: Callable[[bytes], None] = lambda _: None

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say what happens through `send` from now on."""
        self._send = send


class TypedKeylockSimulator(_Simulator):
    """A POS keyboard: what it types, as the kernel gives it.

    Args:
        profile: one of `profiles.TYPED`.
        key_ms: from one key to the next, and half of it from press to release.
        clock_ns: the clock of the records.
    """

    def __init__(
        self, profile: str = "posiflex", key_ms: int = 10, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        super().__init__()
        self._keys = {position.code: position.keys for position in TYPED[profile].positions}
        self._key_ns = key_ms * 1_000_000
        self._clock_ns = clock_ns
        self._free_ns = 0  # when it may type again

    def turn(self, code: int) -> None:
        """Turn the key; the sequence comes at once, its records tell the time that it took."""
        self.type(self._keys[code])

    def type(self, keys: str, *, each_ms: int | None = None) -> None:
        """Type keys by their names after a rest, `each_ms` from one to the next."""
        key_ns = self._key_ns if each_ms is None else each_ms * 1_000_000
        begin_ns = max(self._clock_ns(), self._free_ns)
        for place, name in enumerate(keys.split()):
            pressed_ns = begin_ns + place * key_ns
            self._free_ns = pressed_ns + REST_NS
            self.key(KEYS[name], PRESSED, pressed_ns)
            self.key(KEYS[name], RELEASED, pressed_ns + key_ns // 2)

    def key(self, code: int, value: int, at_ns: int) -> None:
        """One packet of one key; the scan code stands in for the HID usage, which nobody reads."""
        self._send(
            encode(
                InputEvent(at_ns, EV_MSC, MSC_SCAN, code),
                InputEvent(at_ns, EV_KEY, code, value),
                InputEvent(at_ns, EV_SYN, SYN_REPORT, 0),
            )
        )


class HidKeylockSimulator(_Simulator):
    """An NCR DynaKey with `NCR_DESCRIPTOR`; it begins between two positions.

    Args:
        tells: whether it answers when it is asked; many devices do not.
    """

    def __init__(self, *, tells: bool = True) -> None:
        super().__init__()
        self._bits = {position.code: 1 << position.button - 1 for position in REPORTED["ncr"].positions}
        self._tells = tells
        self._report = self._now(0)

    def turn(self, code: int) -> None:
        """Turn the key: a report of no position, then one of the new position; 0: it stays between two."""
        self.report(0)
        if code:
            self.report(self._bits[code])

    def report(self, bits: int) -> None:
        """Send a report with these bits."""
        self._report = self._now(bits)
        self._send(self._report)

    def answer(self, report_id: int) -> bytes | None:
        """The report that the host asks for."""
        return self._report if self._tells and report_id == NCR_REPORT_ID else None

    def _now(self, bits: int) -> bytes:
        return bytes([NCR_REPORT_ID, bits])


class SerialKeylockSimulator(_Simulator):
    """An Ultimate 600, programmed like the profile: it answers, and tells each turn (command B6A). It begins in LOCK."""

    def __init__(self) -> None:
        super().__init__()
        self._texts = {position.code: position.text.encode() + b"\r" for position in TEXT["ultimate"].positions}
        self._enquiry = TEXT["ultimate"].enquiry.encode()
        self._position = 1
        self._heard = b""

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host; returns an answer to each question."""
        *questions, self._heard = (self._heard + data).split(b"\r")
        return b"".join(self._texts[self._position] for question in questions if question + b"\r" == self._enquiry)

    def turn(self, code: int) -> None:
        """Turn the key."""
        self._position = code
        self._send(self._texts[code])

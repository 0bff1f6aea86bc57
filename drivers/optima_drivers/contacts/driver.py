"""Contacts on the modem lines of a serial port: a key switch, a seal switch, or both. Wiring and tests: `panel`.

    keylock = { supervisor = "cts" }                       one contact: closed is supervisor, open is locked
    keylock = { supervisor = "cts", locked = "dsr" }       a change-over pair: exactly one is closed, else it is a fault
    seal = "dcd"                                           closed is intact

Unknown is locked: a stuck line, a late one, a pair that contradicts itself and the time before the first decision grant
nothing.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import ClassVar

from pydantic import Field, model_validator

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.link import Line, ModemLines
from optima_bridge.model import (
    Capability,
    Data,
    DeviceIdentity,
    Event,
    KeylockPosition,
    Maturity,
    Observation,
    Subject,
)
from optima_drivers.contacts.debounce import Debounce
from optima_drivers.contacts.faults import Faults
from optima_drivers.contacts.panel import NS_PER_MS, Panel, PanelSettings, View

CODES = {KeylockPosition.LOCKED: 1, KeylockPosition.NORMAL: 2, KeylockPosition.SUPERVISOR: 3}  # UnifiedPOS
OPEN: Data = {"seal": "broken"}
CLOSED: Data = {"seal": "intact"}
UNKNOWN: Data = {"seal": "unknown"}


class KeylockLines(DriverSettings):
    """The line of each position that has a contact."""

    locked: Line | None = Field(
        default=None, description="closed in LOCK; with it none closed is between two positions"
    )
    normal: Line | None = Field(default=None, description="closed in NORM")
    supervisor: Line | None = Field(default=None, description="closed in SUPR")

    def positions(self) -> dict[KeylockPosition, Line]:
        """Those that are wired."""
        lines = {
            KeylockPosition.LOCKED: self.locked,
            KeylockPosition.NORMAL: self.normal,
            KeylockPosition.SUPERVISOR: self.supervisor,
        }
        return {position: line for position, line in lines.items() if line is not None}


class ContactsSettings(PanelSettings):
    """Configuration keys of a ``contacts`` device."""

    keylock: KeylockLines = Field(
        default=KeylockLines(),
        description="the line of each position that has a contact; with none closed the lock is locked",
    )
    seal: Line | None = Field(default=None, description="the line of the seal switch, closed while the seal is intact")
    changeover_ms: int = Field(
        default=200,
        ge=50,
        le=10_000,
        description="how long the contacts of a keylock may contradict each other before it is a fault, milliseconds",
    )

    @model_validator(mode="after")
    def _wired(self) -> ContactsSettings:
        lines = [*self.keylock.positions().values(), *([self.seal] if self.seal else [])]
        if not lines:
            raise ValueError("nothing is wired: give keylock, seal or both")
        if len(lines) != len({*lines}):
            raise ValueError("one line cannot be two contacts")
        if not self.inverted <= {*lines}:
            raise ValueError("inverted names a line that has no contact")
        return self

    def narrow(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        wired = {Capability.KEYLOCK: self.keylock.positions(), Capability.SEAL_SWITCH: self.seal}
        return declared & {ability for ability, lines in wired.items() if lines}


class ContactsDriver:
    """A key switch and a seal switch, each with contacts on one port's CTS, DSR, DCD and RI."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="contacts",
        summary="key and seal switches on the modem lines of a serial port",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.KEYLOCK, Capability.SEAL_SWITCH}),
        schemes=frozenset({"serial", "rfc2217", "memory"}),
        integrity="loop test",
        spec="Linux ioctl_tty(2): TIOCMGET, TIOCGICOUNT; RFC 2217",
    )
    Settings: ClassVar[type[DriverSettings]] = ContactsSettings

    def __init__(self, link: ModemLines, settings: ContactsSettings) -> None:
        self._settings = settings
        self._counters: Counter[str] = Counter()
        self._positions = settings.keylock.positions()
        self._key_lines = frozenset(self._positions.values())
        lines = self._key_lines | ({settings.seal} if settings.seal else set())
        self._panel = Panel(link, settings, lines, self._counters)
        stable_ns = settings.debounce_ms * NS_PER_MS
        self._seal = Debounce(False, stable_ns)
        self._is_pair = settings.keylock.locked is not None
        self._rest = KeylockPosition.BETWEEN if self._is_pair else KeylockPosition.LOCKED
        self._keylock = Debounce(self._rest, stable_ns)
        self._contradicts_since_ns: int | None = None
        self._faults = Faults()
        self._said: dict[Subject, Data] = {}

    @property
    def counters(self) -> Mapping[str, int]:
        """``pulses``, ``loop_tests``."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        """Feed the contacts. Raises LinkError: the port has no modem lines."""
        await self._panel.start()
        return DeviceIdentity()

    async def stop(self) -> None:
        """Nothing to do: closing the port takes the feed away."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """What the switches do, and faults of their wires. Ends by LinkLost."""
        while True:
            view = await self._panel.poll()
            for news in self._decide(view):
                yield news
            if self._is_settled():
                await self._panel.rest()
            else:
                await asyncio.sleep(self._panel.wait_s())

    def _is_settled(self) -> bool:
        """Whether nothing will be decided as long as no line moves."""
        is_keylock_settled = not self._positions or self._keylock.settled
        is_seal_settled = self._settings.seal is None or self._seal.settled
        return is_keylock_settled and is_seal_settled and self._contradicts_since_ns is None

    def _decide(self, view: View) -> Iterator[Event | Observation]:
        faults: dict[str, Data] = {}
        if view.stuck:
            faults["line-stuck"] = {"lines": sorted(view.stuck)}
        if view.late:
            faults["line-slow"] = {"lines": sorted(view.late)}
        if self._contradicts(view):
            faults["lines-contradict"] = {"lines": sorted(self._key_lines)}
        yield from self._faults.update(faults, view.at_ns)
        if self._positions:
            yield from self._turn(view, is_known="lines-contradict" not in faults)
        if self._settings.seal is not None:
            yield from self._open(view, self._settings.seal)

    def _turn(self, view: View, *, is_known: bool) -> Iterator[Event | Observation]:
        if not is_known or view.unsure & self._key_lines:
            self._keylock.forget()
            position = KeylockPosition.UNKNOWN
        else:
            closed = [position for position, line in self._positions.items() if line in view.closed]
            raw = closed[0] if len(closed) == 1 else self._rest
            self._keylock.sample(raw, view.at_ns, disturbed=bool(view.moved & self._key_lines))
            if self._keylock.value is None:
                return
            position = self._keylock.value
        yield from self._say(
            Subject.KEYLOCK, "turned", {"position": position.value, "position_code": CODES.get(position, 0)}, view.at_ns
        )

    def _open(self, view: View, line: Line) -> Iterator[Event | Observation]:
        if line in view.unsure:
            self._seal.forget()
            yield from self._say(Subject.SEAL, "", UNKNOWN, view.at_ns)
            return
        self._seal.sample(line in view.closed, view.at_ns, disturbed=line in view.moved)
        if self._seal.value is not None:
            action, state = ("closed", CLOSED) if self._seal.value else ("opened", OPEN)
            yield from self._say(Subject.SEAL, action, state, view.at_ns)

    def _say(self, subject: Subject, action: str, state: Data, now_ns: int) -> Iterator[Event | Observation]:
        """Tell a state that is new: as an event where the one before was known, else as found."""
        before = self._said.get(subject)
        if before == state:
            return
        self._said[subject] = state
        if before is None or "unknown" in (*before.values(), *state.values()):
            yield Observation(subject, state)
        else:
            yield Event(subject, action, now_ns, data=state, state=state)

    def _contradicts(self, view: View) -> bool:
        """Whether the keylock's contacts have said for too long what no position of a lock is."""
        closed = len(self._key_lines & view.closed)
        if closed == 1 or (closed == 0 and not self._is_pair) or view.late & self._key_lines:
            self._contradicts_since_ns = None
            return False
        if self._contradicts_since_ns is None:
            self._contradicts_since_ns = view.at_ns
        return view.at_ns - self._contradicts_since_ns >= self._settings.changeover_ms * NS_PER_MS


_conforms: type[Driver] = ContactsDriver

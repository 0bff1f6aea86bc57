"""The seal of a scale: counters beside the inspector's baseline, and a contact under the seal. Broken stays broken.

    baseline = { calibration = 19, configuration = 9 }     what the inspector wrote down when sealing
    found = { calibration = 19, configuration = 9 }        typed in at a check, where the scale cannot be asked
    contact = "cts"                                        closed while the cover is

That a seal was broken is kept with the sealing that it broke, `baseline` and `mark`, and outlives every restart; sealing anew
is a new one of these. The contact tells an opening at once, the counters also what nobody watched.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import suppress
from typing import Annotated, ClassVar, Protocol

from pydantic import AfterValidator, Field, model_validator

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import LinkTimeout
from optima_bridge.keepsake import HasKeepsake, Keepsake
from optima_bridge.link import ByteLink, Line, ModemLines
from optima_bridge.model import Capability, Data, DeviceIdentity, Event, JsonValue, Maturity, Observation, Subject
from optima_drivers.contacts.counters import Verdict, compare
from optima_drivers.contacts.debounce import Debounce
from optima_drivers.contacts.dialects import Dialect, Rincmd, Tcr
from optima_drivers.contacts.faults import Faults
from optima_drivers.contacts.panel import NS_PER_MS, NS_PER_S, Panel, PanelSettings, View
from optima_drivers.contacts.profiles import PROFILES
from optima_drivers.contacts.readout import Readout

NEVER_NS = 1 << 62
KEEP_AGAIN_NS = 60 * NS_PER_S


class SealLink(ByteLink, ModemLines, Protocol):
    """A serial port with its lines."""


def _known(profile: str) -> str:
    if profile not in PROFILES:
        raise ValueError(f"not one of {', '.join(PROFILES)}")
    return profile


class SealSettings(PanelSettings):
    """Configuration keys of a ``seal`` device."""

    profile: Annotated[str, AfterValidator(_known)] = Field(description="the kind of scale: " + ", ".join(PROFILES))
    baseline: dict[str, int] = Field(
        min_length=1, description="each counter as the inspector wrote it down when sealing; a new one seals anew"
    )
    found: dict[str, int] = Field(
        default={}, description="the same counters as they were found at the last check, where a person reads them"
    )
    contact: Line | None = Field(
        default=None, description="the line of the contact that is closed while the seal is whole"
    )
    mark: str = Field(
        default="", max_length=64, description="number on the inspector's seal, or the date; another one seals anew"
    )
    address: int = Field(default=1, ge=1, le=31, description="the indicator's address on the line, rinCMD only")
    check_interval_s: float = Field(
        default=60, ge=0.1, le=86_400, description="from one reading of the counters to the next, seconds"
    )

    @model_validator(mode="after")
    def _fits(self) -> SealSettings:
        profile = PROFILES[self.profile]
        for name, value in (*self.baseline.items(), *self.found.items()):
            if (rule := profile.counters.get(name)) is None:
                raise ValueError(f"{self.profile} has no counter {name!r}, only {', '.join(profile.counters)}")
            if not 0 <= value < rule.size:
                raise ValueError(f"{name} = {value}: this counter goes from 0 to {rule.size - 1}")
        if profile.reading != "typed" and self.found:
            raise ValueError(f"found: the counters of {self.profile} are read over the line, not typed in")
        if profile.reading == "typed" and self.found.keys() != self.baseline.keys():
            raise ValueError(
                "found must have the same counters as baseline: somebody has to read them from the display"
            )
        if profile.reading == "typed" and self.contact is None:
            raise ValueError(f"contact: {self.profile} cannot be asked, so without a contact there is nothing to watch")
        if not self.inverted <= {self.contact}:
            raise ValueError("inverted names a line that has no contact")
        return self


class SealDriver:
    """One sealed scale."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="seal",
        summary="seal of a scale: event counters against a baseline, and a contact",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.SEAL_SWITCH}),
        schemes=frozenset({"serial", "rfc2217", "memory"}),
        integrity="two equal answers",
        spec="Rinstrum rinCMD; HBM TCR; NIST Handbook 44 S.1.11; optima_drivers.contacts.profiles",
    )
    Settings: ClassVar[type[DriverSettings]] = SealSettings

    def __init__(self, link: SealLink, settings: SealSettings) -> None:
        self._link = link
        self._settings = settings
        self._counters: Counter[str] = Counter()
        self._profile = PROFILES[settings.profile]
        self._panel = Panel(link, settings, frozenset({settings.contact}), self._counters) if settings.contact else None
        self._contact = Debounce(False, settings.debounce_ms * NS_PER_MS)
        dialect: Dialect = Tcr() if self._profile.reading == "tcr" else Rincmd(settings.address)
        is_typed = self._profile.reading == "typed"
        self._pause_ns = NEVER_NS if is_typed else int(settings.check_interval_s * NS_PER_S)
        self._readout = Readout(dialect, [] if is_typed else [*settings.baseline], self._counters)
        self._is_reading = True
        self._check_due_ns = 0
        self._values: Mapping[str, int] = {}
        self._latched = self._is_kept = False
        self._keep_due_ns = 0
        self.keepsake: Keepsake | None = None
        self._faults = Faults()
        self._active: dict[str, Data] = {}
        self._said: Data | None = None

    @property
    def counters(self) -> Mapping[str, int]:
        """Those of `panel` and `readout`."""
        return self._counters

    async def start(self) -> DeviceIdentity:
        """Feed the contact, read the counters.

        Raises:
            LinkTimeout: the scale does not tell them, and there is no contact to watch.
            DeviceError: whether the seal was broken before cannot be read.
        """
        if self.keepsake is not None:
            self._latched = self._is_kept = await self.keepsake.read() == self._sealing()
        self._link.discard_input()
        if self._panel:
            await self._panel.start()
        while not self._readout.is_done:
            await self._converse()
        if self._readout.failed and self._panel is None:
            raise LinkTimeout(
                f"{self._link.name}: no {self._settings.profile} tells its counters",
                cause="another scale, address or speed (9600 baud, 8N1), or a dialogue that is switched off in it",
                port=self._link.name,
            )
        serial = self._readout.values.get("serial")
        return DeviceIdentity(model=self._settings.profile, serial="" if serial is None else f"{serial:08X}")

    async def stop(self) -> None:
        """Nothing to do: questions change nothing in the scale, and closing the port takes the feed away."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        """What the contact does and the counters show, and faults of either. Ends by LinkLost."""
        while True:
            view = await self._panel.poll() if self._panel else None
            now_ns = view.at_ns if view else self._link.clock_ns()
            action = self._touch(view) if view else ""
            for news in self._tell(action, self._check(now_ns), now_ns):
                yield news
            await self._keep(now_ns)
            await self._converse()

    async def _keep(self, now_ns: int) -> None:
        """Have it outlive the daemon that this sealing is broken; where the disk does not take it, again in a minute."""
        if self._latched and not self._is_kept and self.keepsake is not None and now_ns >= self._keep_due_ns:
            self._keep_due_ns = now_ns + KEEP_AGAIN_NS
            with suppress(OSError):
                await self.keepsake.write(self._sealing())
                self._is_kept = True
            self._set_fault("latch-unkept", None if self._is_kept else {})

    def _sealing(self) -> str:
        """What the inspector did: another text is another sealing."""
        return json.dumps([self._settings.profile, self._settings.mark, self._settings.baseline], sort_keys=True)

    async def _converse(self) -> None:
        """Ask what is to be asked, then wait for bytes until something else is due."""
        if question := self._readout.ask(self._link.clock_ns()):
            await self._link.write(question)
        if self._panel and self._contact.settled and not self._is_reading:
            await self._panel.rest(self._check_due_ns)
            return
        due_ns = self._readout.deadline_ns if self._is_reading else self._check_due_ns
        wait_s = max(0, due_ns - self._link.clock_ns()) / NS_PER_S
        try:
            received = await self._link.read(min(wait_s, self._panel.wait_s()) if self._panel else wait_s)
        except LinkTimeout:
            return  # time for the next poll, or for another try
        self._readout.take(received)

    def _touch(self, view: View) -> str:
        """Take what the contact says; returns what has happened to it."""
        self._set_fault("line-stuck", {"lines": sorted(view.stuck)} if view.stuck else None)
        self._set_fault("line-slow", {"lines": sorted(view.late)} if view.late else None)
        before = self._contact.value
        if view.unsure:
            self._contact.forget()
        else:
            self._contact.sample(bool(view.closed), view.at_ns, disturbed=bool(view.moved))
        now = self._contact.value
        self._latched = self._latched or now is False
        return "" if before is None or now is None or before == now else "closed" if now else "opened"

    def _check(self, now_ns: int) -> list[Data]:
        """Judge a reading that is done, begin one that is due; returns facts of counters that have moved."""
        moved: list[Data] = []
        if self._is_reading and self._readout.is_done:
            self._is_reading = False
            self._check_due_ns = now_ns + self._pause_ns
            self._set_fault("counter-unread", {} if self._readout.failed else None)
            if not self._readout.failed:
                moved = self._judge(self._settings.found or self._readout.values)
        elif not self._is_reading and now_ns >= self._check_due_ns:
            self._is_reading = True
            self._link.discard_input()
            self._readout.restart()
        return moved

    def _judge(self, values: Mapping[str, int]) -> list[Data]:
        """Compare a reading with the baseline and with the one before."""
        before, self._values = self._values, values
        baseline = self._settings.baseline
        findings = {name: compare(self._profile.counters[name], baseline[name], values[name]) for name in values}
        unproven = [name for name, finding in findings.items() if finding.verdict is Verdict.UNPROVEN]
        self._set_fault("counter-stopped", {"counters": unproven} if unproven else None)
        self._latched = self._latched or any(finding.breaks for finding in findings.values())
        return [
            {
                "counter": name,
                "baseline": baseline[name],
                "value": values[name],
                "verdict": finding.verdict.value,
                "steps": finding.steps,
            }
            for name, finding in findings.items()
            if before.get(name, values[name]) != values[name]
        ]

    def _tell(self, action: str, moved: list[Data], now_ns: int) -> Iterator[Event | Observation]:
        """Faults first, then what happened, then what is found without that."""
        yield from self._faults.update(dict(self._active), now_ns)
        state = self._state()
        happened: list[tuple[str, Data]] = [(action, {})] if action else []
        for name, facts in (*happened, *(("broken", facts) for facts in moved)):
            self._said = state
            yield Event(Subject.SEAL, name, now_ns, data={**state, **facts}, state=state)
        is_pending = self._panel and self._contact.value is None and not self._active
        if state != self._said and (self._latched or not is_pending):
            self._said = state
            yield Observation(Subject.SEAL, state)

    def _state(self) -> dict[str, JsonValue]:
        is_known = self._values and not self._active and (self._panel is None or self._contact.value)
        state: dict[str, JsonValue] = {
            "seal": "broken" if self._latched else "intact" if is_known else "unknown",
            "latched": self._latched,
            "counters": dict(self._values),
        }
        for code in self._active:
            state["fault"] = code
        return state

    def _set_fault(self, code: str, facts: Data | None) -> None:
        """Remember a fault; None: it is none any more."""
        if facts is None:
            self._active.pop(code, None)
        else:
            self._active[code] = facts


_conforms: type[Driver] = SealDriver
_conforms_too: type[HasKeepsake] = SealDriver

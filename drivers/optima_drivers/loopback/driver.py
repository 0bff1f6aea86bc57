"""The loopback driver: repeats as events what the device says. Protocol: `optima_drivers.loopback.codec`.

What the device answers to start() was found, not seen to happen: observations. Only a key that is found in is an event,
as on the readers that poll. Afterwards each change is an event; a state said twice is one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError, LinkTimeout
from optima_bridge.link import ByteLink
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
from optima_bridge.presence import ABSENT, PRESENT
from optima_drivers.loopback.codec import (
    Card,
    Controller,
    Decoder,
    Identity,
    KeyIn,
    KeyOut,
    Lock,
    Message,
    Query,
    Seal,
    encode,
)

TRIES = 3
SUBJECTS = {
    Capability.KEY_READER: Subject.KEY,
    Capability.CARD_READER: Subject.CARD,
    Capability.KEYLOCK: Subject.KEYLOCK,
    Capability.SEAL_SWITCH: Subject.SEAL,
    Capability.TERMINAL: Subject.CONTROLLER,
}
POSITIONS = {
    0: KeylockPosition.BETWEEN,
    1: KeylockPosition.LOCKED,
    2: KeylockPosition.NORMAL,
    3: KeylockPosition.SUPERVISOR,
}


class LoopbackSettings(DriverSettings):
    """Configuration keys of a loopback device."""

    answer_timeout_ms: int = Field(
        default=1000,
        ge=10,
        le=10_000,
        description="how long the device may take to say who it is, per try, milliseconds",
    )
    abilities: frozenset[Capability] = Field(
        default=frozenset(SUBJECTS), min_length=1, description="what the device stands in for; it is deaf to the rest"
    )

    def narrow(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        return declared & self.abilities


class LoopbackDriver:
    """A key reader, card reader, keylock, seal switch and terminal in one device that exists only in software."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="loopback",
        summary="no hardware: every kind of event, for tests and the demo",
        contract=CONTRACT,
        maturity=Maturity.STABLE,
        capabilities=frozenset(SUBJECTS),
        schemes=frozenset({"memory", "serial"}),
        integrity="lrc",
        spec="optima_drivers.loopback.codec",
    )
    Settings: ClassVar[type[DriverSettings]] = LoopbackSettings

    def __init__(self, link: ByteLink, settings: LoopbackSettings) -> None:
        self._link = link
        self._settings = settings
        self._decoder = Decoder()
        self._inbox: list[tuple[Message, int]] = []  # with link.clock_ns() of arrival
        self._found: list[tuple[Message, int]] = []
        self._key: str | None = None
        self._states: dict[Subject, Data] = {}
        self._counters: Counter[str] = Counter()
        self._subjects = {SUBJECTS[ability] for ability in settings.abilities}

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    async def start(self) -> DeviceIdentity:
        self._link.discard_input()
        for _ in range(TRIES):
            try:
                async with asyncio.timeout(self._settings.answer_timeout_ms / 1000):
                    return await self._ask()
            except TimeoutError:
                self._counters["timeouts"] += 1
        raise LinkTimeout(
            f"{self._link.name}: no loopback device answered {TRIES} times",
            cause="no simulator runs at the other end of this port",
            next_step="start one: bridge demo, or optima_drivers.loopback.simulator in a test",
        )

    async def stop(self) -> None:
        """Nothing to do: the device needs no goodbye."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        while self._found:
            for found in self._find(*self._found.pop(0)):
                if found.subject in self._subjects:
                    yield found
        while True:
            while self._inbox:
                for event in self._decide(*self._inbox.pop(0)):
                    if event.subject in self._subjects:
                        yield event
            await self._receive()

    async def _ask(self) -> DeviceIdentity:
        """Ask; what comes up to the identity is what is true now, the last word on each subject."""
        await self._link.write(encode(Query()))
        while True:
            await self._receive()
            for index, (message, _) in enumerate(self._inbox):
                if isinstance(message, Identity):
                    last_words = {_subject(item[0]): item for item in self._inbox[:index]}
                    self._found = list(last_words.values())
                    del self._inbox[: index + 1]
                    return DeviceIdentity(message.model, message.serial, message.firmware)

    async def _receive(self) -> None:
        chunk = await self._link.read()
        now_ns = self._link.clock_ns()
        for result in self._decoder.feed(chunk):
            if isinstance(result, FrameError):
                self._counters[f"frames_bad_{result.kind}"] += 1
            else:
                self._counters["frames_good"] += 1
                self._inbox.append((result, now_ns))

    def _find(self, message: Message, now_ns: int) -> Iterator[Event | Observation]:
        match message:
            case KeyIn():
                yield from self._decide(message, now_ns)
            case KeyOut():
                yield Observation(Subject.KEY, ABSENT)
            case Lock() | Seal() | Controller():
                subject, _, state = _change(message)
                self._states[subject] = state
                yield Observation(subject, state)
            case _:
                pass  # a card from before the answer is late

    def _decide(self, message: Message, now_ns: int) -> Iterator[Event]:
        match message:
            case KeyIn(rom=rom) if rom != self._key:
                yield from self._remove_key(now_ns)
                self._key = rom
                yield Event(Subject.KEY, "inserted", now_ns, identifier=rom, state=PRESENT)
            case KeyOut():
                yield from self._remove_key(now_ns)
            case Card(number=number):
                yield Event(Subject.CARD, "presented", now_ns, identifier=number)
            case Lock() | Seal() | Controller():
                subject, action, state = _change(message)
                if self._states.get(subject) != state:
                    self._states[subject] = state
                    yield Event(subject, action, now_ns, data=state, state=state)
            case _:
                pass  # the same key again, the answer to a second try, an echo of our question

    def _remove_key(self, now_ns: int) -> Iterator[Event]:
        if self._key is not None:
            rom, self._key = self._key, None
            yield Event(Subject.KEY, "removed", now_ns, identifier=rom, state=ABSENT)


def _change(message: Lock | Seal | Controller) -> tuple[Subject, str, Data]:
    """Subject, action and new state."""
    match message:
        case Lock(position_code=code):
            return Subject.KEYLOCK, "turned", {"position": POSITIONS[code].value, "position_code": code}
        case Seal(is_open=True):
            return Subject.SEAL, "opened", {"seal": "broken"}
        case Seal():
            return Subject.SEAL, "closed", {"seal": "intact"}
        case Controller(status=status, code=code):
            return Subject.CONTROLLER, "changed", {"status": status, "code": code} if code else {"status": status}


def _subject(message: Message) -> Subject | None:
    match message:
        case KeyIn() | KeyOut():
            return Subject.KEY
        case Lock() | Seal() | Controller():
            return _change(message)[0]
        case _:
            return None


_conforms: type[Driver] = LoopbackDriver

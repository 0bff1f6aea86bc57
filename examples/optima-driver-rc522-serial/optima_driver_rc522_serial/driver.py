"""The driver: asks once who is there, then takes the reader's looks and lets the presence rules decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import DeviceError, FrameError, LinkTimeout
from optima_bridge.link import ByteLink, SerialFormat
from optima_bridge.model import NO_DATA, Capability, Data, DeviceIdentity, Event, Maturity, Observation, Subject
from optima_bridge.presence import ABSENT, Change, PolledPresence
from optima_driver_rc522_serial.codec import ASK, Decoder, Identity, Look, Message

MODEL = "rc522-serial"
ANSWER_S = 1.0
SILENCE_S = 2.0
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000


class Rc522SerialSettings(DriverSettings):
    """The driver's own keys in the configuration."""

    misses_to_remove: int = Field(
        default=3, ge=1, le=20, description="looks in a row (ten a second) without the card after which it is removed"
    )


class Rc522SerialDriver:
    """Cards held in the field and taken away. The reader looks ten times a second, so silence means that it is dead."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="rc522-serial",
        summary="card reader of one's own: MFRC522 on a microcontroller",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.CARD_READER}),
        schemes=frozenset({"serial", "memory"}),
        integrity="xor",
        spec="DEVICE.md, Protocol",
        serial_format=SerialFormat(115200),
    )
    Settings: ClassVar[type[DriverSettings]] = Rc522SerialSettings

    def __init__(self, link: ByteLink, settings: Rc522SerialSettings) -> None:
        self._link = link
        self._decoder = Decoder()
        self._presence = PolledPresence(misses_to_remove=settings.misses_to_remove)
        self._is_known = False  # whether anything was said of the field yet
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    async def start(self) -> DeviceIdentity:
        self._link.discard_input()  # looks from before are late: they are no news
        await self._link.write(ASK)
        until_ns = self._link.clock_ns() + int(ANSWER_S * NS_PER_S)
        while (left_ns := until_ns - self._link.clock_ns()) > 0:
            for message in await self._read(left_ns / NS_PER_S):
                if isinstance(message, Identity):
                    if message.model != MODEL:
                        raise DeviceError(f"{self._link.name} answers as {message.model}, not as {MODEL}")
                    return DeviceIdentity(model=message.model, firmware=message.firmware)
        raise LinkTimeout(f"{self._link.name} did not say within {ANSWER_S:g} s who it is")

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        while True:
            messages = await self._read(SILENCE_S)
            looks = [message for message in messages if isinstance(message, Look)]
            for look in looks[-1:]:  # lines that come together waited somewhere: only the newest is news
                changes = self._presence.poll(look.uids, self._link.clock_ns())
                if not (self._is_known or look.uids):
                    yield Observation(Subject.CARD, ABSENT)  # found at the beginning: nothing has happened
                self._is_known = self._is_known or bool(changes) or not look.uids
                for change in changes:
                    yield _event(change, len(look.uids))

    async def stop(self) -> None:
        """Nothing to do: the reader was only asked."""

    async def _read(self, timeout_s: float) -> list[Message]:
        """Good messages of the next chunk; may be empty.

        Raises:
            LinkTimeout, LinkLost: from the link.
        """
        good: list[Message] = []
        for result in self._decoder.feed(await self._link.read(timeout_s)):
            if isinstance(result, FrameError):
                self._counters[f"frames_bad_{result.kind}"] += 1
            else:
                good.append(result)
        self._counters["frames_good"] += len(good)
        return good


def _event(change: Change, cards: int) -> Event:
    data: Data = NO_DATA
    if change.action == "ambiguous":
        data = {"cards": cards}
    elif change.action in ("suspect", "removed"):
        data = {"last_seen_ms": (change.at_ns - change.last_seen_ns) // NS_PER_MS}
    return Event(Subject.CARD, change.action, change.at_ns, data, change.identifier, change.state)


_conforms: type[Driver] = Rc522SerialDriver  # a wrong signature fails the type checker here

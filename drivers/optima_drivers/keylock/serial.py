r"""Keylocks that send their position as a line of text, unasked, on a question, or both.

    B7 \r        to an Ultimate Technology 600: which position?
    KS3 \r       its answer, as programmed: position 3

A line ends with CR or LF. There is no check: a position counts when two answers in a row are equal, where the lock can be
asked. Sources: Ultimate Technology series 600 programming guide, table 5, commands B6 and B7.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, StringConstraints, field_validator, model_validator

from optima_bridge.beat import AT_REST, next_beat_ns
from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError, FrameTooLong, LinkTimeout
from optima_bridge.link import ByteLink, SerialFormat
from optima_bridge.model import Capability, DeviceIdentity, Maturity
from optima_drivers.keylock.driver import KeylockDriver
from optima_drivers.keylock.profiles import MAX_POSITIONS, TEXT, TextPosition, TextProfile, distinct
from optima_drivers.keylock.turning import LOCK, Turning

MAX_UNANSWERED = 3
ANSWER_TIMEOUT_S = 0.5  # of the first answers; later ones have as long as the next question takes
_line_end = re.compile(rb"[\r\n]")


class LineDecoder:
    """Lines to positions. Holds at most one unfinished line, as long as the longest that means something."""

    def __init__(self, texts: Mapping[bytes, int]) -> None:
        self._texts = texts
        self._longest = max(map(len, texts))
        self._line = b""

    def feed(self, data: bytes) -> list[int | FrameError]:
        """Take bytes as they come, cut anywhere; empty lines are passed over. Never raises. Kinds: ``text``, ``too-long``."""
        *lines, rest = _line_end.split(self._line + data)
        self._line = rest[: self._longest + 1]  # one more is enough to know that it is too long
        return [self._mean(line) for line in lines if line]

    def _mean(self, line: bytes) -> int | FrameError:
        if len(line) > self._longest:
            return FrameTooLong(f"a line of more than {self._longest} characters", kind="too-long")
        if line not in self._texts:
            return FrameError("a line that is no position", kind="text")
        return self._texts[line]


class SerialKeylockSettings(DriverSettings):
    """Configuration keys of a ``keylock-serial`` device."""

    profile: Literal["ultimate", "generic"] = Field(description="the model; generic: positions has it all")
    positions: tuple[TextPosition, ...] = Field(
        default=(), max_length=MAX_POSITIONS, description="your own programming, in place of the profile's"
    )
    enquiry: Annotated[str, StringConstraints(pattern=r"^[ -~]+[\r\n]*$", max_length=32)] | None = Field(
        default=None, description='what asks a generic lock for its position, with its line end: "P\\r"'
    )
    poll_interval_ms: int = Field(
        default=100,
        ge=20,
        le=5000,
        description="from one question to the next, milliseconds; twice that while the lock is in LOCK",
    )

    @field_validator("positions")
    @classmethod
    def _told_apart(cls, positions: tuple[TextPosition, ...]) -> tuple[TextPosition, ...]:
        distinct([position.code for position in positions], "code")
        distinct([position.text for position in positions], "text")
        return positions

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.profile == "generic" and not self.positions:
            raise ValueError("profile generic needs positions")
        if self.profile != "generic" and self.enquiry:
            raise ValueError(f"profile {self.profile} has its enquiry; to give another, use profile generic")
        return self


class SerialKeylockDriver(KeylockDriver[ByteLink]):
    """A lock on a serial line."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="keylock-serial",
        summary="keylock that sends lines of text (Ultimate 600, own programming)",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.KEYLOCK}),
        schemes=frozenset({"serial", "memory"}),
        integrity="none",
        spec="UnifiedPOS Keylock; Ultimate Technology series 600 programming guide, table 5",
        serial_format=SerialFormat(9600),
    )
    Settings: ClassVar[type[DriverSettings]] = SerialKeylockSettings

    def __init__(self, link: ByteLink, settings: SerialKeylockSettings) -> None:
        profile = TEXT.get(settings.profile) or TextProfile((), settings.enquiry or "")
        positions = settings.positions or profile.positions
        self._enquiry = profile.enquiry.encode("ascii")
        decoder = LineDecoder({position.text.encode("ascii"): position.code for position in positions})
        turning = Turning(reads_to_grant=2) if self._enquiry else Turning(says_once=True)
        super().__init__(link, positions, decoder.feed, turning)
        self._poll_interval_ms = settings.poll_interval_ms
        self._ask_ns = 0
        self._unanswered = 0
        self._answers = 0  # those that were counted when it was asked last

    async def start(self) -> DeviceIdentity:
        """Where the lock can be asked, ask it. Raises LinkTimeout: it does not answer."""
        self._link.discard_input()
        while self._enquiry and not self._counters["frames_good"]:
            await self._ask()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(ANSWER_TIMEOUT_S):
                    while not self._counters["frames_good"]:
                        self._take(await self._link.read(), found=True)
        return DeviceIdentity()

    def _deadline_ns(self) -> int | None:
        return self._ask_ns if self._enquiry else None

    async def _before_read(self) -> None:
        if self._enquiry and self._link.clock_ns() >= self._ask_ns:
            await self._ask()

    async def _ask(self) -> None:
        """Raises LinkTimeout: the last questions were not answered."""
        answers = self._counters["frames_good"]
        if answers > self._answers:
            self._answers, self._unanswered = answers, 0
        elif self._unanswered == MAX_UNANSWERED:
            raise LinkTimeout(f"{self._link.name}: the keylock does not answer")
        elif self._unanswered:
            self._counters["timeouts"] += 1
        self._unanswered += 1
        is_at_rest = self._turning.position == LOCK and self._unanswered == 1
        interval_ms = self._poll_interval_ms * (AT_REST if is_at_rest else 1)
        self._ask_ns = next_beat_ns(self._link.clock_ns(), interval_ms)
        await self._link.write(self._enquiry)


_conforms: type[Driver] = SerialKeylockDriver

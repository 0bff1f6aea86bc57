"""A seal switch on a microcontroller, as small as a driver can be: copy this file and change the names.

    4f 0a    "O\n"  the seal was opened        8N1, 9600 baud, the device only talks
    43 0a    "C\n"  the seal was closed

Specification: name the document and its section here. This one is our own, for `docs/howto/write-a-driver.md`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError, FrameTooLong
from optima_bridge.link import ByteLink
from optima_bridge.model import Capability, Data, DeviceIdentity, Event, Maturity, Observation, Subject

LINES = {b"O": True, b"C": False}
MAX_LINE_BYTES = 1


class Decoder:
    """The codec: bytes in, messages out. It knows no port and no clock, so every case is a test of one line."""

    def __init__(self) -> None:
        self._line = bytearray()

    def feed(self, data: bytes) -> list[bool | FrameError]:
        """Take bytes as they come, cut anywhere; True: the seal is open. Never raises, never holds more than a line."""
        results: list[bool | FrameError] = []
        for byte in data:
            if byte != ord("\n"):
                if len(self._line) <= MAX_LINE_BYTES:  # one more than allowed is enough to know that it is too long
                    self._line.append(byte)
                continue
            line = bytes(self._line)
            self._line.clear()
            if line in LINES:
                results.append(LINES[line])
            elif len(line) > MAX_LINE_BYTES:
                results.append(FrameTooLong(f"a line of more than {MAX_LINE_BYTES} character"))
            else:
                results.append(FrameError("a line that is neither O nor C", kind="characters"))
        return results


class TemplateSettings(DriverSettings):
    """The driver's own keys in the configuration."""

    normally_open: bool = Field(default=False, description="whether the switch is wired the other way round")


class TemplateDriver:
    """Yields what the seal switch says, each change once."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="template",
        summary="seal switch that sends O and C",
        contract=CONTRACT,
        maturity=Maturity.EXPERIMENTAL,
        capabilities=frozenset({Capability.SEAL_SWITCH}),
        schemes=frozenset({"serial", "memory"}),
        integrity="none",  # the protocol cannot notice damage: say so
        spec="this file",
    )
    Settings: ClassVar[type[DriverSettings]] = TemplateSettings

    def __init__(self, link: ByteLink, settings: TemplateSettings) -> None:
        self._link = link
        self._settings = settings
        self._decoder = Decoder()
        self._is_open: bool | None = None  # unknown until the device says it
        self._counters: Counter[str] = Counter()

    @property
    def counters(self) -> Mapping[str, int]:
        return self._counters

    async def start(self) -> DeviceIdentity:
        self._link.discard_input()  # bytes from before are late: they are no news
        return DeviceIdentity()  # this device cannot say who it is

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        while True:
            chunk = await self._link.read()  # raises LinkLost when the device is gone: let it through
            now_ns = self._link.clock_ns()
            for result in self._decoder.feed(chunk):
                if isinstance(result, FrameError):
                    self._counters[f"frames_bad_{result.kind}"] += 1
                    continue
                self._counters["frames_good"] += 1
                is_open = result != self._settings.normally_open
                if is_open != self._is_open:
                    self._is_open = is_open
                    state: Data = {"seal": "broken" if is_open else "intact"}
                    yield Event(Subject.SEAL, "opened" if is_open else "closed", now_ns, data=state, state=state)

    async def stop(self) -> None:
        """Nothing to do: the device was never told anything."""


_conforms: type[Driver] = TemplateDriver  # a wrong signature fails the type checker here


class TemplateSimulator:
    """The device's side: says through `attach`ed send what its switch does."""

    def __init__(self) -> None:
        self._send: Callable[[bytes], None] | None = None

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say what happens through `send` from now on."""
        self._send = send

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host: this device answers nothing."""
        return b""

    def seal(self, is_open: bool) -> None:
        """Open or close the switch."""
        if self._send is not None:
            self._send(b"O\n" if is_open else b"C\n")

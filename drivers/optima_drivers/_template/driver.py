"""The driver: yields what the seal switch says, each change once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar

from pydantic import Field

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import FrameError
from optima_bridge.link import ByteLink
from optima_bridge.model import Capability, Data, DeviceIdentity, Event, Maturity, Observation, Subject
from optima_drivers._template.codec import Decoder


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
        spec="codec.py",
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

"""The driver contract: what a driver declares, what it is given, what it yields.

A driver is a class with an `info`, a `Settings` model and four methods. It gets an open link and its checked settings; it
opens no port, sleeps for no retry and knows nothing of MQTT. Abilities beyond events are small Protocols of their own.
`optima_bridge.testing` proves the behaviour; a type checker proves the signatures:

    _conforms: type[Driver] = MyDriver
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Any, ClassVar, Protocol, get_args

import msgspec
from pydantic import BaseModel, ConfigDict

from optima_bridge.link import SerialFormat
from optima_bridge.model import Capability, DeviceIdentity, Event, Maturity, Observation
from optima_bridge.secrets import Secret

CONTRACT = 1
ENTRY_POINT_GROUP = "optima_bridge.drivers"


class DriverSettings(BaseModel):
    """A driver's own configuration keys; they stand in the device's table beside ``driver`` and ``port``.

    Give every field a unit in its name, a range and a description: the configuration errors and the JSON schema are
    made from them. Unknown keys are refused.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    def narrow(self, declared: frozenset[Capability]) -> frozenset[Capability]:
        """What this very device can do, of what the driver declares; all of it where settings do not say otherwise."""
        return declared

    def serial_format(self, declared: SerialFormat) -> SerialFormat:
        """How to open this very device's serial port; as the driver declares where settings do not say otherwise."""
        return declared


class DriverInfo(msgspec.Struct, frozen=True):
    """What can be known of a driver without opening anything.

    Attributes:
        name: the name in the configuration; equal to the entry point's name.
        summary: one line for people.
        contract: the CONTRACT it was written for.
        maturity: how far it was proved.
        capabilities: what its devices can do.
        schemes: link kinds it works on: ``serial``, ``memory``, … (see `optima_bridge.link.base`).
        integrity: how its protocol notices damage: ``crc8``, ``xor``, ``lrc``, ``none``.
        spec: documents and sections the code follows.
        serial_format: how to open a serial port for it.
        reports_removal: False where the device tells arrival only (a touch).
        wire_is_public: no secret ever goes over its wire, though it has a secure store or a secret among its settings; else
            a recording holds lengths only. Identifiers are no secrets.
        usb_ids: (vendor, product) of adapters it is known on; udev rules are made from them.
    """

    name: str
    summary: str
    contract: int
    maturity: Maturity
    capabilities: frozenset[Capability]
    schemes: frozenset[str]
    integrity: str
    spec: str
    serial_format: SerialFormat = SerialFormat()
    reports_removal: bool = True
    usb_ids: tuple[tuple[int, int], ...] = ()
    wire_is_public: bool = False


class Driver(Protocol):
    """One device behind one open link. Used by one task, from start() to stop()."""

    info: ClassVar[DriverInfo]
    Settings: ClassVar[type[DriverSettings]]

    def __init__(self, link: Any, settings: Any) -> None:
        """Remember the link (of one of its `schemes`) and the settings (this class's Settings); do nothing yet."""

    @property
    def counters(self) -> Mapping[str, int]:
        """Running totals since start, for health: frames good and bad by kind, polls, misses."""

    async def start(self) -> DeviceIdentity:
        """Make sure that the right device answers, where it can answer at all.

        Raises:
            LinkError, ProtocolError, DeviceError: it is not usable now; the keeper backs off and tries again.
        """

    def events(self) -> AsyncGenerator[Event | Observation, None]:
        """Yield what happens and what is found, until the link is lost (an async generator; ends by LinkLost)."""

    async def stop(self) -> None:
        """Leave the device in a safe state. Safe to call twice, and on a lost link; never raises LinkError."""


def wire_may_hold_secrets(driver: type[Driver]) -> bool:
    """Whether the bytes of this driver must not be recorded: see `DriverInfo.wire_is_public`."""
    guarded = Capability.SECURE_STORE in driver.info.capabilities or any(
        _names_a_secret(field.annotation) for field in driver.Settings.model_fields.values()
    )
    return guarded and not driver.info.wire_is_public


def _names_a_secret(annotation: object) -> bool:
    if isinstance(annotation, type) and issubclass(annotation, Secret):
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return any(_names_a_secret(field.annotation) for field in annotation.model_fields.values())
    return any(map(_names_a_secret, get_args(annotation)))

"""Keylocks of POS keyboards that type a short sequence when the key is turned. The decoder is in `sequences`.

Such a lock cannot be asked: it is unknown until it was turned once. Source of the positions: `profiles`.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator

from optima_bridge.driver import CONTRACT, Driver, DriverInfo, DriverSettings
from optima_bridge.link import InputLink
from optima_bridge.model import Capability, DeviceIdentity, Maturity
from optima_drivers.keylock.driver import NS_PER_MS, KeylockDriver
from optima_drivers.keylock.keys import KEYS, NOBODY_TYPES
from optima_drivers.keylock.profiles import MAX_POSITIONS, TYPED, TypedPosition, distinct
from optima_drivers.keylock.sequences import Keys, SequenceDecoder
from optima_drivers.keylock.turning import Turning

TYPED_BY_CHANCE = 3  # keys; two are often typed within `gap_ms` while the fingers roll


class TypedKeylockSettings(DriverSettings):
    """Configuration keys of a ``keylock-typed`` device."""

    profile: Literal["posiflex", "ultimate", "generic"] = Field(description="the model; generic: positions has it all")
    positions: tuple[TypedPosition, ...] = Field(
        default=(), max_length=MAX_POSITIONS, description="your own programming, in place of the profile's"
    )
    gap_ms: int = Field(
        default=60,
        ge=5,
        le=200,
        description="longest gap between two keys of a sequence, and silence before and after it, milliseconds",
    )
    only_keylock: bool = Field(
        default=False, description="nobody types on this device: take it, so that no other program sees the sequences"
    )

    @field_validator("positions")
    @classmethod
    def _known_keys(cls, positions: tuple[TypedPosition, ...]) -> tuple[TypedPosition, ...]:
        for key in (key for position in positions for key in position.keys.split()):
            if key not in KEYS:
                raise ValueError(f"{key} is not the name of a key; the names are those of Linux, without KEY_")
        sequences = [_keys(position) for position in positions]
        for one in sequences:
            if any(one is not other and _contains(one, other) for other in sequences):
                raise ValueError("the keys of one position are a part of another's, so they cannot be told apart")
        distinct([position.code for position in positions], "code")
        return positions

    @model_validator(mode="after")
    def _complete(self) -> Self:
        profile = TYPED.get(self.profile)
        if profile is None and not self.positions:
            raise ValueError("profile generic needs positions")
        if profile is not None and profile.whole_keyboard and self.only_keylock:
            raise ValueError(f"{self.profile} is a whole keyboard: with only_keylock nobody could type any more")
        for position in () if self.only_keylock else self.positions:
            if len(keys := _keys(position)) < TYPED_BY_CHANCE and NOBODY_TYPES.isdisjoint(keys):
                raise ValueError(f"people type {position.keys} too: give three keys or more, or one of F13 to F24")
        return self


class TypedKeylockDriver(KeylockDriver[InputLink]):
    """A lock on an input device."""

    info: ClassVar[DriverInfo] = DriverInfo(
        name="keylock-typed",
        summary="keylock of a POS keyboard that types its position (Posiflex, Ultimate, own programming)",
        contract=CONTRACT,
        maturity=Maturity.SIMULATED,
        capabilities=frozenset({Capability.KEYLOCK}),
        schemes=frozenset({"evdev"}),
        integrity="none",
        spec="linux/input.h; UnifiedPOS Keylock; keyboards' manuals as named in optima_drivers.keylock.profiles",
    )
    Settings: ClassVar[type[DriverSettings]] = TypedKeylockSettings

    def __init__(self, link: InputLink, settings: TypedKeylockSettings) -> None:
        positions = settings.positions or TYPED[settings.profile].positions
        sequences = {_keys(position): position.code for position in positions}
        gap_ns = settings.gap_ms * NS_PER_MS
        decoder = SequenceDecoder(sequences, gap_ns)
        super().__init__(link, positions, decoder.feed, Turning(gap_ns, says_once=True))
        self._only_keylock = settings.only_keylock

    async def start(self) -> DeviceIdentity:
        if self._only_keylock:
            self._link.grab()
        self._link.discard_input()  # what was typed before is late
        return self._link.identity


def _keys(position: TypedPosition) -> Keys:
    return tuple(KEYS[name] for name in position.keys.split())


def _contains(keys: Keys, part: Keys) -> bool:
    return any(keys[at : at + len(part)] == part for at in range(len(keys) - len(part) + 1))


_conforms: type[Driver] = TypedKeylockDriver

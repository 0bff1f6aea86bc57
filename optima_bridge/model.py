"""The words that every layer shares: abilities, events as drivers decide them, records as the journal keeps them.

An *event* is a fact: something happened. It may carry the *state* that is true from then on. Drivers make events; the
hub gives each an id, a sequence number and times, which makes it a *record*.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import msgspec

JsonValue = str | int | float | bool | None | Sequence["JsonValue"] | Mapping[str, "JsonValue"]
Data = Mapping[str, JsonValue]

NO_DATA: Data = {}


class Capability(StrEnum):
    """What a device can do; a driver declares the ones it has."""

    KEY_READER = "key-reader"
    CARD_READER = "card-reader"
    KEYLOCK = "keylock"
    SEAL_SWITCH = "seal-switch"
    TERMINAL = "terminal"
    SECURE_STORE = "secure-store"


class Maturity(StrEnum):
    """How far a driver can be trusted.

    ``simulated``: proved against a byte-exact simulator and independent programs, never on real hardware.
    """

    EXPERIMENTAL = "experimental"
    SIMULATED = "simulated"
    STABLE = "stable"


class Subject(StrEnum):
    """What an event or a state is about: the last level of its topic."""

    KEY = "key"
    CARD = "card"
    KEYLOCK = "keylock"
    SEAL = "seal"
    CONTROLLER = "controller"
    FAULT = "fault"
    LINK = "link"
    STATUS = "status"  # of the bridge itself
    HEALTH = "health"
    LOSS = "loss"
    JOB = "job"  # an enrolment
    CREDENTIAL = "credential"  # what the secure memory holds as active


class KeylockPosition(StrEnum):
    """Keylock positions; ``position_code`` beside them is the UnifiedPOS number, which tells the specific ones apart."""

    LOCKED = "locked"
    NORMAL = "normal"
    SUPERVISOR = "supervisor"
    SPECIFIC = "specific"
    BETWEEN = "between"
    UNKNOWN = "unknown"

    @classmethod
    def of(cls, code: int) -> KeylockPosition:
        """The position of a UnifiedPOS number: LOCK 1, NORM 2, SUPR 3, from 4 on the model's own; 0 is between two."""
        return (cls.BETWEEN, cls.LOCKED, cls.NORMAL, cls.SUPERVISOR, cls.SPECIFIC)[min(code, 4)]


class Event(msgspec.Struct, frozen=True, gc=False):
    """What a driver decided, at the moment it decided it.

    Attributes:
        subject: what it is about; last level of the topic.
        action: what happened, past tense where English has it: ``inserted``, ``removed``, ``turned``.
        mono_ns: ``link.clock_ns()`` when the bytes that decided it arrived, nanoseconds.
        data: facts for the payload, JSON-serialisable; never the identifier itself.
        identifier: ROM id, UID or card number in its canonical text form. It is an identifier, not a secret, and is
            published as a keyed hash unless the store opts in to raw.
        state: what is true of ``subject`` from now on, or None where the event changes no state (a touch).
    """

    subject: Subject
    action: str
    mono_ns: int
    data: Data = NO_DATA
    identifier: str | None = None
    state: Data | None = None


class Observation(msgspec.Struct, frozen=True, gc=False):
    """What a driver found to be true without anything having happened: the first poll after start finds no key.

    Attributes:
        subject: what it is about.
        state: what is true of it.
    """

    subject: Subject
    state: Data


class DeviceIdentity(msgspec.Struct, frozen=True):
    """Who answers on a link, as far as the device can tell. Empty strings: it cannot."""

    model: str = ""
    serial: str = ""
    firmware: str = ""


class Record(msgspec.Struct, frozen=True, gc=False):
    """An event as the journal keeps it and MQTT carries it.

    Attributes:
        epoch, seq: (epoch, gapless seq) is never used twice; epoch grows at each start, seq starts at 1 in each epoch.
        wall_ns: capture time, nanoseconds since 1970 UTC.
        topic: full MQTT topic.
        payload: the JSON document, UTF-8, as published the first time.
    """

    epoch: int
    seq: int
    wall_ns: int
    topic: str
    payload: bytes

    @property
    def position(self) -> tuple[int, int]:
        """Place in the order of all records of this node."""
        return self.epoch, self.seq

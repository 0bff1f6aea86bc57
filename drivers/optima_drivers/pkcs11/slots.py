"""Certificate objects on a token, and how several of them are two slots and one credential. Knows no token.

    CKO_CERTIFICATE  optima:staged:6       written, read by no terminal        slot 0: even generations
    CKO_CERTIFICATE  optima:supervisor:5   the terminal's: highest generation  slot 1: odd generations
    CKO_DATA         optima:confirmed:5    SHA-256 of what was used once

The value of an object cannot be changed, so a new certificate is a new object, and activating it is a new label: one call,
before which the old one is the terminal's and after which the new one is. The certificate that is in use is never rewritten:
that it was used once is an object of its own. One that is activated again gets the next generation of its slot. Where two
have the same generation, which no sequence of steps here leaves behind, the one that is valid from later on counts.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from cryptography import x509

from optima_bridge.link.pkcs11 import Entry

PREFIX = "optima:"
STAGED, ACTIVE, CONFIRMED = "staged", "supervisor", "confirmed"
SLOTS = 2
LABEL = re.compile(rf"{PREFIX}({STAGED}|{ACTIVE}|{CONFIRMED}):(0|[1-9][0-9]{{0,8}})")


def label(role: str, generation: int) -> str:
    """CKA_LABEL of an object of ours."""
    return f"{PREFIX}{role}:{generation}"


class Held(msgspec.Struct, frozen=True):
    """One object of ours, a certificate or the mark that one was used."""

    role: str
    generation: int
    entry: Entry

    @property
    def slot(self) -> int:
        return self.generation % SLOTS

    @property
    def active(self) -> bool:
        """Whether it takes part in the choice of the terminal."""
        return self.role == ACTIVE

    @property
    def digest(self) -> bytes:
        return hashlib.sha256(self.entry.value).digest()

    @property
    def rank(self) -> tuple[bool, int, datetime, bytes]:
        """The highest one counts."""
        return self.active, self.generation, _not_before(self.entry.value), self.entry.value


class Credential:
    """What a token holds.

    Attributes:
        slots: the certificate that counts in each slot; None: there is none.
        active: the terminal's.
        marks: that a certificate was used once.
    """

    def __init__(self, certificates: Iterable[Entry], data: Iterable[Entry]) -> None:
        self.marks = [held for held in _ours(data) if held.role == CONFIRMED]
        self._certificates = [held for held in _ours(certificates) if held.role != CONFIRMED]
        whole = [held for held in self._certificates if held.entry.value]
        self.slots = [_highest(held for held in whole if held.slot == slot) for slot in range(SLOTS)]
        self.active = _highest(held for held in whole if held.active)

    def confirmed(self, held: Held) -> bool:
        """Whether this very certificate was used in this generation."""
        return any(_marks(mark, held) for mark in self.marks)

    def in_slot(self, slot: int) -> list[Held]:
        """All objects of a slot, the marks first: what is left without them is a certificate that was not used."""
        return [held for held in (*self.marks, *self._certificates) if held.slot == slot]

    def leftovers(self) -> list[Held]:
        """What counts for nothing: certificates behind another one of their slot, marks of what is not there."""
        kept = [held for held in self.slots if held is not None]
        marks = [mark for mark in self.marks if not any(_marks(mark, held) for held in kept)]
        return [*marks, *(held for held in self._certificates if held not in kept)]

    def next_generation(self, slot: int) -> int:
        """The lowest one of this slot above all that are there."""
        highest = max((held.generation for held in (*self.marks, *self._certificates)), default=0)
        return highest + (1 if (highest + 1) % SLOTS == slot else 2)


def _ours(entries: Iterable[Entry]) -> list[Held]:
    return [
        Held(found[1], int(found[2]), entry) for entry in entries if (found := LABEL.fullmatch(entry.label)) is not None
    ]


def _marks(mark: Held, held: Held) -> bool:
    return (mark.generation, mark.entry.value) == (held.generation, held.digest)


def _highest(certificates: Iterable[Held]) -> Held | None:
    return max(certificates, key=lambda held: held.rank, default=None)


def _not_before(der: bytes) -> datetime:
    try:
        return x509.load_der_x509_certificate(der).not_valid_before_utc
    except ValueError:
        return datetime.min.replace(tzinfo=UTC)

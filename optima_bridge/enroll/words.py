"""The words of an enrolment: what is asked for, how far it is, how it ended."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable
from enum import StrEnum

import msgspec

from optima_bridge.errors import BridgeError
from optima_bridge.store import SecureStore


class Phase(StrEnum):
    """How far a job is. Up to VERIFY it can be cancelled; COMMIT is the point of no return."""

    WAIT = "wait"
    CHECK = "check"
    BACKUP = "backup"
    WRITE = "write"
    VERIFY = "verify"
    COMMIT = "commit"
    CONFIRM = "confirm"


class Outcome(StrEnum):
    """How a job ended.

    ``verified``: the new certificate is active and was read back; ``unconfirmed``: it is active as far as the device tells,
    which cannot be read back; ``rolled-back``: the old one is active; ``needs-attention``: it is not known now, the job is
    settled when the device answers again.
    """

    VERIFIED = "verified"
    UNCONFIRMED = "unconfirmed"
    ROLLED_BACK = "rolled-back"
    NEEDS_ATTENTION = "needs-attention"

    @property
    def exit_status(self) -> int:
        """What a command returns: 0 ok, 10 verify-failed, 11 needs-attention."""
        return {"verified": 0, "rolled-back": 10}.get(self.value, 11)


class Request(msgspec.Struct, frozen=True):
    """One certificate for one device.

    Attributes:
        job: id of the job, unique in the state directory.
        serial: the device it is meant for; another one is left as it is.
        certificate: DER.
        replace: another certificate may be there.
        if_fingerprint: exactly this one is to be replaced: SHA-256 of its DER, lower-case hex; implies `replace`.
        accept_single_slot: a power cut may leave the device without a certificate until it is recovered.
        erase_old: the old key is revoked: erase its certificate in the end instead of keeping it for going back.
    """

    job: str
    serial: str
    certificate: bytes
    replace: bool = False
    if_fingerprint: str | None = None
    accept_single_slot: bool = False
    erase_old: bool = False


class Result(msgspec.Struct, frozen=True):
    """How a job ended, and what is true now.

    Attributes:
        job: its id; empty where nothing had to be done.
        outcome: see Outcome.
        active_sha256: the certificate that the terminal uses now, lower-case hex; empty: none; None: not known.
        changed: whether it is another one than before the job.
        error: why it is not the new one.
    """

    job: str
    outcome: Outcome
    active_sha256: str | None
    changed: bool
    error: BridgeError | None = None


Report = Callable[[Phase, int, int], None]
"""Called with the phase, bytes done and bytes in all; (phase, 0, 0) when a phase begins that moves no bytes."""

Check = Callable[[bytes], None]
"""Raises CertificateError (or another BridgeError) for DER that must not become a credential."""

Ready = Callable[[], None]
"""Raises ControllerBusy (or another BridgeError) where the device must not be written to now."""

Use = Callable[[SecureStore], Awaitable[None]]
"""One real use of the active credential, a challenge or a role check; raises BridgeError where it does not work."""


def fingerprint(certificate: bytes) -> str:
    """SHA-256 of the DER, lower-case hex."""
    return hashlib.sha256(certificate).hexdigest()


def silent(phase: Phase, done_bytes: int, size_bytes: int) -> None:
    """Reports to nobody."""


def always() -> None:
    """There is nothing else to be asked."""


async def not_used(store: SecureStore) -> None:
    """The device offers no use that could be tried."""

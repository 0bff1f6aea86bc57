"""What enrolments need of the daemon around them: its devices, somewhere to say what happened, and the audit log."""

from __future__ import annotations

from typing import Protocol

from optima_bridge.enroll.jobs import Job
from optima_bridge.enroll.records import Document
from optima_bridge.errors import BridgeError
from optima_bridge.model import Capability, DeviceIdentity
from optima_bridge.store import SecureStore


class Station(Protocol):
    """A device as the daemon keeps it."""

    @property
    def abilities(self) -> frozenset[Capability]:
        """What this very device can do."""

    @property
    def present(self) -> str | None:
        """Identifier of the key or card that is in the reader now; None: none, or it is not known."""

    async def next_identifier(self) -> str:
        """Identifier of the key or card that is put in or shown next."""

    def controller(self) -> tuple[str, str]:
        """Its status as the controller reports it, and since when; empty where it reports none."""

    def secure_store(self) -> tuple[SecureStore, DeviceIdentity]:
        """Its open secure memory, and who answered.

        Raises:
            BridgeError: why it cannot be used now.
        """


class Notices(Protocol):
    """Where the daemon says what became of a device's credential. None of these may raise or block."""

    def job(self, action: str, job: Job) -> None:
        """A job has begun, advanced, ended, or was settled later."""

    def credential(self, device: str, active: Document | None) -> None:
        """Which certificate is active; None: it is not known."""

    def attention(self, device: str, error: BridgeError | None) -> None:
        """The device needs somebody; None: not any more."""


class Audit(Protocol):
    """The audit log. Each of these raises JournalError where it takes nothing."""

    async def begun(self, job: Job) -> None:
        """Somebody begins a job; without this record nothing is done."""

    async def ended(self, job: Job, result: Document) -> None:
        """It has this result."""

    async def settled(self, device: str, job_id: str, result: Document) -> None:
        """The daemon has finished or undone what was interrupted, also what was begun without the daemon."""

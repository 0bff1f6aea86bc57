"""What can be done on an open device, by the daemon and without it: enrol, try it dry, compare, go back, go on.

    ending = await carry_out(Open(store, identity, journal), Enrol(…), Stop())

Work never raises BridgeError: whatever happened, the ending says which certificate is active now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_der_public_key

from optima_bridge.enroll.engine import enroll, refuse
from optima_bridge.enroll.journal import HostJournal, Job, JobState
from optima_bridge.enroll.pki.check import CheckedCertificate, is_identifier_only
from optima_bridge.enroll.pki.files import PARSE_ERRORS
from optima_bridge.enroll.pki.possession import PublicKey, accepted, challenge, proven_by_signature
from optima_bridge.enroll.pki.profile import format_serial, name_text
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.switch import active, on_disk
from optima_bridge.enroll.words import Outcome, Ready, Report, Request, Result, always, silent
from optima_bridge.errors import BridgeError, EnrollRefused, VerifyMismatch, WriteUncertain
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import KeyHolder, Readback, SecureStore, SlotState, StoreTraits

LOOK_TIMEOUT_S = 10.0


class Certificate(msgspec.Struct, frozen=True):
    """What people want to know of a certificate that a device holds.

    Attributes:
        sha256: lower-case hex; empty: there is none.
        subject: empty where the bytes are not known or are no certificate.
        not_after: aware time; None as above.
        identifier_only: never call its holder "authenticated".
        serial: its serial number, upper-case hex.
        der: empty where the bytes are not known.
    """

    sha256: str
    subject: str = ""
    not_after: datetime | None = None
    identifier_only: bool = False
    serial: str = ""
    der: bytes = b""


class Ending(msgspec.Struct, frozen=True):
    """How work on the open device ended.

    Attributes:
        outcome: None: nothing was to be written, or it was refused before the first write.
        active: what the terminal uses now; None: not known.
        changed: whether that is another one than before.
        error: why it is not what was asked for.
        interrupted: it was told to stop before the point of no return.
        compared: it was only to be compared.
    """

    outcome: Outcome | None
    active: Certificate | None
    changed: bool = False
    error: BridgeError | None = None
    interrupted: bool = False
    compared: bool = False


class Plan(msgspec.Struct, frozen=True):
    """What an enrolment would do.

    Attributes:
        unsettled: id of the interrupted job that would be settled first; empty: none.
        needed: False: the certificate is active already.
    """

    identity: DeviceIdentity
    traits: StoreTraits
    slots: tuple[SlotState, ...]
    certificate: CheckedCertificate
    unsettled: str
    needed: bool


class Open(msgspec.Struct, frozen=True):
    """A device that answers, and what is known of its jobs."""

    store: SecureStore
    identity: DeviceIdentity
    journal: HostJournal


CheckFor = Callable[[bytes, StoreTraits, DeviceIdentity, PublicKey | None], CheckedCertificate]
"""Raises CertificateError for DER that must not become the credential of this device, which may have a key of its own."""


class Enrol(msgspec.Struct, frozen=True):
    """Bring a certificate in. `passed` is called with what the checks found."""

    job: str
    certificate: bytes
    check: CheckFor
    passed: Callable[[CheckedCertificate], None]
    report: Report = silent
    ready: Ready = always
    replace: bool = False
    if_fingerprint: str | None = None
    accept_single_slot: bool = False
    erase_old: bool = False

    async def do(self, it: Open) -> Result:
        await it.store.connect()
        key = await device_key(it.store)

        def check(der: bytes) -> None:
            self.passed(self.check(der, it.store.traits, it.identity, key))

        return await enroll(
            it.store, self.request(it), it.journal, check, report=self.report, use=prove, ready=self.ready
        )

    def request(self, it: Open) -> Request:
        return Request(
            job=self.job,
            serial=it.identity.serial,
            certificate=self.certificate,
            replace=self.replace,
            if_fingerprint=self.if_fingerprint,
            accept_single_slot=self.accept_single_slot,
            erase_old=self.erase_old,
        )


class DryRun(msgspec.Struct, frozen=True):
    """All checks of `enrol`, and nothing written; `show` gets the plan."""

    enrol: Enrol
    show: Callable[[Plan], None]

    async def do(self, it: Open) -> None:
        self.enrol.ready()
        identity = await it.store.connect()
        certificate = self.enrol.check(self.enrol.certificate, it.store.traits, identity, await device_key(it.store))
        self.enrol.passed(certificate)
        open_job = await on_disk(it.journal.open_job, identity.model, identity.serial)
        slots = await it.store.inspect()
        present = active(slots)
        needed = present is None or present.sha256 != certificate.fingerprint or not present.confirmed
        if needed:
            refuse(it.store, self.enrol.request(it), present, certificate.fingerprint)
        unsettled = open_job.id if open_job else ""
        self.show(Plan(identity, it.store.traits, tuple(slots), certificate, unsettled, needed))


class Compare(msgspec.Struct, frozen=True):
    """Read back what is active, in a fresh session, and compare it with this fingerprint."""

    sha256: str

    async def do(self, it: Open) -> Result:
        """Raises VerifyMismatch: it is another one, or there is none."""
        await it.store.connect()
        present = active(await it.store.inspect())
        read = await it.store.verify(present.slot) if present else ""
        if read != self.sha256:
            raise VerifyMismatch(
                f"the device holds {read or 'no certificate'}, not {self.sha256}",
                cause="another certificate was enrolled, or none yet",
                next_step="if that is not what should be there, enroll the right one",
            )
        return Result("", Outcome.VERIFIED, read, changed=False)


class GoBack(msgspec.Struct, frozen=True):
    """Enrol once more the certificate that was active before the last job; `enrol` makes the work of it."""

    enrol: Callable[[bytes], Enrol]

    async def do(self, it: Open) -> Result:
        """Raises EnrollRefused: there was none, or it is not known any more."""
        await it.store.connect()
        present = active(await it.store.inspect())
        now = present.sha256 if present else ""
        job = await on_disk(it.journal.brought, it.identity.model, it.identity.serial, now)
        before = await on_disk(it.journal.certificate, job.old_sha256) if job and job.old_sha256 else None
        if before is not None:
            return await self.enrol(before).do(it)
        raise EnrollRefused(
            f"there is no certificate to go back to on {it.identity.serial}",
            cause="none was active before, or it was not enrolled by this PC",
            next_step="enroll the one that should be there, with --replace",
        )


class GoOn(msgspec.Struct, frozen=True):
    """Settle what an interrupted job left, then bring in the certificate that it was about.

    Attributes:
        job: its id; empty: the device's last one.
    """

    enrol: Callable[[bytes], Enrol]
    job: str = ""
    report: Report = silent

    async def do(self, it: Open) -> Result | None:
        """None: there is no such job, so there is nothing to go on with."""
        settled = await recover(it.store, it.journal, use=prove, report=self.report)
        jobs = [
            job
            for job in await on_disk(it.journal.jobs)
            if (job.model, job.serial) == (it.identity.model, it.identity.serial) and self.job in ("", job.id)
        ]
        if not jobs or (settled is not None and settled.outcome is not Outcome.ROLLED_BACK):
            return settled
        return await self.enrol(jobs[0].new_der).do(it)


class Work(Protocol):
    """Something to be done on an open device: the classes above, and those of `optima_bridge.enroll.issue`."""

    async def do(self, it: Open) -> Result | None:
        """None: nothing was to be written. Raises BridgeError: it was refused, or failed before the first write."""


class Stop:
    """Tells work to stop. The first call cancels `task`; none does any more once `task` was taken away: the closing steps
    must not be disturbed."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Any] | None = None
        self.asked = False

    def __call__(self) -> None:
        if self.task is not None:
            self.asked = self.task.cancel()
        self.task = None


async def carry_out(it: Open, work: Work, stop: Stop) -> Ending:
    """Do `work`; told to stop, undo it, or finish it where it is behind the point of no return."""
    result, error, interrupted = None, None, False
    before = await on_disk(it.journal.last, it.identity.model, it.identity.serial)
    try:
        result = await work.do(it)
    except BridgeError as refused:
        error = refused
    except asyncio.CancelledError:
        last = await on_disk(it.journal.last, it.identity.model, it.identity.serial)
        result = None if last == before else _stopped(last)
        interrupted = result is None
    stop.task = None
    if result is not None:
        error = result.error
    now = await look(it, result.active_sha256 if result else None)
    compared = isinstance(work, Compare)
    if result is None:
        return Ending(None, now, error=error, interrupted=interrupted, compared=compared)
    return Ending(result.outcome, now, result.changed, error, compared=compared)


def _stopped(job: Job | None) -> Result | None:
    """How a job ended that was told to stop; None: before the point of no return, so nothing has changed."""
    if job is None or job.state is JobState.STAGING or job.outcome is Outcome.ROLLED_BACK:
        return None
    if job.outcome is None:
        uncertain = WriteUncertain(f"job {job.id} is not settled", job=job.id)
        return Result(job.id, Outcome.NEEDS_ATTENTION, None, changed=False, error=uncertain)
    return Result(job.id, job.outcome, job.new_sha256, job.new_sha256 != job.old_sha256)


async def look(it: Open, told: str | None = None) -> Certificate | None:
    """What is active now, by the device's own word; where it does not answer, what was `told` of it. None: not known."""
    sha256, der = told, None
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            present = active(await it.store.inspect())
            sha256 = present.sha256 if present else ""
            if present and it.store.traits.readback is Readback.BYTES:
                der = await it.store.read(present.slot)
    except (BridgeError, TimeoutError):
        pass  # the job's own error says more
    if sha256 and der is None:
        der = await on_disk(it.journal.certificate, sha256)
    return None if sha256 is None else described(sha256, der)


def described(sha256: str, der: bytes | None) -> Certificate:
    """What can be told of a certificate, whoever made it."""
    try:
        certificate = x509.load_der_x509_certificate(der or b"")
        return Certificate(
            sha256,
            name_text(certificate.subject),
            certificate.not_valid_after_utc,
            is_identifier_only(certificate),
            format_serial(certificate.serial_number),
            der or b"",
        )
    except PARSE_ERRORS:
        return Certificate(sha256, der=der or b"")


async def device_key(store: SecureStore) -> PublicKey | None:
    """The public key of a device that has one of its own.

    Raises:
        WeakKey: of a kind that no certificate is about.
    """
    spki = await cast("KeyHolder", store).public_key() if store.traits.can_prove_key else None
    return accepted(load_der_public_key(spki)) if spki else None


async def prove(store: SecureStore) -> None:
    """One real use of the active credential: a device that has a key signs with it; others offer nothing that could be tried.

    Raises:
        KeyMismatch: the key is not the one that the certificate is about.
    """
    present = active(await store.inspect())
    if not store.traits.can_prove_key or present is None:
        return
    certificate = x509.load_der_x509_certificate(await store.read(present.slot))
    asked = challenge()
    proven_by_signature(certificate.public_key(), asked, await cast("KeyHolder", store).sign(asked))

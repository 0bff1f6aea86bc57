"""Enrolling with no daemon: opens one configured device as the keeper does, does one job on it, and says how it ended.

    with HostJournal(directory) as journal:
        ending = asyncio.run(perform("till-3", device, journal, Resume()))

A job never raises BridgeError: whatever happened, the ending says which certificate is active now.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import cast

import msgspec
from cryptography import x509

from optima_bridge.config.model import Device
from optima_bridge.enroll.engine import enroll, refuse
from optima_bridge.enroll.journal import HostJournal, JobState
from optima_bridge.enroll.pki.check import CheckedCertificate, is_identifier_only
from optima_bridge.enroll.pki.files import PARSE_ERRORS
from optima_bridge.enroll.pki.profile import name_text
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.switch import active, on_disk
from optima_bridge.enroll.words import Outcome, Report, Request, Result, fingerprint, silent
from optima_bridge.errors import (
    AccessDenied,
    BridgeError,
    EnrollRefused,
    LinkTimeout,
    VerifyMismatch,
    WriteUncertain,
)
from optima_bridge.link import open_link
from optima_bridge.model import Capability, DeviceIdentity
from optima_bridge.store import HasSecureStore, Readback, SecureStore, SlotState, StoreTraits

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 1.0
LOOK_TIMEOUT_S = 10.0


class Certificate(msgspec.Struct, frozen=True):
    """What people want to know of a certificate that a device holds.

    Attributes:
        sha256: lower-case hex; empty: there is none.
        subject: empty where the bytes are not known or are no certificate.
        not_after: aware time; None as above.
        identifier_only: never call its holder "authenticated".
    """

    sha256: str
    subject: str = ""
    not_after: datetime | None = None
    identifier_only: bool = False


class Ending(msgspec.Struct, frozen=True):
    """How a job on the open device ended.

    Attributes:
        outcome: None: nothing was to be written, or it was refused before the first write.
        active: what the terminal uses now; None: not known.
        changed: whether that is another one than before.
        error: why it is not what was asked for.
        interrupted: a signal stopped it before the point of no return.
    """

    outcome: Outcome | None
    active: Certificate | None
    changed: bool = False
    error: BridgeError | None = None
    interrupted: bool = False


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


CheckFor = Callable[[bytes, StoreTraits, DeviceIdentity], CheckedCertificate]
"""Raises CertificateError for DER that must not become the credential of this device."""


class Enrol(msgspec.Struct, frozen=True):
    """Bring a certificate in. `passed` is called with what the checks found."""

    job: str
    certificate: bytes
    check: CheckFor
    passed: Callable[[CheckedCertificate], None]
    report: Report = silent
    replace: bool = False
    if_fingerprint: str | None = None
    accept_single_slot: bool = False

    async def do(self, it: Open) -> Result:
        return await enroll(
            it.store, self.request(it), it.journal, lambda der: self.checked(it, der), report=self.report
        )

    def request(self, it: Open) -> Request:
        return Request(
            job=self.job,
            serial=it.identity.serial,
            certificate=self.certificate,
            replace=self.replace,
            if_fingerprint=self.if_fingerprint,
            accept_single_slot=self.accept_single_slot,
        )

    def checked(self, it: Open, der: bytes) -> None:
        self.passed(self.check(der, it.store.traits, it.identity))


class DryRun(msgspec.Struct, frozen=True):
    """All checks of `enrol`, and nothing written; `show` gets the plan."""

    enrol: Enrol
    show: Callable[[Plan], None]

    async def do(self, it: Open) -> None:
        certificate = self.enrol.check(self.enrol.certificate, it.store.traits, it.identity)
        self.enrol.passed(certificate)
        open_job = await on_disk(it.journal.open_job, it.identity.model, it.identity.serial)
        slots = await it.store.inspect()
        present = active(slots)
        needed = present is None or present.sha256 != certificate.fingerprint or not present.confirmed
        if needed:
            refuse(it.store, self.enrol.request(it), present, certificate.fingerprint)
        unsettled = open_job.id if open_job else ""
        self.show(Plan(it.identity, it.store.traits, tuple(slots), certificate, unsettled, needed))


class Compare(msgspec.Struct, frozen=True):
    """Read back what is active and compare it with `certificate`."""

    certificate: bytes

    async def do(self, it: Open) -> Result:
        """Raises VerifyMismatch: it is another one, or there is none."""
        present = active(await it.store.inspect())
        read = await it.store.verify(present.slot) if present else ""
        if read != (asked := fingerprint(self.certificate)):
            raise VerifyMismatch(
                f"the device holds {read or 'no certificate'}, not {asked}",
                cause="another certificate was enrolled, or none yet",
                next_step="if that is not what should be there, enroll the right one",
            )
        return Result("", Outcome.VERIFIED, asked, changed=False)


class Resume(msgspec.Struct, frozen=True):
    """Settle what an interrupted job left, and nothing else."""

    report: Report = silent

    async def do(self, it: Open) -> Result | None:
        return await recover(it.store, it.journal, report=self.report)


Job = Enrol | DryRun | Compare | Resume


async def perform(name: str, device: Device, journal: HostJournal, job: Job) -> Ending:
    """Do `job` on the device of that name. SIGINT and SIGTERM stop it up to the point of no return."""
    stop = _Stop()
    task = asyncio.ensure_future(_perform(name, device, journal, job, stop))
    stop.task = task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not stop.asked:
            raise
        return Ending(None, None, interrupted=True)  # while the device was opened


class _Stop:
    """The first signal cancels `task`; a second one, or one after `task` was taken away, must not disturb the closing steps."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Ending] | None = None
        self.asked = False

    def __call__(self) -> None:
        if self.task is not None:
            self.asked = self.task.cancel()
        self.task = None


async def _perform(name: str, device: Device, journal: HostJournal, job: Job, stop: _Stop) -> Ending:
    try:
        async with opened(name, device) as (store, identity):
            return await _end(Open(store, identity, journal), job, stop)
    except BridgeError as error:
        return Ending(None, None, error=error)


async def _end(it: Open, job: Job, stop: _Stop) -> Ending:
    result, error, interrupted = None, None, False
    before = await on_disk(it.journal.open_job, it.identity.model, it.identity.serial)
    try:
        result = await job.do(it)
    except BridgeError as refused:
        error = refused
    except asyncio.CancelledError:
        result = await _journaled(it.journal, job.job if isinstance(job, Enrol) else before.id if before else "")
        interrupted = result is None
    stop.task = None
    if result is not None:
        error = result.error
    now = await look(it, result.active_sha256 if result else None)
    if result is None:
        return Ending(None, now, error=error, interrupted=interrupted)
    return Ending(result.outcome, now, result.changed, error)


async def _journaled(journal: HostJournal, job_id: str) -> Result | None:
    """How a job ended that was told to stop; None: before the point of no return, so nothing has changed."""
    job = await on_disk(journal.job, job_id)
    if job is None or job.state is JobState.STAGING or job.outcome is Outcome.ROLLED_BACK:
        return None
    if job.outcome is None:
        uncertain = WriteUncertain(f"job {job.id} is not settled", job=job.id)
        return Result(job.id, Outcome.NEEDS_ATTENTION, None, changed=False, error=uncertain)
    return Result(job.id, job.outcome, job.new_sha256, job.new_sha256 != job.old_sha256)


async def look(it: Open, told: str | None) -> Certificate | None:
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
            sha256, name_text(certificate.subject), certificate.not_valid_after_utc, is_identifier_only(certificate)
        )
    except PARSE_ERRORS:
        return Certificate(sha256)


@asynccontextmanager
async def opened(name: str, device: Device) -> AsyncIterator[tuple[SecureStore, DeviceIdentity]]:
    """The secure memory of a configured device, and who answers.

    Raises:
        EnrollRefused: it has none.
        LinkError, ProtocolError, DeviceError: it cannot be used now; LinkBusy names who has the port.
    """
    info = device.driver_class.info
    if Capability.SECURE_STORE not in device.settings.narrow(info.capabilities):
        raise EnrollRefused(
            f"{name} has no secure memory",
            cause=f"the driver {info.name}, or its settings, do not have the ability secure-store",
            next_step="name a device that has it: bridge drivers list",
        )
    link = await open_link(device.port, info.serial_format)
    try:
        driver = device.driver_class(link, device.settings)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                identity = await driver.start()
        except TimeoutError as error:
            if isinstance(error, BridgeError):
                raise
            raise LinkTimeout(f"{link.name}: the driver did not start within {START_TIMEOUT_S:.0f} s") from error
        try:
            yield cast("HasSecureStore", driver).store, identity
        finally:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await driver.stop()
            except (BridgeError, TimeoutError):
                pass  # it is gone, or does not listen: what was done is done
    finally:
        link.close()


def check_directory(directory: Path) -> None:
    """Whether this user may keep the journal of enrolments there.

    Raises:
        AccessDenied: no; or it is root, whose files the service could not use afterwards.
    """
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"the state directory {directory} cannot be written to",
            cause="it belongs to the service's user, or the service was never started",
            next_step="run it as that user: sudo -u optima-bridge bridge enroll --help",
        )
    owner = directory.stat().st_uid
    if os.geteuid() == 0 != owner:
        user = pwd.getpwuid(owner).pw_name
        raise AccessDenied(
            f"root would leave files in {directory} that {user} cannot use",
            cause="the command was run with sudo, but without -u",
            next_step=f"run it as that user: sudo -u {user} bridge enroll --help",
        )

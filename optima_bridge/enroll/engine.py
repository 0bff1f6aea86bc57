"""One certificate into one device, so that at every moment the old one or the new one is there.

    check ─ recover ─ inspect ─ back up ─ journal ─ stage ─ read back │ activate ─ look ─ use once ─ confirm
    └── refused: not one byte written ──┘           └ cancel: undone  └ no return: finished even when cancelled

Source: the design of power-loss-safe writes, section 4, steps 1 to 9.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from optima_bridge.enroll.journal import HostJournal, Job
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.switch import active, discard, finish, on_disk, settled, stage
from optima_bridge.enroll.words import (
    Check,
    Outcome,
    Phase,
    Ready,
    Report,
    Request,
    Result,
    Use,
    always,
    fingerprint,
    not_used,
    silent,
)
from optima_bridge.errors import (
    BridgeError,
    CertificateTooBig,
    EnrollError,
    FingerprintMismatch,
    JournalError,
    SingleSlot,
    SlotOccupied,
    WriteUncertain,
    WrongDevice,
)
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import LockedStore, Readback, SecureStore, SlotState


async def enroll(
    store: SecureStore,
    request: Request,
    journal: HostJournal,
    check: Check,
    *,
    report: Report = silent,
    use: Use = not_used,
    ready: Ready = always,
) -> Result:
    """Bring `request.certificate` into the device, or leave it as it was.

    The caller owns the device: one task uses the store. Cancelled up to the read-back, it undoes what it did; later, it
    finishes first (bounded, see `switch`), and the result is in the journal.

    Raises:
        EnrollRefused, CertificateError, NotAuthorised: a precondition is not met; nothing was written.
        WriteUncertain: an earlier job of this device could not be settled.
        EnrollBusy, JournalError: the job could not be journaled; nothing was written.
        LinkError, ProtocolError, DeviceError: the device failed before anything was written.
    """
    report(Phase.CHECK, 0, 0)
    ready()
    if (size_bytes := len(request.certificate)) > store.traits.max_size_bytes:
        raise CertificateTooBig(
            f"the certificate has {size_bytes} bytes, a slot takes {store.traits.max_size_bytes}",
            size_bytes=size_bytes,
            max_size_bytes=store.traits.max_size_bytes,
        )
    check(request.certificate)
    identity = await store.connect()
    if identity.serial != request.serial:
        raise WrongDevice(f"device {identity.serial!r} answers, the job is for {request.serial!r}")
    earlier = await recover(store, journal, use=use)
    if earlier is not None and earlier.outcome is Outcome.NEEDS_ATTENTION:
        raise earlier.error or WriteUncertain(f"job {earlier.job} is not settled")
    slots = await store.inspect()
    present = active(slots)
    sha256 = fingerprint(request.certificate)
    if present is not None and present.sha256 == sha256 and present.confirmed:
        return Result("", Outcome.VERIFIED, sha256, changed=False)
    refuse(store, request, present, sha256)
    if store.traits.secret:
        await cast("LockedStore", store).authenticate()
    report(Phase.BACKUP, 0, 0)
    job = await _plan(store, request, journal, identity, slots)
    await on_disk(journal.begin, job)
    if store.traits.slots > 1 and job.old_sha256 != sha256:
        try:
            await stage(store, job, job.slot, job.new_der, sha256, report)
            ready()  # writing took its time
        except BridgeError as error:
            return await settled(discard(store, journal, job, error))
        except asyncio.CancelledError:
            await settled(discard(store, journal, job, EnrollError(f"job {job.id} was cancelled")))
            raise
    # Where nothing can be staged beside the active certificate, the journal is the second copy from here on.
    return await settled(_commit(store, journal, job, use, report))


async def _commit(store: SecureStore, journal: HostJournal, job: Job, use: Use, report: Report) -> Result:
    """The point of no return and all that is behind it."""
    try:
        job = await on_disk(journal.activating, job)
    except JournalError as error:
        return await discard(store, journal, job, error)
    return await finish(store, journal, job, use, report)


def refuse(store: SecureStore, request: Request, present: SlotState | None, sha256: str) -> None:
    """What stands in the way of replacing `present` by the certificate of this fingerprint.

    Raises:
        FingerprintMismatch, SlotOccupied, SingleSlot: see there.
    """
    if present is not None and present.sha256 == sha256:
        return  # it is there and only has to be confirmed
    there = present.sha256 if present else ""
    if request.if_fingerprint is not None and request.if_fingerprint != there:
        raise FingerprintMismatch(
            f"the device holds {there or 'no certificate'}, not {request.if_fingerprint}", active_sha256=there
        )
    if present is not None and not request.replace and request.if_fingerprint is None:
        raise SlotOccupied(f"the device holds the certificate {there}", active_sha256=there)
    if not store.traits.survives_power_loss and not request.accept_single_slot:
        if store.traits.activates_by_copy:
            raise SingleSlot(
                "this device switches by writing over the certificate in use: while it is written that is not valid",
                cause="a write that the power cuts off is completed from a spare slot, but only at the next start",
            )
        raise SingleSlot("this device has a single slot: while it is written it holds no valid certificate")


async def _plan(
    store: SecureStore, request: Request, journal: HostJournal, identity: DeviceIdentity, slots: Sequence[SlotState]
) -> Job:
    """The job as it is journaled: where the new certificate goes, and what was there before."""
    present = active(slots)
    sha256 = fingerprint(request.certificate)
    old_der = None
    if present is not None and store.traits.readback is Readback.BYTES:
        old_der = await store.read(present.slot)
    elif present is not None:
        old_der = await on_disk(journal.certificate, present.sha256)
    if present is not None and (len(slots) == 1 or present.sha256 == sha256):
        slot = present.slot
    else:
        slot = next(state.slot for state in slots if not state.active)
    return Job(
        id=request.job,
        model=identity.model,
        serial=identity.serial,
        slot=slot,
        old_slot=present.slot if present else None,
        old_generation=present.generation if present else 0,
        old_sha256=present.sha256 if present else "",
        old_der=old_der,
        new_sha256=sha256,
        new_der=request.certificate,
        erase_old=request.erase_old,
    )

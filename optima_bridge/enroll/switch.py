"""From the staged certificate to the confirmed one, or back: the steps that the engine and the recovery share.

Each function looks at what the device holds and does what is missing, so it can be repeated after any interruption:

    discard    before the point of no return: the spare slot is emptied, the old certificate is active
    finish     behind it: new one active ─ used once ─ confirmed; where that fails the old one is activated again

Where the device does not answer the job stays open in the journal and `recover` comes back to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, ParamSpec, TypeVar

from optima_bridge.enroll.journal import HostJournal, Job
from optima_bridge.enroll.words import Outcome, Phase, Report, Result, Use
from optima_bridge.errors import (
    BridgeError,
    DeviceError,
    JournalError,
    LinkError,
    NotAuthorised,
    ProtocolError,
    SlotError,
    TimedOut,
    VerifyMismatch,
    WriteUncertain,
    WrongDevice,
)
from optima_bridge.store import Readback, SecureStore, SlotState

# How long a cancelled job may go on; systemd's TimeoutStopSec has to be longer. Two slots of 2 KB read at 9600 baud: 5 s.
DISCARD_TIMEOUT_S = 10.0
SWITCH_TIMEOUT_S = 30.0  # the slots read a few times, a few bytes written
IN_PLACE_TIMEOUT_S = 60.0  # a certificate written and read back, and perhaps the old one after it

# What the device holds cannot be known or mended now: recover() comes back to it.
_SILENT = (LinkError, ProtocolError, WrongDevice, NotAuthorised)

P = ParamSpec("P")
T = TypeVar("T")


async def discard(store: SecureStore, journal: HostJournal, job: Job, error: BridgeError) -> Result:
    """Empty the spare slot and close the job; the certificate that was active still is."""
    result = Result(job.id, Outcome.ROLLED_BACK, job.old_sha256, changed=False, error=error)
    try:
        async with asyncio.timeout(DISCARD_TIMEOUT_S):
            await connect(store, job)
            await store.erase(job.slot)
    except NotAuthorised:
        return result  # not without the secret
    except DeviceError:
        pass  # what is in a slot that is not active harms nobody
    except (BridgeError, TimeoutError):
        return result  # not now: recover() comes back to it
    return await _close(journal, job, result)


async def finish(store: SecureStore, journal: HostJournal, job: Job, use: Use, report: Report) -> Result:
    """Bring a job that is ACTIVATING to its end, whatever of it was done before. Bounded."""
    try:
        async with asyncio.timeout(SWITCH_TIMEOUT_S if store.traits.survives_power_loss else IN_PLACE_TIMEOUT_S):
            result = await _forward_or_back(store, job, use, report)
    except (BridgeError, TimeoutError) as caught:
        error = caught if isinstance(caught, BridgeError) else TimedOut("the device did not finish switching in time")
        uncertain = WriteUncertain(f"job {job.id}: {error}", cause=error.cause, job=job.id)
        return Result(job.id, Outcome.NEEDS_ATTENTION, None, changed=False, error=uncertain)
    return await _close(journal, job, result)


async def stage(store: SecureStore, job: Job, slot: int, certificate: bytes, sha256: str, report: Report) -> None:
    """Write and read back through a fresh session; twice, if the first time something else is read.

    Raises:
        VerifyMismatch: it is not what was written.
    """
    for _ in range(2):
        await store.stage(slot, certificate, partial(report, Phase.WRITE))
        await connect(store, job)
        if store.traits.readback is Readback.NONE:
            return
        report(Phase.VERIFY, 0, 0)
        if await store.verify(slot) == sha256:
            return
    raise VerifyMismatch(f"slot {slot} of {job.serial} does not hold what was written to it, twice", slot=slot)


async def connect(store: SecureStore, job: Job) -> None:
    """Begin a fresh session with the job's device.

    Raises:
        WrongDevice: another one answers.
    """
    identity = await store.connect()
    if (identity.model, identity.serial) != (job.model, job.serial):
        raise WrongDevice(f"{identity.model} {identity.serial} answers instead of {job.model} {job.serial}")


def active(slots: Sequence[SlotState]) -> SlotState | None:
    """The slot that the terminal uses."""
    return next((state for state in slots if state.active), None)


async def settled(inner: Coroutine[Any, Any, T]) -> T:
    """Run `inner`, which is bounded, to its end also where the caller is cancelled; the cancellation comes after it."""
    task = asyncio.ensure_future(inner)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


async def on_disk(write: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A call of the journal, on a thread; a cancellation waits until it is committed."""
    return await settled(asyncio.to_thread(write, *args, **kwargs))


async def _forward_or_back(store: SecureStore, job: Job, use: Use, report: Report) -> Result:
    """What the device answers decides; raises where it does not answer, or another one does."""
    changed = job.new_sha256 != job.old_sha256
    try:
        await _forward(store, job, use, report)
    except _SILENT:
        raise
    except BridgeError as error:
        return await _backward_or_stuck(store, job, error, report)
    try:
        await _erase_old(store, job)
    except DeviceError as error:
        return Result(job.id, Outcome.NEEDS_ATTENTION, job.new_sha256, changed, error)
    told = store.traits.readback is not Readback.NONE
    return Result(job.id, Outcome.VERIFIED if told else Outcome.UNCONFIRMED, job.new_sha256, changed)


async def _forward(store: SecureStore, job: Job, use: Use, report: Report) -> None:
    report(Phase.COMMIT, 0, 0)
    slots = await _slots(store, job)
    if not _is_new(store, job, active(slots)):
        if not any(_is_new(store, job, state) for state in slots if state.slot == job.slot):
            await stage(store, job, job.slot, job.new_der, job.new_sha256, report)  # in place, or a spare copy was lost
        await store.activate(job.slot)
        told = store.traits.readback is not Readback.NONE
        if told and not _is_new(store, job, active(await _slots(store, job))):
            raise VerifyMismatch(f"{job.serial} does not use slot {job.slot} after it was activated", slot=job.slot)
    report(Phase.CONFIRM, 0, 0)
    await use(store)
    await store.confirm()


async def _backward_or_stuck(store: SecureStore, job: Job, error: BridgeError, report: Report) -> Result:
    """Go back; where the device refuses that too nothing is left to do, and the job must not stand in the next one's way."""
    try:
        return await _backward(store, job, error, report)
    except _SILENT:
        raise
    except BridgeError as worse:
        stuck = WriteUncertain(
            f"job {job.id}: {error}; and then: {worse}", cause=worse.cause, next_step=worse.next_step, job=job.id
        )
        return Result(job.id, Outcome.NEEDS_ATTENTION, None, changed=True, error=stuck)


async def _backward(store: SecureStore, job: Job, error: BridgeError, report: Report) -> Result:
    """Activate the old certificate again; on a single slot, write it again."""
    slots = await _slots(store, job)
    now = active(slots)
    if job.old_slot is None or job.old_sha256 == job.new_sha256:  # there is no other one
        outcome = Outcome.ROLLED_BACK if now is None else Outcome.UNCONFIRMED
        return Result(job.id, outcome, now.sha256 if now else "", changed=now is not None, error=error)
    if not _is_old(store, job, now):
        slot = next((state.slot for state in slots if _is_old(store, job, state)), None)
        if slot is None:
            if job.old_der is None:
                raise SlotError(f"the old certificate of {job.serial} is neither in the device nor on this PC")
            slot = next((state.slot for state in slots if not state.active), job.slot)
            await stage(store, job, slot, job.old_der, job.old_sha256, report)
        await store.activate(slot)
        if not _is_old(store, job, active(await _slots(store, job))):
            raise VerifyMismatch(f"{job.serial} does not use slot {slot} after it was activated again", slot=slot)
    return Result(job.id, Outcome.ROLLED_BACK, job.old_sha256, changed=False, error=error)


async def _erase_old(store: SecureStore, job: Job) -> None:
    for state in await _slots(store, job) if job.erase_old else ():
        if _is_old(store, job, state) and not state.active:
            await store.erase(state.slot)


async def _slots(store: SecureStore, job: Job) -> list[SlotState]:
    """What the device holds, in a fresh session."""
    await connect(store, job)
    return list(await store.inspect())


def _is_new(store: SecureStore, job: Job, state: SlotState | None) -> bool:
    return _holds(store, state, job.slot, job.new_sha256)


def _is_old(store: SecureStore, job: Job, state: SlotState | None) -> bool:
    return _holds(store, state, job.old_slot, job.old_sha256)


def _holds(store: SecureStore, state: SlotState | None, slot: int | None, sha256: str) -> bool:
    """Whether a slot holds this certificate, as far as the device tells; where it tells nothing its slot stands for it."""
    if state is None or not state.valid:
        return False
    if store.traits.readback is Readback.NONE:
        return store.traits.slots > 1 and state.slot == slot
    return state.sha256 == sha256


async def _close(journal: HostJournal, job: Job, result: Result) -> Result:
    try:
        await on_disk(journal.closed, job, result.outcome, result.error.code if result.error else "")
    except JournalError as error:  # the device is as the result says; the job is settled once more at the next start
        return Result(job.id, result.outcome, result.active_sha256, result.changed, result.error or error)
    return result

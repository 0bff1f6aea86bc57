"""After a power cut: what the host's journal and the device say together, and what is to be done. At start and at insertion."""

from __future__ import annotations

from optima_bridge.enroll.journal import HostJournal, JobState
from optima_bridge.enroll.switch import discard, finish, on_disk, settled
from optima_bridge.enroll.words import Report, Result, Use, not_used, silent
from optima_bridge.errors import EnrollError
from optima_bridge.store import SecureStore


async def recover(
    store: SecureStore, journal: HostJournal, *, use: Use = not_used, report: Report = silent
) -> Result | None:
    """Settle the open job of the device that answers; None where it has none.

    A job that was writing the spare slot is undone, one behind the point of no return is finished. Writes nothing where
    nothing was interrupted.

    Raises:
        LinkError, ProtocolError, DeviceError: the device does not answer now; the job stays open.
        JournalError: the host's journal cannot be read.
    """
    identity = await store.connect()
    await store.recover()
    job = await on_disk(journal.open_job, identity.model, identity.serial)
    if job is None:
        return None
    if job.state is JobState.STAGING:
        interrupted = EnrollError(f"job {job.id} was interrupted while it wrote the spare slot", job=job.id)
        return await settled(discard(store, journal, job, interrupted))
    return await settled(finish(store, journal, job, use, report))

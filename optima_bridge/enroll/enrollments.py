"""Enrolments in the daemon: one job a device at a time, watched and stopped from anywhere; settles what a power cut left.

begin ── job on disk ── its task: wait for the key ─ look at the controller ─ work ── result on disk ── told
arrived (a device came up, a key was put in) ── recover, look which certificate is active
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import msgspec

from optima_bridge.enroll.jobs import By, Job, JobLog, State
from optima_bridge.enroll.journal import HostJournal, JobState
from optima_bridge.enroll.journal import Job as DeviceJob
from optima_bridge.enroll.live import LiveJob
from optima_bridge.enroll.orders import Kind, Order
from optima_bridge.enroll.pki.files import read_certificate
from optima_bridge.enroll.prepare import Orders
from optima_bridge.enroll.records import Document, Teller, facts, result_record
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.stations import Audit, Notices, Station
from optima_bridge.enroll.switch import IN_PLACE_TIMEOUT_S, on_disk, settled
from optima_bridge.enroll.trust import Trust
from optima_bridge.enroll.words import Outcome, Phase, Result
from optima_bridge.enroll.work import (
    Certificate,
    Ending,
    Open,
    carry_out,
    described,
    look,
    prove,
)
from optima_bridge.errors import (
    AccessDenied,
    BridgeError,
    EnrollBusy,
    EnrollRefused,
    JournalError,
    NotFound,
    TooLate,
    WriteUncertain,
)
from optima_bridge.log import get_logger
from optima_bridge.model import Capability, DeviceIdentity
from optima_bridge.store import LockedStore, SecureStore

AGAIN_S = 5.0  # while another process has the state directory
SETTLE_AGAIN_S = 30.0  # while a device does not answer
RECOVER_TIMEOUT_S = 2 * IN_PLACE_TIMEOUT_S
CLOSE_TIMEOUT_S = IN_PLACE_TIMEOUT_S + 10.0  # systemd's TimeoutStopSec has to be longer
WRITING = frozenset({Kind.ENROLL, Kind.ROLLBACK, Kind.RESUME})
READS_KEYS = frozenset({Capability.KEY_READER, Capability.CARD_READER})
COMMITTED = frozenset({Phase.COMMIT, Phase.CONFIRM})

log = get_logger(__name__)
File = TypeVar("File", HostJournal, JobLog)


class Held(msgspec.Struct, frozen=True):
    """What a device was last found to hold as active; None: it is not known."""

    device: str
    active: Certificate | None = None
    identity: DeviceIdentity = DeviceIdentity()


class Enrollments:
    """All jobs of one daemon.

    Args:
        directory: the state directory.
        trust: whose certificates the store accepts.
        stations: the devices by name.
        now: wall time, RFC 3339.
    """

    def __init__(
        self,
        directory: Path,
        trust: Trust,
        stations: Mapping[str, Station],
        notices: Notices,
        audit: Audit,
        now: Callable[[], str],
    ) -> None:
        self._directory = directory
        self.trust = trust
        self._stations = stations
        self._orders = Orders(trust, stations)
        self._notices = notices
        self._audit = audit
        self._now = now
        self._live: dict[str, LiveJob] = {}
        self._at_work: dict[str, str] = {}
        self._locks = {name: asyncio.Lock() for name in stations}
        self._writes: asyncio.Queue[tuple[Job, int, Document]] = asyncio.Queue()
        self._group: asyncio.TaskGroup | None = None
        self._problem: BridgeError = EnrollBusy("the daemon is starting", cause="it has not opened its journal yet")
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: dict[str, Held] = {}
        self._settling: set[str] = set()
        self._closing = False

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until cancelled; call close() first."""
        while not await self._opened():  # noqa: ASYNC110 - nothing tells when another process lets go
            await asyncio.sleep(AGAIN_S)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._keep_records(), name="jobs on disk")
                self._group = group
                for name in self._stations:
                    self.arrived(name)
        finally:
            self._group = None
            await on_disk(self._log.close)
            await on_disk(self._journal.close)

    async def close(self) -> None:
        """Stop what can be stopped, and wait for what cannot: a switch that has begun is finished. Bounded."""
        self._closing = True
        self._problem = EnrollBusy("the daemon is stopping", cause="the service was told to stop")
        for live in self._live.values():
            live.stop()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=CLOSE_TIMEOUT_S)

    async def _opened(self) -> bool:
        """Open both files and take up what they tell; False: not now."""
        async with AsyncExitStack() as undo:
            try:
                self._journal = await _open(HostJournal, self._directory)
                undo.push_async_callback(on_disk, self._journal.close)
                self._log = await _open(JobLog, self._directory)
                undo.push_async_callback(on_disk, self._log.close)
                await self._take_up()
            except BridgeError as error:
                self._problem = error
                log.warning("enroll.waiting", why=error.what)
                return False
            undo.pop_all()
            return True

    async def _take_up(self) -> None:
        """Jobs that an earlier daemon did not end: with a result where the journal tells one, else open."""
        for job in await on_disk(self._log.unfinished):
            live = self._live[job.id] = LiveJob(job, self._keep, await on_disk(self._log.records, job.id, 0))
            inner = await on_disk(self._journal.job, job.id)
            if inner is None:
                result = self._end(live, Ending(None, None, interrupted=True))
            elif inner.state is JobState.CLOSED:
                result = self._end(live, await self._closed(inner))
            else:
                live.change(state=State.OPEN)
                continue
            if job.order.kind in WRITING:
                await _noted(self._audit.settled(job.device, job.id, result))

    async def _closed(self, inner: DeviceJob) -> Ending:
        """The ending of a job that the journal knows as closed."""
        went = inner.outcome is not Outcome.ROLLED_BACK
        sha256 = inner.new_sha256 if went else inner.old_sha256
        active = described(sha256, await on_disk(self._journal.certificate, sha256) if sha256 else None)
        error = None if went else EnrollRefused(f"job {inner.id} was undone", cause="it was interrupted while writing")
        return Ending(inner.outcome, active, changed=went and inner.new_sha256 != inner.old_sha256, error=error)

    async def _keep_records(self) -> None:
        while True:
            job, seq, record = await self._writes.get()
            try:
                await on_disk(self._log.put, job, seq, record)
            except JournalError as error:  # what the device needs is in its own journal
                log.error("jobs.failed", job=job.id, why=error.what)  # noqa: TRY400 - the words say it, no trace
            finally:
                self._writes.task_done()

    def _keep(self, job: Job, seq: int, record: Document) -> None:
        self._writes.put_nowait((job, seq, record))
        if record["type"] == "phase" and job.order.kind in WRITING:
            self._notices.job("advanced", job)

    # -- what people ask ------------------------------------------------------------------------------------------------

    async def begin(self, order: Order, by: By, secret: bytes = b"") -> Job:
        """Begin a job; returns at once, when it is on disk.

        Raises:
            UsageError, NotFound, CertificateError: the order itself is wrong.
            EnrollRefused: the device has no secure memory.
            EnrollBusy: another job has the device.
            JournalError: it could not be kept; nothing was done.
        """
        order.check()
        order = self._orders.resolved(order)
        holder = order.holder
        if order.certificate:
            order = msgspec.structs.replace(order, certificate=read_certificate(order.certificate))
        group = self._group
        if group is None or self._closing:
            raise self._problem
        if holder in self._at_work:
            job_id = self._at_work[holder]
            raise EnrollBusy(
                f"job {job_id} is at work on {holder}",
                cause="somebody else began it, or you did before",
                next_step=f"watch it: bridge jobs watch {job_id}",
                job=job_id,
            )
        job = Job(secrets.token_hex(6), order, holder, by, self._now())
        self._at_work[holder] = job.id
        return await settled(self._admit(group, job, secret))  # a client that goes away meanwhile finds it all the same

    async def _admit(self, group: asyncio.TaskGroup, job: Job, secret: bytes) -> Job:
        try:
            if job.order.kind in WRITING:
                await self._audit.begun(job)
            await on_disk(self._log.put, job)
        except BridgeError:
            del self._at_work[job.device]
            raise
        live = self._live[job.id] = LiveJob(job, self._keep)
        if job.order.kind in WRITING:
            self._notices.job("begun", job)
        self._start(group, self._run(live, secret), f"job {job.id}")
        return job

    async def job(self, job_id: str) -> Job:
        """One job; its id may be cut short.

        Raises:
            NotFound: there is none.
        """
        if self._group is None:
            raise self._problem
        job = await on_disk(self._log.job, job_id)
        return self._live[job.id].job if job.id in self._live else job

    async def jobs(self, limit: int) -> list[Job]:
        """The newest jobs, the newest first."""
        if self._group is None:
            raise self._problem
        return [self._live[job.id].job if job.id in self._live else job for job in await on_disk(self._log.jobs, limit)]

    async def watch(self, job_id: str, after: int) -> AsyncGenerator[Document, None]:
        """The records of a job behind number `after`, then the new ones, to its result."""
        live = self._live.get(job_id)
        if live is not None:
            async for record in live.watch(after):
                yield record
            return
        for seq, record in await on_disk(self._log.records, job_id, after):
            yield {**record, "seq": seq}

    async def cancel(self, job_id: str, by: By, *, any_job: bool) -> Job:
        """Tell a job to stop; it ends by itself, undone.

        Raises:
            NotFound: it is not running. AccessDenied: it is somebody else's. TooLate: it is switching.
        """
        job = await self.job(job_id)
        live = self._live.get(job.id)
        if live is None or job.state is not State.RUNNING:
            raise NotFound(f"job {job.id} is not running", cause="it has ended", next_step="bridge jobs list")
        if job.by.uid != by.uid and not any_job:
            raise AccessDenied(
                f"job {job.id} was begun by {job.by.user}",
                cause="only admins stop the jobs of others",
                next_step=f"ask {job.by.user}, or an admin",
            )
        if live.stop.task is None or job.phase in COMMITTED:
            raise TooLate(f"job {job.id} is behind its point of no return")
        live.stop()
        return live.job

    def arrived(self, name: str) -> None:
        """A device came up, or a key was put into it: settle what is open there."""
        if self._group is None or self._closing or name in self._settling or not self._orders.has_store(name):
            return
        self._settling.add(name)
        self._start(self._group, self._settle(name), f"settle {name}")

    @property
    def held(self) -> list[Held]:
        """What each device with secure memory was last found to hold."""
        return [self._held.get(name, Held(name)) for name in self._orders.holders]

    @property
    def journal(self) -> HostJournal:
        """What was written into devices.

        Raises:
            EnrollBusy, JournalError: it is not open.
        """
        if self._group is None:
            raise self._problem
        return self._journal

    # -- jobs -----------------------------------------------------------------------------------------------------------

    def _start(self, group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> None:
        task = group.create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, live: LiveJob, secret: bytes) -> None:
        holder = live.job.device
        live.stop.task = asyncio.current_task()
        try:
            ending = await self._attempt(live, secret)
        finally:
            live.stop.task = None
            del self._at_work[holder]
        result = self._end(live, ending)
        if live.job.order.kind in WRITING:
            self._tell_credential(holder, ending)
            await _noted(self._audit.ended(live.job, result))
        await self._writes.join()
        if live.job.state is State.DONE:
            del self._live[live.job.id]

    def _end(self, live: LiveJob, ending: Ending) -> Document:
        """Give a job its result, which is returned; one that needs attention stays open until its device has settled it."""
        result = result_record(ending)
        state = State.OPEN if ending.outcome is Outcome.NEEDS_ATTENTION else State.DONE
        settles = live.job.result is not None
        live.change(state=state, ended=self._now(), result=result)
        live.tell({**result, "type": "settled"} if settles else result)
        if live.job.order.kind in WRITING:
            self._notices.job("settled" if settles else "ended", live.job)
        return result

    def _tell_credential(self, holder: str, ending: Ending) -> None:
        needs = ending.outcome is Outcome.NEEDS_ATTENTION
        if ending.active is not None or needs:
            self._holds(holder, ending.active)
        self._notices.attention(holder, ending.error if needs else None)
        if needs:
            self._again(holder)

    async def _attempt(self, live: LiveJob, secret: bytes) -> Ending:
        order, teller = live.job.order, Teller(live.tell)
        try:
            identifier = await self._orders.identifier(order, teller)
            async with self._locks[live.job.device]:
                self._orders.ready(live.job.device)
                store, identity = self._stations[live.job.device].secure_store()
                work = await asyncio.to_thread(self._orders.work, live.job, identifier, teller)
                with _unlocked(store, secret):
                    return await carry_out(Open(store, identity, self._journal), work, live.stop)
        except BridgeError as error:
            return Ending(None, None, error=error)
        except asyncio.CancelledError:
            if not live.stop.asked:
                raise
            return Ending(None, None, interrupted=True)
        except Exception as error:  # noqa: BLE001 - as at the keeper's boundary: a driver's bug ends its job, not the daemon
            bug = _bug(live.job.device, error)
            inner = await on_disk(self._journal.job, live.job.id)
            if inner is None or inner.state is JobState.CLOSED:
                return Ending(None, None, error=bug)
            return Ending(Outcome.NEEDS_ATTENTION, None, error=WriteUncertain(bug.what, job=inner.id))

    # -- recovery -------------------------------------------------------------------------------------------------------

    async def _settle(self, name: str) -> None:
        async with self._locks[name]:
            self._settling.discard(name)
            try:
                store, identity = self._stations[name].secure_store()
            except BridgeError:
                return  # it arrives again when it is up
            try:
                async with asyncio.timeout(RECOVER_TIMEOUT_S):
                    result = await recover(store, self._journal, use=prove)
                    active = await look(Open(store, identity, self._journal))
            except (BridgeError, TimeoutError) as error:
                log.warning("enroll.unsettled", device=name, why=str(error))
                self._again(name)
                return
            except Exception as error:  # noqa: BLE001 - as at the keeper's boundary
                _bug(name, error)
                return
        self._holds(name, active, identity)
        if result is not None:
            ending = Ending(result.outcome, active, result.changed, result.error)
            self._tell_settled(name, result, ending)
            await _noted(self._audit.settled(name, result.job, result_record(ending)))
        elif active is not None:
            self._notices.attention(name, None)

    def _again(self, name: str) -> None:
        """A device that is up and does not answer may answer later."""
        asyncio.get_running_loop().call_later(SETTLE_AGAIN_S, self.arrived, name)

    def _holds(self, name: str, active: Certificate | None, identity: DeviceIdentity | None = None) -> None:
        """Remember what a device was found to hold, and tell it."""
        known = self._held.get(name)
        self._held[name] = Held(name, active, identity or (known.identity if known else DeviceIdentity()))
        self._notices.credential(name, facts(active))

    def _tell_settled(self, name: str, result: Result, ending: Ending) -> None:
        log.info("enroll.settled", device=name, job=result.job, outcome=result.outcome, active=result.active_sha256)
        needs = result.outcome is Outcome.NEEDS_ATTENTION
        self._notices.attention(name, result.error if needs else None)
        live = self._live.get(result.job)
        if live is not None and live.job.state is State.OPEN:
            self._end(live, ending)
            if not needs:
                del self._live[result.job]


async def _noted(record: Awaitable[None]) -> None:
    """For the audit log; it has happened, so that a log that takes nothing has an alert of its own, and this goes on."""
    with suppress(JournalError):
        await record


def _bug(device: str, error: Exception) -> BridgeError:
    log.error("device.failed", device=device, error=repr(error), exc_info=error)
    return BridgeError(f"the driver of {device} failed: {error!r}", device=device)


@contextmanager
def _unlocked(store: SecureStore, secret: bytes) -> Iterator[None]:
    """The store knows this secret while the block runs."""
    if not secret or not store.traits.secret:
        yield
        return
    locked = cast("LockedStore", store)
    locked.unlock(secret)
    try:
        yield
    finally:
        locked.unlock(b"")


async def _open(file: Callable[[Path], File], directory: Path) -> File:
    """Open a file, on a thread; a cancellation leaves none open."""
    files: list[File] = []
    try:
        await on_disk(lambda: files.append(file(directory)))
    except BaseException:
        for it in files:
            await on_disk(it.close)
        raise
    return files[0]

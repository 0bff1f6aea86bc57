"""The host's journal of enrolments: what recovery needs to know, on disk before the device's first byte is written.

One row a job, with the old and the new certificate beside it: on a device with a single slot this is the second copy.
SQLite in the state directory, WAL, synchronous=FULL; one process has it at a time. Every call commits before it returns.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Self

import msgspec

from optima_bridge.enroll.words import Outcome
from optima_bridge.errors import EnrollBusy, JournalError

FILE_NAME, LOCK_NAME = "enroll.db", "enroll.lock"
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE job (
    id TEXT NOT NULL PRIMARY KEY, model TEXT NOT NULL, serial TEXT NOT NULL, slot INTEGER NOT NULL,
    old_slot INTEGER, old_generation INTEGER NOT NULL, old_sha256 TEXT NOT NULL, old_der BLOB,
    new_sha256 TEXT NOT NULL, new_der BLOB NOT NULL, erase_old INTEGER NOT NULL,
    state TEXT NOT NULL, outcome TEXT, code TEXT NOT NULL, begun_ns INTEGER NOT NULL, changed_ns INTEGER NOT NULL);
CREATE UNIQUE INDEX one_open_job_per_device ON job (model, serial) WHERE state <> 'closed';
"""


class JobState(StrEnum):
    """What recovery has to do. STAGING: discard what was written. ACTIVATING: finish. CLOSED: nothing."""

    STAGING = "staging"
    ACTIVATING = "activating"
    CLOSED = "closed"


class Job(msgspec.Struct, frozen=True):
    """One enrolment; the fields are the columns.

    Attributes:
        id: chosen by the caller.
        model, serial: the device, as it answered.
        slot: where the new certificate goes.
        old_slot, old_generation, old_sha256: what was active before; None, 0, empty: nothing was.
        old_der: its bytes; None where there were none or the device does not give them back.
        new_sha256, new_der: the new certificate.
        erase_old: see Request.
        state, outcome: how far it is; the outcome comes with CLOSED.
        code: of the error that ended it, else empty.
        begun_ns, changed_ns: wall time, nanoseconds since 1970 UTC.
    """

    id: str
    model: str
    serial: str
    slot: int
    old_slot: int | None
    old_generation: int
    old_sha256: str
    old_der: bytes | None
    new_sha256: str
    new_der: bytes
    erase_old: bool = False
    state: JobState = JobState.STAGING
    outcome: Outcome | None = None
    code: str = ""
    begun_ns: int = 0
    changed_ns: int = 0


COLUMNS = Job.__struct_fields__


class HostJournal:
    """The open journal. Blocking: coroutines call it on a thread, on any one.

    Raises:
        EnrollBusy: another process has it.
        JournalError: from every method, where the disk does not do its part.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._one_at_a_time = threading.Lock()
        with self._guarded(), ExitStack() as undo:
            self._lock = _lock(directory / LOCK_NAME)
            undo.callback(os.close, self._lock)
            self._connection = sqlite3.connect(
                directory / FILE_NAME, timeout=0, isolation_level=None, check_same_thread=False
            )
            undo.callback(self._connection.close)
            self._prepare()
            undo.pop_all()

    def _prepare(self) -> None:
        execute = self._connection.execute
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        (version,) = execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.NotSupportedError(f"schema {version}, this program knows {SCHEMA_VERSION}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()
        os.close(self._lock)

    def begin(self, job: Job) -> None:
        """Write a new job; when this returns, its row, its file and the file's name survive a power cut.

        Raises:
            EnrollBusy: the device has an open job, or the id was used before.
        """
        now_ns = time.time_ns()
        job = msgspec.structs.replace(job, begun_ns=now_ns, changed_ns=now_ns)
        marks = ", ".join("?" * len(COLUMNS))
        with self._guarded():
            try:
                self._connection.execute(f"INSERT INTO job VALUES ({marks})", msgspec.structs.astuple(job))  # noqa: S608
            except sqlite3.IntegrityError as error:
                raise EnrollBusy(f"device {job.serial} has an open job, or there was a job {job.id} before") from error
            _sync_directory(self._directory)

    def activating(self, job: Job) -> Job:
        """The point of no return: from here recovery goes forward."""
        return self._change(msgspec.structs.replace(job, state=JobState.ACTIVATING))

    def closed(self, job: Job, outcome: Outcome, code: str = "") -> Job:
        """The job is over; its certificates stay for going back and for looking up."""
        return self._change(msgspec.structs.replace(job, state=JobState.CLOSED, outcome=outcome, code=code))

    def job(self, job_id: str) -> Job | None:
        """The job of this id."""
        return next(self._select("WHERE id = ?", job_id), None)

    def open_job(self, model: str, serial: str) -> Job | None:
        """The job of this device that is not over; at most one."""
        return next(self._select("WHERE model = ? AND serial = ? AND state <> 'closed'", model, serial), None)

    def last(self, model: str, serial: str) -> Job | None:
        """The newest job of this device."""
        return next(self._select("WHERE model = ? AND serial = ? ORDER BY rowid DESC LIMIT 1", model, serial), None)

    def jobs(self) -> list[Job]:
        """All jobs, the newest first."""
        return list(self._select("ORDER BY begun_ns DESC, rowid DESC"))

    def brought(self, model: str, serial: str, sha256: str) -> Job | None:
        """The last job that made this certificate the active one of a device; what it replaced can be gone back to."""
        for job in self._select("WHERE new_sha256 = ? ORDER BY begun_ns DESC, rowid DESC", sha256):
            if (job.model, job.serial) == (model, serial) and job.outcome not in (None, Outcome.ROLLED_BACK):
                return job
        return None

    def certificate(self, sha256: str) -> bytes | None:
        """The DER of this fingerprint, where some job knew it."""
        for job in self._select("WHERE new_sha256 = ? OR old_sha256 = ?", sha256, sha256):
            if job.new_sha256 == sha256:
                return job.new_der
            if job.old_der is not None:
                return job.old_der
        return None

    def _change(self, job: Job) -> Job:
        job = msgspec.structs.replace(job, changed_ns=time.time_ns())
        with self._guarded():
            self._connection.execute(
                "UPDATE job SET state = ?, outcome = ?, code = ?, changed_ns = ? WHERE id = ?",
                (job.state, job.outcome, job.code, job.changed_ns, job.id),
            )
        return job

    def _select(self, condition: str, *values: str) -> Iterator[Job]:
        with self._guarded():
            rows = self._connection.execute(f"SELECT {', '.join(COLUMNS)} FROM job {condition}", values).fetchall()  # noqa: S608
        return (msgspec.convert(dict(zip(COLUMNS, row, strict=True)), Job, strict=False) for row in rows)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self._one_at_a_time:
                yield
        except (sqlite3.Error, OSError) as error:
            raise JournalError(f"the enrolment journal in {self._directory} cannot be used: {error}") from error


def _lock(path: Path) -> int:
    """Take the state directory for this process; the kernel frees it whatever happens."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise EnrollBusy(
            f"another process enrolls with the state directory {path.parent}",
            cause="the daemon, or a second `bridge` that works without it",
        ) from error
    return lock


def _sync_directory(directory: Path) -> None:
    """fsync(2) of a file says nothing of its name."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

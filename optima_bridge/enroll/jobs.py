"""Jobs as people see them: who asked for what, how far it is, how it ended; in SQLite, so that it outlives client and daemon.

What the device needs for its recovery is in the host's journal (`optima_bridge.enroll.journal`); what is here may be a phase
behind after a power cut, and is put right from there.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import msgspec

from optima_bridge.enroll.orders import Order
from optima_bridge.enroll.records import Document
from optima_bridge.errors import JournalError, NotFound

FILE_NAME = "jobs.db"
SCHEMA_VERSION = 1
SCHEMA = """
CREATE TABLE job (id TEXT NOT NULL PRIMARY KEY, state TEXT NOT NULL, document BLOB NOT NULL);
CREATE TABLE record (job TEXT NOT NULL, seq INTEGER NOT NULL, document BLOB NOT NULL, PRIMARY KEY (job, seq));
CREATE INDEX unfinished ON job (state) WHERE state <> 'done';
"""


class State(StrEnum):
    """RUNNING: someone works on it. OPEN: not settled, it waits for its device. DONE: it has a result that stays."""

    RUNNING = "running"
    OPEN = "open"
    DONE = "done"


class By(msgspec.Struct, frozen=True):
    """Who asked for it; `login_uid`, `pid` and `program` as in `optima_bridge.audit.Actor`."""

    uid: int
    user: str
    login_uid: int | None = None
    pid: int | None = None
    program: str = ""


class Job(msgspec.Struct, frozen=True):
    """One job.

    Attributes:
        id: 12 hex digits.
        order: what was asked for; no secret is in it.
        device: the one that holds the certificate.
        begun, ended: RFC 3339, UTC.
        phase: the last one that began.
        result: the last record; None: there is none yet.
    """

    id: str
    order: Order
    device: str
    by: By
    begun: str
    state: State = State.RUNNING
    phase: str = ""
    done_bytes: int = 0
    size_bytes: int = 0
    ended: str | None = None
    result: Document | None = None


class JobLog:
    """The open file. Blocking: coroutines call it on a thread. Each call commits before it returns.

    Raises:
        JournalError: from every method, where the disk does not do its part.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / FILE_NAME
        self._one_at_a_time = threading.Lock()
        with self._guarded():
            self._db = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            self._db.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.NotSupportedError(f"schema {version}, this program knows {SCHEMA_VERSION}")

    def close(self) -> None:
        self._db.close()

    def put(self, job: Job, seq: int = 0, record: Document | None = None) -> None:
        """Keep the job as it is now, and its next record."""
        with self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.execute(
                    "INSERT INTO job VALUES (?, ?, ?) "
                    "ON CONFLICT (id) DO UPDATE SET state = excluded.state, document = excluded.document",
                    (job.id, job.state, msgspec.json.encode(job)),
                )
                if record is not None:
                    row = (job.id, seq, msgspec.json.encode(record))
                    self._db.execute("INSERT OR REPLACE INTO record VALUES (?, ?, ?)", row)
                self._db.execute("COMMIT")
            except BaseException:
                self._db.execute("ROLLBACK")
                raise

    def job(self, prefix: str) -> Job:
        """The job whose id begins so, where that is clear.

        Raises:
            NotFound: none does, or several.
        """
        if not prefix.isalnum():
            raise NotFound(f"{prefix[:40]!r} is no job", next_step="bridge jobs list --all")
        found = self._select("WHERE id GLOB ? LIMIT 2", f"{prefix}*")
        if len(found) != 1:
            raise NotFound(
                f"{'several jobs begin' if found else 'no job begins'} with {prefix[:40]!r}",
                next_step="bridge jobs list --all",
            )
        return found[0]

    def jobs(self, limit: int) -> list[Job]:
        """The newest jobs, the newest first."""
        return self._select("ORDER BY rowid DESC LIMIT ?", limit)

    def unfinished(self) -> list[Job]:
        """Jobs that are not done, the oldest first."""
        return self._select("WHERE state <> 'done' ORDER BY rowid")

    def records(self, job_id: str, after: int) -> list[tuple[int, Document]]:
        """The numbered records of a job behind number `after`, in their order."""
        with self._guarded():
            rows = self._db.execute(
                "SELECT seq, document FROM record WHERE job = ? AND seq > ? ORDER BY seq", (job_id, after)
            ).fetchall()
        return [(seq, msgspec.json.decode(document)) for seq, document in rows]

    def _select(self, condition: str, *values: str | int) -> list[Job]:
        with self._guarded():
            rows = self._db.execute(f"SELECT document FROM job {condition}", values).fetchall()  # noqa: S608
        return [msgspec.json.decode(document, type=Job) for (document,) in rows]

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            with self._one_at_a_time:
                yield
        except sqlite3.Error as error:
            raise JournalError(f"the list of jobs in {self._path} cannot be used: {error}") from error

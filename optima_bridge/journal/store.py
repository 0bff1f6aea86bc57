"""The journal's SQLite file: schema, durability settings, every SQL statement. Blocking; one thread at a time."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from msgspec.structs import astuple

from optima_bridge.journal.words import BEGINNING, Denial, Position
from optima_bridge.model import Record

SCHEMA_VERSION = 1
PAGE_BYTES = 4096
CACHE_KIB = 512
WAL_PAGES = 512  # checkpoint every 2 MiB of log
REMOVE_STEP = 1024  # records in one removal: a few milliseconds, so that commits do not wait for it
VACUUM_STEP_PAGES = 256
FAR_FUTURE_NS = (1 << 63) - 1

Lost = tuple[Position, Position, int]
"""(first, last, count) of records that are gone."""

# (epoch, seq) is the b-tree's own key: one tree, written at its right edge, and every question ("after", "up to", "oldest") is
# a range of it. Measured with 450-byte records: as fast as a table by rowid and 12 % larger; a rowid table with an
# index on (epoch, seq) is 20–60 % slower.
SCHEMA = """
CREATE TABLE record (epoch INTEGER NOT NULL, seq INTEGER NOT NULL, wall_ns INTEGER NOT NULL, topic TEXT NOT NULL,
                     payload BLOB NOT NULL, PRIMARY KEY (epoch, seq)) WITHOUT ROWID;
CREATE TABLE cursor (sink TEXT NOT NULL PRIMARY KEY, epoch INTEGER NOT NULL, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE denied (epoch INTEGER NOT NULL, seq INTEGER NOT NULL, sink TEXT NOT NULL, reason INTEGER NOT NULL,
                     PRIMARY KEY (epoch, seq, sink)) WITHOUT ROWID;
CREATE TABLE meta   (key TEXT NOT NULL PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
"""
COLUMNS = "epoch, seq, wall_ns, topic, payload"

# sqlite3 gives up the GIL around every step of a statement, and beside a busy loop has to wait for it each time. Rows
# therefore go in many to a statement (measured beside a spinning thread: executemany 300 records/s, this 20,000). The few
# fixed sizes keep the prepared statements in the connection's cache, and the cache small.
INSERT = {
    size: f"INSERT OR IGNORE INTO record ({COLUMNS}) VALUES " + ",".join(["(?,?,?,?,?)"] * size)  # noqa: S608 - constants
    for size in (512, 64, 8, 1)
}


class Store:
    """One open database file in WAL mode with synchronous=FULL: what commit() has written survives a power cut.

    Raises:
        sqlite3.Error: from every method; the callers know what it means for them.
    """

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
        self._execute = self._connection.execute
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        version = self._number("PRAGMA user_version")
        if version == 0:  # only then: these write, and until a file was checked nothing may
            self._execute(f"PRAGMA page_size = {PAGE_BYTES}")
            self._execute("PRAGMA auto_vacuum = INCREMENTAL")
        self._execute("PRAGMA journal_mode = WAL")
        self._execute("PRAGMA synchronous = FULL")
        self._execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self._execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES}")
        self._execute(f"PRAGMA journal_size_limit = {2 * WAL_PAGES * PAGE_BYTES}")
        if version == 0:
            self._connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        elif version != SCHEMA_VERSION:
            raise sqlite3.NotSupportedError(f"journal schema {version}, this program knows {SCHEMA_VERSION}")

    # -- beginning and end

    def begin_epoch(self, epoch: int) -> None:
        """Make `epoch` the current one, durably, and remember that the file is in use."""
        with self._transaction():
            self._execute("DELETE FROM meta WHERE key = 'clean_records'")
            self._execute("INSERT OR REPLACE INTO meta VALUES ('epoch', ?)", (epoch,))

    def last_epoch(self) -> int:
        """The highest epoch that was ever begun; 0 in a new file."""
        return self._number("SELECT max(ifnull((SELECT value FROM meta WHERE key = 'epoch'), 0), ?)", (self.last()[0],))

    def clean_records(self) -> int | None:
        """How many records there are, known without counting; None after an unclean end."""
        row = self._execute("SELECT value FROM meta WHERE key = 'clean_records'").fetchone()
        return None if row is None else int(row[0])

    def check(self) -> None:
        """Walk the whole file. Raises DamageFound, or what SQLite raises where it cannot go on."""
        (verdict,) = self._execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise DamageFound(verdict)

    def log_frames(self) -> int:
        """How many frames of the write-ahead log SQLite accepts (PRAGMA wal_checkpoint, second column)."""
        return int(self._execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])

    def close(self, records: int | None = None) -> None:
        """Close the file; with `records`, as a clean end that leaves no log behind."""
        try:
            if records is not None:
                self._execute("INSERT OR REPLACE INTO meta VALUES ('clean_records', ?)", (records,))
                self.fold_log()
        finally:
            self._connection.close()

    def fold_log(self) -> None:
        """Move the log into the database and give its room back to the disk."""
        self._execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- writing

    def commit(
        self, records: Sequence[Record], cursors: Mapping[str, Position], denials: Iterable[Denial] = ()
    ) -> None:
        """Write all of it in one durable transaction, or nothing. A position that exists already is left as it is."""
        with self._transaction():
            start = 0
            for size, statement in INSERT.items():
                while len(records) - start >= size:
                    chunk = records[start : start + size]
                    self._execute(statement, list(chain.from_iterable(map(astuple, chunk))))
                    start += size
            for sink, position in cursors.items():
                self._execute("INSERT OR REPLACE INTO cursor VALUES (?, ?, ?)", (sink, *position))
            for denial in denials:
                self._deny(denial)

    def _deny(self, denial: Denial) -> None:
        if denial.reason is None:
            self._execute("DELETE FROM denied WHERE epoch = ? AND seq = ? AND sink = ?", (*denial.at, denial.sink))
        else:
            self._execute("INSERT OR REPLACE INTO denied VALUES (?, ?, ?, ?)", (*denial.at, denial.sink, denial.reason))

    def forget(self, sink: str) -> None:
        """Drop everything that is remembered for `sink`."""
        with self._transaction():
            self._execute("DELETE FROM cursor WHERE sink = ?", (sink,))
            self._execute("DELETE FROM denied WHERE sink = ?", (sink,))

    # -- reading

    def read(self, after: Position, limit: int, upto: Position | None = None) -> list[Record]:
        """Up to `limit` records behind `after`, in order, none behind `upto`."""
        bound, values = ("", ()) if upto is None else ("AND (epoch, seq) <= (?, ?)", upto)
        rows = self._execute(
            f"SELECT {COLUMNS} FROM record WHERE (epoch, seq) > (?, ?) {bound} ORDER BY epoch, seq LIMIT ?",  # noqa: S608
            (*after, *values, limit),
        )
        return [Record(*row) for row in rows]

    def denied(self, sink: str, limit: int) -> list[Record]:
        """Up to `limit` records that `sink` was denied, in order."""
        rows = self._execute(
            f"SELECT {COLUMNS} FROM denied JOIN record USING (epoch, seq) WHERE sink = ? ORDER BY epoch, seq LIMIT ?",  # noqa: S608
            (sink, limit),
        )
        return [Record(*row) for row in rows]

    def cursors(self) -> dict[str, Position]:
        return {sink: (epoch, seq) for sink, epoch, seq in self._execute("SELECT sink, epoch, seq FROM cursor")}

    def last(self) -> Position:
        """Position of the newest record; BEGINNING where there is none."""
        row = self._execute("SELECT epoch, seq FROM record ORDER BY epoch DESC, seq DESC LIMIT 1").fetchone()
        return row or BEGINNING

    def oldest_wall_ns(self) -> int | None:
        row = self._execute("SELECT wall_ns FROM record ORDER BY epoch, seq LIMIT 1").fetchone()
        return None if row is None else int(row[0])

    def count(self) -> int:
        """How many records there are; walks the table."""
        return self._number("SELECT count(*) FROM record")

    def count_missing(self) -> int:
        """How many sequence numbers are absent between the first and last record of each epoch; walks the table."""
        return self._number(
            "SELECT ifnull(sum(holes), 0) FROM (SELECT max(seq) - min(seq) + 1 - count(*) AS holes FROM record GROUP BY epoch)"
        )

    def used_bytes(self) -> int:
        """Size of all pages that hold something; the log is counted where its pages will go."""
        return PAGE_BYTES * self._number(
            "SELECT page_count - freelist_count FROM pragma_page_count, pragma_freelist_count"
        )

    # -- removing: never the newest record, because it tells where its epoch ended

    def remove_settled(
        self, after: Position, floor: Position, older_than_ns: int = FAR_FUTURE_NS
    ) -> tuple[int, Position | None]:
        """Remove one step of records behind `after`, none behind `floor`: those captured before `older_than_ns`, but denied ones.

        Returns:
            how many went, and behind which position the next step begins; None: what follows is too new.
        """
        upto, wall_ns = self._step(after)
        removed = self._execute(
            "DELETE FROM record WHERE (epoch, seq) > (?, ?) AND (epoch, seq) <= (?, ?) AND wall_ns < ? AND NOT EXISTS"
            " (SELECT 1 FROM denied d WHERE d.epoch = record.epoch AND d.seq = record.seq)",
            (*after, *min(upto, floor), older_than_ns),
        ).rowcount
        return removed, upto if after < upto < floor and wall_ns < older_than_ns else None

    def remove_oldest(self, floor: Position) -> tuple[int, Lost | None]:
        """Remove one step of the oldest records, whatever their state.

        Returns:
            how many went, and (first, last, count) of those that some sink still lacked: behind `floor`, or denied.
        """
        upto, _ = self._step(BEGINNING)
        lacked = (
            "FROM record WHERE (epoch, seq) <= (?, ?) AND ((epoch, seq) > (?, ?) OR EXISTS"
            " (SELECT 1 FROM denied d WHERE d.epoch = record.epoch AND d.seq = record.seq))"
        )
        with self._transaction():
            count = self._number(f"SELECT count(*) {lacked}", (*upto, *floor))
            first, last = (
                self._execute(f"SELECT epoch, seq {lacked} ORDER BY {order} LIMIT 1", (*upto, *floor)).fetchone()
                for order in ("epoch, seq", "epoch DESC, seq DESC")
            )
            self._execute("DELETE FROM denied WHERE (epoch, seq) <= (?, ?)", upto)
            removed = self._execute("DELETE FROM record WHERE (epoch, seq) <= (?, ?)", upto).rowcount
        return removed, (first, last, count) if count else None

    def _step(self, after: Position) -> tuple[Position, int]:
        """Position and capture time of the record that ends the step behind `after`; (after, 0) if only the newest is left."""
        row = self._execute(
            "SELECT epoch, seq, wall_ns FROM (SELECT epoch, seq, wall_ns FROM record WHERE (epoch, seq) > (?, ?)"
            " AND (epoch, seq) < (SELECT epoch, seq FROM record ORDER BY epoch DESC, seq DESC LIMIT 1)"
            " ORDER BY epoch, seq LIMIT ?) ORDER BY epoch DESC, seq DESC LIMIT 1",
            (*after, REMOVE_STEP),
        ).fetchone()
        return (after, 0) if row is None else (row[:2], row[2])

    def shrink(self) -> bool:
        """Give one step of free pages back to the disk; returns whether there was a step's worth."""
        if self._number("PRAGMA freelist_count") < VACUUM_STEP_PAGES:
            return False
        self._execute(f"PRAGMA incremental_vacuum({VACUUM_STEP_PAGES})").fetchall()  # a row for each page freed
        return True

    # -- inside

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._execute("BEGIN IMMEDIATE")
        try:
            yield
            self._execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite has rolled back by itself on some errors
                self._execute("ROLLBACK")
            raise

    def _number(self, sql: str, values: Sequence[int] = ()) -> int:
        return int(self._execute(sql, values).fetchone()[0])


class DamageFound(sqlite3.DatabaseError):
    """The file's pages contradict each other."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    sqlite_errorname = "SQLITE_CORRUPT"


def is_full(error: sqlite3.Error) -> bool:
    """Whether `error` says that the disk has no room, be it for the log's index (SQLITE_IOERR_SHMSIZE)."""
    return getattr(error, "sqlite_errorcode", None) in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)


def is_damage(error: sqlite3.Error) -> bool:
    """Whether `error` says that the file is wrong, and not that the disk is full or away."""
    code = getattr(error, "sqlite_errorcode", None)
    # SQLITE_ERROR, a wrong statement: ours are right, so the schema in the file is not
    return code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)

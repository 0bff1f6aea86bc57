"""Opening the journal's file whatever state it is in: clean, left behind by a crash, or damaged.

A damaged file is never thrown away. Its readable rows are copied to a new file, and only when that is complete the old one is put
aside and the new one takes its place; a crash at any point in between is picked up by the next start.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from optima_bridge.errors import JournalDamaged
from optima_bridge.journal.salvage import log_is_broken, read_rows
from optima_bridge.journal.store import DamageFound, Store, is_damage
from optima_bridge.journal.words import Denial, Position
from optima_bridge.model import Record

BATCH_RECORDS = 512
COMPANIONS = ("", "-wal", "-shm")


def open_store(path: Path) -> tuple[Store, int, JournalDamaged | None]:
    """Open or make the file, check it after an unclean end, rebuild it where it is damaged.

    Returns:
        the store, how many records it holds, and what was wrong with it.

    Raises:
        sqlite3.Error, OSError: the disk is full, read-only or failing.
    """
    fresh = _fresh(path)
    if fresh.exists():  # a rebuild was interrupted
        if path.exists():
            _remove(fresh)
        else:
            _replace(path, fresh)
    store: Store | None = None
    try:
        store = Store(path)
        records = store.clean_records()
        if records is None:
            if log_is_broken(_log(path), store.log_frames()):
                raise DamageFound("the write-ahead log is broken in the middle")
            store.check()
            records = store.count()
    except sqlite3.Error as error:
        if not is_damage(error):
            if store:
                store.close()
            raise
        return rebuild(path, store, error)
    return store, records, None


def rebuild(path: Path, damaged: Store | None, reason: sqlite3.Error) -> tuple[Store, int, JournalDamaged]:
    """Move every readable row to a new file, put the old files aside as ``journal.db.corrupt-TIME``.

    Args:
        damaged: the store on the damaged file if it could be opened. It stays open until its log was read, because
            SQLite deletes the log when it closes; after this call it is closed.

    Raises:
        sqlite3.Error, OSError: the new file could not be written; the old one is where it was, and still open.
    """
    fresh = _fresh(path)
    _remove(fresh)
    store = Store(fresh)
    try:
        _copy(path, store)
        records, missing = store.count(), store.count_missing()
    except BaseException:
        store.close()
        raise
    store.close(records)
    quarantine = _replace(path, fresh, damaged)
    problem = JournalDamaged(
        f"the journal was damaged ({reason}); {records} records were saved, {missing} between them are missing",
        next_step=f"keep {quarantine} for support, and check the disk: sudo dmesg | grep -i error",
        salvaged=records,
        missing=missing,
        quarantine=str(quarantine),
    )
    return Store(path), records, problem


def _copy(path: Path, store: Store) -> None:
    """Read everything readable at `path` into `store`."""
    records: list[Record] = []
    denials: list[Denial] = []
    cursors: dict[str, Position] = {}
    epoch = 0
    for row in read_rows(path):
        match row:
            case Record():
                records.append(row)
                if len(records) == BATCH_RECORDS:
                    store.commit(records, {})
                    records.clear()
            case Denial():
                denials.append(row)
            case (str() as sink, (int(), int()) as position):
                cursors[sink] = max(position, cursors.get(sink, position))
            case ("epoch", int() as number):
                epoch = max(epoch, number)
    store.commit(records, cursors, denials)
    store.begin_epoch(epoch)


def _replace(path: Path, fresh: Path, damaged: Store | None = None) -> Path:
    """Put the files at `path` aside and `fresh` in their place; returns where the database went.

    The database goes first: while it is there, a restart begins anew; once it is gone, the new file is known complete. An old log
    must not stay, SQLite would apply it to the new file.
    """
    quarantine = path.with_name(f"{path.name}.corrupt-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}")
    for suffix in COMPANIONS:
        old = path.with_name(path.name + suffix)
        if old.exists():
            old.rename(quarantine.with_name(quarantine.name + suffix))
    if damaged:
        with suppress(sqlite3.Error):  # it is damaged; all that could be read was read
            damaged.close()
    fresh.rename(path)
    sync_directory(path.parent)
    return quarantine


def sync_directory(directory: Path) -> None:
    """Make names in `directory` durable."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fresh(path: Path) -> Path:
    return path.with_name(path.name + ".new")


def _log(path: Path) -> Path:
    return path.with_name(path.name + "-wal")


def _remove(path: Path) -> None:
    for suffix in COMPANIONS:
        path.with_name(path.name + suffix).unlink(missing_ok=True)

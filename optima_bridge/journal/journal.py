"""The journal as the loop sees it: append without waiting, read in order, one cursor for each sink."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from optima_bridge.errors import JournalError
from optima_bridge.journal.lock import lock_directory
from optima_bridge.journal.recovery import open_store, rebuild, sync_directory
from optima_bridge.journal.reserve import Reserve
from optima_bridge.journal.store import Store, is_damage, is_full
from optima_bridge.journal.words import BEGINNING, Denial, JournalStats, Limits, Loss, Position
from optima_bridge.journal.writer import Query, Stop, Wake, Writer
from optima_bridge.model import Record

FILE_NAME = "journal.db"
# How long the loop may keep the GIL from the writer, for the whole process. A thread's claim lapses when the GIL is given up
# and taken back meanwhile, as the loop does at every look at its sockets: with CPython's 5 ms the writer beside a busy loop
# got nothing for up to two seconds at a time (measured); with this it keeps up with 16,000 records/s. Idle, it costs nothing.
SWITCH_INTERVAL_S = 0.0002
STUCK_S = 30.0  # a commit takes milliseconds, on a dying disk seconds


class Journal:
    """All records of this node, durable, in order; made by `open`. After `attach` every method belongs to the loop's thread.

    Attributes:
        epoch: of this start; greater than every earlier one.
        previous: position of the last record that earlier epochs left on disk; None in a new journal.
    """

    def __init__(
        self,
        directory: Path,
        lock: int,
        writer: Writer,
        epoch: int,
        previous: Position | None,
        wall_ns: Callable[[], int],
    ) -> None:
        self.epoch = epoch
        self.previous = previous
        self._directory = directory
        self._lock = lock
        self._writer = writer
        self._put = writer.queue.put
        self._wall_ns = wall_ns
        self._seq = 0
        self._head = (epoch, 0)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._ended = asyncio.Event()

    @classmethod
    def open(
        cls, directory: Path, limits: Limits | None = None, *, wall_ns: Callable[[], int] = time.time_ns
    ) -> Journal:
        """Open or make the journal in `directory` and begin an epoch, durably. Blocking: before the loop runs.

        Args:
            directory: made if absent, readable by the owner alone.
            wall_ns: time of day, nanoseconds since 1970 UTC.

        Raises:
            JournalError: another process has it open (``data['pid']``), or the disk is full or failing.
        """
        path, limits = directory / FILE_NAME, limits or Limits()
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = lock_directory(directory)
        except OSError as error:
            raise JournalError(f"the journal in {directory} cannot be opened: {error}") from error
        try:
            try:
                writer, previous, epoch = _load(path, limits, wall_ns)
            except sqlite3.Error as error:
                if not is_full(error):
                    raise
                Reserve(directory).give_up()
                writer, previous, epoch = _load(path, limits, wall_ns)
            sync_directory(directory)
        except (sqlite3.Error, OSError) as error:
            os.close(lock)
            raise JournalError(f"the journal in {directory} cannot be opened: {error}") from error
        return cls(directory, lock, writer, epoch, None if previous == BEGINNING else previous, wall_ns)

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        on_problem: Callable[[JournalError | None], None],
        on_loss: Callable[[Loss], None],
    ) -> None:
        """Start the writer.

        Args:
            on_problem: called on the loop with what is wrong now, None once it is right again. JournalDamaged stays until
                the next start.
            on_loss: called on the loop when records are gone before every sink had them.
        """
        assert self._thread is None, "attached twice"
        self._loop = loop
        self._writer.attach(loop, on_problem, on_loss)
        if self._writer.problem:
            loop.call_soon(on_problem, self._writer.problem)
        sys.setswitchinterval(min(sys.getswitchinterval(), SWITCH_INTERVAL_S))
        self._thread = threading.Thread(target=self._run, name="journal", daemon=False)
        self._thread.start()

    # -- writing

    @property
    def head(self) -> Position:
        """Position of the last record appended; (epoch, 0) at the start."""
        return self._head

    def next_seq(self) -> int:
        """The next sequence number of this epoch, from 1, without gaps."""
        self._seq += 1
        return self._seq

    def append(self, record: Record) -> None:
        """Have `record` written with the next commit. Never blocks, never fails."""
        self._head = (record.epoch, record.seq)
        self._put(record)

    # -- sinks

    def cursor(self, sink: str) -> Position | None:
        """Up to here everything was delivered to `sink`; None for a sink that was never heard of."""
        return self._writer.cursors.get(sink)

    def settle(self, sink: str, upto: Position) -> None:
        """Move the cursor of `sink`: all up to `upto` is delivered or denied. Written with the next commit, or soon.

        The first call makes the sink known, from then on nothing behind its cursor is removed while there is room.
        """
        self._writer.cursors[sink] = upto
        if not self._writer.woken:
            self._writer.woken = True
            self._put(Wake)

    def deny(self, sink: str, at: Position, reason: int) -> None:
        """Remember that `sink` refused the record `at` (MQTT 5 reason code); call it before settle() passes it."""
        self._put(Denial(sink, at, reason))

    def allow(self, sink: str, at: Position) -> None:
        """Forget the denial: the record was delivered after all."""
        self._put(Denial(sink, at, None))

    async def forget(self, sink: str) -> None:
        """Drop a sink that is no longer configured, so that it holds back nothing."""
        self._writer.cursors.pop(sink, None)
        await self._ask(lambda *_: self._writer.forget(sink))

    # -- reading

    async def read(self, after: Position, limit: int, upto: Position | None = None) -> list[Record]:
        """Up to `limit` records behind `after`, none behind `upto`, in order; includes all appended before the call.

        Raises:
            JournalError: the disk cannot be read.
        """

        def ask(store: Store, backlog: list[Record]) -> list[Record]:
            found = store.read(after, limit, upto)
            if len(found) < limit:  # what the disk does not take is behind everything that it took
                waiting = [r for r in backlog if r.position > after and (upto is None or r.position <= upto)]
                found += waiting[: limit - len(found)]
            return found

        found: list[Record] = await self._ask(ask)
        return found

    async def denied(self, sink: str, limit: int) -> list[Record]:
        """Up to `limit` records that `sink` refused and nobody allowed since, in order.

        Raises:
            JournalError: the disk cannot be read.
        """
        found: list[Record] = await self._ask(lambda store, _: store.denied(sink, limit))
        return found

    def stats(self) -> JournalStats:
        """The journal in numbers, as of the last commit."""
        writer = self._writer
        oldest_ns = writer.oldest_wall_ns
        return JournalStats(
            records=writer.records,
            size_bytes=sum(_size_bytes(self._directory / (FILE_NAME + suffix)) for suffix in ("", "-wal")),
            oldest_age_s=None if oldest_ns is None else max(0.0, (self._wall_ns() - oldest_ns) / 1e9),
            pending=writer.unwritten + writer.queue.qsize(),
            free_bytes=_free_bytes(self._directory),
            problem=writer.problem.what if writer.problem else None,
        )

    @property
    def alive(self) -> bool:
        """Whether the writer is at work or at rest, and not stuck in a call to the disk for half a minute."""
        busy_since_s = self._writer.busy_since_s
        return (
            self._thread is not None
            and self._thread.is_alive()
            and (busy_since_s is None or time.monotonic() - busy_since_s < STUCK_S)
        )

    async def close(self, timeout_s: float) -> None:
        """Commit what waits, end the writer, close the file. Safe to call twice.

        Raises:
            JournalError: the disk did not take everything, or not in time; says how many records are lost with this process.
        """
        if self._thread is None:
            self.attach(asyncio.get_running_loop(), lambda _: None, lambda _: None)
        self._closed = True
        self._put(Stop)
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError as error:
            raise JournalError(
                f"the journal did not finish within {timeout_s} s", pending=self.stats().pending
            ) from error
        if self._writer.unwritten:
            raise JournalError(f"{self._writer.unwritten} records could not be written", pending=self._writer.unwritten)

    # -- inside

    async def _ask(self, ask: Callable[[Store, list[Record]], Any]) -> Any:
        if self._closed:
            raise JournalError("the journal is closed", cause="the daemon is stopping")
        answer = asyncio.get_running_loop().create_future()
        self._put(Query(ask, answer))
        return await answer

    def _run(self) -> None:
        try:
            self._writer.run()
        finally:
            os.close(self._lock)
            self._writer.send(self._ended.set)


def _load(path: Path, limits: Limits, wall_ns: Callable[[], int]) -> tuple[Writer, Position, int]:
    """Open the file, begin an epoch in it.

    Returns:
        the writer for it, position of the last record before this start, the new epoch.
    """

    def begin(store: Store) -> tuple[Writer, Position, int]:
        epoch = max(store.last_epoch() + 1, wall_ns() // 1_000_000_000)
        store.begin_epoch(epoch)
        return Writer(path, store, epoch, records, limits, wall_ns), store.last(), epoch

    store, records, damage = open_store(path)
    try:
        writer, previous, epoch = begin(store)
    except sqlite3.Error as error:
        if damage or not is_damage(error):
            store.close()
            raise
        store, records, damage = rebuild(path, store, error)
        writer, previous, epoch = begin(store)
    writer.problem = writer.damage = damage
    return writer, previous, epoch


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _free_bytes(directory: Path) -> int:
    """0 too where the directory was removed: an open file is still written, and asking must not end the daemon."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return 0
    return disk.f_bavail * disk.f_frsize

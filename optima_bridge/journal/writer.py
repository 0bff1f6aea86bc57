"""The writer thread: everything that touches the file while the loop runs. Group commit, faults, pruning.

The loop hands over records, denials and queries in one queue, so their order is the order of the calls. The thread takes all that
is there, commits it in one transaction, then answers the queries: a query sees everything appended before it. Batches grow by
themselves while a commit is slow. With nothing to do the thread sleeps without a timer.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from math import inf
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple

from optima_bridge.errors import JournalDamaged, JournalError
from optima_bridge.journal.overflow import shed
from optima_bridge.journal.recovery import rebuild
from optima_bridge.journal.reserve import Reserve
from optima_bridge.journal.retention import LossTally, Retention
from optima_bridge.journal.store import REMOVE_STEP, Store, is_damage, is_full
from optima_bridge.journal.words import BEGINNING, Denial, Limits, Loss, Position
from optima_bridge.model import Record

BATCH_RECORDS = 4096  # bound of one transaction: about 2 MiB of log
ROOM_STEPS = 8  # removals at once on a full disk
CURSOR_DELAY_S = 0.5  # a cursor alone waits this long for company
FIRST_PAUSE_S, LAST_PAUSE_S = 0.1, 5.0  # between attempts while the disk takes nothing


class Query(NamedTuple):
    """A question to be answered on the writer thread; `answer` belongs to the loop."""

    ask: Callable[[Store, list[Record]], Any]
    answer: asyncio.Future[Any]


class Stop:
    """Ends the thread; what waits is tried once more."""


class Wake:
    """Cursors have moved."""


Item = Record | Denial | Query | type[Stop] | type[Wake]


class Writer:
    """The thread's state. `run` is its body; the other threads use `queue`, `cursors`, `wake` and read the plain numbers.

    Attributes:
        cursors: the loop's own cursors; written by the loop, copied here.
        records, oldest_wall_ns, problem: for statistics.
        unwritten: how many records wait here for the disk.
        busy_since_s: time.monotonic() when the thread woke up; None while it sleeps.
    """

    def __init__(
        self, path: Path, store: Store, epoch: int, records: int, limits: Limits, wall_ns: Callable[[], int]
    ) -> None:
        self.queue: SimpleQueue[Item] = SimpleQueue()
        self.cursors: dict[str, Position] = store.cursors()
        self.woken = False
        self.records = records
        self.oldest_wall_ns = store.oldest_wall_ns()
        self.problem: JournalError | None = None
        self.damage: JournalDamaged | None = None
        self.unwritten = 0
        self.busy_since_s: float | None = None
        self._path = path
        self._epoch = epoch
        self._store = store
        self._limits = limits
        self._reserve = Reserve(path.parent)
        self._reserve.hold()
        self._retention = Retention(limits, wall_ns)
        self._shed = LossTally("memory-bound")
        self._saved = dict(self.cursors)  # cursors as they are on disk
        self._moved: dict[str, Position] = {}  # cursors that are not
        self._backlog: list[Record] = []
        self._denials: list[Denial] = []
        self._queries: list[Query] = []
        self._cursors_due_s: float | None = None
        self._retry_s: float | None = None  # when to try again; None while all is well
        self._pause_s = FIRST_PAUSE_S
        self._written = 0  # records since the last look at what may go
        self._stopping = False
        self._tell: Callable[..., object] = lambda *_: None
        self._on_problem: Callable[[JournalError | None], None] = lambda _: None
        self._on_loss: Callable[[Loss], None] = lambda _: None

    def attach(
        self,
        loop: asyncio.AbstractEventLoop,
        on_problem: Callable[[JournalError | None], None],
        on_loss: Callable[[Loss], None],
    ) -> None:
        """Say where answers and reports go; before the thread starts."""
        self._tell = loop.call_soon_threadsafe
        self._on_problem = on_problem
        self._on_loss = on_loss

    # -- the thread

    def run(self) -> None:
        """The thread's body: returns after a Stop, with the file closed."""
        try:
            while not self._stopping:
                self._take()
                self._write()
                self._answer()
                self._prune()
        except BaseException as error:
            self._report(
                JournalError(f"the journal's writer has stopped: {error!r}", cause="this is a bug in optima-bridge")
            )
            raise
        finally:
            self._close()

    def _take(self) -> None:
        """Wait until there is something to do, and take all that is there."""
        items: list[Item] = []
        self.busy_since_s = None
        with suppress(Empty):  # it is time for an attempt, a cursor, or the next step of pruning
            items.append(self.queue.get(timeout=self._patience_s()))
        self.busy_since_s = time.monotonic()
        # The cursors before the queue: what they point at was appended earlier, so it is in this batch or on disk.
        self.woken = False
        cursors = self.cursors.copy()
        get = self.queue.get_nowait
        items += [get() for _ in range(self.queue.qsize())]
        self._moved = {sink: position for sink, position in cursors.items() if self._saved.get(sink) != position}
        if self._moved and self._cursors_due_s is None:
            self._cursors_due_s = time.monotonic() + CURSOR_DELAY_S
        self._backlog += [item for item in items if type(item) is Record]
        for item in items:
            if type(item) is Denial:
                self._denials.append(item)
            elif type(item) is Query:
                self._queries.append(item)
            elif item is Stop:
                self._stopping = True
        self.unwritten = len(self._backlog)

    def _patience_s(self) -> float | None:
        """How long the thread may sleep: None is until something comes."""
        if self._retry_s is not None:
            due_s = self._retry_s
        elif self._retention.busy:
            return 0.0
        elif self._cursors_due_s is not None:
            due_s = self._cursors_due_s
        else:
            return None
        return max(0.0, due_s - time.monotonic())

    def _write(self) -> None:
        """Commit what waits, if it is time to."""
        now_s = inf if self._stopping else time.monotonic()
        if self._retry_s is not None:
            if now_s < self._retry_s:
                self._bound_memory()
                return
            self._moved = self._saved | self._moved  # something to write: this is the attempt that ends the pause
        due = self._retry_s is not None or (self._cursors_due_s is not None and now_s >= self._cursors_due_s)
        while self._backlog or self._denials or due:
            batch = self._backlog[:BATCH_RECORDS]
            try:
                self._store.commit(batch, self._moved, self._denials)
            except sqlite3.Error as error:
                self._fail(error)
                return
            due = False
            self._committed(batch)

    def _committed(self, batch: list[Record]) -> None:
        if self.oldest_wall_ns is None and batch:
            self.oldest_wall_ns = batch[0].wall_ns
        self.records += len(batch)
        del self._backlog[: len(batch)]
        self.unwritten = len(self._backlog)
        self._denials.clear()
        self._saved.update(self._moved)
        self._moved = {}
        self._cursors_due_s = None
        self._written += len(batch)
        self._retention.note(len(batch))
        self._retry_s = None
        self._pause_s = FIRST_PAUSE_S
        if self.problem is not self.damage:
            self._reserve.hold()
            self._report(self.damage)
        self._report_loss(self._shed.take())

    def _answer(self) -> None:
        queries, self._queries = self._queries, []
        for ask, answer in queries:
            try:
                self.send(_resolve, answer, self._ask(ask))
            except sqlite3.Error as error:
                self.send(_refuse, answer, JournalError(f"the journal cannot be read: {error}"))

    def _ask(self, ask: Callable[[Store, list[Record]], Any]) -> Any:
        try:
            return ask(self._store, self._backlog)
        except sqlite3.Error as error:
            self._fail(error)
            if not is_damage(error):
                raise
            return ask(self._store, self._backlog)  # what was saved of it

    def forget(self, sink: str) -> None:
        """Drop what is remembered of `sink`; as a query, on this thread."""
        self._store.forget(sink)
        self._saved.pop(sink, None)

    def _prune(self) -> None:
        """Remove what may go; under load as much as comes, so that the size holds."""
        steps, self._written = 1 + 2 * self._written // REMOVE_STEP, 0
        while self._retention.busy and self._retry_s is None and not self._stopping and steps:
            steps -= 1
            try:
                removed, lost = self._retention.step(self._store, self._floor())
                self._removed(removed)
            except sqlite3.Error as error:
                self._fail(error)
            else:
                self._report_loss(lost)

    def _removed(self, count: int) -> None:
        if count:
            self.records -= count
            self.oldest_wall_ns = self._store.oldest_wall_ns()

    def _floor(self) -> Position:
        """Every sink has all records up to here, and that is on disk."""
        return min(self._saved.values(), default=BEGINNING)

    # -- faults

    def _fail(self, error: sqlite3.Error) -> None:
        """Keep everything in memory, make things better where that is possible, come back later."""
        self._retry_s = time.monotonic() + self._pause_s
        self._pause_s = min(2 * self._pause_s, LAST_PAUSE_S)
        self._bound_memory()
        if is_damage(error):
            self._rebuild(error)
            return
        if self.problem is self.damage:  # not yet reported
            self._report(JournalError(f"the journal cannot be written: {error}", directory=str(self._path.parent)))
        if is_full(error):
            with suppress(sqlite3.Error):  # it is reported, and there will be a next attempt
                self._make_room()

    def _make_room(self) -> None:
        """Tidy up on a full disk; delivered records go before their time."""
        self._reserve.give_up()
        self._store.fold_log()
        for _ in range(ROOM_STEPS):
            self._removed(self._store.remove_settled(BEGINNING, self._floor())[0])

    def _rebuild(self, error: sqlite3.Error) -> None:
        try:
            self._store, self.records, self.damage = rebuild(self._path, self._store, error)
            self._store.begin_epoch(self._epoch)
            self.oldest_wall_ns = self._store.oldest_wall_ns()
            self._saved = {}  # all cursors are written again
        except (sqlite3.Error, OSError) as second:
            self._report(JournalError(f"the journal is damaged ({error}) and cannot be rebuilt: {second}"))
        else:
            self._report(self.damage)

    def _bound_memory(self) -> None:
        """Hold the backlog to its bound; a little over, so that not every record costs a look at all of them."""
        bound = self._limits.memory_records
        if len(self._backlog) > bound + bound // 20:
            self._backlog, gone = shed(self._backlog, bound)
            positions = [record.position for record in gone]
            self._shed.add(min(positions), max(positions), len(positions))
        self.unwritten = len(self._backlog)

    def _close(self) -> None:
        try:
            self._store.close(self.records)
        except sqlite3.Error as error:
            self._report(JournalError(f"the journal could not be closed cleanly: {error}"))

    # -- reports to the loop

    def _report(self, problem: JournalError | None) -> None:
        self.problem = problem
        self.send(self._on_problem, problem)

    def _report_loss(self, lost: Loss | None) -> None:
        if lost:
            self.send(self._on_loss, lost)

    def send(self, call: Callable[..., object], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed; nobody is left to be told
            self._tell(call, *arguments)


def _resolve(answer: asyncio.Future[Any], result: object) -> None:
    if not answer.done():
        answer.set_result(result)


def _refuse(answer: asyncio.Future[Any], error: JournalError) -> None:
    if not answer.done():
        answer.set_exception(error)

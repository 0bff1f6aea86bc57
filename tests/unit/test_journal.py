"""The journal on a real disk: order, cursors, denials, epochs, replay window, bounds."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

from optima_bridge.errors import JournalError
from optima_bridge.journal import BEGINNING, Journal, Limits, Loss
from optima_bridge.journal.overflow import shed
from optima_bridge.model import Record

DAY_NS = 86_400 * 1_000_000_000
NOW_NS = 20_000 * DAY_NS
TOPIC = "optima/v1/store-1/node-1/evt/till-3/key"


def make(journal: Journal, *, wall_ns: int = NOW_NS, topic: str = TOPIC, size_bytes: int = 0) -> Record:
    seq = journal.next_seq()
    return Record(journal.epoch, seq, wall_ns, topic, b'{"seq":%d,"pad":"%s"}' % (seq, b"x" * size_bytes))


def fill(journal: Journal, count: int, **facts: int) -> list[Record]:
    records = [make(journal, **facts) for _ in range(count)]  # type: ignore[arg-type]
    for record in records:
        journal.append(record)
    return records


class Opened:
    """Opens journals in one directory, notes what they report, closes what is open at the end."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.problems: list[JournalError | None] = []
        self.losses: list[Loss] = []
        self.now_ns = NOW_NS
        self._open: Journal | None = None

    def __call__(self, limits: Limits | None = None) -> Journal:
        self._open = Journal.open(self.directory, limits, wall_ns=lambda: self.now_ns)
        self._open.attach(asyncio.get_running_loop(), self.problems.append, self.losses.append)
        return self._open

    async def close(self) -> None:
        if self._open:
            await self._open.close(10)
            self._open = None


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[Opened]:
    opened = Opened(tmp_path / "state")
    yield opened
    await opened.close()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


async def test_a_read_returns_what_was_appended_before_it_in_order(opened: Opened) -> None:
    journal = opened()
    records = fill(journal, 1000)
    assert await journal.read(BEGINNING, 2000) == records
    assert await journal.read(records[9].position, 5) == records[10:15]
    assert await journal.read(records[9].position, 500, records[11].position) == records[10:12]
    assert journal.head == records[-1].position


async def test_a_new_journal_has_no_previous_position_and_starts_at_sequence_number_one(opened: Opened) -> None:
    journal = opened()
    assert journal.previous is None
    assert journal.epoch == NOW_NS // 1_000_000_000
    assert journal.head == (journal.epoch, 0)
    assert journal.next_seq() == 1


async def test_the_next_start_knows_records_cursors_and_where_the_last_epoch_ended(opened: Opened) -> None:
    journal = opened()
    records = fill(journal, 10)
    journal.settle("mqtt", records[6].position)
    await opened.close()
    again = opened()
    assert again.previous == records[-1].position
    assert again.cursor("mqtt") == records[6].position
    assert again.cursor("stream") is None
    assert await again.read(records[6].position, 10) == records[7:]
    assert opened.problems == []
    assert again.stats().records == 10


async def test_the_epoch_grows_even_when_the_clock_goes_back(opened: Opened) -> None:
    first = opened().epoch
    await opened.close()
    opened.now_ns -= 400 * DAY_NS
    assert opened().epoch == first + 1


async def test_a_cursor_alone_reaches_the_disk_soon(opened: Opened) -> None:
    journal = opened()
    (record,) = fill(journal, 1)
    journal.settle("mqtt", record.position)

    def on_disk() -> list[tuple[str, int, int]]:
        with closing(sqlite3.connect(opened.directory / "journal.db")) as connection:
            return connection.execute("SELECT sink, epoch, seq FROM cursor").fetchall()

    await until(lambda: on_disk() == [("mqtt", *record.position)])


async def test_an_idle_journal_sleeps_without_a_timer(opened: Opened) -> None:
    journal = opened()
    (record,) = fill(journal, 1)
    journal.settle("mqtt", record.position)
    await journal.read(BEGINNING, 1)
    writer = journal._writer
    await until(lambda: writer.busy_since_s is None and writer._patience_s() is None)


async def test_a_denied_record_is_remembered_behind_the_cursor_until_it_is_allowed(opened: Opened) -> None:
    journal = opened()
    records = fill(journal, 4)
    journal.deny("mqtt", records[1].position, 0x87)
    journal.deny("mqtt", records[2].position, 0x87)
    journal.settle("mqtt", records[3].position)
    await opened.close()
    journal = opened()
    assert await journal.denied("mqtt", 10) == records[1:3]
    assert await journal.denied("stream", 10) == []
    journal.allow("mqtt", records[1].position)
    assert await journal.denied("mqtt", 10) == [records[2]]


async def test_a_second_journal_in_the_directory_is_refused_with_the_pid_of_the_first(opened: Opened) -> None:
    opened()
    with pytest.raises(JournalError, match=f"in use by pid {os.getpid()}") as refusal:
        Journal.open(opened.directory)
    assert refusal.value.data["pid"] == os.getpid()


async def test_the_directory_is_for_its_owner_alone(opened: Opened) -> None:
    opened()
    assert opened.directory.stat().st_mode & 0o777 == 0o700


async def test_delivered_records_leave_when_the_replay_window_is_over(opened: Opened) -> None:
    journal = opened()
    old = fill(journal, 5000, wall_ns=NOW_NS - 8 * DAY_NS)
    young = fill(journal, 5)
    journal.settle("mqtt", young[-1].position)
    journal.deny("mqtt", old[7].position, 0x87)
    await opened.close()
    journal = opened()
    (last,) = fill(journal, 1)
    kept = [old[7], *young, last]
    await until(lambda: journal.stats().records == len(kept))
    assert await journal.read(BEGINNING, 9000) == kept
    assert journal.stats().oldest_age_s == 8 * 86400
    assert opened.losses == []


async def test_old_records_that_a_sink_lacks_stay(opened: Opened) -> None:
    journal = opened()
    old = fill(journal, 3000, wall_ns=NOW_NS - 8 * DAY_NS)
    journal.settle("mqtt", old[-1].position)
    journal.settle("stream", old[9].position)
    await opened.close()
    journal = opened()
    fill(journal, 1)
    await until(lambda: journal.stats().records == 2991)
    assert (await journal.read(BEGINNING, 1))[0] == old[10]
    await journal.forget("stream")
    assert journal.cursor("stream") is None


async def test_the_newest_record_stays_so_that_the_end_of_its_epoch_is_known(opened: Opened) -> None:
    journal = opened()
    records = fill(journal, 20, wall_ns=NOW_NS - 8 * DAY_NS)
    journal.settle("mqtt", records[-1].position)
    await opened.close()
    journal = opened()
    journal.deny("mqtt", records[-1].position, 0x87)  # a write starts a round
    await until(lambda: journal.stats().records == 1)
    assert await journal.read(BEGINNING, 9) == records[-1:]
    assert journal.previous == records[-1].position


async def test_beyond_the_size_bound_the_oldest_go_and_every_undelivered_one_is_counted(opened: Opened) -> None:
    journal = opened(Limits(keep_bytes=2 << 20))
    records = fill(journal, 3000, size_bytes=400)
    journal.settle("mqtt", records[99].position)
    journal.deny("mqtt", records[50].position, 0x87)
    records += fill(journal, 9000, size_bytes=400)
    left: list[Record] = []
    async with asyncio.timeout(30):
        while not opened.losses or journal._writer._retention.busy or journal.stats().records != len(left):
            left = await journal.read(BEGINNING, 20_000)  # it removes more than once
    assert left == records[-len(left) :]
    gone = len(records) - len(left)
    assert sum(loss.count for loss in opened.losses) == gone - 100 + 1
    assert opened.losses[0].first == records[50].position
    assert opened.losses[-1].last == records[gone - 1].position
    assert {loss.reason for loss in opened.losses} == {"disk-bound"}
    assert await journal.denied("mqtt", 9) == []
    assert journal.stats().records == len(left)
    await opened.close()
    assert (opened.directory / "journal.db").stat().st_size < 4 << 20


async def test_the_file_shrinks_when_most_of_it_was_removed(opened: Opened) -> None:
    journal = opened()
    records = fill(journal, 6000, wall_ns=NOW_NS - 8 * DAY_NS, size_bytes=400)
    journal.settle("mqtt", records[-1].position)
    await opened.close()
    path = opened.directory / "journal.db"
    assert path.stat().st_size > 2_500_000
    journal = opened()
    fill(journal, 1)
    await until(lambda: journal.stats().records == 1)
    await until(lambda: not journal._writer._retention.busy)
    await opened.close()
    assert path.stat().st_size < 1_300_000


async def test_closing_twice_and_closing_unattached_commit_what_waits(opened: Opened) -> None:
    journal = Journal.open(opened.directory)
    records = fill(journal, 3)
    await journal.close(10)
    await journal.close(10)
    again = opened()
    assert await again.read(BEGINNING, 9) == records


async def test_a_cancelled_read_harms_nobody(opened: Opened) -> None:
    journal = opened()
    records = fill(journal, 10)
    reading = asyncio.create_task(journal.read(BEGINNING, 10))
    await asyncio.sleep(0)
    reading.cancel()
    assert await journal.read(BEGINNING, 10) == records


def test_telemetry_is_shed_before_events_and_older_before_younger() -> None:
    def record(seq: int, name: str) -> Record:
        return Record(1, seq, 0, f"optima/v1/s/n/evt/d/{name}", b"{}")

    records = [record(seq, name) for seq, name in enumerate(("key", "health", "seal", "link", "status", "card"), 1)]
    for keep, seqs in ((6, [1, 2, 3, 4, 5, 6]), (4, [1, 3, 5, 6]), (3, [1, 3, 6]), (1, [6]), (0, [])):
        kept, gone = shed(records, keep)
        assert [r.seq for r in kept] == seqs
        assert len(gone) == 6 - len(seqs)

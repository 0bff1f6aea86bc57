"""The journal under fire: SIGKILL at any moment, a full disk, damaged files. Real processes, real files."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from optima_bridge.errors import JournalDamaged, JournalError
from optima_bridge.journal import BEGINNING, Journal, Limits, Loss, Position
from optima_bridge.journal.store import PAGE_BYTES
from optima_bridge.model import Record

TOPIC = "optima/v1/store-1/node-1/evt/till-3/"
ROOT = Path(__file__).parents[2]
KILLS = 50

# Appends without pause, says which position is about to be published ("P", before its commit) and which are committed ("C").
APPENDER = """
import asyncio, os, sys, time
from pathlib import Path
from optima_bridge.journal import Journal
from optima_bridge.model import Record

async def main():
    journal = Journal.open(Path(sys.argv[1]))
    journal.attach(asyncio.get_running_loop(), print, print)
    os.write(1, f"E {journal.epoch} {journal.previous}\\n".encode())
    while True:
        for _ in range(7):
            seq = journal.next_seq()
            os.write(1, f"P {seq}\\n".encode())
            journal.append(Record(journal.epoch, seq, time.time_ns(), "optima/v1/s/n/evt/d/key", b'{"seq":%d}' % seq))
        journal.settle("mqtt", journal.head)
        await journal.read(journal.head, 1)
        os.write(1, f"C {journal.head[1]}\\n".encode())

asyncio.run(main())
"""


def make(journal: Journal, name: str = "key", size_bytes: int = 400) -> Record:
    seq = journal.next_seq()
    return Record(journal.epoch, seq, time.time_ns(), TOPIC + name, b'{"seq":%d,"pad":"%s"}' % (seq, b"x" * size_bytes))


def fill(journal: Journal, count: int, name: str = "key", size_bytes: int = 400) -> list[Record]:
    records = [make(journal, name, size_bytes) for _ in range(count)]
    for record in records:
        journal.append(record)
    return records


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not true():  # noqa: ASYNC110 - what is waited for happens in another thread
            await asyncio.sleep(0.01)


class Reports:
    """What a journal told the loop."""

    def __init__(self) -> None:
        self.problems: list[JournalError | None] = []
        self.losses: list[Loss] = []

    def attach(self, journal: Journal) -> Journal:
        journal.attach(asyncio.get_running_loop(), self.problems.append, self.losses.append)
        return journal


# -- the program ends at any moment


async def test_nothing_committed_is_missing_after_fifty_kills_and_no_position_comes_twice(tmp_path: Path) -> None:
    moments = random.Random(7)
    committed: list[Position] = []
    published: set[Position] = set()
    for _ in range(KILLS):
        child = subprocess.Popen(
            [sys.executable, "-c", APPENDER, tmp_path], stdout=subprocess.PIPE, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
        )
        assert child.stdout
        said = [child.stdout.readline() for _ in range(moments.randrange(1, 60))]
        child.send_signal(signal.SIGKILL)
        said += child.stdout.readlines()
        child.stdout.close()
        child.wait()
        epoch = int(said[0].split()[1])
        now_published = {(epoch, int(line[2:])) for line in said if line[:1] == b"P"}
        assert not published & now_published
        published |= now_published
        if now_committed := [int(line[2:]) for line in said if line[:1] == b"C"]:
            committed.append((epoch, now_committed[-1]))
    journal = Reports().attach(Journal.open(tmp_path))
    kept = [record.position for record in await journal.read(BEGINNING, 1_000_000)]
    await journal.close(10)
    assert kept == sorted(set(kept))
    assert len(committed) > KILLS // 4
    expected = {(epoch, seq) for epoch, last in committed for seq in range(1, last + 1)}
    assert expected <= set(kept)
    for epoch in {epoch for epoch, _ in kept}:
        seqs = [seq for of, seq in kept if of == epoch]
        assert seqs == list(range(1, len(seqs) + 1))


async def test_a_record_published_but_not_committed_is_lost_without_its_position_being_used_again(
    tmp_path: Path,
) -> None:
    program = APPENDER.replace(
        "journal.append(Record", "os.kill(os.getpid(), 9) if seq == 5 else journal.append(Record"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    assert ran.returncode == -signal.SIGKILL, ran.stderr
    assert ran.stdout.splitlines()[-1] == b"P 5"
    epoch = int(ran.stdout.split()[1])
    journal = Reports().attach(Journal.open(tmp_path))
    assert journal.epoch > epoch
    assert journal.previous is None or journal.previous < (epoch, 5)
    await journal.close(10)


# -- the disk is full


SmallDisk = Callable[[int], Path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    """Mounts a disk of so many MiB."""
    disk = tmp_path / "disk"

    def mount(size_mib: int) -> Path:
        disk.mkdir()
        if (
            os.geteuid() != 0
            or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", disk]).returncode
        ):
            pytest.skip("a small disk (tmpfs) can be mounted by root only")
        return disk

    yield mount
    if disk.is_mount():
        subprocess.run(["umount", "--lazy", disk], check=True)


def fill_up(disk: Path) -> Path:
    """Leave no room on `disk`; delete what is returned to make some."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)) == 4096:
            pass
    return ballast


async def test_a_full_disk_is_reported_once_and_loses_nothing_when_it_gets_room_again(small_disk: SmallDisk) -> None:
    disk, reports = small_disk(8), Reports()
    journal = reports.attach(Journal.open(disk))
    early = fill(journal, 100)
    await journal.read(BEGINNING, 1)
    ballast = fill_up(disk)
    late = fill(journal, 3000)
    await until(lambda: bool(reports.problems))
    assert isinstance(reports.problems[0], JournalError)
    assert "full" in reports.problems[0].what
    assert await journal.read(BEGINNING, 5000) == early + late
    assert journal.stats().pending > 0
    assert journal.alive
    ballast.unlink()
    await until(lambda: reports.problems[-1] is None)
    assert len(reports.problems) == 2
    await journal.close(10)
    again = Reports().attach(Journal.open(disk))
    assert await again.read(BEGINNING, 5000) == early + late
    assert reports.losses == []
    await again.close(10)


async def test_a_full_disk_does_not_keep_the_journal_from_starting_when_it_has_its_reserve(
    small_disk: SmallDisk,
) -> None:
    disk = small_disk(20)
    journal = Reports().attach(Journal.open(disk))
    records = fill(journal, 10)
    await journal.close(10)
    fill_up(disk)
    again = Reports().attach(Journal.open(disk))
    assert await again.read(BEGINNING, 20) == records
    await again.close(10)
    fill_up(disk)
    with pytest.raises(JournalError, match="cannot be opened"):
        Journal.open(disk)


async def test_on_a_full_disk_delivered_records_make_room_for_new_ones(small_disk: SmallDisk) -> None:
    disk, reports = small_disk(20), Reports()
    journal = reports.attach(Journal.open(disk))
    delivered = fill(journal, 5000)
    await journal.read(journal.head, 1)
    journal.settle("mqtt", delivered[-1].position)
    await until(lambda: journal._writer._saved == {"mqtt": delivered[-1].position})
    fill_up(disk)
    new: list[Record] = []
    while not reports.problems:  # until the log has no room left
        new += fill(journal, 100)
        await journal.read(journal.head, 1)
    new += fill(journal, 3000)
    await until(lambda: journal.stats().pending == 0 and journal.stats().problem is None)
    kept = await journal.read(BEGINNING, 20_000)
    assert kept[-len(new) :] == new
    assert len(kept) < len(delivered) + len(new)
    assert reports.losses == []
    await journal.close(10)


async def test_beyond_the_memory_bound_telemetry_goes_first_and_the_loss_is_counted(small_disk: SmallDisk) -> None:
    disk, reports = small_disk(2), Reports()
    journal = reports.attach(Journal.open(disk, Limits(memory_records=200)))
    (first,) = fill(journal, 1)
    await journal.read(BEGINNING, 1)
    ballast = fill_up(disk)
    fill(journal, 1, size_bytes=1_000_000)  # takes what room the log has left
    await until(lambda: bool(reports.problems))
    telemetry = fill(journal, 100, "health")
    events = fill(journal, 300)
    await until(lambda: journal.stats().pending <= 210)
    waiting = await journal.read(first.position, 1000)
    assert waiting[-1] == events[-1]
    ballast.unlink()
    await until(lambda: reports.problems[-1] is None)
    await until(lambda: bool(reports.losses))
    kept = {record.position for record in await journal.read(BEGINNING, 1000)}
    assert not kept & {record.position for record in telemetry}
    (loss,) = reports.losses
    assert loss.reason == "memory-bound"
    assert loss.count == 402 - len(kept)
    assert loss.first == (journal.epoch, 2)
    await journal.close(10)


# -- the file is damaged


@pytest.fixture
async def left_by_a_crash(tmp_path: Path) -> tuple[Path, list[Record]]:
    """A directory with a database and a log as SIGKILL leaves them, and the records in them."""
    source, copy = tmp_path / "source", tmp_path / "copy"
    journal = Reports().attach(Journal.open(source))
    records = fill(journal, 600)
    records += fill(journal, 3, size_bytes=9000)  # these overflow to pages of their own
    await journal.read(BEGINNING, 1)
    journal.settle("mqtt", records[399].position)
    journal.deny("mqtt", records[7].position, 0x87)
    await journal.read(BEGINNING, 1)
    await journal._ask(lambda store, _: store.fold_log())
    await journal.read(BEGINNING, 1)
    for _ in range(20):
        records += fill(journal, 10)
        await journal.read(BEGINNING, 1)
    copy.mkdir()
    for path in source.glob("journal.db*"):
        shutil.copy(path, copy)
    await journal.close(10)
    assert (copy / "journal.db-wal").stat().st_size > 20 * PAGE_BYTES
    return copy, records


# A program of its own: only then the folded file is left as if the log had been folded before the crash.
FOLD_LOG = "import sqlite3, sys; sqlite3.connect(sys.argv[1]).execute('PRAGMA wal_checkpoint(TRUNCATE)').fetchall()"


def overwrite(path: Path, start: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(random.Random(1).randbytes(size))


async def test_the_files_of_a_crash_are_no_damage(left_by_a_crash: tuple[Path, list[Record]]) -> None:
    directory, records = left_by_a_crash
    reports = Reports()
    journal = reports.attach(Journal.open(directory))
    assert await journal.read(BEGINNING, 5000) == records
    assert journal.stats().records == len(records)
    assert reports.problems == []
    await journal.close(10)


@pytest.mark.parametrize(
    ("name", "start", "size", "may_miss"),
    [
        ("journal.db", 0, 100, 0),
        ("journal.db", 0, PAGE_BYTES, 0),
        ("journal.db", 1 * PAGE_BYTES, PAGE_BYTES, 0),
        ("journal.db", 2 * PAGE_BYTES, PAGE_BYTES, 100),
        ("journal.db", 30 * PAGE_BYTES, 2 * PAGE_BYTES, 20),
        ("journal.db", 20 * PAGE_BYTES + 8, 10, 10),
        ("journal.db-wal", 0, 32, 0),
        ("journal.db-wal", 32 + 5 * (24 + PAGE_BYTES), 24, 0),
        ("journal.db-wal", 32 + 20 * (24 + PAGE_BYTES) + 24, PAGE_BYTES, 10),
    ],
    ids=["header", "first page", "pointer map", "root of records", "two leaves", "cell pointers of a leaf",
         "log header", "frame header", "frame"],
)  # fmt: skip
async def test_a_damaged_file_is_put_aside_what_is_readable_is_saved_and_the_journal_runs(
    left_by_a_crash: tuple[Path, list[Record]], name: str, start: int, size: int, may_miss: int
) -> None:
    directory, records = left_by_a_crash
    if name == "journal.db":
        subprocess.run([sys.executable, "-c", FOLD_LOG, directory / name], check=True)
    overwrite(directory / name, start, size)
    before = (directory / name).read_bytes()
    reports = Reports()
    journal = reports.attach(Journal.open(directory))
    saved = await journal.read(BEGINNING, 5000)
    assert set(saved) <= set(records)
    assert saved == sorted(saved, key=lambda record: record.position)
    assert len(saved) >= len(records) - may_miss
    assert journal.epoch > records[-1].epoch
    (record,) = fill(journal, 1)
    assert await journal.read(records[-1].position, 9) == [record]
    (problem,) = reports.problems
    assert isinstance(problem, JournalDamaged)
    assert problem.data["salvaged"] == len(saved)
    assert journal.stats().problem == problem.what
    assert Path(str(problem.data["quarantine"])).exists()
    if name == "journal.db-wal":
        assert Path(f"{problem.data['quarantine']}-wal").read_bytes() == before
    assert journal.cursor("mqtt") == records[399].position
    assert await journal.denied("mqtt", 9) == [records[7]]
    await journal.close(10)
    again = Reports().attach(Journal.open(directory))
    assert await again.read(BEGINNING, 5000) == [*saved, record]
    await again.close(10)


async def test_damage_while_running_is_repaired_and_the_sequence_goes_on(tmp_path: Path) -> None:
    reports = Reports()
    journal = reports.attach(Journal.open(tmp_path))
    records = fill(journal, 5000)  # more than the page cache holds
    await journal.read(journal.head, 1)
    await journal._ask(lambda store, _: store.fold_log())
    await journal.read(journal.head, 1)
    for page in range(3, 40):
        overwrite(tmp_path / "journal.db", page * PAGE_BYTES, 2000)
    saved = await journal.read(BEGINNING, 9000)
    records += fill(journal, 100)
    assert set(saved) <= set(records)
    assert len(saved) > 4500
    assert isinstance(reports.problems[0], JournalDamaged)
    await until(lambda: journal.stats().pending == 0)
    assert await journal.read(BEGINNING, 9000) == saved + records[-100:]
    assert len(reports.problems) == 1
    assert await journal._ask(lambda store, _: (store.last_epoch(), store.clean_records())) == (journal.epoch, None)
    await journal.close(10)
    with pytest.raises(JournalError, match="closed"):
        await journal.read(BEGINNING, 1)


async def test_a_rebuild_that_a_crash_interrupted_is_finished_by_the_next_start(
    left_by_a_crash: tuple[Path, list[Record]],
) -> None:
    directory, records = left_by_a_crash
    (directory / "journal.db.new").write_bytes(b"half a rebuild")
    journal = Reports().attach(Journal.open(directory))
    assert await journal.read(BEGINNING, 5000) == records
    await journal.close(10)
    (directory / "journal.db").rename(directory / "journal.db.new")
    (directory / "journal.db-wal").write_bytes(b"an old log that must not be applied")
    again = Reports().attach(Journal.open(directory))
    assert await again.read(BEGINNING, 5000) == records
    await again.close(10)

"""The host's journal of enrolments: one open job a device, one process a directory, everything on disk at once."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import msgspec
import pytest

from optima_bridge.enroll.journal import FILE_NAME, HostJournal, Job, JobState
from optima_bridge.enroll.words import Outcome, fingerprint
from optima_bridge.errors import EnrollBusy, JournalError

JOB = Job(
    id="7f3a",
    model="loopback",
    serial="till-3",
    slot=1,
    old_slot=0,
    old_generation=4,
    old_sha256=fingerprint(b"old"),
    old_der=b"old",
    new_sha256=fingerprint(b"new"),
    new_der=b"new",
)


def named(job_id: str, serial: str = "till-3") -> Job:
    return msgspec.structs.replace(JOB, id=job_id, serial=serial)


def test_a_job_is_read_as_it_was_written_by_whoever_opens_the_journal_next(tmp_path: Path) -> None:
    with HostJournal(tmp_path) as journal:
        journal.begin(JOB)
    with HostJournal(tmp_path) as journal:
        job = journal.open_job("loopback", "till-3")
        assert job is not None
        assert msgspec.structs.replace(job, begun_ns=0, changed_ns=0) == JOB
        assert job.begun_ns > 0
        journal.closed(journal.activating(job), Outcome.VERIFIED)
    with HostJournal(tmp_path) as journal:
        assert journal.open_job("loopback", "till-3") is None
        closed = journal.job("7f3a")
        assert closed is not None
        assert (closed.state, closed.outcome) == (JobState.CLOSED, Outcome.VERIFIED)
        assert closed.changed_ns > job.changed_ns


def test_every_step_is_committed_before_it_returns(tmp_path: Path) -> None:
    with HostJournal(tmp_path) as journal:
        reader = sqlite3.connect(f"file:{tmp_path / FILE_NAME}?mode=ro", uri=True)
        states = []
        journal.begin(JOB)
        states += reader.execute("SELECT state FROM job").fetchall()
        journal.activating(JOB)
        states += reader.execute("SELECT state FROM job").fetchall()
        journal.closed(JOB, Outcome.ROLLED_BACK, "E-ENROLL-VERIFY")
        states += reader.execute("SELECT state, outcome, code FROM job").fetchall()
        reader.close()
        assert states == [("staging",), ("activating",), ("closed", "rolled-back", "E-ENROLL-VERIFY")]


def test_a_commit_is_synced_to_disk(tmp_path: Path) -> None:
    with HostJournal(tmp_path) as journal:
        settings = [journal._connection.execute(f"PRAGMA {it}").fetchone() for it in ("journal_mode", "synchronous")]
        assert settings == [("wal",), (2,)]


def test_a_device_has_one_open_job_and_an_id_is_used_once(tmp_path: Path) -> None:
    with HostJournal(tmp_path) as journal:
        journal.begin(JOB)
        with pytest.raises(EnrollBusy):
            journal.begin(named("other"))
        journal.begin(named("neighbour", "till-4"))
        journal.closed(JOB, Outcome.VERIFIED)
        with pytest.raises(EnrollBusy):
            journal.begin(JOB)
        journal.begin(named("other"))
        assert [job.id for job in journal.jobs()] == ["other", "neighbour", "7f3a"]


def test_certificates_of_earlier_jobs_are_found_by_their_fingerprint(tmp_path: Path) -> None:
    with HostJournal(tmp_path) as journal:
        journal.begin(JOB)
        found = [journal.certificate(fingerprint(it)) for it in (b"old", b"new", b"third")]
        assert found == [b"old", b"new", None]


def test_one_process_enrolls_with_one_state_directory(tmp_path: Path) -> None:
    with HostJournal(tmp_path), pytest.raises(EnrollBusy, match="another process"):
        HostJournal(tmp_path)
    HostJournal(tmp_path).close()


def test_what_the_disk_refuses_is_a_journal_error(tmp_path: Path) -> None:
    with pytest.raises(JournalError):
        HostJournal(tmp_path / "missing")
    (tmp_path / FILE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(JournalError):
        HostJournal(tmp_path)
    (tmp_path / FILE_NAME).unlink()
    HostJournal(tmp_path).close()


def test_a_journal_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    HostJournal(tmp_path).close()
    connection = sqlite3.connect(tmp_path / FILE_NAME)
    connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(JournalError, match="schema 9, this program knows 1"):
        HostJournal(tmp_path)


def test_the_lock_is_the_service_users_own(tmp_path: Path) -> None:
    HostJournal(tmp_path).close()
    assert stat.S_IMODE((tmp_path / "enroll.lock").stat().st_mode) == 0o600

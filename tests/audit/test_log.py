"""The audit log on disk: one writer, power cuts, full disks, and what is done to the files behind its back."""

from __future__ import annotations

import json
import os
import pwd
import random
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from optima_bridge.audit import Actor, AuditLog
from optima_bridge.audit.record import link
from optima_bridge.errors import AuditError
from tests.audit.logs import ME, SOMEBODY, chain, judged, write
from tests.daemon.test_disk import fill, small_disk

__all__ = ["small_disk"]  # a fixture

WRITER = """
import os, sys
from pathlib import Path
from optima_bridge.audit import Actor, AuditLog
me = Actor.this("standalone")
with AuditLog(Path(sys.argv[1]), me) as log:
    while True:
        os.write(1, f"{log.append('api.requested', me, asked='x' * 200)}\\n".encode())
"""


def lines(directory: Path) -> list[bytes]:
    return (directory / "audit.ndjson").read_bytes().splitlines(keepends=True)


def records(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines(directory) if link(line)]


def actions(directory: Path) -> list[str]:
    return [record["action"] for record in records(directory)]


def kind(directory: Path) -> str | None:
    findings = judged(directory).findings
    return str(findings[0].kind) if findings else None


def test_a_record_says_who_did_what_when(tmp_path: Path) -> None:
    with AuditLog(tmp_path, ME) as log:
        head = log.append("enroll.ended", SOMEBODY, device="till-3", job="7f3a", outcome="verified", changed=True)
        assert log.head == head
    [record] = records(tmp_path)
    assert record == {
        "n": 1,
        "time": head.time,
        "action": "enroll.ended",
        "who": {"via": "socket", "uid": 54321, "pid": 7, "program": "bridge"},
        "device": "till-3",
        "job": "7f3a",
        "data": {"outcome": "verified", "changed": True},
        "prev": "0" * 64,
        "hash": head.hash,
    }
    assert json.loads((tmp_path / "audit.head").read_bytes()) == {"n": 1, "hash": head.hash, "time": head.time}
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == dict.fromkeys(
        ("audit.ndjson", "audit.head", "audit-log.lock"), 0o600
    )


def test_the_kernel_says_which_program_of_which_user_this_is() -> None:
    me = Actor.this("standalone").named()
    assert (me.uid, me.pid) == (os.geteuid(), os.getpid())
    assert me.program == Path("/proc/self/comm").read_text().strip()
    assert me.user
    assert Actor.process("socket", 1 << 22, 0) == Actor(via="socket", uid=0, pid=1 << 22)  # no such process
    assert Actor(via="mqtt", client="x").named() == Actor(via="mqtt", client="x")
    assert Actor(via="socket", uid=4_000_000_000).named().user == ""


def test_who_logged_in_is_told_through_sudo() -> None:
    """The kernel lets root set the login uid of a process once, as a login does."""
    code = "from optima_bridge.audit import Actor; print(Actor.this('standalone').named())"
    login = f"echo 1 > /proc/self/loginuid && exec {sys.executable} -c {shlex.quote(code)}"
    done = subprocess.run(["bash", "-c", login], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip("only root may set a login uid, where the kernel has them")
    assert f"uid={os.geteuid()}" in done.stdout
    assert f"login_uid=1, login={pwd.getpwuid(1).pw_name!r}" in done.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start children of other users")
def test_a_number_that_is_another_users_process_by_now_tells_nothing() -> None:
    with subprocess.Popen(["sleep", "60"], user=54321) as process:
        assert Actor.process("socket", process.pid, 54321).program
        assert Actor.process("socket", process.pid, 54322) == Actor(via="socket", uid=54322, pid=process.pid)
        process.kill()


def test_text_that_came_from_elsewhere_is_cut_and_can_forge_nothing(tmp_path: Path) -> None:
    with AuditLog(tmp_path, ME) as log:
        log.append("api.requested", SOMEBODY, asked='POST /\n{"n":2}\ud800\x1b' + "x" * 9000)
    assert len((tmp_path / "audit.ndjson").read_bytes()) < 1000
    assert records(tmp_path)[0]["data"]["asked"].startswith('POST /\\n{"n":2}\\ud800\\x1bxxx')
    assert kind(tmp_path) is None


def test_a_log_that_is_opened_again_goes_on_where_it_ended(tmp_path: Path) -> None:
    for _ in range(3):
        write(tmp_path, 2)
    assert [record["n"] for record in records(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert kind(tmp_path) is None


def test_the_record_is_synchronised_before_its_head_and_before_append_returns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Watches the real calls."""
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    with AuditLog(tmp_path, ME) as log:
        monkeypatch.setattr(os, "fsync", watched)
        log.append("api.requested", SOMEBODY)
        log.append("api.requested", SOMEBODY)
    first = ["audit.ndjson", tmp_path.name, "audit.head.new"]  # the name of a new file, too
    assert synced == [*first, "audit.ndjson", "audit.head.new"]


def test_a_second_writer_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    with AuditLog(tmp_path, ME) as first:
        with pytest.raises(AuditError, match=f"in use by pid {os.getpid()}") as caught, AuditLog(tmp_path, ME):
            pass
        assert caught.value.data["pid"] == os.getpid()
        first.append("api.requested", SOMEBODY)
    write(tmp_path, 1)
    assert kind(tmp_path) is None


def test_after_a_power_cut_at_any_byte_the_log_goes_on_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, 3)
    whole, head = (tmp_path / "audit.ndjson").read_bytes(), (tmp_path / "audit.head").read_bytes()
    write(tmp_path, 1)
    last = (tmp_path / "audit.ndjson").read_bytes()[len(whole) :]
    for size_bytes in (*range(1, len(last), 3), len(last) - 2, len(last) - 1):
        (tmp_path / "audit.ndjson").write_bytes(whole + last[:size_bytes])
        (tmp_path / "audit.head").write_bytes(head)
        assert kind(tmp_path) == "torn"
        write(tmp_path, 1)
        assert actions(tmp_path)[-2:] == ["audit.torn", "api.requested"]
        assert (kind(tmp_path), judged(tmp_path).marked, judged(tmp_path).records) == (None, 1, 5)


def test_a_power_cut_while_a_torn_line_is_being_accounted_for_does_no_harm(tmp_path: Path) -> None:
    write(tmp_path, 2)
    head = (tmp_path / "audit.head").read_bytes()
    with (tmp_path / "audit.ndjson").open("ab") as file:
        file.write(b'{"n":3,"ti')
    torn = (tmp_path / "audit.ndjson").read_bytes()
    write(tmp_path, 0)
    marker = (tmp_path / "audit.ndjson").read_bytes()[len(torn) :]
    for size_bytes in (*range(1, len(marker), 7), len(marker) - 2, len(marker) - 1):
        (tmp_path / "audit.ndjson").write_bytes(torn + marker[:size_bytes])
        (tmp_path / "audit.head").write_bytes(head)
        write(tmp_path, 1)
        assert (kind(tmp_path), judged(tmp_path).marked, judged(tmp_path).records) == (None, 1, 4)


def test_a_head_that_a_power_cut_left_behind_is_no_matter(tmp_path: Path) -> None:
    write(tmp_path, 2)
    head = (tmp_path / "audit.head").read_bytes()
    write(tmp_path, 1)
    (tmp_path / "audit.head").write_bytes(head)
    write(tmp_path, 1)
    assert (kind(tmp_path), actions(tmp_path)) == (None, ["api.requested"] * 4)


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_cut_end_stays_visible_after_more_was_written(tmp_path: Path, left: int) -> None:
    write(tmp_path, 5)
    (tmp_path / "audit.ndjson").write_bytes(b"".join(lines(tmp_path)[:left]))
    assert kind(tmp_path) == "truncated"
    with AuditLog(tmp_path, ME) as log:
        assert str(log.problem).startswith(f"{tmp_path}/audit.ndjson: line {left + 1} truncated")
        log.append("api.requested", SOMEBODY)
    assert [record["n"] for record in records(tmp_path)][left:] == [6, 7]
    assert actions(tmp_path)[left] == "audit.broken"
    assert records(tmp_path)[left]["data"]["kept"].startswith("5:")
    assert (judged(tmp_path).findings[0].line, kind(tmp_path)) == (left + 1, "missing")


def test_a_log_that_was_taken_away_whole_is_missed(tmp_path: Path) -> None:
    write(tmp_path, 5)
    (tmp_path / "audit.ndjson").unlink()
    write(tmp_path, 1)
    assert actions(tmp_path) == ["audit.broken", "api.requested"]
    assert (judged(tmp_path).findings[0].line, kind(tmp_path)) == (1, "missing")


def test_a_last_record_that_was_written_anew_is_found(tmp_path: Path) -> None:
    write(tmp_path, 2)
    other = tmp_path / "other"
    other.mkdir()
    write(other, 3)
    shutil.copy(other / "audit.ndjson", tmp_path)
    (tmp_path / "audit.ndjson").write_bytes(b"".join(lines(tmp_path)[:2]))
    write(tmp_path, 1)
    assert "audit.broken" in actions(tmp_path)
    assert kind(tmp_path) == "edited"


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"n":-1,"hash":"0","time":""}', b"\xff"])
def test_a_head_that_is_away_or_unreadable_is_told_in_the_log(tmp_path: Path, content: bytes | None) -> None:
    write(tmp_path, 2)
    (tmp_path / "audit.head").unlink()
    if content is not None:
        (tmp_path / "audit.head").write_bytes(content)
    write(tmp_path, 1)
    assert actions(tmp_path)[2:] == ["audit.broken", "api.requested"]
    assert records(tmp_path)[2]["data"]["kept"] == ""
    assert kind(tmp_path) is None


def test_what_is_done_to_the_files_while_they_are_open_loses_no_later_record_and_stays_visible(tmp_path: Path) -> None:
    path = tmp_path / "audit.ndjson"

    def cut() -> None:
        path.write_bytes(path.read_bytes()[:-100])

    def end_without_newline() -> None:
        path.write_bytes(path.read_bytes()[:-1] + b" ")

    def replace() -> None:
        shutil.copy(path, tmp_path / "copy")
        (tmp_path / "copy").rename(path)
        with path.open("ab") as file:
            file.write(b"one line more\n")

    def forge() -> None:
        assert log.head is not None
        with path.open("ab") as file:
            file.write(chain(1, log.head.hash, log.head.n + 1)[0])

    with AuditLog(tmp_path, ME) as log:
        for harm in (forge, cut, end_without_newline, path.unlink, replace):
            for _ in range(3):
                log.append("api.requested", SOMEBODY)
            assert log.head is not None
            before = log.head.n
            harm()
            log.append("service.stopped", ME)
            assert {record["n"] for record in records(tmp_path)} >= {before + 1, log.head.n}
            assert actions(tmp_path)[-2:] == ["audit.broken", "service.stopped"]
    assert kind(tmp_path) in ("missing", "edited")


def test_a_link_in_the_place_of_the_log_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "audit.ndjson").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuditError, match="cannot be written"):
        write(tmp_path, 1)
    assert (tmp_path / "elsewhere").read_bytes() == b""


def test_a_head_that_cannot_be_written_is_a_problem_and_keeps_no_record_back(tmp_path: Path) -> None:
    (tmp_path / "audit.head.new").mkdir()
    with AuditLog(tmp_path, ME) as log:
        assert log.append("api.requested", SOMEBODY).n == 1
        assert "audit.head cannot be written" in str(log.problem)
        (tmp_path / "audit.head.new").rmdir()
        log.append("api.requested", SOMEBODY)
        assert log.problem is None
    assert kind(tmp_path) is None


@pytest.fixture
def file_size_limit() -> Iterator[None]:
    """Files of this process may have so many bytes: a write over the limit is cut, the next one fails (setrlimit(2))."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("file_size_limit")
def test_a_record_that_is_written_in_part_is_taken_back_and_later_ones_tell_of_it(tmp_path: Path) -> None:
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    with AuditLog(tmp_path, ME) as log:
        log.append("api.requested", SOMEBODY)
        size_bytes = (tmp_path / "audit.ndjson").stat().st_size
        for limit in range(size_bytes, size_bytes + 300, 50):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, unlimited[1]))
            with pytest.raises(AuditError, match=r"audit\.ndjson cannot be written") as caught:
                log.append("enroll.begun", SOMEBODY)
            assert (caught.value.code, caught.value.retryable) == ("E-AUDIT", True)
            assert (tmp_path / "audit.ndjson").stat().st_size == size_bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        log.append("api.requested", SOMEBODY)
    assert actions(tmp_path) == ["api.requested", "audit.lost", "api.requested"]
    assert records(tmp_path)[1]["data"] == {"count": 6}
    assert kind(tmp_path) is None


def test_a_full_disk_is_an_error_that_says_so_and_passes(small_disk: Path) -> None:
    with AuditLog(small_disk, ME) as log:
        log.append("api.requested", SOMEBODY)
        fill(small_disk / "filler")
        with pytest.raises(AuditError, match=r"[Nn]o space left on device"):  # noqa: PT012 - the last page has some room
            for _ in range(100):
                log.append("api.requested", SOMEBODY)
        assert kind(small_disk) is None
        (small_disk / "filler").unlink()
        log.append("api.requested", SOMEBODY)
        assert log.problem is None
    assert actions(small_disk)[-2:] == ["audit.lost", "api.requested"]
    assert kind(small_disk) is None


def test_an_append_only_file_is_enough(tmp_path: Path) -> None:
    """`chattr +a`, which takes even the service's own right to cut the file: a part that was written then is a torn line."""
    write(tmp_path, 1)
    path = tmp_path / "audit.ndjson"
    if os.geteuid() != 0 or subprocess.run(["chattr", "+a", path], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("only root may make a file append-only, and not on every file system")
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        with AuditLog(tmp_path, ME) as log:
            resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 50, unlimited[1]))
            with pytest.raises(AuditError):
                log.append("api.requested", SOMEBODY)
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            log.append("api.requested", SOMEBODY)
        assert actions(tmp_path)[-3:] == ["audit.torn", "audit.lost", "api.requested"]
        assert kind(tmp_path) is None
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        subprocess.run(["chattr", "-a", path], check=True)


def test_a_writer_that_is_killed_at_any_moment_leaves_a_log_with_every_confirmed_record(tmp_path: Path) -> None:
    confirmed: list[str] = []
    for _ in range(5):
        with subprocess.Popen([sys.executable, "-c", WRITER, tmp_path], stdout=subprocess.PIPE) as writer:
            assert writer.stdout is not None
            confirmed += [writer.stdout.readline().decode().strip() for _ in range(random.randrange(1, 40))]
            writer.send_signal(signal.SIGKILL)
            confirmed += [line for line in writer.stdout.read().decode().splitlines() if len(line) > 64]
        verdict = judged(tmp_path)
        assert verdict.only_torn
        assert {f"{record['n']}:{record['hash']}" for record in records(tmp_path)} >= {*confirmed}
    write(tmp_path, 1)
    assert kind(tmp_path) is None

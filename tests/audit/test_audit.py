"""The audit log on the event loop: in order, bounded, trouble reported once and its end, too."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from optima_bridge.api import trail as trail_module
from optima_bridge.api.peers import Peer, Role
from optima_bridge.audit import Audit, AuditLog, Head
from optima_bridge.audit import audit as audit_module
from optima_bridge.errors import AuditBroken, AuditError
from tests.audit.logs import ME, SOMEBODY, judged, write
from tests.support import until


class Told:
    """What an audit log told the loop."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.problems: list[AuditError | None] = []


@asynccontextmanager
async def opened(directory: Path) -> AsyncIterator[tuple[Audit, Told]]:
    told = Told()
    audit = Audit(directory, told.heads.append, told.problems.append)
    try:
        yield audit, told
    finally:
        await audit.close(10)


async def test_records_of_many_tasks_come_in_the_order_of_the_calls(tmp_path: Path) -> None:
    async with opened(tmp_path) as (audit, told):
        heads = await asyncio.gather(*(audit.append("api.requested", SOMEBODY, asked=str(n)) for n in range(100)))
        assert [head.n for head in heads] == list(range(1, 101))
        assert told.heads == sorted(told.heads, key=lambda head: head.n)
        assert (told.heads[-1], set(told.heads) <= set(heads)) == (heads[-1], True)
        assert told.problems == [None] * 100
        verdict = await audit.verify()
        assert (verdict.records, verdict.findings, verdict.head) == (100, (), audit.head)
    assert judged(tmp_path).records == 100


async def test_a_record_whose_writer_does_not_wait_any_more_is_written_all_the_same(tmp_path: Path) -> None:
    async with opened(tmp_path) as (audit, told):
        task = asyncio.create_task(audit.append("api.requested", SOMEBODY))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await audit.append("api.requested", SOMEBODY)).n == 2
        assert told.heads[-1].n == 2


async def test_a_disk_that_hangs_delays_whoever_notes_something_a_little_and_then_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "MAX_WAITING", 2)
    hanging = threading.Event()
    fsync = os.fsync

    def slow(descriptor: int) -> None:
        hanging.wait(20)
        fsync(descriptor)

    async with opened(tmp_path) as (audit, told):
        await audit.append("service.started", ME)
        monkeypatch.setattr(os, "fsync", slow)
        async with asyncio.timeout(5):
            await audit.note("api.requested", SOMEBODY, within_s=0.05)
            await audit.note("api.requested", SOMEBODY, within_s=0.05)
            with pytest.raises(AuditError, match="2 records wait"):
                await audit.append("enroll.begun", SOMEBODY)
        problem = told.problems[-1]
        assert problem is not None
        assert problem.what == f"{tmp_path}/audit.ndjson takes no record within 0.05 s"
        hanging.set()
        await until(lambda: len(told.heads) > 1 and told.problems[-1] is None)
        await audit.append("api.requested", SOMEBODY)
        assert (told.problems[-1], told.heads[-1].n) == (None, 4)


async def test_what_must_be_audited_raises_and_what_has_happened_only_reports(tmp_path: Path) -> None:
    with AuditLog(tmp_path, ME) as holder:
        async with opened(tmp_path) as (audit, told):
            with pytest.raises(AuditError, match="in use by pid"):
                await audit.append("enroll.begun", SOMEBODY)
            await audit.note("service.started", ME)
            await audit.mend()
            assert [type(problem) for problem in told.problems] == [AuditError] * 3
            assert told.heads == []
            with pytest.raises(AuditError):
                await audit.verify()
            holder.close()
            await audit.mend()
            assert told.problems[-1] is None
            assert audit.head is not None
            assert audit.head.n == 1  # two records could not be written: that is one
            await audit.mend()
            assert audit.head.n == 1


async def test_a_log_that_was_changed_is_reported_at_the_first_record_and_until_it_is_whole(tmp_path: Path) -> None:
    write(tmp_path, 4)
    path = tmp_path / "audit.ndjson"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"POST /v1/1", b"POST /v1/7"))
    async with opened(tmp_path) as (audit, told):
        await audit.append("service.started", ME)
        await audit.append("api.requested", SOMEBODY)
        assert [problem.data["line"] for problem in told.problems if isinstance(problem, AuditBroken)] == [2, 2]
        assert (await audit.verify(audit.head)).findings[0].line == 2
        assert told.problems[-1] is not None
        path.write_bytes(whole + path.read_bytes()[len(whole) :])
        assert (await audit.verify()).findings == ()
        assert told.problems[-1] is None
        await audit.append("api.requested", SOMEBODY)
        assert told.problems[-1] is None


async def test_a_head_that_somebody_claims_raises_no_alarm_here(tmp_path: Path) -> None:
    async with opened(tmp_path) as (audit, told):
        await audit.append("service.started", ME)
        assert (await audit.verify(Head(1, "0" * 64))).findings[0].kind == "edited"
        assert told.problems == [None, None]
        path = tmp_path / "audit.ndjson"
        path.unlink()
        assert (await audit.verify()).findings[0].kind == "truncated"
        path.mkdir()
        with pytest.raises(AuditError, match="cannot be read"):
            await audit.verify()


async def test_a_flood_of_refusals_is_one_record_a_minute_and_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ann, bob = (Peer(os.getpid(), uid, frozenset()) for uid in (54321, 54322))

    def denied() -> list[tuple[int, dict[str, object]]]:
        found = [json.loads(line) for line in (tmp_path / "audit.ndjson").read_bytes().splitlines()]
        return [(record["who"]["uid"], record["data"]) for record in found]

    monkeypatch.setattr(trail_module, "WINDOW_S", 0.05)
    async with opened(tmp_path) as (audit, _):
        trail = trail_module.Trail(audit)
        for _ in range(30):
            await trail.denied(ann, "GET /v1/config", Role.TECH)
        await trail.denied(bob, "GET /v1/audit", Role.TECH)
        await until(lambda: not trail._floods)  # a window without any
        one = {"asked": "GET /v1/config", "needs": "tech"}
        assert sum(int(str(data.get("count", 1))) for uid, data in denied() if uid == 54321) == 30
        assert len(denied()) < 30
        assert (denied()[0], denied()[-1][0] == 54322 or "count" in denied()[-1][1]) == ((54321, one), True)
        monkeypatch.setattr(trail_module, "WINDOW_S", 60)
        before = len(denied())
        for asked in ("GET /v1/config", "GET /v1/config", "GET /v1/audit"):
            await trail.denied(ann, asked, Role.ADMIN)
        assert denied()[before:] == [(54321, {"asked": "GET /v1/config", "needs": "admin"})]
        await trail.end()
        assert denied()[-1] == (54321, {"asked": "GET /v1/audit", "needs": "admin", "count": 2})


async def test_a_log_is_closed_twice_and_takes_no_more(tmp_path: Path) -> None:
    async with opened(tmp_path) as (audit, _):
        await audit.append("service.started", ME)
        await audit.close(5)
        write(tmp_path, 1)
        await audit.close(5)

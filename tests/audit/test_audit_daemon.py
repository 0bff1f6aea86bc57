"""The audit log of the running daemon: over its API by role, and by the program `bridge`; on MQTT its head."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import pwd
import resource
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from optima_bridge import service as service_module
from optima_bridge.api import audit as api_audit
from optima_bridge.audit import Actor, AuditLog
from optima_bridge.audit import audit as audit_module
from optima_bridge.cli import main
from optima_bridge.cli.options import Settings
from tests.audit.logs import ME, chain, judged, write
from tests.daemon.store import Daemon, running
from tests.daemon.test_disk import fill, small_disk
from tests.support import Mosquitto, subscribed, until
from tests.unit.api_store import Store, bridge
from tests.unit.test_api_peers import GROUPS, SOMEBODY, TECH, VIEW, gid, needs_curl, needs_root

__all__ = ["small_disk"]  # a fixture


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store(groups=GROUPS) as store:
        yield store


@pytest.fixture
def env(store: Store) -> dict[str, str]:
    return {"OPTIMA_BRIDGE_SOCKET": str(store.socket)}


def file_of(store: Store) -> Path:
    return store.directory / "journal" / "audit.ndjson"


def records(path: Path, action: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in path.read_bytes().splitlines()]
    return [record for record in found if action in ("", record["action"])]


async def test_start_requests_and_end_are_in_the_log(store: Store) -> None:
    await store.ask("POST", "/v1/replay", b'{"from":1,"to":2}')
    await store.ask("GET", "/v1/status")
    await store.stop()
    started, requested, stopped = records(file_of(store))
    assert [it["action"] for it in (started, requested, stopped)] == [
        "service.started",
        "api.requested",
        "service.stopped",
    ]
    assert (started["who"]["via"], started["data"]["epoch"]) == ("daemon", store.service.journal.epoch)
    assert requested["data"] == {"asked": "POST /v1/replay"}
    who = requested["who"]
    assert (who["via"], who["uid"], who["pid"]) == ("socket", os.geteuid(), os.getpid())
    assert who["program"] == Path("/proc/self/comm").read_text().strip()
    assert judged(file_of(store).parent).findings == ()
    await store.service.audit.close(1)


async def test_the_status_has_the_head_and_the_site_gets_it_retained(store: Store) -> None:
    head = store.service.audit.head
    assert head is not None
    expected = {"n": 1, "hash": head.hash, "time": head.time}
    assert (await store.ask("GET", "/v1/status"))[1]["audit"] == expected
    assert json.loads(store.service.hub.retained["optima/v1/s1/pc1/meta/bridge/audit"]) == expected


async def ask_as(store: Store, groups: tuple[str, ...], *arguments: str) -> int:
    process = await asyncio.create_subprocess_exec(
        *(
            "curl",
            "-sS",
            "--max-time",
            "20",
            "--unix-socket",
            str(store.socket),
            "-o",
            "/dev/null",
            "-w",
            "%{http_code}",
        ),
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        user=SOMEBODY,
        group=SOMEBODY,
        extra_groups=[gid(name) for name in groups],
    )
    out, _ = await process.communicate()
    return int(out)


@needs_root
@needs_curl
@pytest.mark.parametrize(("groups", "statuses"), [((VIEW,), [403] * 3), ((VIEW, TECH), [200, 200, 403])])
async def test_technicians_may_look_and_check_and_only_admins_take_a_copy(
    store: Store, groups: tuple[str, ...], statuses: list[int]
) -> None:
    paths = ("audit", "audit/verify", "audit/export")
    assert [await ask_as(store, groups, f"http://x/v1/{path}") for path in paths] == statuses
    denied = records(file_of(store), "access.denied")[0]
    assert (denied["who"]["uid"], denied["who"]["program"]) == (SOMEBODY, "curl")
    assert denied["data"]["asked"] == f"GET /v1/{paths[statuses.index(403)]}"
    assert denied["data"]["needs"] == ("tech" if len(groups) == 1 else "admin")


async def test_the_list_has_what_the_filters_let_through(store: Store, env: dict[str, str]) -> None:
    audit, requester = store.service.audit, Actor(via="mqtt", client="loss-prevention")
    await audit.append("enroll.begun", requester, device="front", job="7f3a")
    await audit.append("enroll.ended", requester, device="front", job="7f3a", outcome="verified")
    await audit.append("credential.revoked", ME, sha256="5c0f")

    async def listed(query: str = "") -> list[str]:
        answer = await store.talk(f"GET /v1/audit?{query} HTTP/1.0\r\n\r\n".encode())
        return [json.loads(line)["action"] for line in answer.partition(b"\r\n\r\n")[2].splitlines()]

    everything = ["service.started", "enroll.begun", "enroll.ended", "credential.revoked"]
    with file_of(store).open("ab") as file:
        file.write(b'{"n":5,"ti')
    assert await listed() == everything
    assert await listed("since=1h") == everything
    assert await listed("since=2001-01-01") == everything
    assert await listed("since=2999-01-01T00:00:00%2B02:00") == []
    assert await listed(f"actor={os.geteuid()}") == ["service.started", "credential.revoked"]
    assert await listed("actor=loss-prevention&device=front") == everything[1:3]
    assert await listed("action=enroll") == everything[1:3]
    assert await listed("action=enroll.ended") == ["enroll.ended"]
    status, out, _ = await bridge("audit", "list", "--json", "--device", "front", env=env)
    *found, result = map(json.loads, out.splitlines())
    assert [it["record"]["n"] for it in found] == [2, 3]
    assert (status, result) == (0, {"type": "result", "ok": True, "rc": 0, "error": None, "records": 2})


async def test_people_see_who_did_it_to_what(
    store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    me = Actor(via="socket", uid=os.geteuid(), login_uid=1, pid=4711, program="bridge")
    await store.service.audit.append("enroll.ended", me, device="front", job="7f3a", outcome="verified")
    options = ("audit", "list", "--action", "enroll", "--socket", str(store.socket))
    assert await here(*options) == 0
    when, _, rest = capsys.readouterr().out.splitlines()[-1].partition("  ")
    user, login = (pwd.getpwuid(uid).pw_name for uid in (os.geteuid(), 1))
    told = "enroll.ended  device=front job=7f3a outcome=verified program=bridge pid=4711"
    assert (when[-1], rest) == ("Z", f"2  {login} as {user}  {told}")
    monkeypatch.setattr(Settings, "for_people", True)
    assert await here(*options) == 0
    when, _, rest = capsys.readouterr().out.splitlines()[-1].partition("  ")
    assert (len(when), rest) == (len("2026-11-22 13:35:06"), f"2  {login} as {user}  {told}")


async def here(*arguments: str) -> int:
    """The command line in this process, on a thread."""
    return await asyncio.to_thread(main, arguments)


@pytest.mark.parametrize(
    "query", ["?since=yesterday", "?since=9999999d&by=1", "?until=1", "/verify?head=1:2", "/verify?heads=1"]
)
async def test_a_wrong_question_gets_an_error_that_helps(store: Store, query: str) -> None:
    status, document = await store.ask("GET", f"/v1/audit{query}")
    assert (status, document["code"]) == (400, "E-USAGE")


async def test_a_long_log_is_streamed_and_copied_to_the_byte(
    store: Store, env: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(300):
        await store.service.audit.append("api.requested", ME, asked="x" * 290)
    copy = tmp_path / "copy.ndjson"
    status, out, err = await bridge("audit", "export", str(copy), env=env)
    head = store.service.audit.head
    assert (status, err) == (0, "")
    assert out == f"302 records in {copy}; keep the head elsewhere: {head}\n"
    assert copy.read_bytes() == file_of(store).read_bytes()
    assert copy.stat().st_mode & 0o777 == 0o600
    assert records(copy)[-1]["action"] == "audit.exported"
    assert await here("audit", "list", "--action", "api.requested", "--socket", str(store.socket)) == 0
    listed = [line for line in capsys.readouterr().out.splitlines() if "api.requested  asked=xxx" in line]
    assert len(listed) == 300
    status, out, _ = await bridge("audit", "verify", str(copy), "--head", str(head))
    assert (status, out) == (0, f"whole: 302 records, has the record that was given\nhead {head}\n")
    assert await here("audit", "verify", str(copy), "--json") == 0
    assert json.loads(capsys.readouterr().out)["compared"] == "none"
    assert await here("audit", "export", str(copy), "--socket", str(store.socket)) == 2
    assert "already" in capsys.readouterr().err
    assert copy.read_bytes() == file_of(store).read_bytes()
    assert await here("audit", "export", str(copy) + "2", "--json", "--socket", str(store.socket)) == 0
    assert json.loads(capsys.readouterr().out)["head"] == str(store.service.audit.head)


async def test_a_client_that_takes_nothing_is_dropped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_audit, "WRITE_TIMEOUT_S", 0.1)
    with file_of(store).open("ab") as file:
        file.truncate(64 << 20)
    reader, writer = await asyncio.open_unix_connection(store.socket, limit=1)
    writer.write(b"GET /v1/audit/export HTTP/1.0\r\n\r\n")
    taken = len(await reader.read(1))
    await asyncio.sleep(1)
    async with asyncio.timeout(20):
        while chunk := await reader.read(1 << 20):
            taken += len(chunk)
    writer.close()
    assert taken < 64 << 20
    reader, writer = await asyncio.open_unix_connection(store.socket)
    writer.write(b"GET /v1/audit/export HTTP/1.0\r\n\r\n")
    await reader.read(1)
    writer.transport.abort()
    assert (await store.ask("GET", "/v1/version"))[0] == 200


async def test_a_log_that_cannot_be_read_is_an_error_and_no_empty_list(store: Store) -> None:
    file_of(store).unlink()
    for path in ("/v1/audit", "/v1/audit/verify"):
        status, document = await store.ask("GET", path)
        assert (status, document["code"]) in ((503, "E-AUDIT"), (409, "E-AUDIT-BROKEN"))
    assert (await store.ask("GET", "/v1/audit"))[1]["what"] == "the audit log cannot be read: No such file or directory"


async def test_a_copy_that_breaks_off_is_no_file(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / "copy"
    assert await here("audit", "export", str(tmp_path / "nowhere" / "copy"), "--socket", str(store.socket)) == 2
    assert "cannot be written: no such file or directory" in capsys.readouterr().err
    assert await here("audit", "export", str(copy), "--socket", str(tmp_path / "no")) == 8
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    await store.service.audit.append("api.requested", ME, **{f"x{n}": "x" * 290 for n in range(20)})
    monkeypatch.setattr(store.service.audit, "note", lambda *_: asyncio.sleep(0))  # would not fit, either
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        assert await here("audit", "export", str(copy), "--socket", str(store.socket)) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot be written: file too large" in capsys.readouterr().err
    assert not copy.exists()


async def test_a_stream_that_breaks_off_is_noticed(tmp_path: Path) -> None:
    """By a server whose disk gives nothing more in the middle."""

    def broken() -> Iterator[bytes]:
        yield chain(1)[0]
        raise OSError(errno.EIO, "Input/output error")

    app = web.Application()

    async def handler(request: web.Request) -> web.StreamResponse:
        return await api_audit._send(request, broken())

    app.router.add_get("/v1/audit/export", handler)
    app.router.add_get("/v1/audit", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    socket = tmp_path / "broken.sock"
    await web.UnixSite(runner, str(socket)).start()
    try:
        assert await here("audit", "export", str(tmp_path / "copy"), "--socket", str(socket)) == 8
        assert await here("audit", "list", "--socket", str(socket)) == 8
    finally:
        await runner.cleanup()
    assert not (tmp_path / "copy").exists()


async def test_a_good_log_is_verified_by_the_daemon_and_a_kept_head_is_found_in_it(
    store: Store, env: dict[str, str]
) -> None:
    first = store.service.audit.head
    await store.service.audit.append("credential.revoked", ME)
    status, out, _ = await bridge("audit", "verify", env=env)
    assert (status, out.splitlines()[0]) == (0, "whole: 2 records, ends as the daemon knows")
    status, out, _ = await bridge("audit", "verify", "--head", str(first), "--json", env=env)
    assert (status, json.loads(out)["compared"], json.loads(out)["records"]) == (0, "given", 2)
    later = f"3:{'0' * 64}"
    status, _, err = await bridge("audit", "verify", "--head", later, env=env)
    assert (status, "line 3 truncated: the log ends with record 2, and had a record 3" in err) == (10, True)
    assert store.service.hub.alerts == {}


async def test_a_changed_log_is_named_by_line_and_kind_and_stays_an_alert(store: Store, env: dict[str, str]) -> None:
    for _ in range(5):
        await store.service.audit.append("credential.revoked", ME)
    path = file_of(store)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"n":3', b'"n":4'))
    status, out, err = await bridge("audit", "verify", "--json", env=env)
    document = json.loads(out)
    assert (status, document["code"], document["data"]["line"], document["data"]["kind"]) == (
        10,
        "E-AUDIT-BROKEN",
        3,
        "edited",
    )
    assert "E-AUDIT-BROKEN" in err
    [alert] = (await store.ask("GET", "/v1/status"))[1]["alerts"]
    assert (alert["name"], alert["code"]) == ("audit", "E-AUDIT-BROKEN")
    copy = store.directory / "copy"
    status, _, err = await bridge("audit", "export", str(copy), env=env)
    assert (status, err.startswith("warning E-AUDIT-BROKEN: ")) == (0, True)
    path.write_bytes(whole)
    assert (await bridge("audit", "verify", env=env))[0] == 10  # the record of the export is gone now
    status, _, err = await bridge("audit", "verify", str(copy))
    assert (status, f"{copy}: line 3 edited" in err) == (10, True)


async def test_beside_its_head_a_file_is_compared_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 2)
    path = tmp_path / "audit.ndjson"
    assert await here("audit", "verify", str(path)) == 0
    assert capsys.readouterr().out.splitlines()[0] == "whole: 2 records, has the record that audit.head names"
    path.write_bytes(path.read_bytes()[:-1])
    assert await here("audit", "verify", str(path)) == 10
    assert "line 2 truncated" in capsys.readouterr().err
    write(tmp_path, 0)
    (tmp_path / "audit.head").unlink()
    assert await here("audit", "verify", "-q", str(path)) == 10
    assert await here("audit", "verify", str(path), "--head", "two:5c0f") == 2


async def test_torn_lines_that_are_accounted_for_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(tmp_path, 1)
    with (tmp_path / "audit.ndjson").open("ab") as file:
        file.write(b'{"n":2')
    write(tmp_path, 1)
    assert await here("audit", "verify", str(tmp_path / "audit.ndjson")) == 0
    assert capsys.readouterr().out.startswith("whole: 3 records, 1 torn lines that are accounted for, has the record")


async def test_no_log_and_a_disk_that_takes_nothing_stop_no_event(tmp_path: Path) -> None:
    """Another process has the log: it may be `bridge enroll --standalone`, in a hurry."""
    daemon = Daemon(tmp_path / "node", api=True)
    daemon.state.mkdir(parents=True)
    with AuditLog(daemon.state, ME):
        async with running(daemon):
            [alert] = (await daemon.ask("/v1/status"))["alerts"]
            assert (alert["name"], alert["code"]) == ("audit", "E-AUDIT")
            assert f"pid {os.getpid()}" in alert["what"]
            assert len(daemon.entries("audit.failed")) == 1
            assert (await daemon.ask("/v1/audit/verify"))["code"] == "E-AUDIT"


async def test_the_log_mends_by_itself_when_the_other_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service_module, "HEALTH_S", 0.05)
    store = Store()
    (store.directory / "journal").mkdir()
    holder = AuditLog(store.directory / "journal", ME)
    holder.open()
    async with store:
        assert ("bridge", "audit") in store.service.hub.alerts
        holder.close()
        await until(lambda: not store.service.hub.alerts)
        assert [it["action"] for it in records(file_of(store))] == ["audit.lost"]


@needs_curl
async def test_with_a_full_disk_requests_are_answered_and_an_alert_is_open(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "NOTE_S", 1.0)
    daemon = Daemon(small_disk.parent / "node", api=True, state=small_disk / "state")
    async with running(daemon):
        fill(small_disk / "filler")
        replay = ["curl", "-s", "--unix-socket", str(daemon.directory / "api.sock"), "http://x/v1/replay", "-d"]

        def ask() -> bool:
            done = subprocess.run([*replay, '{"from":1,"to":2}'], capture_output=True, text=True)
            assert json.loads(done.stdout)["code"] == "E-SINK"
            return bool(daemon.entries("audit.failed"))

        await until(ask)
        assert "audit" in [alert["name"] for alert in (await daemon.ask("/v1/status"))["alerts"]]
        (small_disk / "filler").unlink()
        ask()
        await daemon.logged("audit.recovered")
    assert judged(daemon.state).findings == ()


async def test_a_daemon_that_is_killed_goes_on_with_the_same_chain(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "node", api=True)
    for _ in range(2):
        await daemon.start()
        head = (await daemon.ask("/v1/status"))["audit"]
        await daemon.kill()
    assert (head["n"], judged(daemon.state).findings, judged(daemon.state).records) == (2, (), 2)


@pytest.mark.broker
async def test_the_last_head_is_on_the_broker_after_the_daemon_has_ended(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    daemon = Daemon(tmp_path / "node", port=mosquitto.port, api=True)
    async with subscribed(mosquitto.port) as seen:
        async with running(daemon):
            await seen.until(lambda: bool(seen.payloads("meta/bridge/audit")))
        await seen.until(lambda: len(seen.payloads("meta/bridge/audit")) == 2)
        [*_, last] = records(daemon.state / "audit.ndjson")
        assert last["action"] == "service.stopped"
        assert seen.payloads("meta/bridge/audit")[-1] == {key: last[key] for key in ("n", "hash", "time")}
        assert [line["retain"] for line in seen.lines if "meta/bridge/audit" in line["topic"]]

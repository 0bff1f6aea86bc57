"""Enrolments are in the audit log: before the device's first byte, and however they end."""

from __future__ import annotations

import json
import os
from typing import Any

from optima_bridge.audit import AuditLog
from optima_bridge.enroll.words import fingerprint
from tests.audit.logs import ME, judged
from tests.daemon.test_enroll import BEFORE, Store, store
from tests.enroll.pki_world import der
from tests.support import until

__all__ = ["store"]  # a fixture


def records(store: Store, action: str = "") -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (store.daemon.state / "audit.ndjson").read_bytes().splitlines()]
    return [record for record in found if action in (record["action"], record["action"].partition(".")[0])]


async def test_an_enrolment_and_a_revocation_are_on_record_with_who_asked_and_how_they_ended(store: Store) -> None:
    certificate, file = store.file()
    sha256 = fingerprint(der(certificate))
    assert (await store.enroll("--cert", file, "--reason", "key 7 was lost"))[0] == 0
    await until(lambda: records(store, "enroll.ended"))
    begun, ended = records(store, "enroll")
    assert begun["action"] == "enroll.begun"
    assert begun["data"] == {
        "kind": "enroll",
        "reader": "till-3",
        "reason": "key 7 was lost",
        "certificate": sha256,
    }
    outcome = {"outcome": "verified, active", "changed": True, "active": sha256, "code": ""}
    assert ended["data"] == {"kind": "enroll", **outcome}
    for record in (begun, ended):
        assert (record["device"], record["job"]) == ("till-3", begun["job"])
        assert (record["who"]["via"], record["who"]["uid"]) == ("socket", os.geteuid())
        assert record["who"]["pid"] != os.getpid()
    assert (await store.enroll("--cert", file, "--dry-run"))[0] == 0
    assert len(records(store, "enroll")) == 2
    words = ("credentials", "revoke", sha256[:8], "--yes", "--label", "supervisor key 7", "--reason", "stolen")
    assert (await store.bridge(*words))[0] == 0
    [revoked] = records(store, "credential.revoked")
    assert revoked["data"] == {"certificate": sha256, "reason": "stolen"}
    assert (await store.bridge(*words))[0] == 0
    assert len(records(store, "credential.revoked")) == 1  # it was revoked before
    assert judged(store.daemon.state).findings == ()


async def test_an_enrolment_that_cannot_be_audited_is_refused_before_its_first_write(store: Store) -> None:
    _, file = store.file()
    (store.daemon.state / "audit.ndjson").rename(store.daemon.state / "away")
    (store.daemon.state / "audit.ndjson").mkdir()
    status, _, err = await store.enroll("--cert", file)
    assert (status, err.startswith("error E-AUDIT: "), store.simulator.flash.writes) == (9, True, 0)
    assert (await store.daemon.ask("/v1/jobs"))["jobs"] == []
    assert [alert["name"] for alert in (await store.daemon.ask("/v1/status"))["alerts"]] == ["audit"]
    (store.daemon.state / "audit.ndjson").rmdir()
    (store.daemon.state / "away").rename(store.daemon.state / "audit.ndjson")
    assert (await store.enroll("--cert", file))[0] == 0
    assert (await store.daemon.ask("/v1/status"))["alerts"] == []
    assert records(store, "audit.lost")[0]["data"]["count"] >= 2  # the request, and the enrolment


async def test_what_a_killed_daemon_left_is_on_record_once_it_is_settled(store: Store) -> None:
    (_, first), (_, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    store.device.hold(BEFORE)
    process = await store.start("enroll", "till-3", "--cert", second, "--replace")
    await until(lambda: bool(store.device.waiting))
    await store.daemon.kill()
    await process.communicate()
    store.device.let_go()
    await store.daemon.start()
    await until(lambda: records(store, "enroll.settled"))
    *_, begun, settled = records(store, "enroll")
    assert (begun["action"], settled["job"]) == ("enroll.begun", begun["job"])
    assert settled["data"]["outcome"] == "rolled back"
    assert (begun["who"]["via"], settled["who"]["via"]) == ("socket", "daemon")
    assert judged(store.daemon.state).only_torn


async def test_an_enrolment_without_the_daemon_is_on_record_too_or_refused(store: Store) -> None:
    certificate, file = store.file()
    assert await store.daemon.stop() == 0
    words = ("--cert", file, "--standalone", "--config", str(store.directory / "config.toml"), "--reason", "by hand")
    with AuditLog(store.daemon.state, ME):
        status, _, err = await store.enroll(*words)
        assert (status, "error E-AUDIT: " in err, store.simulator.flash.writes) == (9, True, 0), err
    assert (await store.enroll(*words, "--dry-run"))[0] == 0
    assert records(store, "enroll") == []
    assert (await store.enroll(*words))[0] == 0
    begun, ended = records(store, "enroll")
    assert begun["data"] == {"kind": "enroll", "reason": "by hand"}
    assert (ended["data"]["outcome"], ended["data"]["active"]) == ("verified, active", fingerprint(der(certificate)))
    assert [record["who"]["via"] for record in (begun, ended)] == ["standalone"] * 2
    assert begun["job"] == ended["job"]
    assert judged(store.daemon.state).findings == ()


async def test_what_a_killed_standalone_enrolment_left_is_on_record_once_the_daemon_settles_it(store: Store) -> None:
    (_, first), (_, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    assert await store.daemon.stop() == 0
    store.device.hold(BEFORE)
    words = ("--cert", second, "--replace", "--standalone", "--config", str(store.directory / "config.toml"))
    process = await store.start("enroll", "till-3", *words)
    await until(lambda: bool(store.device.waiting))
    process.kill()
    await process.communicate()
    store.device.let_go()
    await store.daemon.start()
    await until(lambda: records(store, "enroll.settled"))
    *_, begun, settled = records(store, "enroll")
    assert [begun["action"], begun["who"]["via"], settled["who"]["via"]] == ["enroll.begun", "standalone", "daemon"]
    assert (settled["job"], settled["data"]["outcome"]) == (begun["job"], "rolled back")
    assert judged(store.daemon.state).only_torn

"""``bridge enroll`` through the running daemon: jobs that outlive client and daemon, on devices behind ptys."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from optima_bridge.cli import app
from optima_bridge.enroll.pki import possession
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.words import fingerprint
from optima_bridge.link.ptys import PtyServer
from optima_drivers.loopback.simulator import LoopbackSimulator
from tests.daemon.store import Daemon, running
from tests.enroll.pki_world import credential, der, pem
from tests.support import TIMEOUT_S, until
from tests.unit.api_store import BRIDGE

ROM = "01B7BA1000000075"
OTHER_ROM = "01AABB10000000C4"


class Slow:
    """A loopback device that waits with its answers to writes while it is `held`; `held_after`: from that write on."""

    def __init__(self) -> None:
        self.simulator = LoopbackSimulator(serial="till-3")
        self.held_after: int | None = None
        self.waiting: list[bytes] = []
        self.server: PtyServer | None = None

    def receive(self, data: bytes) -> bytes:
        answer = self.simulator.receive(data)
        if self.held_after is not None and self.simulator.flash.writes >= self.held_after:
            self.waiting.append(answer)
            return b""
        return answer

    def hold(self, writes: int) -> None:
        """Stop answering after so many writes from now."""
        self.held_after = self.simulator.flash.writes + writes

    def let_go(self) -> None:
        assert self.server is not None
        self.held_after = None
        for answer in self.waiting[-1:]:
            self.server.send(answer)
        self.waiting.clear()


class Store:
    """A running daemon with one controller, its CA, and the command line."""

    def __init__(self, directory: Path, device: Slow) -> None:
        self.directory, self.device = directory, device
        self.simulator = device.simulator
        self.daemon = Daemon(directory, devices={"till-3": directory / "port"}, api=True)
        self.daemon.state.mkdir()
        ca = str(self.daemon.state / "ca")
        assert app.main(["-q", "ca", "init", "--directory", ca, "--organization", "Retail", "--store", "s1042"]) == 0
        self.authority = CertificateAuthority.open(Path(ca))

    def file(self, **changes: Any) -> tuple[x509.Certificate, str]:
        """A new certificate, and the file that it is in."""
        about = credential(device_serial="till-3", identifier=bytes.fromhex(ROM), **changes)
        key = possession.unproven(ec.generate_private_key(ec.SECP256R1()).public_key())
        certificate = self.authority.issue(key, about, datetime.now(UTC))
        path = self.directory / f"{certificate.serial_number}.pem"
        path.write_bytes(pem(certificate))
        return certificate, str(path)

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *BRIDGE, "--socket", str(self.directory / "api.sock"), *words,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip

    async def bridge(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        process = await self.start(*words)
        async with asyncio.timeout(TIMEOUT_S):
            out, err = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode(), err.decode()

    async def enroll(self, *words: str) -> tuple[int, str, str]:
        return await self.bridge("enroll", "till-3", *words)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    device = Slow()
    it = Store(tmp_path, device)
    async with PtyServer(device, symlink=tmp_path / "port") as server:
        device.server = server
        device.simulator.attach(server.send)
        async with running(it.daemon):
            await it.daemon.until_device("till-3", "up")
            yield it


async def test_a_certificate_goes_in_through_the_daemon_and_everybody_can_see_how(store: Store) -> None:
    certificate, file = store.file()
    status, out, err = await store.enroll("--cert", file)
    assert (status, store.simulator.credential()) == (0, der(certificate)), err
    *phases, last = out.splitlines()
    assert [line.split()[0] for line in phases] == ["check", "backup", "write", "verify", "commit", "confirm"]
    assert last.startswith(f"verified, active: {fingerprint(der(certificate))} ")

    status, out, err = await store.enroll("--cert", file, "--json")
    result = json.loads(out.splitlines()[-1])
    assert (status, result["type"], result["outcome"], result["changed"]) == (0, "result", "not changed", False), err

    listed = json.loads((await store.bridge("jobs", "list", "--json"))[1])["jobs"]
    assert [(job["state"], job["result"]["changed"]) for job in listed] == [("done", False), ("done", True)]
    assert [event["data"]["action"] for event in store.daemon.committed("till-3/job")][:2] == ["begun", "advanced"]
    watched = await store.bridge("jobs", "watch", listed[1]["id"][:6])
    assert (watched[0], watched[1].splitlines()[-1]) == (0, last)


async def test_the_ca_of_the_store_issues_for_the_key_that_is_put_in(store: Store) -> None:
    status, out, err = await store.enroll()
    assert (status, "error E-KEY-ABSENT: " in err, store.simulator.flash.writes) == (5, True, 0), err
    process = await store.start("enroll", "till-3", "--wait-key", "60")
    await until(lambda: any(event["data"]["phase"] == "wait" for event in store.daemon.committed("till-3/job")))
    store.simulator.key_in(ROM)
    async with asyncio.timeout(TIMEOUT_S):
        said, error = await process.communicate()
    assert process.returncode == 0, error.decode()
    assert said.decode().splitlines()[0].startswith("wait ")
    assert said.decode().splitlines()[-1].endswith("(identifier only)")
    held = x509.load_der_x509_certificate(store.simulator.credential() or b"")
    assert ROM in held.subject.rfc4514_string()
    issued = store.authority.counts().issued

    for words in ((), ("--dry-run",), ("--number", "1")):  # the same key again
        status, out, err = await store.enroll(*words)
        assert (status, out.splitlines()[-1][:23]) == (0, "not changed: active is "), err
    status, out, err = await store.enroll("--number", "2")
    assert (status, "error E-ENROLL-OCCUPIED: " in err) == (5, True), err
    store.simulator.key_in(OTHER_ROM)
    await until(lambda: len(store.daemon.committed("till-3/key")) >= 2)
    status, out, err = await store.enroll()
    assert (status, "error E-ENROLL-OCCUPIED: " in err) == (5, True), err
    status, out, err = await store.enroll("--replace", "--dry-run")
    assert (status, "would    write " in out) == (0, True), err
    assert store.authority.counts().issued == issued, "nothing is issued in vain"


async def test_another_key_than_the_certificates_is_refused(store: Store) -> None:
    _, file = store.file()
    store.simulator.key_in("01B7BA1000000076")
    await until(lambda: bool(store.daemon.committed("till-3/key")))
    status, _, err = await store.bridge("enroll", "till-3", "--controller", "till-3", "--cert", file)
    assert (status, "error E-KEY-OTHER: " in err, store.simulator.flash.writes) == (5, True, 0), err


async def test_a_controller_in_the_middle_of_something_is_left_alone(store: Store) -> None:
    _, file = store.file()
    for word in ("PENDING", "BUSY"):
        store.simulator.controller(word)
        await until(partial(_says, store, word.lower()))
        status, _out, err = await store.enroll("--cert", file)
        assert (status, "error E-CONTROLLER-BUSY: " in err, store.simulator.flash.writes) == (6, True, 0), err
        assert "as soon as till-3 reports ready" in err
    store.simulator.controller("READY")
    await until(partial(_says, store, "ready"))
    assert (await store.enroll("--cert", file))[0] == 0


def _says(store: Store, word: str) -> bool:
    return word in str(store.daemon.committed("till-3/controller")[-1:])


async def job_id(store: Store) -> str:
    """The job that is at work."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            jobs = (await store.daemon.ask("/v1/jobs"))["jobs"]
            if jobs and jobs[0]["state"] == "running":
                return str(jobs[0]["id"])
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("how", ["jobs cancel", "Ctrl-C"])
async def test_a_job_that_is_writing_can_be_stopped_and_another_one_has_to_wait(how: str, store: Store) -> None:
    (old, first), (_, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    store.device.hold(400)
    process = await store.start("enroll", "till-3", "--cert", second, "--replace")
    await until(lambda: bool(store.device.waiting))
    busy = await job_id(store)
    status, _, err = await store.enroll("--cert", first)
    assert (status, "error E-ENROLL-BUSY: " in err, busy in err) == (6, True, True), err
    if how == "Ctrl-C":
        process.send_signal(signal.SIGINT)
    else:
        assert (await store.bridge("jobs", "cancel", busy[:5]))[0] == 0
    store.device.let_go()
    async with asyncio.timeout(TIMEOUT_S):
        out, err2 = await process.communicate()
    assert (process.returncode, store.simulator.credential()) == (130, der(old)), err2.decode()
    assert out.decode().splitlines()[-1].startswith("not changed: the old certificate is active: ")
    status, _, err = await store.bridge("jobs", "cancel", busy)
    assert (status, "error E-NOT-FOUND: " in err) == (3, True), err


async def test_a_job_that_nobody_watches_goes_on_and_an_old_certificate_comes_back(store: Store) -> None:
    (old, first), (new, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    status, out, err = await store.enroll("--cert", second, "--replace", "--detach")
    assert status == 0, err
    status, out, err = await store.bridge("jobs", "watch", out.strip())
    assert (status, store.simulator.credential()) == (0, der(new)), err

    status, out, err = await store.enroll("--rollback")
    assert (status, store.simulator.credential()) == (0, der(old)), err
    assert out.splitlines()[-1].startswith(f"verified, active: {fingerprint(der(old))} ")


BEFORE, BEHIND = (
    400,
    9 + 10 + 1,
)  # writes: in the middle of the new certificate; pages, record and the byte that activates


@pytest.mark.parametrize("behind", [False, True], ids=["while it writes", "while it switches"])
async def test_sigterm_undoes_a_job_or_finishes_it(behind: bool, store: Store) -> None:
    (old, first), (new, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    store.device.hold(len(der(new)) + BEHIND if behind else BEFORE)
    process = await store.start("enroll", "till-3", "--cert", second, "--replace")
    await until(lambda: bool(store.device.waiting))
    daemon = store.daemon.process
    assert daemon is not None
    daemon.send_signal(signal.SIGTERM)
    await asyncio.sleep(0.05)
    store.device.let_go()
    assert await store.daemon.ended() == 0
    await process.communicate()
    assert store.simulator.credential() == der(new if behind else old)

    await store.daemon.start()
    await store.daemon.until_device("till-3", "up")
    job = (await store.daemon.ask("/v1/jobs"))["jobs"][0]
    assert (job["state"], job["result"]["outcome"]) == ("done", "verified, active" if behind else "not changed")


@pytest.mark.parametrize("behind", [False, True], ids=["while it writes", "while it switches"])
async def test_a_killed_daemon_settles_its_job_at_the_next_start_and_says_which_is_active(
    behind: bool, store: Store
) -> None:
    (old, first), (new, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    store.device.hold(len(der(new)) + BEHIND if behind else BEFORE)
    process = await store.start("enroll", "till-3", "--cert", second, "--replace")
    await until(lambda: bool(store.device.waiting))
    await store.daemon.kill()
    await process.communicate()
    assert process.returncode == 8  # the stream broke off: no daemon
    store.device.let_go()

    await store.daemon.start()
    await store.daemon.logged("enroll.settled")
    job = (await store.daemon.ask("/v1/jobs"))["jobs"][0]
    active = fingerprint(der(new if behind else old))
    assert (job["state"], job["result"]["active"]["sha256"]) == ("done", active)
    assert job["result"]["outcome"] == ("verified, active" if behind else "rolled back")
    assert store.simulator.credential() == der(new if behind else old)
    status, _, err = await store.bridge("jobs", "watch", job["id"])
    assert status == (0 if behind else 10), err

    listed = (await store.daemon.ask("/v1/credentials"))["credentials"]
    states = [(it["state"], it["id"]) for it in listed]
    assert states == [("active", active), *([("previous", fingerprint(der(old)))] if behind else [])]

    status, _out, err = await store.enroll("--resume", job["id"])
    assert (status, store.simulator.credential()) == (0, der(new)), err


async def test_a_device_that_goes_away_while_switching_is_settled_when_it_is_back(store: Store) -> None:
    (_, first), (new, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    store.device.hold(len(der(new)) + BEHIND)
    process = await store.start("enroll", "till-3", "--cert", second, "--replace")
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()  # it never answers again
    assert (process.returncode, out.decode().splitlines()[-1][:15]) == (11, "needs attention"), err.decode()
    status = await store.daemon.ask("/v1/status")
    assert [alert["code"] for alert in status["alerts"]] == ["E-ENROLL-UNCERTAIN"]
    store.device.let_go()
    assert store.device.server is not None
    store.simulator.key_in(ROM)  # somebody puts a key in
    await store.daemon.logged("enroll.settled")
    assert store.simulator.credential() == der(new)
    assert (await store.daemon.ask("/v1/status"))["alerts"] == []
    job = (await store.daemon.ask("/v1/jobs"))["jobs"][0]
    assert (job["state"], job["result"]["outcome"]) == ("done", "verified, active")


async def test_credentials_are_listed_checked_and_revoked(store: Store) -> None:
    (old, first), (new, second) = store.file(), store.file(number=8)
    assert (await store.enroll("--cert", first))[0] == 0
    assert (await store.enroll("--cert", second, "--replace"))[0] == 0
    status, out, err = await store.bridge("credentials", "list")
    rows = [line.split()[:3] for line in out.splitlines()]
    ids = fingerprint(der(new)), fingerprint(der(old))
    assert (status, rows) == (0, [[ids[0][:16], "till-3", "active"], [ids[1][:16], "till-3", "previous"]]), err
    assert (await store.bridge("credentials", "show", ids[0][:8], "--pem"))[1].encode() == pem(new)
    assert (await store.bridge("credentials", "verify", "--all"))[0] == 0

    status, _, err = await store.bridge("credentials", "revoke", ids[0][:8])
    assert (status, "--yes" in err) == (2, True), err
    status, _, err = await store.bridge("credentials", "revoke", ids[0][:8], "--yes")
    assert (status, "error E-CREDENTIAL-LAST: " in err) == (5, True), err
    status, out, err = await store.bridge("credentials", "revoke", ids[0][:8], "--yes", "--label", "supervisor key 8")
    assert (status, out.strip()) == (0, "revoked"), err
    assert "active, revoked" in (await store.bridge("credentials", "list", "--state", "revoked"))[1]
    told = (await store.bridge("credentials", "history", ids[0]))[1].splitlines()
    assert ["enrolled: verified" in told[0], told[-1].split()[-2] == "revoked"] == [True, True], told
    status, _, err = await store.enroll("--cert", second, "--replace")
    assert (status, "error E-CERT-REVOKED: " in err) == (5, True), err

    store.simulator.flash.content[:] = b"\xff" * len(store.simulator.flash.content)  # the battery died
    status, out, err = await store.bridge("credentials", "verify", "--all")
    assert (status, "error E-ENROLL-VERIFY: " in err) == (10, True), err


async def test_bad_orders_are_refused_and_change_nothing(store: Store) -> None:
    for words, rc in (
        (("enroll", "till-9"), 3),
        (("enroll", "till-3", "--csr", str(store.directory / "out.pem"), "--organization", "R", "--store", "s"), 5),
        (("enroll", "till-3", "--resume", "no-job"), 0),
        (("enroll", "till-3", "--rollback"), 5),
        (("jobs", "show", "beef"), 3),
        (("credentials", "show", "beef00"), 3),
        (("credentials", "show", "../status"), 3),
    ):
        status, _, err = await store.bridge(*words)
        assert (words, status) == (words, rc), err
    garbage = store.directory / "garbage.pem"
    garbage.write_bytes(bytes(range(256)) * 40)
    status, _, err = await store.enroll("--cert", str(garbage))
    assert (status, "error E-CERT-UNREADABLE: " in err, store.simulator.flash.writes) == (5, True, 0), err

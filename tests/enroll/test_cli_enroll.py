"""``bridge enroll --standalone`` as a program, on a simulated device behind a pty, with the CA that `bridge ca init` makes."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from optima_bridge.cli import app
from optima_bridge.enroll.pki import possession
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.words import fingerprint
from optima_bridge.link import open_byte_link
from optima_bridge.link.ptys import PtyServer
from optima_drivers.loopback import LoopbackDriver
from optima_drivers.loopback.simulator import LoopbackSimulator
from tests.enroll.pki_world import DAY, World, credential, der, p256, pem, without
from tests.unit.api_store import BRIDGE

SERIAL = "till-3"
TIMEOUT_S = 60.0
ERASED_PAGES, RECORD_BYTES = 9, 10  # what staging writes beside the certificate


class Device:
    """A loopback device; at one of its writes the program that talks to it gets a signal, before it hears the answer.

    Attributes:
        later: chunks that the program sends after that write until it gets the signal.
    """

    def __init__(self) -> None:
        self.simulator = LoopbackSimulator(serial=SERIAL)
        self.process: asyncio.subprocess.Process | None = None
        self.number = signal.SIGKILL
        self.at_write = self.later = 0

    def receive(self, data: bytes) -> bytes:
        answer = self.simulator.receive(data)
        if self.process is not None and self.simulator.flash.writes >= self.at_write:
            self.later -= 1
        if self.process is not None and self.later < 0:
            self.process.send_signal(self.number)
            self.process = None
        return answer


class Store:
    """A store PC: configuration, CA, one device on a pty."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.device = Device()
        self.flash = self.device.simulator.flash
        assert app.main(
            ["-q", "ca", "init", "--directory", str(directory / "ca"), "--organization", "Retail", "--store", "s1042"]
        ) == 0  # fmt: skip
        self.authority = CertificateAuthority.open(directory / "ca")
        self.configure()

    def configure(self, more: str = "") -> None:
        (self.directory / "config.toml").write_text(
            f'[store]\nsite = "s1042"\n[mqtt]\nenabled = false\n[journal]\ndirectory = "{self.directory}"\n'
            f'[devices.till-3]\ndriver = "loopback"\nport = "{self.directory / "port"}"\n{more}'
        )

    def issue(self, **changes: Any) -> x509.Certificate:
        about = credential(device_serial=SERIAL, **changes)
        return self.authority.issue(possession.unproven(p256().public_key()), about, datetime.now(UTC))

    def file(self, content: bytes, name: str = "cert.pem") -> Path:
        path = self.directory / name
        path.write_bytes(content)
        return path

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        given = ("enroll", "till-3", "--config", str(self.directory / "config.toml"), "--standalone", *words)
        return await asyncio.create_subprocess_exec(
            *BRIDGE, *given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    async def enroll(self, *words: str) -> tuple[int, str, str]:
        """Exit status, standard output, standard error."""
        return await finished(await self.start(*words))

    async def put(self, certificate: x509.Certificate) -> None:
        """Make it the active one."""
        status, _, err = await self.enroll("--cert", str(self.file(pem(certificate))), "--replace")
        assert (status, self.device.simulator.credential()) == (0, der(certificate)), err

    async def signalled(self, number: signal.Signals, at_write: int, *words: str) -> tuple[int, str, str]:
        """Run it, and send a signal at this write from now."""
        self.device.number, self.device.at_write = number, self.flash.writes + at_write
        self.device.process = process = await self.start(*words)
        return await finished(process)


async def finished(process: asyncio.subprocess.Process) -> tuple[int, str, str]:
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def made(directory: Path) -> AsyncIterator[Store]:
    store = Store(directory)
    async with PtyServer(store.device, symlink=directory / "port"):
        yield store


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with made(tmp_path) as it:
        yield it


async def test_a_certificate_is_enrolled_and_the_same_one_again_changes_nothing(store: Store) -> None:
    certificate = store.issue()
    file = str(store.file(pem(certificate)))
    status, out, err = await store.enroll("--cert", file)
    assert (status, store.device.simulator.credential()) == (0, der(certificate)), err
    *phases, last = out.splitlines()
    assert [line.split()[0] for line in phases] == ["check", "backup", "write", "verify", "commit", "confirm"]
    until = f"{certificate.not_valid_after_utc:%FT%TZ}"
    sha256 = fingerprint(der(certificate))
    assert last.startswith(f"verified, active: {sha256} ")
    assert "CN=supervisor key 7" in last
    assert last.endswith(f"until {until} (identifier only)")

    writes = store.flash.writes
    status, out, err = await store.enroll("--cert", file, "--json")
    records = [json.loads(line) for line in out.splitlines()]
    result = records[-1]
    assert (status, store.flash.writes) == (0, writes), err
    assert (result["type"], result["ok"], result["rc"], result["error"]) == ("result", True, 0, None)
    assert (result["outcome"], result["changed"]) == ("not changed", False)
    assert (result["active"]["sha256"], result["active"]["not_after"]) == (sha256, until)
    assert result["active"]["identifier_only"] is True

    assert (await store.enroll("--cert", file, "--verify-only"))[1].startswith("verified, active: ")
    status, out, err = await store.enroll("--cert", str(store.file(pem(store.issue()))), "--verify-only", "--json")
    result = json.loads(out.splitlines()[-1])
    assert (status, result["rc"], result["error"]["code"]) == (10, 10, "E-ENROLL-VERIFY")
    assert (result["outcome"], result["active"]["sha256"], store.flash.writes) == ("not changed", sha256, writes)


async def test_another_certificate_is_replaced_only_when_told(store: Store) -> None:
    old, new = store.issue(), store.issue(number=8)
    await store.put(old)
    writes, file = store.flash.writes, str(store.file(pem(new)))
    wrong = fingerprint(der(new))
    for words, code in (
        ([], "E-ENROLL-OCCUPIED"),
        (["--dry-run"], "E-ENROLL-OCCUPIED"),
        (["--if-fingerprint", wrong], "E-ENROLL-FINGERPRINT"),
    ):
        status, out, err = await store.enroll("--cert", file, *words)
        assert (status, store.flash.writes) == (5, writes), err
        assert f"error {code}: " in err
        assert out.splitlines()[-1].startswith(f"not changed: active is {fingerprint(der(old))} ")
    status, out, err = await store.enroll("--cert", file, "--replace", "--dry-run")
    assert (status, store.flash.writes) == (0, writes), err
    assert f"would    write {len(der(new))} bytes to slot " in out
    assert out.splitlines()[-1].startswith("not changed: ")
    colons = fingerprint(der(old)).upper()
    colons = ":".join(colons[at : at + 2] for at in range(0, len(colons), 2))
    status, out, err = await store.enroll("--cert", file, "--if-fingerprint", colons)
    assert (status, store.device.simulator.credential()) == (0, der(new)), err


def revoked(store: Store) -> bytes:
    certificate = store.issue()
    store.authority.revoke(certificate.serial_number, datetime.now(UTC))
    return pem(certificate)


def signed(store: Store, **changes: Any) -> bytes:
    """A certificate that the CA would not make, but for its key."""
    world = World(store.directory / token_hex(4), now=datetime.now(UTC) - timedelta(minutes=1))
    world.authority, world.ca = store.authority, store.authority.certificate
    return world.sign(**changes)


def with_key(store: Store) -> bytes:
    return pem(store.issue()) + p256().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


BAD: dict[str, tuple[str, Callable[[Store], bytes]]] = {
    "garbage": ("E-CERT-UNREADABLE", lambda _: b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
    "a private key beside it": ("E-CERT-PRIVATE-KEY", with_key),
    "two certificates": ("E-CERT-SEVERAL", lambda store: pem(store.issue()) + pem(store.issue())),
    "another CA": ("E-CERT-ISSUER", lambda store: pem(World(store.directory / token_hex(4)).issue())),
    "expired": ("E-CERT-EXPIRED", lambda store: signed(
        store, begin=datetime.now(UTC) - 2 * DAY, end=datetime.now(UTC) - DAY)),
    "not yet valid": ("E-CERT-NOT-YET-VALID", lambda store: signed(store, begin=datetime.now(UTC) + DAY)),
    "RSA-1024": ("E-CERT-KEY-TYPE", lambda store: signed(
        store, public_key=rsa.generate_private_key(65537, 1024).public_key())),
    "no critical role": ("E-CERT-ROLE", lambda store: signed(store, extensions=without(x509.ExtendedKeyUsage))),
    "revoked": ("E-CERT-REVOKED", revoked),
    "bound to another controller": ("E-CERT-DEVICE", signed),
    "too big": ("E-CERT-SIZE", lambda store: signed(store, extensions=[
        (x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(2048)), False)])),
}  # fmt: skip


async def test_a_bad_certificate_is_refused_by_name_before_the_first_write(store: Store) -> None:
    old = store.issue()
    await store.put(old)
    writes = store.flash.writes
    for what, (code, make) in BAD.items():
        file = str(store.file(make(store)))
        status, out, err = await store.enroll("--cert", file, "--replace")
        assert (what, status, f"error {code}: " in err) == (what, 5, True), err
        assert not out or out.splitlines()[-1].startswith("not changed: "), what
        assert (store.flash.writes, store.device.simulator.credential()) == (writes, der(old)), what


async def test_a_ca_that_is_named_needs_its_revocation_list(store: Store) -> None:
    ca, crl = str(store.directory / "ca/certificate.pem"), str(store.directory / "ca/crl.pem")
    words = ("--cert", str(store.file(pem(store.issue()))), "--ca", ca, "--dry-run")
    status, _, err = await store.enroll(*words)
    assert (status, "error E-CERT-CRL: " in err) == (5, True), err
    status, _, err = await store.enroll(*words, "--crl", crl)
    assert (status, store.flash.writes) == (0, 0), err


async def test_the_device_is_left_alone_where_it_cannot_be_had(store: Store) -> None:
    file = str(store.file(pem(store.issue())))
    link = await open_byte_link(str(store.directory / "port"), LoopbackDriver.info.serial_format)
    status, out, err = await store.enroll("--cert", file)
    link.close()
    assert (status, "error E-PORT-BUSY: " in err) == (6, True), err
    assert out.splitlines()[-1].startswith("not changed: ")
    store.configure('abilities = ["keylock"]\n')
    status, _, err = await store.enroll("--cert", file)
    assert (status, "has no secure memory" in err) == (5, True), err
    store.configure("slots = 1\n")
    status, _, err = await store.enroll("--cert", file)
    assert (status, "error E-ENROLL-SINGLE-SLOT: " in err, store.flash.writes) == (5, True, 0), err
    status, out, err = await store.enroll("--cert", file, "--accept-single-slot")
    assert (status, out.splitlines()[-1][:16]) == (0, "verified, active"), err


async def test_ctrl_c_before_the_point_of_no_return_leaves_the_old_certificate(store: Store) -> None:
    old, new = store.issue(), store.issue(number=8)
    await store.put(old)
    file = str(store.file(pem(new)))
    status, out, err = await store.signalled(signal.SIGINT, 400, "--cert", file, "--replace")
    assert (status, store.device.simulator.credential()) == (130, der(old)), err
    last = out.splitlines()[-1]
    assert last.startswith(f"not changed: the old certificate is active: {fingerprint(der(old))} ")


@pytest.mark.parametrize(
    ("byte", "later"),
    [pytest.param(1, 0, id="at the byte that activates"), pytest.param(2, 1, id="after the last write")],
)
async def test_ctrl_c_behind_the_point_of_no_return_finishes_the_switch(byte: int, later: int, store: Store) -> None:
    old, new = store.issue(), store.issue(number=8)
    await store.put(old)
    activating = ERASED_PAGES + len(der(new)) + RECORD_BYTES + byte
    store.device.later = later
    file = str(store.file(pem(new)))
    status, out, err = await store.signalled(signal.SIGINT, activating, "--cert", file, "--replace")
    assert (status, store.device.simulator.credential()) == (0, der(new)), err
    assert out.splitlines()[-1].startswith(f"verified, active: {fingerprint(der(new))} ")


@pytest.mark.parametrize("behind", [False, True], ids=["in the middle of the write", "at the byte that activates"])
async def test_a_killed_enrolment_is_brought_to_its_end_by_resume(behind: bool, store: Store) -> None:
    old, new = store.issue(), store.issue(number=8)
    await store.put(old)
    at = ERASED_PAGES + len(der(new)) + RECORD_BYTES + 1 if behind else 400
    file = str(store.file(pem(new)))
    status, _, _ = await store.signalled(signal.SIGKILL, at, "--cert", file, "--replace")
    assert status == -signal.SIGKILL
    active = der(new if behind else old)
    assert store.device.simulator.credential() == active
    status, out, err = await store.enroll("--resume")
    assert (status, store.device.simulator.credential()) == (0, der(new)), err
    assert out.splitlines()[-1].startswith(f"verified, active: {fingerprint(der(new))} ")
    status, out, err = await store.enroll("--resume")  # there is nothing left to do
    assert (status, out.splitlines()[-1][:11]) == (0, "not changed"), err


def test_options_that_do_not_fit_are_refused_before_anything_is_opened(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cert.pem"
    file.write_bytes(b"")
    cert = ("--cert", str(file))
    for words, rc in (
        (cert, 8),
        ((), 8),
        (("--standalone",), 2),
        ((*cert, "--standalone", "--wait-key", "5"), 2),
        ((*cert, "--ca", str(file)), 2),
        ((*cert, "--resume"), 2),
        (("--verify-only",), 2),
        ((*cert, "--dry-run", "--verify-only"), 2),
        ((*cert, "--crl", str(file)), 2),
        ((*cert, "--if-fingerprint", "12"), 2),
    ):
        assert app.main(["--socket", str(tmp_path / "none"), "enroll", "till-3", *words]) == rc, words
    assert "sudo systemctl start optima-bridge" in capsys.readouterr().err

"""Programs that others wrote judge our certificates and lists as we do: OpenSSL and GnuTLS."""

from __future__ import annotations

import shutil
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from optima_bridge.enroll.pki import profile
from optima_bridge.enroll.pki.csr import make_request
from optima_bridge.errors import CertificateRevoked
from tests.enroll.pki_world import World, credential, der, pem

pytestmark = pytest.mark.referee
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the Debian package openssl is not installed"
)
needs_certtool = pytest.mark.skipif(
    shutil.which("certtool") is None, reason="certtool (Debian package gnutls-bin) is not installed"
)


class Desk:
    """A folder of files for the referees; times are real, for they look at the clock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = World(folder / "ca", now=datetime.now(UTC))
        self.good, self.lost = self.world.issue(), self.world.issue(number=8)
        self.world.authority.revoke(self.lost.serial_number, self.world.now)
        for name, certificate in (("good", self.good), ("lost", self.lost), ("root", self.world.ca)):
            (folder / f"{name}.pem").write_bytes(pem(certificate))
            (folder / f"{name}.der").write_bytes(der(certificate))

    def ask(self, *words: str) -> tuple[int, str]:
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


OPENSSL_VERIFY = ("openssl", "verify", "-x509_strict", "-CAfile", "root.pem", "-CRLfile", "ca/crl.pem", "-crl_check")


@needs_openssl
def test_openssl_accepts_the_profile_and_knows_the_revoked_one(desk: Desk) -> None:
    assert desk.ask(*OPENSSL_VERIFY, "good.pem") == (0, "good.pem: OK\n")
    status, said = desk.ask(*OPENSSL_VERIFY, "lost.pem")
    assert status != 0
    assert "error 23 at 0 depth lookup: certificate revoked" in said
    assert not desk.world.check(der(desk.good)).warnings
    with pytest.raises(CertificateRevoked):
        desk.world.check(der(desk.lost))


@needs_openssl
def test_openssl_refuses_a_certificate_of_a_ca_of_the_same_name(desk: Desk, tmp_path: Path) -> None:
    twin = Desk(tmp_path)
    status, said = desk.ask("openssl", "verify", "-CAfile", "root.pem", str(tmp_path / "good.pem"))
    assert status != 0
    assert "error 20 at 0 depth lookup" in said or "error 7 at 0 depth lookup" in said, said
    assert twin.ask("openssl", "verify", "-CAfile", "root.pem", "good.pem")[0] == 0


@needs_openssl
def test_openssl_reads_in_the_certificate_what_the_profile_says(desk: Desk) -> None:
    status, text = desk.ask("openssl", "x509", "-in", "good.pem", "-noout", "-text")
    assert status == 0
    for fact in (
        "Issuer: O = Example Retail, CN = Store s1042 credential CA",
        "O = Example Retail, OU = Store s1042, CN = supervisor key 7, serialNumber = 01B7BA1000000075",
        "X509v3 Extended Key Usage: critical",
        profile.SUPERVISOR.dotted_string,
        f"Policy: {profile.KEY_PROVEN.dotted_string}",
        "X509v3 Basic Constraints: critical",
        "X509v3 Key Usage: critical",
        "URI:urn:optima:key:01B7BA1000000075, URI:nih:sha-256;",
    ):
        assert fact in text, text


@needs_openssl
def test_openssl_finds_our_list_and_our_request_well_signed(desk: Desk) -> None:
    status, said = desk.ask("openssl", "crl", "-in", "ca/crl.pem", "-CAfile", "root.pem", "-noout", "-text")
    assert (status, "verify OK" in said) == (0, True)
    assert f"{desk.lost.serial_number:X}" in said
    (desk.folder / "request.pem").write_bytes(make_request(credential(), desk.world.device_key))
    status, said = desk.ask("openssl", "req", "-in", "request.pem", "-verify", "-noout")
    assert (status, "verify OK" in said) == (0, True)


@needs_certtool
def test_certtool_accepts_the_profile_and_knows_the_revoked_one(desk: Desk) -> None:
    verify = ("certtool", "--verify", "--load-ca-certificate", "root.pem", "--load-crl", "ca/crl.pem", "--infile")
    status, said = desk.ask(*verify, "good.pem")
    assert (status, "Chain verification output: Verified." in said) == (0, True), said
    status, said = desk.ask(*verify, "lost.pem")
    assert (status != 0, "revoked" in said) == (True, True), said


@needs_certtool
def test_certtool_finds_our_list_well_signed(desk: Desk) -> None:
    status, said = desk.ask(
        *("certtool", "--verify-crl", "--load-ca-certificate", "root.pem", "--infile", "ca/crl.pem")
    )
    assert (status, "Verified" in said) == (0, True), said

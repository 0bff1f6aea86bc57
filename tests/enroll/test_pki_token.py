"""The CA's key in a PKCS#11 token (SoftHSM2): made there, signing there, and what happens when it cannot; OpenSSL judges."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509

from optima_bridge.cli import app
from optima_bridge.enroll.pki import possession
from optima_bridge.enroll.pki.ca import CRL, KEY, TOKEN, CertificateAuthority
from optima_bridge.enroll.pki.crl import CRL_VALIDITY
from optima_bridge.enroll.pki.token import LABEL, Custodian
from optima_bridge.errors import (
    CaExists,
    CaUnfit,
    LinkError,
    SecretLocked,
    SecretMissing,
    SlotError,
    TokenAbsent,
    WrongSecret,
)
from optima_bridge.link.pkcs11_uri import parse
from tests import cryptoki_faults as rv
from tests.cryptoki_faults import Faults, faults
from tests.enroll.pki_world import NOW, credential, p256, pem
from tests.softhsm import PIN, SoftHsm, give_back, memory_folder, needs_pkcs11_tool, needs_softhsm

pytestmark = needs_softhsm
STORE = ("Example Retail", "s1042")
INIT = ("--organization", "Example Retail", "--store", "s1042")
needs_openssl = pytest.mark.skipif(
    shutil.which("openssl") is None, reason="the Debian package openssl is not installed"
)


@pytest.fixture
def hsm() -> Iterator[SoftHsm]:
    with memory_folder() as folder:
        hsm = SoftHsm(Path(folder) / "hsm")
        hsm.make("store-ca")
        yield hsm
        give_back()


@pytest.fixture
def broken(hsm: SoftHsm) -> Iterator[Faults]:
    yield faults()
    faults()


def create(hsm: SoftHsm, directory: Path, now: datetime = NOW) -> CertificateAuthority:
    custodian = Custodian(parse(hsm.uri("store-ca")), PIN.encode())
    return CertificateAuthority.create(directory, *STORE, now, custodian=custodian)


def test_the_directory_remembers_the_token_and_nothing_secret(hsm: SoftHsm, tmp_path: Path) -> None:
    made = create(hsm, tmp_path / "ca")
    assert (tmp_path / "ca" / TOKEN).read_text() == f"{hsm.uri('store-ca')}\n"
    assert not (tmp_path / "ca" / KEY).exists()
    assert PIN.encode() not in b"".join(file.read_bytes() for file in (tmp_path / "ca").iterdir())
    opened = CertificateAuthority.open(tmp_path / "ca", secret=PIN.encode())
    assert (opened.custody, made.custody) == (hsm.uri("store-ca"),) * 2
    certificate = opened.issue(possession.unproven(p256().public_key()), credential(), NOW)
    certificate.verify_directly_issued_by(made.certificate)
    assert opened.revoke(certificate.serial_number, NOW)
    assert opened.current_crl().is_signature_valid(made.certificate.public_key())  # type: ignore[arg-type]


def test_looking_needs_neither_pin_nor_token_and_signing_needs_both(hsm: SoftHsm, tmp_path: Path) -> None:
    create(hsm, tmp_path / "ca")
    shutil.rmtree(hsm.tokens)
    hsm.tokens.mkdir()
    give_back()
    looking = CertificateAuthority.open(tmp_path / "ca")
    assert looking.counts().issued == 0
    key = possession.unproven(p256().public_key())
    with pytest.raises(SecretMissing, match="its PIN was not given"):
        looking.issue(key, credential(), NOW)
    with pytest.raises(TokenAbsent):
        CertificateAuthority.open(tmp_path / "ca", secret=PIN.encode()).issue(key, credential(), NOW)
    assert looking.counts().issued == 0


def test_a_list_at_half_time_is_signed_anew_only_with_the_pin(hsm: SoftHsm, tmp_path: Path) -> None:
    create(hsm, tmp_path / "ca")
    late = NOW + CRL_VALIDITY * 0.6
    looking = CertificateAuthority.open(tmp_path / "ca")
    assert looking.crl(late) == looking.current_crl()
    renewed = CertificateAuthority.open(tmp_path / "ca", secret=PIN.encode()).crl(late)
    assert renewed.last_update_utc > NOW
    assert looking.crl(late) == renewed


def test_a_wrong_pin_costs_one_attempt(hsm: SoftHsm, broken: Faults, tmp_path: Path) -> None:
    create(hsm, tmp_path / "ca")
    opened = CertificateAuthority.open(tmp_path / "ca", secret=b"654321")
    logins = broken.calls["C_Login"]
    for _ in range(2):
        with pytest.raises(WrongSecret):
            opened.renew_crl(NOW)
    assert broken.calls["C_Login"] == logins + 1
    broken.flags = rv.PIN_LOCKED
    with pytest.raises(SecretLocked):
        CertificateAuthority.open(tmp_path / "ca", secret=PIN.encode()).renew_crl(NOW)
    assert broken.calls["C_Login"] == logins + 1


def test_a_token_without_the_key_or_with_a_bad_signature_signs_nothing(
    hsm: SoftHsm, broken: Faults, tmp_path: Path
) -> None:
    made = create(hsm, tmp_path / "ca")
    before = made.current_crl()
    hsm.make("other")
    (tmp_path / "ca" / TOKEN).write_text(hsm.uri("other"))
    with pytest.raises(SlotError, match="does not hold the private key"):
        CertificateAuthority.open(tmp_path / "ca", secret=PIN.encode()).renew_crl(NOW)
    broken.refuse = {"C_SignInit": rv.CKR_OK, "C_Sign": rv.CKR_OK}  # says that it signed, and did not
    with pytest.raises(CaUnfit, match="does not fit the certificate of the CA"):
        made.renew_crl(NOW)
    assert made.current_crl() == before


@pytest.mark.parametrize("content", ["", "pkcs11:token=a", "key.pem"])
def test_a_damaged_note_of_the_token_is_named(hsm: SoftHsm, tmp_path: Path, content: str) -> None:
    create(hsm, tmp_path / "ca")
    (tmp_path / "ca" / TOKEN).write_text(content)
    with pytest.raises(CaUnfit, match="names no token" if content else "the CA has no key.pem"):
        CertificateAuthority.open(tmp_path / "ca")


def test_nothing_is_made_in_the_token_where_a_ca_is_already(hsm: SoftHsm, broken: Faults, tmp_path: Path) -> None:
    create(hsm, tmp_path / "ca")
    writes = broken.writes
    with pytest.raises(CaExists):
        create(hsm, tmp_path / "ca")
    (tmp_path / "file").touch()
    with pytest.raises(CaExists):
        create(hsm, tmp_path / "file")
    with pytest.raises(CaUnfit, match="cannot be used"):
        create(hsm, tmp_path / ("a" * 300))
    assert broken.writes == writes


def test_a_token_that_hangs_is_given_up(
    hsm: SoftHsm, broken: Faults, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = create(hsm, tmp_path / "ca")
    monkeypatch.setattr("optima_bridge.enroll.pki.token.CALL_TIMEOUT_S", 0.1)
    broken.held = "C_Sign"
    with pytest.raises(LinkError, match="did not answer within"):
        made.renew_crl(NOW)
    broken.held = ""
    broken.go.set()
    monkeypatch.undo()
    made.renew_crl(NOW)


@pytest.mark.referee
@needs_openssl
@needs_pkcs11_tool
def test_openssl_accepts_what_the_token_signed_and_opensc_finds_the_key_there(hsm: SoftHsm, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    create(hsm, tmp_path / "ca", now)
    authority = CertificateAuthority.open(tmp_path / "ca", secret=PIN.encode())
    key = possession.unproven(p256().public_key())
    good, lost = (authority.issue(key, credential(number=number), now) for number in (7, 8))
    authority.revoke(lost.serial_number, now)
    for name, certificate in (("good", good), ("lost", lost), ("root", authority.certificate)):
        (tmp_path / f"{name}.pem").write_bytes(pem(certificate))

    def verify(name: str) -> tuple[int, str]:
        words = ("openssl", "verify", "-x509_strict", "-CAfile", "root.pem", "-CRLfile", f"ca/{CRL}", "-crl_check")
        done = subprocess.run([*words, name], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        return done.returncode, done.stdout + done.stderr

    assert verify("good.pem") == (0, "good.pem: OK\n")
    assert verify("root.pem")[0] == 0
    status, said = verify("lost.pem")
    assert (status != 0, "certificate revoked" in said) == (True, True)
    listed = hsm.tool("store-ca", "--list-objects", "--type", "privkey", pin=True)
    assert LABEL in listed
    assert "never extractable" in listed
    [identifier] = re.findall(r"ID: +([0-9a-f]{40})", listed)
    ours = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier == ours.digest.hex()


def test_the_command_makes_a_ca_in_a_token(
    hsm: SoftHsm, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ("--directory", str(tmp_path / "ca"))
    token = ("--token", hsm.uri("store-ca"))
    assert app.main(["ca", "init", *place, *INIT, *token, "--pin-file", str(hsm.pin_file)]) == 0
    made = capsys.readouterr()
    assert "there is no copy" in made.err
    assert app.main(["ca", "show", *place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["key"] == hsm.uri("store-ca")
    assert PIN not in made.out + made.err


def test_the_command_refuses_before_anything_is_made(
    hsm: SoftHsm, broken: Faults, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ("--directory", str(tmp_path / "ca"))
    token = ("--token", hsm.uri("store-ca"))
    wrong = tmp_path / "wrong"
    wrong.write_text("654321")
    wrong.chmod(0o600)
    for words, status, code in (
        (token, 5, "E-SECRET-MISSING"),
        ((*token, "--pin-file", str(wrong)), 5, "E-SECRET-WRONG"),
        (("--pin-file", str(wrong)), 2, "E-USAGE"),
        (("--token", "pkcs11:token=store-ca?pin-value=1"), 2, "E-USAGE"),
    ):
        assert app.main(["--no-input", "ca", "init", *place, *INIT, *words]) == status
        assert f"error {code}" in capsys.readouterr().err
    assert broken.writes == 0
    assert not (tmp_path / "ca").exists()


def test_a_custodian_without_pin_asks_for_it() -> None:
    with pytest.raises(SecretMissing) as caught:
        Custodian(parse("pkcs11:token=a?module-path=/m.so"), None).make_key()
    assert "--pin-file" in caught.value.next_step

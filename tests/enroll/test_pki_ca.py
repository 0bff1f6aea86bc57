"""The CA in the store: its files, its ledger, its list; and a key that a token keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.enroll.pki import possession
from optima_bridge.enroll.pki.ca import CERTIFICATE, CRL, KEY, LEDGER, CertificateAuthority
from optima_bridge.enroll.pki.ledger import Counts
from optima_bridge.errors import (
    CaExists,
    CaMissing,
    CaUnfit,
    CertificateExpired,
    CertificateNotYetValid,
    ClockBehind,
    NotFound,
    UsageError,
)
from tests.enroll.pki_world import DAY, NOW, World, credential, der, p256


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "ca")


class TokenKey(ec.EllipticCurvePrivateKey):
    """Stands where a PKCS#11 token will: it signs and gives nothing away. `before_signing` may fail as a token does."""

    def __init__(self) -> None:
        self._inside = p256()
        self.before_signing: Callable[[], object] = lambda: None

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._inside.curve

    @property
    def key_size(self) -> int:
        return self._inside.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._inside.public_key()

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        self.before_signing()
        assert isinstance(signature_algorithm.algorithm, hashes.HashAlgorithm)
        return self._inside.sign(data, signature_algorithm)

    def exchange(self, *_: Any) -> bytes:
        raise AssertionError

    def private_numbers(self) -> ec.EllipticCurvePrivateNumbers:
        raise AssertionError

    def private_bytes(self, *_: Any) -> bytes:
        raise AssertionError

    def __copy__(self) -> TokenKey:
        return self

    def __deepcopy__(self, memo: object) -> TokenKey:
        return self


# --- making and opening ------------------------------------------------------------------------------------------------


def test_the_ca_signs_credentials_and_lists_of_revoked_ones_and_no_further_ca(world: World) -> None:
    constraints = world.ca.extensions.get_extension_for_class(x509.BasicConstraints)
    usage = world.ca.extensions.get_extension_for_class(x509.KeyUsage)
    assert (constraints.critical, constraints.value) == (True, x509.BasicConstraints(ca=True, path_length=0))
    assert usage.critical
    assert (usage.value.key_cert_sign, usage.value.crl_sign, usage.value.digital_signature) == (True, True, False)


MAKE = """
import os, sys
from datetime import datetime, UTC
from pathlib import Path
from optima_bridge.enroll.pki.ca import CertificateAuthority

made_readable = []
sys.addaudithook(lambda event, args: made_readable.append(args) if event == "os.chmod" else None)
os.umask(0)
CertificateAuthority.create(Path(sys.argv[1]), "Example Retail", "s1042", datetime.now(UTC))
sys.exit(len(made_readable))
"""


def test_there_is_no_moment_at_which_others_could_read_the_key(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", MAKE, str(tmp_path / "ca")], env=os.environ, timeout=60)
    assert done.returncode == 0  # no mode was mended afterwards
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "ca").iterdir()}
    assert modes == dict.fromkeys((KEY, CERTIFICATE, LEDGER, CRL), 0o600)
    assert (tmp_path / "ca").stat().st_mode & 0o777 == 0o700


def test_a_ca_is_never_overwritten(world: World) -> None:
    before = (world.directory / KEY).read_bytes()
    with pytest.raises(CaExists):
        World(world.directory)
    assert (world.directory / KEY).read_bytes() == before
    assert [it.name for it in world.directory.parent.iterdir()] == ["ca"]  # no half-made one is left either


def test_a_ca_that_could_not_be_made_leaves_nothing(tmp_path: Path) -> None:
    token = TokenKey()

    def unplugged_at_the_second_signature() -> None:
        token.before_signing = unplugged

    def unplugged() -> None:
        raise OSError(5, "Input/output error")

    token.before_signing = unplugged_at_the_second_signature
    with pytest.raises(CaUnfit, match="input/output error"):
        CertificateAuthority.create(tmp_path / "ca", "Example Retail", "s1042", NOW, key=token)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files for others")
def test_what_root_makes_in_the_services_directory_is_the_services(tmp_path: Path) -> None:
    nobody = 65534
    os.chown(tmp_path, nobody, nobody)
    world = World(tmp_path / "ca")
    world.authority.revoke(world.issue().serial_number, NOW)
    assert {path.stat().st_uid for path in (world.directory, *world.directory.iterdir())} == {nobody}


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_key_that_others_can_reach_is_not_used(world: World, mode: int) -> None:
    (world.directory / KEY).chmod(mode)
    with pytest.raises(CaUnfit, match=f"mode {mode:04o}") as caught:
        CertificateAuthority.open(world.directory)
    assert "chmod 600" in caught.value.next_step


def test_what_does_not_belong_together_is_not_used(world: World, tmp_path: Path) -> None:
    other = World(tmp_path / "other")
    (world.directory / KEY).write_bytes((other.directory / KEY).read_bytes())
    with pytest.raises(CaUnfit, match="belongs to another certificate"):
        CertificateAuthority.open(world.directory)


@pytest.mark.parametrize("name", [KEY, CERTIFICATE, LEDGER])
def test_a_damaged_file_is_named_as_such_and_its_content_is_not_shown(world: World, name: str) -> None:
    path = world.directory / name
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CaUnfit) as caught:
        CertificateAuthority.open(world.directory)
    assert "BEGIN" not in repr(caught.value.document())
    path.unlink()
    with pytest.raises(CaMissing if name == CERTIFICATE else CaUnfit):
        CertificateAuthority.open(world.directory)


def test_names_that_do_not_fit_into_a_certificate_are_refused(tmp_path: Path) -> None:
    for organization, store in (("", "s1"), ("x" * 65, "s1"), ("Example", "s" * 45), ("Example", "s1\n")):
        with pytest.raises(UsageError):
            CertificateAuthority.create(tmp_path / "ca", organization, store, NOW)
    for change in ({"number": 0}, {"identifier": b""}, {"identifier": bytes(33)}, {"store": " "}):
        with pytest.raises(UsageError):
            credential(**change)


def test_the_key_appears_in_no_text(world: World) -> None:
    secret = (world.directory / KEY).read_text().splitlines()[1]
    reopened = CertificateAuthority.open(world.directory)
    assert secret not in repr(reopened) + str(vars(reopened))


# --- a token keeps the key ---------------------------------------------------------------------------------------------


def test_a_token_may_keep_the_key(tmp_path: Path) -> None:
    token = TokenKey()
    CertificateAuthority.create(tmp_path / "ca", "Example Retail", "s1042", NOW, key=token)
    assert not (tmp_path / "ca" / KEY).exists()
    ca = CertificateAuthority.open(tmp_path / "ca", key=token)
    certificate = ca.issue(possession.unproven(p256().public_key()), credential(), NOW)
    certificate.verify_directly_issued_by(ca.certificate)
    ca.revoke(certificate.serial_number, NOW)
    assert ca.crl(NOW).is_signature_valid(token.public_key())
    with pytest.raises(CaUnfit, match="no token was named"):
        CertificateAuthority.open(tmp_path / "ca")
    with pytest.raises(CaUnfit, match="belongs to another certificate"):
        CertificateAuthority.open(tmp_path / "ca", key=TokenKey())


# --- issuing and revoking ----------------------------------------------------------------------------------------------


def test_a_certificate_ends_after_a_year_and_never_after_its_ca(world: World) -> None:
    assert world.issue().not_valid_after_utc == NOW - timedelta(minutes=5) + 365 * DAY
    world.now = NOW + 3500 * DAY
    assert world.issue().not_valid_after_utc == world.ca.not_valid_after_utc
    world.now = world.ca.not_valid_after_utc
    with pytest.raises(CertificateExpired):
        world.issue()


def test_with_a_clock_that_is_behind_nothing_is_issued_and_revoking_still_works(world: World) -> None:
    world.now = NOW + DAY
    lost = world.issue()
    before = world.authority.renew_crl(world.now)
    world.now = NOW
    with pytest.raises(ClockBehind):
        world.issue()
    world.authority.revoke(lost.serial_number, NOW)
    crl = world.authority.crl(NOW)
    [entry] = crl
    assert entry.serial_number == lost.serial_number
    assert before.last_update_utc <= crl.last_update_utc <= entry.revocation_date_utc


def test_after_a_clock_that_ran_ahead_there_is_a_way_out(world: World) -> None:
    world.now = NOW + 2000 * DAY
    wrong = world.issue()
    world.authority.renew_crl(world.now)
    world.now = NOW
    with pytest.raises(ClockBehind):
        world.issue()
    world.authority.revoke(wrong.serial_number, NOW)
    world.authority.renew_crl(NOW)
    assert world.check(der(world.issue())).warnings == ()
    with pytest.raises(CertificateNotYetValid):
        world.check(der(wrong))


def test_revoking_lists_the_certificate_under_a_greater_number_and_once_only(world: World) -> None:
    lost = world.issue()
    assert world.authority.counts() == Counts(issued=1, revoked=0)
    before = number(world.authority.current_crl())
    assert world.authority.revoke(lost.serial_number, NOW, x509.ReasonFlags.superseded)
    assert not world.authority.revoke(lost.serial_number, NOW)
    crl = world.authority.current_crl()
    [entry] = crl
    assert (entry.serial_number, number(crl)) == (lost.serial_number, before + 1)
    assert entry.extensions.get_extension_for_class(x509.CRLReason).value.reason == x509.ReasonFlags.superseded
    assert world.authority.counts() == Counts(issued=1, revoked=1)
    assert (world.directory / CRL).read_bytes() == crl.public_bytes(Encoding.PEM)


def test_only_what_the_ca_issued_can_be_revoked(world: World, tmp_path: Path) -> None:
    foreign = World(tmp_path / "other").issue()
    with pytest.raises(NotFound, match=f"{foreign.serial_number:X}"):
        world.authority.revoke(foreign.serial_number, NOW)
    assert list(world.authority.current_crl()) == []


def test_a_token_that_fails_leaves_ledger_and_list_as_they_were(tmp_path: Path) -> None:
    token = TokenKey()
    ca = CertificateAuthority.create(tmp_path / "ca", "Example Retail", "s1042", NOW, key=token)
    certificate = ca.issue(possession.unproven(p256().public_key()), credential(), NOW)
    before = (tmp_path / "ca" / CRL).read_bytes()

    def unplugged() -> None:
        raise OSError("the token is gone")

    token.before_signing = unplugged
    for attempt in (
        lambda: ca.revoke(certificate.serial_number, NOW),
        lambda: ca.issue(possession.unproven(p256().public_key()), credential(number=8), NOW),
    ):
        with pytest.raises(OSError, match="the token is gone"):
            attempt()
    assert ca.counts() == Counts(issued=1, revoked=0)
    assert (tmp_path / "ca" / CRL).read_bytes() == before
    token.before_signing = lambda: None
    assert ca.revoke(certificate.serial_number, NOW)


def test_a_power_cut_between_ledger_and_copy_is_mended_when_the_ca_is_opened(world: World) -> None:
    lost = world.issue()
    old = (world.directory / CRL).read_bytes()
    world.authority.revoke(lost.serial_number, NOW)
    new = (world.directory / CRL).read_bytes()
    for left_over in (old, b"", None):
        (world.directory / CRL).unlink()
        if left_over is not None:
            (world.directory / CRL).write_bytes(left_over)
        CertificateAuthority.open(world.directory)
        assert (world.directory / CRL).read_bytes() == new


def test_the_list_is_signed_anew_at_half_time_and_not_before(world: World) -> None:
    first = world.authority.current_crl()
    assert world.authority.crl(NOW + 15 * DAY) == first
    renewed = world.authority.crl(NOW + 15 * DAY + timedelta(seconds=1))
    assert number(renewed) == number(first) + 1
    assert renewed.next_update_utc == NOW + 45 * DAY + timedelta(seconds=1)


ISSUE = """
import sys
from datetime import datetime, UTC
from pathlib import Path
from cryptography.hazmat.primitives.asymmetric import ec
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.pki.possession import unproven
from optima_bridge.enroll.pki.profile import Credential

ca = CertificateAuthority.open(Path(sys.argv[1]))
key = unproven(ec.generate_private_key(ec.SECP256R1()).public_key())
for number in range(1, 1000):
    about = Credential(organization="Example Retail", store="s1042", number=number, identifier=b"\\1")
    issued = ca.issue(key, about, datetime.now(UTC))
    print(f"{issued.serial_number:X}", flush=True)
    ca.revoke(issued.serial_number, datetime.now(UTC))
"""


def test_what_was_handed_out_before_a_kill_can_be_revoked_after_it(tmp_path: Path) -> None:
    from datetime import UTC, datetime

    world = World(tmp_path / "ca", now=datetime.now(UTC))
    program = [sys.executable, "-c", ISSUE, str(world.directory)]
    for lines in (1, 2, 5):
        with subprocess.Popen(program, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            handed_out = [int(child.stdout.readline(), 16) for _ in range(lines)]
            child.kill()
        reopened = CertificateAuthority.open(world.directory)
        for serial in handed_out:
            reopened.revoke(serial, datetime.now(UTC))
        crl = reopened.current_crl()
        assert {*handed_out} <= {entry.serial_number for entry in crl}
        assert len(crl) == reopened.counts().revoked
        assert (world.directory / CRL).read_bytes() == crl.public_bytes(Encoding.PEM)


def number(crl: x509.CertificateRevocationList) -> int:
    return crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number

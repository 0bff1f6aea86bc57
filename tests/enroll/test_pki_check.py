"""Every check before the first write: what passes, what is refused and by which name."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256

from optima_bridge import errors
from optima_bridge.enroll.pki import possession, profile
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.pki.revocation import RevocationPolicy
from optima_bridge.errors import CertificateError
from tests.enroll.pki_world import (
    DAY,
    DEVICE_SERIAL,
    MAX_SIZE_BYTES,
    NOW,
    ROM_ID,
    World,
    credential,
    der,
    p256,
    weak_keys,
    without,
)

# The parser warns of what altered certificates may contain, and check() refuses them.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive"),
    pytest.mark.filterwarnings("ignore:Attribute's length must be"),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Nothing in this module changes its CA but by issuing."""
    return World(tmp_path_factory.mktemp("store") / "ca")


def refused(world: World, certificate: bytes, error: type[CertificateError], **changes: object) -> CertificateError:
    with pytest.raises(CertificateError) as caught:
        world.check(certificate, **changes)
    assert type(caught.value) is error, caught.value
    assert caught.value.exit_status == 5
    return caught.value


def test_a_certificate_of_the_profile_passes_and_says_what_was_proven(world: World) -> None:
    certificate = world.issue()
    checked = world.check(der(certificate))
    assert checked.der == der(certificate)
    assert checked.fingerprint == certificate.fingerprint(SHA256()).hex()
    assert checked.subject == (
        "serialNumber=01B7BA1000000075,CN=supervisor key 7,OU=Store s1042,O=Example Retail"
    )  # fmt: skip
    assert int(checked.serial, 16) == certificate.serial_number
    assert checked.not_after == NOW - timedelta(minutes=5) + 365 * DAY
    assert not checked.identifier_only
    assert checked.warnings == ()


def test_a_copyable_identifier_is_never_called_more_than_that(world: World) -> None:
    key = possession.unproven(world.device_key.public_key())
    certificate = world.authority.issue(key, credential(), NOW)
    assert world.check(der(certificate)).identifier_only


@pytest.mark.parametrize("policies", [(), (profile.IDENTIFIER_ONLY, profile.KEY_PROVEN)], ids=["none", "both"])
def test_where_a_ca_does_not_clearly_say_that_the_key_was_proven_it_was_not(
    world: World, policies: tuple[x509.ObjectIdentifier, ...]
) -> None:
    stated = x509.CertificatePolicies([x509.PolicyInformation(policy, None) for policy in policies])
    extensions = [*without(), *([(stated, False)] if policies else [])]
    assert world.check(world.sign(extensions)).identifier_only


def test_rsa_2048_passes_for_old_cards(world: World) -> None:
    old = rsa.generate_private_key(65537, 2048).public_key()
    assert world.check(world.sign(public_key=old), public_key=old)


# --- bytes -------------------------------------------------------------------------------------------------------------


def test_every_flipped_bit_is_refused(world: World) -> None:
    good = der(world.issue())
    for place, bit in itertools.product(range(len(good)), range(8)):
        flipped = bytearray(good)
        flipped[place] ^= 1 << bit
        with pytest.raises(CertificateError):
            world.check(bytes(flipped))


@pytest.mark.slow
def test_every_other_value_of_every_byte_is_refused(world: World) -> None:
    good = der(world.issue())
    for place, mask in itertools.product(range(len(good)), range(1, 256)):
        altered = bytearray(good)
        altered[place] ^= mask
        with pytest.raises(CertificateError):
            world.check(bytes(altered))


def test_every_cut_and_anything_behind_the_certificate_is_refused(world: World) -> None:
    good = der(world.issue())
    for length in range(len(good)):
        refused(world, good[:length], errors.CertificateUnreadable)
    refused(world, good + b"\0", errors.CertificateUnreadable)
    refused(world, good + good, errors.CertificateUnreadable)


def test_spare_bits_do_not_give_one_signature_two_certificates(world: World) -> None:
    even = next(it for it in (der(world.issue()) for _ in range(200)) if it[-1] % 2 == 0)
    signature = x509.load_der_x509_certificate(even).signature
    spare = bytearray(even)
    spare[-len(signature) - 1] = 1  # the last bit counts as not there, and it is zero anyway
    x509.load_der_x509_certificate(bytes(spare)).verify_directly_issued_by(world.ca)  # others take it
    refused(world, bytes(spare), errors.CertificateUnreadable)


def test_a_negative_serial_number_is_refused_though_the_ca_signed_it(world: World) -> None:
    certificate = x509.load_der_x509_certificate(world.sign())
    content = bytearray(certificate.tbs_certificate_bytes)
    version_3 = b"\xa0\x03\x02\x01\x02"
    content[content.index(version_3) + len(version_3) + 2] |= 0x80  # behind tag and length
    assert isinstance(world.ca_key, ec.EllipticCurvePrivateKey)
    signature = world.ca_key.sign(bytes(content), ec.ECDSA(SHA256()))
    algorithm = bytes.fromhex("300a 0608 2a8648ce3d040302")  # ecdsa-with-SHA256
    body = bytes(content) + algorithm + bytes([0x03, len(signature) + 1, 0x00]) + signature
    negative = b"\x30\x82" + len(body).to_bytes(2) + body
    x509.load_der_x509_certificate(negative).verify_directly_issued_by(world.ca)  # all else is in order
    refused(world, negative, errors.CertificateUnreadable)


def test_what_does_not_fit_the_device_is_refused_before_it_is_looked_at(world: World) -> None:
    good = der(world.issue())
    assert world.check(good, max_size_bytes=len(good))
    error = refused(world, good, errors.CertificateTooBig, max_size_bytes=len(good) - 1)
    assert error.data == {"size_bytes": len(good), "max_size_bytes": len(good) - 1}
    refused(world, b"x" * (MAX_SIZE_BYTES + 1), errors.CertificateTooBig)


# --- trust -------------------------------------------------------------------------------------------------------------


def test_another_ca_is_refused_also_under_the_same_name(world: World, tmp_path: Path) -> None:
    twin = World(tmp_path / "twin")
    assert twin.ca.subject == world.ca.subject
    refused(world, der(twin.issue()), errors.UntrustedIssuer, public_key=None)
    elsewhere = CertificateAuthority.create(tmp_path / "other", "Example Retail", "s2000", NOW)
    foreign = elsewhere.issue(possession.unproven(world.device_key.public_key()), credential(), NOW)
    assert "Store s2000 credential CA" in refused(world, der(foreign), errors.UntrustedIssuer).what


def test_a_certificate_that_one_of_our_credentials_signed_is_refused(world: World) -> None:
    supervisor = world.issue()
    forged = world.sign(key=world.device_key, issuer=supervisor.subject)
    refused(world, forged, errors.UntrustedIssuer)
    refused(world, forged, errors.CaUnfit, ca=supervisor, crl=None)


def test_the_ca_must_be_valid_too(world: World) -> None:
    late = NOW + timedelta(days=3654)
    long_lived = world.sign(end=late + 90 * DAY)
    refused(world, long_lived, errors.CertificateExpired, now=late)


# --- time --------------------------------------------------------------------------------------------------------------


def test_dates_are_exact_to_the_second(world: World) -> None:
    certificate = world.sign(begin=NOW, end=NOW + DAY)
    second = timedelta(seconds=1)
    fresh = world.list_of(begin=NOW - 2 * DAY)
    refused(world, certificate, errors.CertificateNotYetValid, now=NOW - second, crl=fresh)
    assert world.check(certificate, now=NOW, crl=fresh)
    assert world.check(certificate, now=NOW + DAY, crl=fresh)
    refused(world, certificate, errors.CertificateExpired, now=NOW + DAY + second, crl=fresh)


def test_a_clock_that_is_behind_is_noticed_and_does_not_revive_what_has_expired(world: World) -> None:
    dead_battery = datetime(1970, 1, 1, tzinfo=UTC)
    [warning] = world.check(der(world.issue()), now=dead_battery).warnings
    assert "the clock is behind: it shows 1970-01-01" in warning
    expired = world.sign(begin=NOW, end=NOW + 10 * DAY)
    while_it_was_valid = {"now": NOW + DAY, "crl": world.list_of()}
    assert world.check(expired, **while_it_was_valid)
    later = NOW + 20 * DAY
    for evidence in ({"newest_seen": later}, {"crl": world.list_of(begin=later)}):
        refused(world, expired, errors.CertificateExpired, **{**while_it_was_valid, **evidence})


def test_a_revocation_list_that_is_not_the_cas_cannot_move_the_clock(world: World) -> None:
    forged = world.list_of(key=p256(), begin=NOW + 3000 * DAY, end=NOW + 3001 * DAY)
    refused(world, der(world.issue()), errors.RevocationUnknown, crl=forged)


def test_the_last_thirty_days_are_warned_about(world: World) -> None:
    assert world.check(world.sign(end=NOW + 30 * DAY)).warnings == ()
    [warning] = world.check(world.sign(end=NOW + 29 * DAY)).warnings
    assert warning == "the certificate ends on 2026-12-21; have a new one issued"


# --- content -----------------------------------------------------------------------------------------------------------

SUPERVISOR_USE = x509.ExtendedKeyUsage([profile.SUPERVISOR])
OTHER_USE = x509.ExtendedKeyUsage([x509.ObjectIdentifier("1.3.6.1.5.5.7.3.2")])
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"\x05\x00")
NOT_A_SUPERVISOR = {
    "no role": without(x509.ExtendedKeyUsage),
    "role not critical": [*without(x509.ExtendedKeyUsage), (SUPERVISOR_USE, False)],
    "another role": [*without(x509.ExtendedKeyUsage), (OTHER_USE, True)],
    "a CA": [*without(x509.BasicConstraints), (x509.BasicConstraints(ca=True, path_length=0), True)],
    "signs certificates": [
        *without(x509.KeyUsage), (profile.key_usage("digital_signature", "key_cert_sign", "crl_sign"), True)
    ],
    "does not sign": [*without(x509.KeyUsage), (profile.key_usage("key_agreement"), True)],
    "unknown and critical": [*without(), (UNKNOWN, True)],
}  # fmt: skip


@pytest.mark.parametrize("extensions", NOT_A_SUPERVISOR.values(), ids=NOT_A_SUPERVISOR)
def test_who_is_no_supervisor_is_refused(world: World, extensions: list[profile.Extension]) -> None:
    refused(world, world.sign(extensions), errors.WrongRole)


def test_what_the_profile_does_not_know_and_is_not_critical_does_no_harm(world: World) -> None:
    assert world.check(world.sign([*without(), (UNKNOWN, False)]))


@pytest.mark.parametrize(("kind", "key"), weak_keys().items(), ids=lambda it: it if isinstance(it, str) else "")
def test_a_weak_or_foreign_kind_of_key_is_refused(world: World, kind: str, key: object) -> None:
    error = refused(world, world.sign(public_key=key), errors.WeakKey, public_key=None)
    assert error.data == {"kind": kind}


def test_another_key_than_the_devices_is_refused(world: World) -> None:
    refused(world, der(world.issue()), errors.KeyMismatch, public_key=p256().public_key())


def test_a_copy_for_another_controller_is_refused(world: World) -> None:
    bound, free = der(world.issue()), der(world.issue(device_serial=""))
    assert world.check(bound, device_serial=DEVICE_SERIAL)
    refused(world, bound, errors.BoundElsewhere, device_serial="CTRL-0043")
    refused(world, bound, errors.BoundElsewhere, device_serial=None)
    assert world.check(free, device_serial="CTRL-0043")


# --- revocation --------------------------------------------------------------------------------------------------------


def entry(certificate: bytes) -> x509.RevokedCertificate:
    serial = x509.load_der_x509_certificate(certificate).serial_number
    return x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY).build()


def test_a_revoked_certificate_is_refused_however_old_the_list_is(world: World) -> None:
    certificate = der(world.issue())
    for end in (NOW + DAY, NOW - 13 * DAY, NOW - 300 * DAY):
        crl = world.list_of([entry(certificate)], begin=NOW - 400 * DAY, end=end)
        error = refused(world, certificate, errors.CertificateRevoked, crl=crl)
        assert error.data["revoked_at"] == (NOW - DAY).isoformat()


def test_a_list_out_of_date_warns_for_its_days_of_grace_and_then_refuses(world: World) -> None:
    certificate = world.sign(end=NOW + 300 * DAY)
    crl = world.list_of(begin=NOW - 30 * DAY, end=NOW)
    policy = RevocationPolicy(grace_days=3)
    second = timedelta(seconds=1)
    assert world.check(certificate, crl=crl, policy=policy, now=NOW).warnings == ()
    for now in (NOW + second, NOW + 3 * DAY):
        [warning] = world.check(certificate, crl=crl, policy=policy, now=now).warnings
        assert warning == "the revocation list ended on 2026-11-22; it is accepted until 2026-11-25"
    refused(world, certificate, errors.RevocationUnknown, crl=crl, policy=policy, now=NOW + 3 * DAY + second)


def test_without_a_list_nothing_passes_unless_the_store_says_so(world: World) -> None:
    certificate = der(world.issue())
    refused(world, certificate, errors.RevocationUnknown, crl=None)
    checked = world.check(certificate, crl=None, policy=RevocationPolicy(crl_required=False))
    assert checked.warnings == ("revocation was not checked: there is no revocation list",)


def test_a_list_that_is_not_the_cas_own_or_not_complete_is_refused(world: World) -> None:
    certificate = der(world.issue())
    delta = (x509.DeltaCRLIndicator(1), True)
    other_name = profile.name("Example Retail", None, "Store s2000 credential CA")
    for crl in (
        world.list_of(key=p256()),
        world.list_of(issuer=other_name),
        world.list_of(extensions=[delta]),
        world.list_of([with_critical_entry(certificate)]),
    ):
        refused(world, certificate, errors.RevocationUnknown, crl=crl, policy=RevocationPolicy(crl_required=False))


def test_a_ca_that_may_not_sign_lists_has_none(world: World) -> None:
    own_key = world.ca.public_key()
    rights = [(x509.BasicConstraints(ca=True, path_length=0), True), (profile.key_usage("key_cert_sign"), True)]
    ca = x509.load_der_x509_certificate(world.sign(rights, public_key=own_key))
    certificate, crl = world.sign(issuer=ca.subject), world.list_of(issuer=ca.subject)
    assert world.check(certificate, ca=ca, crl=None, policy=RevocationPolicy(crl_required=False))
    assert "may not sign" in refused(world, certificate, errors.RevocationUnknown, ca=ca, crl=crl).what


def with_critical_entry(certificate: bytes) -> x509.RevokedCertificate:
    """Of an indirect list: it is another CA's certificate that is revoked (RFC 5280 §5.3.3)."""
    issuer = x509.CertificateIssuer([x509.DirectoryName(profile.name("Other", None, "Other CA"))])
    serial = x509.load_der_x509_certificate(certificate).serial_number + 1
    builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - DAY)
    return builder.add_extension(issuer, True).build()


def test_a_revocation_by_the_cas_own_hand_is_obeyed_at_once(tmp_path: Path) -> None:
    world = World(tmp_path / "ca")
    lost, kept = world.issue(), world.issue(number=8)
    world.authority.revoke(lost.serial_number, NOW)
    refused(world, der(lost), errors.CertificateRevoked)
    assert world.check(der(kept)).warnings == ()


def test_the_identifier_stands_in_the_certificate_as_the_reader_reports_it(world: World) -> None:
    names = world.issue().extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.UniformResourceIdentifier)[1] == f"urn:optima:key:{ROM_ID.hex().upper()}"

"""A store's CA, one supervisor, one device: what the tests of certificates start from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.enroll.pki import possession, profile
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.pki.check import CheckedCertificate, check
from optima_bridge.enroll.pki.csr import make_request, read_request
from optima_bridge.enroll.pki.profile import Credential

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
DAY = timedelta(days=1)
DEVICE_SERIAL = "CTRL-0042"
MAX_SIZE_BYTES = 2048
ROM_ID = bytes.fromhex("01B7BA1000000075")


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def credential(**changes: Any) -> Credential:
    """The full profile, but for `changes`."""
    full = {"store": "s1042", "number": 7, "identifier": ROM_ID, "device_serial": DEVICE_SERIAL, "signs": True}
    return Credential(organization="Example Retail", **{**full, **changes})


@dataclass
class World:
    """The CA lies in `directory`."""

    directory: Path
    now: datetime = NOW
    device_key: ec.EllipticCurvePrivateKey = field(default_factory=p256)

    def __post_init__(self) -> None:
        self.authority = CertificateAuthority.create(self.directory, "Example Retail", "s1042", self.now)
        self.ca = self.authority.certificate

    @property
    def ca_key(self) -> CertificateIssuerPrivateKeyTypes:
        return self.authority._key

    def issue(self, **changes: Any) -> x509.Certificate:
        """A certificate whose key the device has proven."""
        about = credential(**changes)
        key = possession.proven_by_request(read_request(make_request(about, self.device_key)))
        return self.authority.issue(key, about, self.now)

    def check(self, der: bytes, **changes: Any) -> CheckedCertificate:
        """With everything as it should be, but for `changes`."""
        usual: dict[str, Any] = {
            "ca": self.ca,
            "crl": self.authority.current_crl(),
            "now": self.now,
            "max_size_bytes": MAX_SIZE_BYTES,
            "public_key": self.device_key.public_key(),
            "device_serial": DEVICE_SERIAL,
        }
        return check(der, **{**usual, **changes})

    def sign(
        self,
        extensions: Iterable[profile.Extension] | None = None,
        *,
        public_key: Any = None,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        issuer: x509.Name | None = None,
        begin: datetime | None = None,
        end: datetime | None = None,
    ) -> bytes:
        """A certificate that our CA would not make: DER."""
        builder = (
            x509.CertificateBuilder()
            .serial_number(x509.random_serial_number())
            .subject_name(profile.subject(credential()))
            .issuer_name(issuer or self.ca.subject)
            .public_key(public_key or self.device_key.public_key())
            .not_valid_before(begin or self.now)
            .not_valid_after(end or self.now + 90 * DAY)
        )
        for extension, critical in profile.requested_extensions(credential()) if extensions is None else extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(key or self.ca_key, SHA256()).public_bytes(Encoding.DER)

    def list_of(
        self,
        revoked: Sequence[x509.RevokedCertificate] = (),
        *,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        issuer: x509.Name | None = None,
        begin: datetime | None = None,
        end: datetime | None = None,
        extensions: Iterable[profile.Extension] = (),
    ) -> x509.CertificateRevocationList:
        """A revocation list that our CA would not make."""
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(issuer or self.ca.subject)
            .last_update(begin or self.now - DAY)
            .next_update(end or self.now + 30 * DAY)
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        for entry in revoked:
            builder = builder.add_revoked_certificate(entry)
        return builder.sign(key or self.ca_key, SHA256())


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.PEM)


def without(*kinds: type[x509.ExtensionType]) -> list[profile.Extension]:
    """The profile's extensions but for these."""
    return [it for it in profile.requested_extensions(credential()) if not isinstance(it[0], kinds)]


def weak_keys() -> dict[str, Any]:
    """Public keys that are not accepted, by kind."""
    from cryptography.hazmat.primitives.asymmetric import ed25519

    return {
        "RSA-1024": rsa.generate_private_key(65537, 1024).public_key(),
        "secp384r1": ec.generate_private_key(ec.SECP384R1()).public_key(),
        "Ed25519": ed25519.Ed25519PrivateKey.generate().public_key(),
    }

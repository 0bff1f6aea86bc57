"""The profile "optima supervisor credential v1": what a credential certificate says, and how it is built.

    subject        O, OU=Store <id>, CN=supervisor key <n>, serialNumber=<identifier, upper-case hex>; no person's name
    validity       from 5 minutes ago (clocks differ), at most 1 year
    basicConstraints, keyUsage             critical: no CA; digitalSignature
    extKeyUsage    critical: SUPERVISOR; for cards that sign also id-PIV-cardAuth
    policies       KEY_PROVEN or IDENTIFIER_ONLY: what was known of the key at issue
    subjectAltName URIs:
                   urn:uuid:<credential>
                   urn:optima:key:<identifier, upper-case hex>
                   nih:sha-256;<hex>  of the controller's serial number (RFC 6920 §7): a copy fails in another controller
    subjectKeyIdentifier, authorityKeyIdentifier

Object identifiers are below 2.25.<UUID> (X.667 §7), which needs no registration. They stand only where every parser takes
them: GnuTLS 3.7 cannot read a certificate that has one as the type of an otherName or of an extension. RFC 5280 for
everything else.
"""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes
from cryptography.x509.oid import NameOID

from optima_bridge.enroll.pki.possession import SubjectKey
from optima_bridge.errors import UsageError

PROFILE = "optima supervisor credential v1"
ARC = f"2.25.{UUID('75cdd9ae-b026-431c-8088-51c2e9f39a35').int}"
SUPERVISOR = x509.ObjectIdentifier(f"{ARC}.1")
KEY_PROVEN = x509.ObjectIdentifier(f"{ARC}.2.1")  # policy A: whoever asked showed that they hold the private key
IDENTIFIER_ONLY = x509.ObjectIdentifier(f"{ARC}.2.2")  # policy B: a copyable identifier has the role, nothing more
PIV_CARD_AUTHENTICATION = x509.ObjectIdentifier("2.16.840.1.101.3.6.8")  # FIPS 201-3
KEY_SCHEME = "urn:optima:key:"
DEVICE_SCHEME = "nih:sha-256;"

CLOCK_SKEW = timedelta(minutes=5)
MAX_VALIDITY = timedelta(days=365)
RENEW_BEFORE_END = timedelta(days=30)
MAX_NAME_CHARACTERS = 64  # X.520 upper bounds of O, OU and CN
MAX_IDENTIFIER_BYTES = 32

NO_KEY_USE = dict.fromkeys(
    (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    ),
    False,
)

Extension = tuple[x509.ExtensionType, bool]


class Credential(msgspec.Struct, frozen=True, kw_only=True):
    """Who a certificate is about.

    Attributes:
        organization: the retailer, 1 to 64 characters.
        store: its number or name, 1 to 44 characters.
        number: of the supervisor key, from 1.
        identifier: ROM id or UID as the reader reports it, 1 to 32 bytes.
        device_serial: of the controller that it is bound to; empty binds to none.
        signs: the token is a card that signs, as PIV cards do.

    Raises:
        UsageError: a value is outside its range.
    """

    organization: str
    store: str
    number: int
    identifier: bytes
    device_serial: str = ""
    signs: bool = False
    uuid: UUID = msgspec.field(default_factory=uuid4)

    def __post_init__(self) -> None:
        check_names(self.organization, self.store)
        if self.number < 1:
            raise UsageError(f"supervisor keys are numbered from 1, not {self.number}")
        if not 1 <= len(self.identifier) <= MAX_IDENTIFIER_BYTES:
            raise UsageError(f"an identifier has 1 to {MAX_IDENTIFIER_BYTES} bytes, not {len(self.identifier)}")


def check_names(organization: str, store: str) -> None:
    """Whether these may stand in a certificate.

    Raises:
        UsageError: empty, too long, or with characters that cannot be shown.
    """
    for name, value, longest in (("organization", organization, organization), ("store", store, ca_common_name(store))):
        if not value.strip() or not value.isprintable() or len(longest) > MAX_NAME_CHARACTERS:
            raise UsageError(f"the {name} must be printable and fit into {MAX_NAME_CHARACTERS} characters: {longest!r}")


def key_common_name(number: int) -> str:
    """The common name in a supervisor key's certificate."""
    return f"supervisor key {number}"


def ca_common_name(store: str) -> str:
    """The common name of a store's CA, the longest text that the store's name stands in."""
    return f"Store {store} credential CA"


def store_of(common_name: str) -> str:
    """The store whose CA has this common name."""
    return common_name.removeprefix("Store ").removesuffix(" credential CA")


def common_part(shown: x509.Name, oid: x509.ObjectIdentifier) -> str:
    """One part of a distinguished name; empty where it has none."""
    return next((str(part.value) for part in shown.get_attributes_for_oid(oid)), "")


def name(organization: str, unit: str | None, common_name: str, serial_number: str | None = None) -> x509.Name:
    """A distinguished name in our order."""
    parts = {
        NameOID.ORGANIZATION_NAME: organization,
        NameOID.ORGANIZATIONAL_UNIT_NAME: unit,
        NameOID.COMMON_NAME: common_name,
        NameOID.SERIAL_NUMBER: serial_number,
    }
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in parts.items() if value is not None])


def name_text(shown: x509.Name) -> str:
    """A distinguished name for people (RFC 4514), most specific part first: ``CN=Store s1042 credential CA,O=…``."""
    return shown.rfc4514_string({NameOID.SERIAL_NUMBER: "serialNumber"})


def format_serial(serial: int) -> str:
    """A certificate's serial number as openssl prints it: upper-case hex, whole bytes."""
    digits = f"{serial:X}"
    return digits.zfill(len(digits) + len(digits) % 2)


def subject(credential: Credential) -> x509.Name:
    """The subject of its certificate and of its request."""
    return name(
        credential.organization,
        f"Store {credential.store}",
        key_common_name(credential.number),
        credential.identifier.hex().upper(),
    )


def key_usage(*uses: str) -> x509.KeyUsage:
    """These uses of a key and no other."""
    return x509.KeyUsage(**{**NO_KEY_USE, **dict.fromkeys(uses, True)})


def device_uri(device_serial: str) -> str:
    """What binds a certificate to a controller without telling others which one it is."""
    return DEVICE_SCHEME + hashlib.sha256(device_serial.encode()).hexdigest()


def requested_extensions(credential: Credential) -> list[Extension]:
    """What a request asks for; each with whether it is critical."""
    uses = [SUPERVISOR, PIV_CARD_AUTHENTICATION] if credential.signs else [SUPERVISOR]
    names = [credential.uuid.urn, KEY_SCHEME + credential.identifier.hex().upper()]
    if credential.device_serial:
        names.append(device_uri(credential.device_serial))
    return [
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (key_usage("digital_signature"), True),
        (x509.ExtendedKeyUsage(uses), True),
        (x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name) for name in names]), False),
    ]


def certificate_builder(
    credential: Credential, key: SubjectKey, issuer: x509.Certificate, now: datetime
) -> x509.CertificateBuilder:
    """A certificate that wants only the issuer's signature; it ends no later than its issuer.

    Args:
        now: aware time of issue.
    """
    policy = KEY_PROVEN if key.proven else IDENTIFIER_ONLY
    issuer_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(subject(credential))
        .issuer_name(issuer.subject)
        .public_key(key.public_key)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(min(now - CLOCK_SKEW + MAX_VALIDITY, issuer.not_valid_after_utc))
    )
    for extension, critical in (
        *requested_extensions(credential),
        (x509.CertificatePolicies([x509.PolicyInformation(policy, None)]), False),
        (x509.SubjectKeyIdentifier.from_public_key(key.public_key), False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuer_id), False),
    ):
        builder = builder.add_extension(extension, critical)
    return builder


def ca_builder(
    organization: str, store: str, public_key: CertificateIssuerPublicKeyTypes, now: datetime, validity: timedelta
) -> x509.CertificateBuilder:
    """The CA of one store: it signs credentials and revocation lists, and no further CA."""
    check_names(organization, store)
    itself = name(organization, None, ca_common_name(store))
    key_id = x509.SubjectKeyIdentifier.from_public_key(public_key)
    return (
        x509.CertificateBuilder()
        .serial_number(x509.random_serial_number())
        .subject_name(itself)
        .issuer_name(itself)
        .public_key(public_key)
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + validity)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .add_extension(key_usage("key_cert_sign", "crl_sign"), True)
        .add_extension(key_id, False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), False)
    )

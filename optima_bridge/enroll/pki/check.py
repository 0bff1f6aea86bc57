"""Every check of a credential certificate that can be made before the first write.

The order is that of trust: nothing in a certificate is believed before its signature is that of the store's CA. Each
refusal is an error of its own (`optima_bridge.errors.CertificateError`). RFC 5280 §6; the last word on the path has the
verifier of the cryptography library, which knows nothing of roles, key sizes and revocation.
"""

from __future__ import annotations

from datetime import datetime

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.verification import Criticality, ExtensionPolicy, PolicyBuilder, Store, VerificationError

from optima_bridge.enroll.pki.files import PARSE_ERRORS
from optima_bridge.enroll.pki.possession import PublicKey, accepted
from optima_bridge.enroll.pki.profile import (
    CLOCK_SKEW,
    DEVICE_SCHEME,
    IDENTIFIER_ONLY,
    KEY_PROVEN,
    KEY_SCHEME,
    RENEW_BEFORE_END,
    SUPERVISOR,
    device_uri,
    format_serial,
    name_text,
)
from optima_bridge.enroll.pki.revocation import DEFAULT_POLICY, RevocationPolicy, check_list_is_of, check_not_revoked
from optima_bridge.errors import (
    BoundElsewhere,
    CaUnfit,
    CertificateExpired,
    CertificateNotYetValid,
    CertificateTooBig,
    CertificateUnreadable,
    KeyMismatch,
    UntrustedIssuer,
    WrongRole,
)


class CheckedCertificate(msgspec.Struct, frozen=True):
    """A certificate that passed; only `check` makes one.

    Attributes:
        fingerprint: SHA-256 of `der`, lower-case hex.
        serial: serial number, upper-case hex.
        identifier_only: True: the CA vouches for a copyable identifier; never call that "authenticated". False: whoever
            asked for the certificate had shown that they hold its private key.
        warnings: for people; the certificate may be written all the same.
    """

    der: bytes
    fingerprint: str
    subject: str
    serial: str
    not_after: datetime
    identifier_only: bool
    warnings: tuple[str, ...]


def check(
    der: bytes,
    *,
    ca: x509.Certificate,
    crl: x509.CertificateRevocationList | None,
    now: datetime,
    max_size_bytes: int,
    public_key: PublicKey | None = None,
    device_serial: str | None = None,
    policy: RevocationPolicy = DEFAULT_POLICY,
    newest_seen: datetime | None = None,
) -> CheckedCertificate:
    """Whether `der` may be written into a device.

    Args:
        ca: the one CA that the store trusts; it must have issued the certificate directly.
        now: aware time of this PC.
        max_size_bytes: what the device can hold.
        public_key: the device's, where it has one.
        device_serial: the device's serial number; None where it cannot tell.
        newest_seen: the latest time that a trusted signature of before has vouched for; a clock that shows less is behind.

    Raises:
        CertificateError: its subclass says what is wrong.
    """
    if len(der) > max_size_bytes:
        raise CertificateTooBig(
            f"the certificate has {len(der)} bytes, the device holds {max_size_bytes}",
            size_bytes=len(der),
            max_size_bytes=max_size_bytes,
        )
    certificate = _parse(der)
    _check_issuer(certificate, ca)
    if crl is not None:
        check_list_is_of(crl, ca)
    time, warnings = _sane_time(now, crl, newest_seen)
    _check_dates(certificate, ca, time)
    _check_role(certificate)
    key = accepted(certificate.public_key())
    if public_key is not None and _spki(key) != _spki(public_key):
        raise KeyMismatch("the certificate is for another key than the device's")
    _check_device(certificate, device_serial)
    warnings += check_not_revoked(certificate, crl, time, policy)
    _check_path(certificate, ca, time)
    if certificate.not_valid_after_utc - time < RENEW_BEFORE_END:
        warnings.append(f"the certificate ends on {certificate.not_valid_after_utc:%F}; have a new one issued")
    return CheckedCertificate(
        der=der,
        fingerprint=certificate.fingerprint(SHA256()).hex(),
        subject=name_text(certificate.subject),
        serial=format_serial(certificate.serial_number),
        not_after=certificate.not_valid_after_utc,
        identifier_only=is_identifier_only(certificate),
        warnings=tuple(warnings),
    )


def is_identifier_only(certificate: x509.Certificate) -> bool:
    """Whether its CA does not say that a key was proven; see `CheckedCertificate.identifier_only`."""
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies)
    except x509.ExtensionNotFound:
        return True
    policies = {it.policy_identifier for it in found.value}
    return KEY_PROVEN not in policies or IDENTIFIER_ONLY in policies


def _parse(der: bytes) -> x509.Certificate:
    try:
        certificate = x509.load_der_x509_certificate(der)
        # The parser looks at these only when they are asked for.
        _ = certificate.issuer, certificate.subject, certificate.public_key(), certificate.extensions
    except PARSE_ERRORS as error:
        raise CertificateUnreadable("the bytes are no certificate that can be read") from error
    if certificate.serial_number <= 0:
        raise CertificateUnreadable("the serial number of the certificate is not positive")  # RFC 5280 §4.1.2.2
    # A signature is whole bytes. The parser also takes some spare bits, which would give one certificate two fingerprints.
    if not der.endswith(b"\x00" + certificate.signature):
        raise CertificateUnreadable("the signature of the certificate is not in DER")
    return certificate


def _check_issuer(certificate: x509.Certificate, ca: x509.Certificate) -> None:
    if not _is_ca(ca):
        raise CaUnfit(f"{name_text(ca.subject)} is no CA", cause="another certificate was configured as the CA")
    trusted = f"this store trusts {name_text(ca.subject)}"
    if certificate.issuer != ca.subject:
        raise UntrustedIssuer(f"issued by {name_text(certificate.issuer)}; {trusted}")
    try:
        certificate.verify_directly_issued_by(ca)
    except (InvalidSignature, *PARSE_ERRORS) as error:
        raise UntrustedIssuer(
            f"not signed with the key of the CA; {trusted}",
            cause="another CA of the same name, a CA that has a new key, or an altered certificate",
        ) from error


def _is_ca(certificate: x509.Certificate) -> bool:
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        return False
    return constraints.ca and usage.key_cert_sign


def _sane_time(
    now: datetime, crl: x509.CertificateRevocationList | None, newest_seen: datetime | None
) -> tuple[datetime, list[str]]:
    """It is no earlier than what the CA has already signed, whatever the clock of a store PC shows; and warnings."""
    listed = None if crl is None else crl.last_update_utc  # a list on which nothing is counts as false
    newest = max(time for time in (now, newest_seen, listed) if time is not None)
    if now + CLOCK_SKEW < newest:
        return newest, [f"the clock is behind: it shows {now:%F %H:%M} UTC, but the CA has signed at {newest:%F %H:%M}"]
    return newest, []


def _check_dates(certificate: x509.Certificate, ca: x509.Certificate, time: datetime) -> None:
    for what, holder in (("CA", ca), ("certificate", certificate)):
        if time < (begin := holder.not_valid_before_utc):
            raise CertificateNotYetValid(f"the {what} is valid from {begin:%F %H:%M}, and it is {time:%F %H:%M} UTC")
        if time > (end := holder.not_valid_after_utc):
            raise CertificateExpired(f"the {what} was valid until {end:%F %H:%M}, and it is {time:%F %H:%M} UTC")


def _check_role(certificate: x509.Certificate) -> None:
    extensions = {it.oid: it for it in certificate.extensions}
    match extensions.get(x509.ExtendedKeyUsage.oid):
        case x509.Extension(value=x509.ExtendedKeyUsage() as uses, critical=True) if SUPERVISOR in uses:
            pass
        case x509.Extension(value=x509.ExtendedKeyUsage() as uses) if SUPERVISOR in uses:
            raise WrongRole("the role of supervisor is not marked critical")
        case _:
            raise WrongRole("the certificate does not name the role of supervisor")
    match extensions.get(x509.BasicConstraints.oid):
        case x509.Extension(value=x509.BasicConstraints(ca=True)):
            raise WrongRole("the certificate is a CA's")
    match extensions.get(x509.KeyUsage.oid):
        case x509.Extension(value=x509.KeyUsage(digital_signature=True, key_cert_sign=False)) | None:
            pass
        case _:
            raise WrongRole("the key may not be used for signatures, or for signing certificates")


def _check_device(certificate: x509.Certificate, device_serial: str | None) -> None:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    bound_to = [uri for uri in uris if uri.startswith(DEVICE_SCHEME)]
    if bound_to and device_serial is None:
        raise BoundElsewhere(
            "the certificate is bound to one controller, and this one does not tell its serial number",
            next_step="have a certificate issued that is bound to none",
        )
    if bound_to and device_uri(device_serial or "") not in bound_to:
        raise BoundElsewhere(f"the certificate is bound to another controller than {device_serial}")


def _check_path(certificate: x509.Certificate, ca: x509.Certificate, time: datetime) -> None:
    role = ExtensionPolicy.permit_all().require_present(x509.ExtendedKeyUsage, Criticality.CRITICAL, None)
    trust = ExtensionPolicy.permit_all().require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    builder = PolicyBuilder().store(Store([ca])).time(time).extension_policies(ca_policy=trust, ee_policy=role)
    try:
        builder.build_client_verifier().verify(certificate, [])
    except VerificationError as error:
        raise WrongRole(f"the certificate breaks a rule of RFC 5280: {error}") from error


def _spki(key: PublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def certified_identifier(der: bytes) -> bytes | None:
    """The identifier of the supervisor key that a certificate is about; None where it names none in our form."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        for uri in names.get_values_for_type(x509.UniformResourceIdentifier):
            if uri.startswith(KEY_SCHEME):
                return bytes.fromhex(uri.removeprefix(KEY_SCHEME))
    except (x509.ExtensionNotFound, *PARSE_ERRORS):
        pass
    return None

"""The revocation list that the CA of the store signs (RFC 5280 §5)."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from cryptography import x509

from optima_bridge.enroll.pki.profile import CLOCK_SKEW

CRL_VALIDITY = timedelta(days=30)


class Revocation(msgspec.Struct, frozen=True):
    """One revoked certificate."""

    serial: int
    revoked_at: datetime
    reason: x509.ReasonFlags


def crl_builder(
    issuer: x509.Certificate, number: int, revoked: list[Revocation], now: datetime
) -> x509.CertificateRevocationListBuilder:
    """A list that wants only the issuer's signature.

    Args:
        number: greater than that of every list before (RFC 5280 §5.2.3).
    """
    key_id = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(now + CRL_VALIDITY)
        .add_extension(x509.CRLNumber(number), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(key_id), False)
    )
    for entry in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(entry.serial)
            .revocation_date(entry.revoked_at)
            .add_extension(x509.CRLReason(entry.reason), False)
            .build()
        )
    return builder

"""Is a certificate revoked? A store may be offline for weeks, so a list that is out of date warns before it refuses."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, cast

import msgspec
from cryptography import x509

from optima_bridge.enroll.pki.files import PARSE_ERRORS
from optima_bridge.errors import CertificateRevoked, RevocationUnknown

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPublicKeyTypes


class RevocationPolicy(msgspec.Struct, frozen=True):
    """How strict the store is.

    Attributes:
        crl_required: without a list nothing is accepted; False warns instead.
        grace_days: how long a list may be out of date, 0 or more days; warned about meanwhile.
    """

    crl_required: bool = True
    grace_days: int = 14


DEFAULT_POLICY = RevocationPolicy()


def check_list_is_of(crl: x509.CertificateRevocationList, ca: x509.Certificate) -> None:
    """Whether the list is the CA's own, and says nothing that is not understood here.

    Raises:
        RevocationUnknown: signed by another key, another name, or a list that must not be used alone: a partial or
            indirect one has a critical extension (RFC 5280 §5.2).
    """
    try:
        if crl.issuer != ca.subject:
            raise RevocationUnknown("the revocation list comes from another CA")
        if not crl.is_signature_valid(cast("CertificateIssuerPublicKeyTypes", ca.public_key())):
            raise RevocationUnknown("the signature of the revocation list is not the CA's")
        if not ca.extensions.get_extension_for_class(x509.KeyUsage).value.crl_sign:
            raise RevocationUnknown("the CA may not sign revocation lists")
        critical = [it for holder in (crl, *crl) for it in holder.extensions if it.critical]
    except PARSE_ERRORS as error:
        raise RevocationUnknown("the revocation list is damaged") from error
    if critical:
        oids = ", ".join(it.oid.dotted_string for it in critical)
        raise RevocationUnknown(f"the revocation list is not a complete one; it demands {oids}")


def check_not_revoked(
    certificate: x509.Certificate,
    crl: x509.CertificateRevocationList | None,
    now: datetime,
    policy: RevocationPolicy,
) -> list[str]:
    """Warnings; `crl` has passed `check_list_is_of`.

    Raises:
        CertificateRevoked: it is on the list, however old that is.
        RevocationUnknown: no list, or one out of date for longer than the policy bears.
    """
    if crl is None:
        if policy.crl_required:
            raise RevocationUnknown("there is no revocation list", cause="none was brought to this PC yet")
        return ["revocation was not checked: there is no revocation list"]
    serial = certificate.serial_number
    if (entry := crl.get_revoked_certificate_by_serial_number(serial)) is not None:
        at = entry.revocation_date_utc
        raise CertificateRevoked(
            f"the certificate was revoked on {at:%F}", serial=f"{serial:X}", revoked_at=at.isoformat()
        )
    end = crl.next_update_utc or crl.last_update_utc  # RFC 5280 §5.1.2.5 demands the former
    if now <= end:
        return []
    if now > end + timedelta(days=policy.grace_days):
        raise RevocationUnknown(f"the revocation list ended on {end:%F}, more than {policy.grace_days} days ago")
    last = end + timedelta(days=policy.grace_days)
    return [f"the revocation list ended on {end:%F}; it is accepted until {last:%F}"]

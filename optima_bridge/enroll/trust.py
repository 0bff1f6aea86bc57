"""Which CA this store trusts for its credentials, and the checks that follow from it.

The one of `bridge ca` in the state directory, unless the configuration names another: ``[enroll] ca`` and ``crl``.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
from cryptography import x509

from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.pki.check import CheckedCertificate, check
from optima_bridge.enroll.pki.files import read_certificate, read_crl
from optima_bridge.enroll.pki.possession import PublicKey
from optima_bridge.enroll.pki.profile import format_serial
from optima_bridge.enroll.pki.revocation import RevocationPolicy
from optima_bridge.enroll.work import CheckFor
from optima_bridge.errors import CaMissing, EnrollRefused
from optima_bridge.model import DeviceIdentity
from optima_bridge.secrets import Secret
from optima_bridge.store import StoreTraits

CA_DIRECTORY = "ca"


class Trust(msgspec.Struct, frozen=True):
    """Where trust comes from; reads the files anew each time, for lists are renewed. Blocks.

    Attributes:
        state_directory: its ``ca`` is the CA of this store.
        ca, crl: files of another one; None: the CA of this store.
        ca_pin: of the token that holds the key of the CA of this store.
        grace_days: how long a revocation list may be out of date.
    """

    state_directory: Path
    ca: Path | None = None
    crl: Path | None = None
    ca_pin: Secret | None = None
    grace_days: int = RevocationPolicy().grace_days

    def check_for(self) -> CheckFor:
        """The checks that a certificate has to pass now.

        Raises:
            CaMissing, CaUnfit, AccessDenied, CertificateUnreadable, RevocationUnknown: of the CA and its list themselves.
        """
        now, newest, crl = datetime.now(UTC), None, None
        if self.ca is not None:
            ca = x509.load_der_x509_certificate(read_certificate(_read(self.ca)))
            crl = read_crl(_read(self.crl)) if self.crl else None
        else:
            authority = self.authority()
            ca, crl, newest = authority.certificate, authority.crl(now), authority.newest()
        policy = RevocationPolicy(grace_days=self.grace_days)

        def check_certificate(
            der: bytes, traits: StoreTraits, identity: DeviceIdentity, key: PublicKey | None
        ) -> CheckedCertificate:
            return check(
                der,
                ca=ca,
                crl=crl,
                now=now,
                max_size_bytes=traits.max_size_bytes,
                public_key=key,
                device_serial=identity.serial or None,
                policy=policy,
                newest_seen=newest,
            )

        return check_certificate

    def revoked(self) -> dict[str, datetime]:
        """Serial numbers, upper-case hex, on the revocation list; with since when.

        Raises:
            CaMissing, CaUnfit, AccessDenied, RevocationUnknown: there is no list to be had.
        """
        if self.ca is None:
            crl = self.authority().current_crl()
        else:
            assert self.crl is not None
            crl = read_crl(_read(self.crl))
        return {format_serial(entry.serial_number): entry.revocation_date_utc for entry in crl}

    def authority(self) -> CertificateAuthority:
        """The CA of this store, which can issue.

        Raises:
            EnrollRefused: the store trusts another one. CaMissing, CaUnfit, AccessDenied: see CertificateAuthority.open.
        """
        if self.ca is not None:
            raise EnrollRefused(
                "the store trusts a CA elsewhere, so none of its own can issue",
                cause="[enroll] ca names it",
                next_step="ask that CA, then bring its certificate: --csr FILE, later --cert FILE",
            )
        pin = self.ca_pin.read() if self.ca_pin is not None else None
        return CertificateAuthority.open(self.state_directory / CA_DIRECTORY, secret=pin)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CaMissing(
            f"{file} cannot be read: {(error.strerror or str(error)).lower()}", next_step=f"ls -l {file}"
        ) from error

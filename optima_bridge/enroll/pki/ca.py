"""The CA of one store: a directory, mode 0700, that issues credentials and keeps the list of the revoked ones.

    key.pem          private key, PKCS#8, mode 0600
    token            in its place where a token holds the key: the URI of the token, nothing secret
    certificate.pem  what the store trusts
    ledger.db        what was issued and revoked, and the current revocation list
    crl.pem          a copy of that list for other programs

The directory is made beside its place and renamed into it: a power cut leaves a whole CA or none. All calls block (disk,
token); a coroutine hands them to a thread.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from optima_bridge.enroll.pki.crl import CRL_VALIDITY, Revocation, crl_builder
from optima_bridge.enroll.pki.custody import (
    check_vacant,
    new_directory,
    read_private_key,
    replace_file,
    unusable,
    write_file,
)
from optima_bridge.enroll.pki.files import PARSE_ERRORS
from optima_bridge.enroll.pki.ledger import Counts, Ledger, Sign
from optima_bridge.enroll.pki.possession import SubjectKey
from optima_bridge.enroll.pki.profile import (
    CLOCK_SKEW,
    Credential,
    ca_builder,
    certificate_builder,
    common_part,
    format_serial,
    store_of,
)
from optima_bridge.enroll.pki.token import Custodian, key_of
from optima_bridge.errors import (
    CaMissing,
    CaUnfit,
    CertificateExpired,
    ClockBehind,
    NotFound,
    SecretMissing,
    UsageError,
)
from optima_bridge.link.pkcs11_uri import parse

KEY, TOKEN, CERTIFICATE, LEDGER, CRL = "key.pem", "token", "certificate.pem", "ledger.db", "crl.pem"
CA_VALIDITY = timedelta(days=3653)  # ten years: as long as the tills of a store


class CertificateAuthority:
    """Issues and revokes; made by `create` or `open`."""

    def __init__(self, directory: Path, certificate: x509.Certificate, key: CertificateIssuerPrivateKeyTypes) -> None:
        self.directory = directory
        self.certificate = certificate
        self._key = key
        self._ledger = Ledger(directory / LEDGER)

    @classmethod
    def create(
        cls,
        directory: Path,
        organization: str,
        store: str,
        now: datetime,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        validity: timedelta = CA_VALIDITY,
        custodian: Custodian | None = None,
    ) -> CertificateAuthority:
        """A new CA. Its P-256 key is made in the token of `custodian`, or kept in the directory.

        Args:
            key: to sign with one that is kept elsewhere by whoever asks; it is not remembered.

        Raises:
            CaExists: something is in the directory.
            AccessDenied: this user may not write beside it.
            NotAuthorised, LinkError, ProtocolError, DeviceError: the token.
        """
        check_vacant(directory)
        if custodian is not None:
            signing: CertificateIssuerPrivateKeyTypes = key_of(custodian, custodian.make_key())
        else:
            signing = key or ec.generate_private_key(ec.SECP256R1())
        certificate = ca_builder(organization, store, signing.public_key(), now, validity).sign(signing, SHA256())
        with new_directory(directory) as making:
            if custodian is not None:
                write_file(making / TOKEN, f"{custodian.uri.text}\n".encode())
            elif key is None:
                pem = signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
                write_file(making / KEY, pem)
            write_file(making / CERTIFICATE, certificate.public_bytes(Encoding.PEM))
            write_file(making / LEDGER, b"")  # SQLite would make it readable by others
            new = cls(making, certificate, signing)
            new._ledger.create(new._signer(now))
            new._export_crl()
        return cls(directory, certificate, signing)

    @classmethod
    def open(
        cls, directory: Path, key: CertificateIssuerPrivateKeyTypes | None = None, secret: bytes | None = None
    ) -> CertificateAuthority:
        """The CA in `directory`. Where its key is in a token, that is needed only for signing.

        Args:
            key: as for `create`; None: the one that the directory has or names.
            secret: PIN of that token; without it nothing can be signed (SecretMissing).

        Raises:
            CaMissing: there is none.
            CaUnfit: its key can be read by others or belongs to another certificate, or a file is damaged.
            AccessDenied: this user may not read it.
        """
        try:
            certificate = x509.load_pem_x509_certificate((directory / CERTIFICATE).read_bytes())
            signing = key or _key_in(directory, certificate, secret)
        except FileNotFoundError as error:
            if error.filename == str(directory / KEY):
                raise CaUnfit(f"the CA has no {KEY}, and no token was named", directory=str(directory)) from error
            raise CaMissing(f"there is no CA in {directory}", directory=str(directory)) from error
        except OSError as error:
            raise unusable(directory, error) from error
        except PARSE_ERRORS as error:
            raise CaUnfit(f"the certificate of the CA in {directory} is damaged") from error
        if signing.public_key() != certificate.public_key():
            raise CaUnfit(f"the key of the CA in {directory} belongs to another certificate")
        ca = cls(directory, certificate, signing)
        ca._export_crl()  # the power may have failed between the ledger and the copy
        return ca

    def issue(self, key: SubjectKey, credential: Credential, now: datetime) -> x509.Certificate:
        """A certificate by the profile; it is in the ledger before it is handed out.

        Raises:
            ClockBehind: `now` lies before what this CA has already signed.
            CertificateExpired: of the CA itself.
        """
        certificate = self.draft(key, credential, now)
        self._ledger.record(certificate)
        return certificate

    def draft(self, key: SubjectKey, credential: Credential, now: datetime) -> x509.Certificate:
        """What `issue` would make, for looking at: it is not in the ledger and must not be handed out. Raises as `issue`."""
        if now < (newest := self._ledger.newest()):
            raise ClockBehind(f"the clock shows {now:%F %T} UTC, but the CA has signed at {newest:%F %T}")
        if now >= self.certificate.not_valid_after_utc:
            raise CertificateExpired("the certificate of the CA has expired", next_step="bridge ca init --help")
        return certificate_builder(credential, key, self.certificate, now).sign(self._key, SHA256())

    @property
    def organization(self) -> str:
        """The retailer, as it stands in every certificate."""
        return common_part(self.certificate.subject, NameOID.ORGANIZATION_NAME)

    @property
    def store(self) -> str:
        """The store, as it stands in every certificate."""
        return store_of(common_part(self.certificate.subject, NameOID.COMMON_NAME))

    def revoke(self, serial: int, now: datetime, reason: x509.ReasonFlags = x509.ReasonFlags.key_compromise) -> bool:
        """Revoke for ever; a wrong clock does not prevent it. False: it was revoked before.

        Raises:
            NotFound: this CA did not issue it.
        """
        at = max(now, self._ledger.newest() + CLOCK_SKEW)  # a list is never dated before the one that it replaces
        try:
            changed = self._ledger.revoke(serial, at, reason, self._signer(at))
        except KeyError as error:
            raise NotFound(
                f"this CA has issued no certificate with the serial number {format_serial(serial)}",
                cause="a typing mistake, or it came from another CA",
                next_step="take the serial number from the certificate: openssl x509 -in FILE -noout -serial",
            ) from error
        self._export_crl()
        return changed

    def crl(self, now: datetime) -> x509.CertificateRevocationList:
        """The current revocation list, signed anew when half its time has passed and the PIN of its token, if any, is known."""
        crl = self.current_crl()
        assert crl.next_update_utc is not None
        if now > crl.next_update_utc - CRL_VALIDITY / 2:
            with suppress(SecretMissing):
                return self.renew_crl(now)
        return crl

    def current_crl(self) -> x509.CertificateRevocationList:
        """The revocation list as it was last signed."""
        return self._ledger.crl()

    @property
    def custody(self) -> str:
        """Where its key is: the name of the file, or the URI of the token."""
        return _token_of(self.directory) or KEY

    def certificate_pem(self) -> str:
        """What others have to trust."""
        return self.certificate.public_bytes(Encoding.PEM).decode("ascii")

    def counts(self) -> Counts:
        """How many certificates were issued and revoked."""
        return self._ledger.counts()

    def newest(self) -> datetime:
        """The latest time that this CA has put its name to; a clock that shows less is behind."""
        return self._ledger.newest()

    def renew_crl(self, now: datetime) -> x509.CertificateRevocationList:
        """Sign the list anew with the dates of `now`, whatever was signed before: the way out after a clock that ran ahead."""
        self._ledger.renew_crl(self._signer(now))
        self._export_crl()
        return self._ledger.crl()

    def _signer(self, now: datetime) -> Sign:
        def sign(number: int, revoked: list[Revocation]) -> x509.CertificateRevocationList:
            return crl_builder(self.certificate, number, revoked, now).sign(self._key, SHA256())

        return sign

    def _export_crl(self) -> None:
        """Copy the list to its file; another process may sign a newer one meanwhile, and that one must win."""
        path = self.directory / CRL
        try:
            copied = path.read_bytes() if path.exists() else b""
        except OSError as error:
            raise unusable(self.directory, error) from error
        while copied != (current := self.current_crl().public_bytes(Encoding.PEM)):
            replace_file(path, current)
            copied = current


def _token_of(directory: Path) -> str:
    """The URI of the token that has the key; empty: none has."""
    try:
        return (directory / TOKEN).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return ""


def _key_in(directory: Path, certificate: x509.Certificate, secret: bytes | None) -> CertificateIssuerPrivateKeyTypes:
    """The key that the directory has, or that the token which it names has."""
    public_key = certificate.public_key()
    if not (uri := _token_of(directory)):
        return read_private_key(directory / KEY)
    try:
        custodian = Custodian(parse(uri), secret)
    except UsageError as error:
        raise CaUnfit(f"{directory / TOKEN} names no token: {error.what}", next_step=error.next_step) from error
    if not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise CaUnfit(f"the certificate of the CA in {directory} is about no EC key, so a token does not have it")
    return key_of(custodian, public_key)

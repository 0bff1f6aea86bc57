"""What a new credential is about, and who issues it: the CA of this store at once, or one elsewhere by way of a request.

The certificate is bound to the controller that is to hold it. Its key is the device's own where it has one; only where
device and supervisor key are one (a card that signs) does that prove who holds it. Else the certificate is an authorisation:
this identifier has the role. Where the device has no key, the certificate gets one whose private half is kept nowhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from optima_bridge.enroll.engine import refuse
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.pki.check import certified_identifier
from optima_bridge.enroll.pki.csr import make_request
from optima_bridge.enroll.pki.possession import (
    PublicKey,
    SubjectKey,
    accepted,
    challenge,
    proven_by_signature,
    unproven,
)
from optima_bridge.enroll.pki.profile import Credential, key_common_name
from optima_bridge.enroll.pki.signing_key import SigningKey
from optima_bridge.enroll.switch import active
from optima_bridge.enroll.words import Result
from optima_bridge.enroll.work import DryRun, Enrol, Open, Plan, device_key
from optima_bridge.errors import CertificateError, EnrollRefused
from optima_bridge.store import KeyHolder, LockedStore, Readback, SlotState

SIGN_TIMEOUT_S = 30.0


class About(msgspec.Struct, frozen=True):
    """Whom a new credential is about.

    Attributes:
        identifier: of the supervisor key, as its reader reports it: hex digits, or any other text.
        number: of the supervisor key; 0: the next one that the CA has not used.
        same: the supervisor key is the device that holds the certificate.
    """

    identifier: str
    number: int = 0
    same: bool = False

    def credential(self, organization: str, store: str, number: int, device_serial: str, signs: bool) -> Credential:
        """What its certificate says."""
        return Credential(
            organization=organization,
            store=store,
            number=self.number or number,
            identifier=identifier_bytes(self.identifier),
            device_serial=device_serial,
            signs=signs,
        )


class Issue(msgspec.Struct, frozen=True):
    """Have the CA of this store issue a certificate, and enrol it; one that is there for the same key, and good, is left."""

    authority: CertificateAuthority
    about: About
    enrol: Callable[[bytes], Enrol]

    async def do(self, it: Open) -> Result:
        """Refused where the certificate could not be enrolled anyway: nothing is issued in vain."""
        enrol = self.enrol(b"")
        enrol.ready()
        await it.store.connect()
        present = active(await it.store.inspect())
        if (held := await _held(it, present, enrol, self.about)) is not None:
            return await self.enrol(held).do(it)
        refuse(it.store, enrol.request(it), present, "")
        return await self.enrol(await _issued(it, self.authority.issue, self.authority, self.about)).do(it)


class DryIssue(msgspec.Struct, frozen=True):
    """All checks of `Issue`, on a certificate that is neither recorded nor written."""

    authority: CertificateAuthority
    about: About
    enrol: Callable[[bytes], Enrol]
    show: Callable[[Plan], None]

    async def do(self, it: Open) -> None:
        await it.store.connect()
        if it.store.traits.can_prove_key and await device_key(it.store) is None:
            raise EnrollRefused(
                "the device has no key yet, and a dry run makes none",
                cause="it is new",
                next_step="run it without --dry-run: it makes the key, then the certificate",
            )
        certificate = await _held(it, active(await it.store.inspect()), self.enrol(b""), self.about)
        if certificate is None:
            certificate = await _issued(it, self.authority.draft, self.authority, self.about)
        await DryRun(self.enrol(certificate), self.show).do(it)


class Ask(msgspec.Struct, frozen=True):
    """Make a request to a CA elsewhere, signed with the key of the device; `show` gets it in PEM. Writes no certificate."""

    organization: str
    store: str
    about: About
    show: Callable[[str], None]

    async def do(self, it: Open) -> None:
        """Raises EnrollRefused: the device has no key that could sign the request."""
        await it.store.connect()
        if not it.store.traits.can_prove_key:
            raise EnrollRefused(
                f"{it.identity.serial or 'the device'} has no key of its own, so it cannot ask for a certificate",
                cause="its secure memory keeps certificates only",
                next_step="let the CA of this store issue one: enroll without --cert",
            )
        key = await _own_key(it)
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise EnrollRefused("the key of the device is no EC key; only such a one signs requests here")
        loop = asyncio.get_running_loop()

        def sign(data: bytes) -> bytes:
            signing = cast("KeyHolder", it.store).sign(data)
            return asyncio.run_coroutine_threadsafe(signing, loop).result(SIGN_TIMEOUT_S)

        about = self.about.credential(self.organization, self.store, 1, it.identity.serial, signs=self.about.same)
        pem = await asyncio.to_thread(make_request, about, SigningKey(key, sign))
        self.show(pem.decode("ascii"))


async def _held(it: Open, present: SlotState | None, enrol: Enrol, about: About) -> bytes | None:
    """The certificate that is active, DER, where another one would only say the same of this key; None: issue one."""
    wants_another = enrol.replace or enrol.if_fingerprint is not None
    if wants_another or present is None or it.store.traits.readback is not Readback.BYTES:
        return None
    der = await it.store.read(present.slot)
    if certified_identifier(der) != identifier_bytes(about.identifier):
        return None
    if about.number and key_common_name(about.number) not in _common_names(der):
        return None
    try:
        enrol.check(der, it.store.traits, it.identity, await device_key(it.store))
    except CertificateError:
        return None  # expired, revoked, or of another CA
    return der


def _common_names(der: bytes) -> set[str | bytes]:
    subject = x509.load_der_x509_certificate(der).subject
    return {name.value for name in subject.get_attributes_for_oid(NameOID.COMMON_NAME)}


async def _issued(
    it: Open,
    issue: Callable[[SubjectKey, Credential, datetime], x509.Certificate],
    authority: CertificateAuthority,
    about: About,
) -> bytes:
    """A new certificate for the device, DER."""
    signs = about.same and it.store.traits.can_prove_key
    key = await _subject_key(it, signs)
    number = 1 + (await asyncio.to_thread(authority.counts)).issued
    credential = about.credential(authority.organization, authority.store, number, it.identity.serial, signs)
    certificate = await asyncio.to_thread(partial(issue, key, credential, datetime.now(UTC)))
    return certificate.public_bytes(Encoding.DER)


async def _subject_key(it: Open, signs: bool) -> SubjectKey:
    if not it.store.traits.can_prove_key:
        return unproven(ec.generate_private_key(ec.SECP256R1()).public_key())
    key = await _own_key(it)
    if not signs:
        return unproven(key)
    asked = challenge()
    return proven_by_signature(key, asked, await cast("KeyHolder", it.store).sign(asked))


async def _own_key(it: Open) -> PublicKey:
    """The key of the device; it is made where there is none."""
    if (key := await device_key(it.store)) is not None:
        return key
    if it.store.traits.secret:
        await cast("LockedStore", it.store).authenticate()
    return accepted(load_der_public_key(await cast("KeyHolder", it.store).make_key()))


def identifier_bytes(text: str) -> bytes:
    """An identifier as it stands in certificates: the bytes that its hex digits say, else its characters."""
    try:
        return bytes.fromhex(text)
    except ValueError:
        return text.encode()

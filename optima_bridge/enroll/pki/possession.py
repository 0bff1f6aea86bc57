"""Whose key a certificate is about: was it shown that they hold the private half, or was the public half merely handed in?

A SubjectKey says `proven` only when made by one of the proofs here, so a certificate cannot claim more than was seen.
"""

from __future__ import annotations

import secrets

import msgspec
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256

from optima_bridge.errors import KeyMismatch, WeakKey

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

MIN_RSA_BITS = 2048
CHALLENGE_PREFIX = b"optima-bridge key possession v1\0"  # a signature over it can be used for nothing else
CHALLENGE_RANDOM_BYTES = 32


class SubjectKey(msgspec.Struct, frozen=True):
    """A public key that may be certified.

    Attributes:
        proven: whoever asked showed that they hold the private key.
    """

    public_key: PublicKey
    proven: bool


def accepted(public_key: object) -> PublicKey:
    """`public_key`, if it is of an accepted kind: P-256, or RSA from 2048 bits.

    Raises:
        WeakKey: another kind or size. Ed25519 too: PIV cards do not have it.
    """
    match public_key:
        case ec.EllipticCurvePublicKey(curve=ec.SECP256R1()):
            return public_key
        case rsa.RSAPublicKey() if public_key.key_size >= MIN_RSA_BITS:
            return public_key
        case ec.EllipticCurvePublicKey():
            kind = public_key.curve.name
        case rsa.RSAPublicKey():
            kind = f"RSA-{public_key.key_size}"
        case _:
            kind = type(public_key).__name__.removesuffix("PublicKey")
    raise WeakKey(f"a key of the kind {kind} is not accepted", kind=kind)


def unproven(public_key: object) -> SubjectKey:
    """A key about which nothing was shown: its certificate says "identifier only".

    Raises:
        WeakKey: not an accepted kind.
    """
    return SubjectKey(accepted(public_key), proven=False)


def proven_by_request(csr: x509.CertificateSigningRequest) -> SubjectKey:
    """The key of a request, proven by the request's own signature (RFC 2986 §3).

    Raises:
        WeakKey: not an accepted kind.
        KeyMismatch: the request was not signed with that key.
    """
    key = accepted(csr.public_key())
    if not csr.is_signature_valid:
        raise KeyMismatch("the request is not signed with the key that it asks a certificate for")
    return SubjectKey(key, proven=True)


def challenge() -> bytes:
    """What a device is to sign, once: 64 bytes."""
    return CHALLENGE_PREFIX + secrets.token_bytes(CHALLENGE_RANDOM_BYTES)


def proven_by_signature(public_key: object, asked: bytes, signature: bytes) -> SubjectKey:
    """The key of a device that signed what `challenge` gave: ECDSA in DER or RSA PKCS#1 v1.5, with SHA-256.

    Raises:
        WeakKey: not an accepted kind.
        KeyMismatch: signed by another key, or something else was signed.
    """
    key = accepted(public_key)
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, asked, ec.ECDSA(SHA256()))
        else:
            key.verify(signature, asked, PKCS1v15(), SHA256())
    except InvalidSignature as error:
        raise KeyMismatch("the device did not sign with the key that it showed") from error
    return SubjectKey(key, proven=True)

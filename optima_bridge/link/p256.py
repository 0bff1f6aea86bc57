"""Keys and signatures of P-256 as tokens give them, in the forms that the rest of the world reads."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

POINT_BYTES = 65


def public_key(point: bytes) -> ec.EllipticCurvePublicKey:
    """The key of an uncompressed point (SEC 1, section 2.3.3)."""
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)


def spki(point: bytes) -> bytes:
    """SubjectPublicKeyInfo in DER."""
    return public_key(point).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def key_id(point: bytes) -> bytes:
    """CKA_ID of a key, of its certificate and, as subjectKeyIdentifier, in it: SHA-1 of the uncompressed point."""
    return hashlib.sha1(point, usedforsecurity=False).digest()


def der_signature(raw: bytes) -> bytes:
    """ECDSA-Sig-Value in DER (RFC 3279, section 2.2.3), from r and s of the same length behind each other."""
    half = len(raw) // 2
    return encode_dss_signature(int.from_bytes(raw[:half]), int.from_bytes(raw[half:]))

"""The public key of a P-256 key that only signs: computed from two of its signatures. Sans-io.

A PIV card tells a public key once, when it is made. From one ECDSA signature two keys follow that could have made it, for
the x-coordinate r of the point R belongs to two points; another signature tells which of them is the card's.

    Q = r⁻¹ (s R − z G)

Source: SEC 1 version 2.0, section 4.1.6 (cofactor 1; r + n below p is as good as impossible). Only public values go in and come out.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

P = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
A = P - 3
B = 0x5AC635D8AA3A93E7B3EBBD55769886BC651D06B0CC53B0F63BCE3C3E27D2604B
G = (
    0x6B17D1F2E12C4247F8BCE6E563A440F277037D812DEB33A0F4A13945D898C296,
    0x4FE342E2FE1A7F9B8EE7EB4A7C0F9E162BCE33576B315ECECBB6406837BF51F5,
)
Point = tuple[int, int] | None  # None: the point at infinity
Signed = tuple[bytes, bytes]
"""SHA-256 digest, and the signature over it in DER."""


def public_key(first: Signed, second: Signed) -> ec.EllipticCurvePublicKey | None:
    """The key that made both signatures; None: they are of different keys, or no signatures of a P-256 key."""
    for key in _candidates(*first):
        try:
            for digest, signature in (first, second):
                key.verify(signature, digest, ec.ECDSA(Prehashed(SHA256())))
        except InvalidSignature:
            continue
        return key
    return None


def _candidates(digest: bytes, signature: bytes) -> list[ec.EllipticCurvePublicKey]:
    try:
        r, s = decode_dss_signature(signature)
    except ValueError:
        return []
    if not (0 < r < N and 0 < s < N):
        return []
    y_squared = (r**3 + A * r + B) % P
    y = pow(y_squared, (P + 1) // 4, P)
    if y * y % P != y_squared:
        return []
    z, inverse = int.from_bytes(digest), pow(r, -1, N)
    found = []
    for point in ((r, y), (r, P - y)):
        key = _sum(_times(s * inverse % N, point), _times(-z * inverse % N, G))
        if key is not None:
            found.append(ec.EllipticCurvePublicNumbers(*key, ec.SECP256R1()).public_key())
    return found


def _times(factor: int, point: Point) -> Point:
    total: Point = None
    while factor:
        if factor & 1:
            total = _sum(total, point)
        point = _sum(point, point)
        factor >>= 1
    return total


def _sum(one: Point, other: Point) -> Point:
    if one is None or other is None:
        return one or other
    (x1, y1), (x2, y2) = one, other
    if x1 == x2 and (y1 + y2) % P == 0:
        return None
    slope = (3 * x1 * x1 + A) * pow(2 * y1, -1, P) if one == other else (y2 - y1) * pow(x2 - x1, -1, P)
    x = (slope * slope - x1 - x2) % P
    return x, (slope * (x1 - x) - y1) % P

"""A private key that lies elsewhere, in a token or card, in the shape that the cryptography library's builders sign with."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

Sign = Callable[[bytes], bytes]
"""Signs data with SHA-256; returns an ECDSA signature in DER. May block, and may raise BridgeError."""


class SigningKey(ec.EllipticCurvePrivateKey):
    """An EC key of which only the public half is known here; `sign` reaches the other."""

    def __init__(self, public_key: ec.EllipticCurvePublicKey, sign: Sign) -> None:
        self._public_key = public_key
        self._sign = sign

    @property
    def curve(self) -> ec.EllipticCurve:
        return self._public_key.curve

    @property
    def key_size(self) -> int:
        return self._public_key.key_size

    def public_key(self) -> ec.EllipticCurvePublicKey:
        return self._public_key

    def sign(
        self, data: bytes | bytearray | memoryview, signature_algorithm: ec.EllipticCurveSignatureAlgorithm
    ) -> bytes:
        algorithm = signature_algorithm.algorithm
        if isinstance(algorithm, Prehashed) or not isinstance(algorithm, SHA256):
            raise NotImplementedError("only data, with SHA-256")
        return self._sign(bytes(data))

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        raise NotImplementedError("the key signs, and nothing else")

    def private_numbers(self) -> NoReturn:
        raise NotImplementedError("the private key does not leave its token")

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the library's name
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        raise NotImplementedError("the private key does not leave its token")

    def __copy__(self) -> SigningKey:
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> SigningKey:
        return self

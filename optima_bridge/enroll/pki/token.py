"""The key of the CA in a PKCS#11 token: it is made there, signs there, and never leaves it.

The directory of the CA keeps the URI of the token, and nothing secret. In the token the key is the one whose CKA_ID is the
SHA-1 of its point. Each signature logs in, signs, is checked, and logs out: the CA signs a few times a week. All calls block.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from optima_bridge.enroll.pki.signing_key import SigningKey
from optima_bridge.errors import CaUnfit, SecretLocked, SecretMissing, WrongSecret
from optima_bridge.link import p256
from optima_bridge.link.pkcs11 import CALL_TIMEOUT_S, token_session
from optima_bridge.link.pkcs11_uri import TokenUri

if TYPE_CHECKING:
    from optima_bridge.link.cryptoki import TokenSession

LABEL = "optima:ca"
T = TypeVar("T")


class Custodian:
    """Logs in to a token, does one thing and logs out. A PIN that the token refused is not tried again."""

    def __init__(self, uri: TokenUri, pin: bytes | None) -> None:
        self.uri = uri
        self._pin = pin
        self._refused: WrongSecret | SecretLocked | None = None

    def make_key(self) -> ec.EllipticCurvePublicKey:
        """A new P-256 key. Raises as `sign`."""
        return p256.public_key(self._do(lambda token: token.generate_key(LABEL)))

    def sign(self, public_key: ec.EllipticCurvePublicKey, data: bytes) -> bytes:
        """ECDSA with SHA-256, in DER, by the private half of this key.

        Raises:
            SecretMissing, WrongSecret, SecretLocked: the PIN.
            LinkError, ProtocolError, DeviceError: the token.
            CaUnfit: what it signed does not fit the key.
        """
        key_id = p256.key_id(public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint))
        digest = hashlib.sha256(data).digest()
        signature = p256.der_signature(self._do(lambda token: token.sign(digest, id=key_id)))
        try:
            public_key.verify(signature, data, ec.ECDSA(SHA256()))
        except InvalidSignature as error:
            raise CaUnfit(
                f"what {self.uri.text} signed does not fit the certificate of the CA",
                cause="the key in the token was replaced, or the token fails",
            ) from error
        return signature

    def _do(self, step: Callable[[TokenSession], T]) -> T:
        if self._pin is None:
            raise SecretMissing(f"the CA signs with {self.uri.text}, and its PIN was not given")
        if self._refused is not None:
            raise self._refused
        token, pin = token_session(self.uri), self._pin

        def work() -> T:
            try:
                if token.begin().pin_locked:
                    raise SecretLocked(f"the PIN of {self.uri.text} is locked")
                token.login(pin)
                return step(token)
            finally:
                token.release()

        try:
            return token.thread.wait(work, CALL_TIMEOUT_S)
        except (WrongSecret, SecretLocked) as error:
            self._refused = error
            raise


def key_of(custodian: Custodian, public_key: ec.EllipticCurvePublicKey) -> SigningKey:
    """A key in a token, in the shape that builders sign with."""
    return SigningKey(public_key, lambda data: custodian.sign(public_key, data))

"""The management key of a PIV card: the ciphers that show it, and whose it is: from the settings, or a person's.

Source: NIST SP 800-78-5, table 7 (algorithm identifiers); SP 800-73pt2-5, 3.2.4 (single blocks, ECB).
"""

from __future__ import annotations

import asyncio
from enum import StrEnum

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from optima_bridge.errors import SecretMissing, WrongSecret
from optima_bridge.secrets import Secret


class Algorithm(StrEnum):
    """What kind of key it is."""

    TDES = "3des"
    AES_128 = "aes-128"
    AES_192 = "aes-192"
    AES_256 = "aes-256"

    @property
    def number(self) -> int:
        """P1 of GENERAL AUTHENTICATE."""
        return {"3des": 0x03, "aes-128": 0x08, "aes-192": 0x0A, "aes-256": 0x0C}[self.value]

    @property
    def key_bytes(self) -> int:
        """Length of a key."""
        return {"3des": 24, "aes-128": 16, "aes-192": 24, "aes-256": 32}[self.value]

    @property
    def block_bytes(self) -> int:
        """Length of a witness or challenge."""
        return 8 if self is Algorithm.TDES else 16


def encrypt(algorithm: Algorithm, key: bytes, block: bytes) -> bytes:
    """One block."""
    return _cipher(algorithm, key).encryptor().update(block)


def decrypt(algorithm: Algorithm, key: bytes, block: bytes) -> bytes:
    """One block."""
    return _cipher(algorithm, key).decryptor().update(block)


def _cipher(algorithm: Algorithm, key: bytes) -> Cipher[ECB]:
    kind = TripleDES(key) if algorithm is Algorithm.TDES else AES(key)
    return Cipher(kind, ECB())  # noqa: S305 - single random blocks, as the standard has it


class ManagementKey:
    """Which key to show, and whether it may be tried: one that was refused is not, until a person gives one."""

    def __init__(self, algorithm: Algorithm, secret: Secret | None) -> None:
        self.algorithm = algorithm
        self._secret = secret
        self._given = b""
        self._refused = {"given": False, "settings": False}

    def unlock(self, secret: bytes) -> None:
        """See `LockedStore`."""
        self._given = secret
        self._refused["given"] = False

    async def key(self) -> bytes:
        """The key to show.

        Raises:
            SecretMissing: there is none. WrongSecret: it was refused before, or is no key of this kind.
            ConfigError: its file cannot be used.
        """
        if self._refused[self._source]:
            raise WrongSecret(
                "the card refused this management key before; it is not tried again", attempts_remaining=None
            )
        if self._given:
            return self._parsed(self._given)
        if self._secret is None:
            raise SecretMissing(
                "no management key is known for the card", next_step='set management_key = { file = "/path" }, in hex'
            )
        return self._parsed(await asyncio.to_thread(self._secret.read))

    def refused(self) -> None:
        """The card did not accept it."""
        self._refused[self._source] = True

    @property
    def _source(self) -> str:
        return "given" if self._given else "settings"

    def _parsed(self, text: bytes) -> bytes:
        try:
            key = bytes.fromhex(text.decode("ascii").replace(":", ""))
        except ValueError:
            key = b""
        if len(key) != self.algorithm.key_bytes:
            raise WrongSecret(
                f"this is no {self.algorithm} management key: it has {self.algorithm.key_bytes * 2} hex digits",
                cause="management_algorithm is another one than the card's, or the key was not written in full",
                attempts_remaining=None,
            )
        return key

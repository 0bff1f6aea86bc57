"""OSDP's secure channel: session keys, the handshake's cryptograms, one chain of MACs. Sans-io; AES is `cryptography`'s.

    S-ENC, S-MAC1, S-MAC2    E(SCBK, 01 82 | 01 01 | 01 02, RND.A 0 to 5, zeros)
    client cryptogram        E(S-ENC, RND.A RND.B)          server cryptogram   E(S-ENC, RND.B RND.A)
    first MAC                E(S-MAC2, E(S-MAC1, server cryptogram))

Each frame's MAC begins with the MAC of the frame before it, so that none can be left out, repeated or exchanged; 4 of
its 16 bytes are sent. Data, not the code, are encrypted in CBC, which begins with the same MAC inverted.
Source: SIA OSDP 2.2, annex D.
"""

from __future__ import annotations

import hmac

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB

from optima_bridge.errors import FrameError
from optima_drivers.osdp.codec import MAC_BYTES, Frame

KEY_BYTES = 16
BLOCK_BYTES = 16
RANDOM_BYTES = 8
DEFAULT_KEY = bytes(range(0x30, 0x40))  # SCBK-D: everybody knows it
PAD = b"\x80"
MAY_BE_CLEAR = b"\x41"  # the code of a refusal, whose reason libosdp 3.2 does not encrypt; its MAC is right
PANEL_TYPES, PERIPHERAL_TYPES = (0x15, 0x17), (0x16, 0x18)  # of security blocks: without and with data


class SessionKeys(msgspec.Struct, frozen=True):
    """The keys of one session."""

    encryption: bytes
    mac1: bytes
    mac2: bytes

    def __repr__(self) -> str:
        return "SessionKeys(***)"

    @classmethod
    def derive(cls, key: bytes, random_a: bytes) -> SessionKeys:
        """From the key that both sides have and the panel's random number."""

        def derived(second: int) -> bytes:
            return _encrypt_block(key, bytes([1, second]) + random_a[:6] + bytes(8))

        return cls(derived(0x82), derived(0x01), derived(0x02))

    def cryptogram(self, first: bytes, second: bytes) -> bytes:
        """Proof of the key: the client's over RND.A RND.B, the server's over RND.B RND.A."""
        return _encrypt_block(self.encryption, first + second)

    def first_mac(self, server_cryptogram: bytes) -> bytes:
        """What the session's chain begins with."""
        return _encrypt_block(self.mac2, _encrypt_block(self.mac1, server_cryptogram))


class SecureChannel:
    """One session, seen from either side."""

    def __init__(self, keys: SessionKeys, first_mac: bytes) -> None:
        self._keys = keys
        self._mac = first_mac  # of the last frame, whoever sent it

    def seal(self, frame: Frame) -> Frame:
        """The frame with its data encrypted and its MAC; the chain goes on with it."""
        code, data = frame.body[:1], frame.body[1:]
        kind = (PERIPHERAL_TYPES if frame.is_reply else PANEL_TYPES)[bool(data)]
        if data:
            cipher = Cipher(AES128(self._keys.encryption), CBC(_inverted(self._mac))).encryptor()
            data = cipher.update(_padded(data + PAD)) + cipher.finalize()
        sealed = msgspec.structs.replace(frame, body=code + data, security=bytes([kind]), mac=bytes(MAC_BYTES))
        self._mac = self._mac_of(sealed)
        return msgspec.structs.replace(sealed, mac=self._mac[:MAC_BYTES])

    def open(self, frame: Frame) -> bytes:
        """Code and data of a sealed frame, in the clear; the chain goes on with it.

        Raises:
            FrameError: kind ``mac``: it is not the next one of this session; the chain is where it was.
        """
        mac = self._mac_of(frame)
        code, data = frame.body[:1], frame.body[1:]
        if not hmac.compare_digest(mac[:MAC_BYTES], frame.mac):
            raise FrameError("a frame that is not the next one of its session", kind="mac")
        without_data, with_data = PERIPHERAL_TYPES if frame.is_reply else PANEL_TYPES
        if frame.security == bytes([with_data]) and len(data) % BLOCK_BYTES == 0:
            cipher = Cipher(AES128(self._keys.encryption), CBC(_inverted(self._mac))).decryptor()
            padded = (cipher.update(data) + cipher.finalize()).rstrip(b"\0")
            if padded[-1:] != PAD and data:
                raise FrameError("encrypted data without an end", kind="mac")
            data = padded[:-1]
        elif frame.security != bytes([without_data]) or (data and code != MAY_BE_CLEAR):
            raise FrameError("data that should be encrypted", kind="mac")
        self._mac = mac
        return code + data

    def _mac_of(self, frame: Frame) -> bytes:
        covered = frame.covered()
        if len(covered) % BLOCK_BYTES:
            covered = _padded(covered + PAD)
        chain = self._mac
        if len(covered) > BLOCK_BYTES:
            cipher = Cipher(AES128(self._keys.mac1), CBC(chain)).encryptor()
            chain = (cipher.update(covered[:-BLOCK_BYTES]) + cipher.finalize())[-BLOCK_BYTES:]
        cipher = Cipher(AES128(self._keys.mac2), CBC(chain)).encryptor()
        return cipher.update(covered[-BLOCK_BYTES:]) + cipher.finalize()


def _encrypt_block(key: bytes, block: bytes) -> bytes:
    # One block, derived keys and proofs: what ECB is unfit for, longer texts, does not occur.
    cipher = Cipher(AES128(key), ECB()).encryptor()  # noqa: S305
    return cipher.update(block) + cipher.finalize()


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK_BYTES)


def _inverted(block: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in block)

"""Secure memory behind a driver: what `enroll` needs of a device to put a certificate into it.

A *slot* is a place for one certificate (DER bytes); at most one slot is *active*: the one the terminal uses. The rules
that make a power cut harmless live in `optima_bridge.enroll`; a store offers small steps, of which only one matters:

    connect ─ recover ─ inspect ─ read │ stage ─ connect ─ verify │ activate │ connect ─ inspect ─ confirm
                                       └─ spare slot only         └─ one smallest possible write: old or new from then on

Every step can be repeated, and given up (cancelled) at any await. None logs what it carries. Source: the design of
power-loss-safe writes, section 4; MCUboot (design.md, "swap status") for staging, activating and confirming.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Protocol

import msgspec

from optima_bridge.model import DeviceIdentity


class Readback(StrEnum):
    """How a device tells what it holds: the bytes, a digest over them, or not at all."""

    BYTES = "bytes"
    DIGEST = "digest"
    NONE = "none"


class StoreTraits(msgspec.Struct, frozen=True):
    """What a device's secure memory is like; from the vendor's documents, never guessed.

    Attributes:
        slots: 1 a single object, 2 A/B or main and stage, 3 the previous one too.
        atomic_object: whether one slot is replaced as a whole or not at all, whatever happens to the power.
        readback: how what was written can be compared.
        max_size_bytes: the largest certificate that fits.
        can_prove_key: whether the device can sign a challenge with the key that belongs to the certificate. Such a store
            is a `KeyHolder`.
        monotonic: whether the device keeps the generation; otherwise it is always 0.
        secret: what must be known to write, in a person's words: ``PIN``, ``management key``; empty: nothing. Such a
            store is a `LockedStore`.
        activates_by_copy: whether activate() writes the certificate once more, over the one in use, because the terminal
            knows one place only; where that is not atomic, a power cut leaves none in use until the store is recovered.
    """

    slots: int
    atomic_object: bool
    readback: Readback
    max_size_bytes: int
    can_prove_key: bool
    monotonic: bool
    secret: str = ""
    activates_by_copy: bool = False

    @property
    def survives_power_loss(self) -> bool:
        """Whether the old certificate stays usable until the new one is."""
        return self.atomic_object or (self.slots > 1 and not self.activates_by_copy)


class SlotState(msgspec.Struct, frozen=True):
    """One slot as the device's own read path shows it.

    Attributes:
        slot: 0, 1, …
        generation: grows with each activation; 0 where there is none.
        sha256: of the certificate, lower-case hex; empty where it is not valid or cannot be told.
        size_bytes: of the certificate; 0 where it is not valid.
        valid: it holds one complete certificate, by the device's own check.
        active: the terminal uses this one.
        confirmed: it was used once after it was activated.
    """

    slot: int
    generation: int = 0
    sha256: str = ""
    size_bytes: int = 0
    valid: bool = False
    active: bool = False
    confirmed: bool = False


Progress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


class SecureStore(Protocol):
    """One device's secure memory. One task at a time uses it.

    Every method may raise LinkError or ProtocolError (it is not known whether the step took effect) and DeviceError.
    """

    @property
    def traits(self) -> StoreTraits:
        """Known without asking the device."""

    async def connect(self) -> DeviceIdentity:
        """Begin a fresh session: forget what was read, ask the device who it is."""

    async def inspect(self) -> Sequence[SlotState]:
        """All slots, each read anew; at most one is active."""

    async def read(self, slot: int) -> bytes:
        """The certificate in a valid slot.

        Raises:
            SlotError: it is not valid, or the device does not give its content back (traits.readback).
        """

    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        """Write into a slot, always from its beginning; afterwards it is valid and not active.

        Raises:
            SlotError: the slot is active and there is another one, or the certificate is too big.
        """

    async def verify(self, slot: int) -> str:
        """SHA-256 of what the slot holds, lower-case hex, from a read after the last write; empty: it is not valid.

        Raises:
            SlotError: the device cannot tell (traits.readback is NONE).
        """

    async def activate(self, slot: int) -> None:
        """Make a valid slot the active one by one smallest possible write; nothing where it is already.

        Raises:
            SlotError: it is not valid.
        """

    async def confirm(self) -> None:
        """Remember in the device that the active slot was used once; nothing where it is remembered already."""

    async def erase(self, slot: int) -> None:
        """Make a slot that is not active hold nothing.

        Raises:
            SlotError: it is the active one.
        """

    async def recover(self) -> None:
        """Finish what the device itself can know to have been decided before its power went; else nothing."""


class KeyHolder(SecureStore, Protocol):
    """A store that has a private key of its own, which never leaves it (traits.can_prove_key).

    One key a device: a certificate is renewed for the key that is there, because a new key would leave the active
    certificate without its own at once.
    """

    async def public_key(self) -> bytes | None:
        """The key that certificates of this device are about, SubjectPublicKeyInfo in DER; None: there is none yet."""

    async def make_key(self) -> bytes:
        """Make the key (P-256 where the device has it); returns what `public_key` does from now on.

        Raises:
            SlotError: there is one.
            NotAuthorised: see LockedStore.
        """

    async def sign(self, data: bytes) -> bytes:
        """A signature over `data` with that key: ECDSA in DER or RSA PKCS#1 v1.5, with SHA-256.

        Raises:
            SlotError: there is no key.
        """


class LockedStore(SecureStore, Protocol):
    """A store that is written only by who knows its secret (traits.secret). Reading needs none.

    Writing steps, and `sign` where the device hides its keys, log in by themselves where the session has not; so does no
    other. A secret from the settings is tried
    once: not again in this driver's life after it was wrong, and not at all where the device says that the last one given
    to it was wrong. Attempts belong to people.
    """

    def unlock(self, secret: bytes) -> None:
        """Use this secret from now on instead of that of the settings; empty: that of the settings again."""

    async def authenticate(self) -> None:
        """Log in, in this session; nothing where that was done.

        Raises:
            SecretMissing: none is known. WrongSecret, SecretLocked: the device refused it.
        """


class HasSecureStore(Protocol):
    """A driver with Capability.SECURE_STORE. Its store is usable from start() to stop(), beside events()."""

    @property
    def store(self) -> SecureStore:
        """The secure memory of its device."""

"""The certificates of a PIV card as `SecureStore`: one that the terminal uses, one that waits, one that was used before.

    slot 0  STAGE     5FC10D   written and read back before anything else is touched; empty while no job runs
    slot 1  MAIN      5FC101   the terminal reads this one: active whenever it is whole
    slot 2  PREVIOUS  5FC10E   what was in MAIN before, to go back to

    stage ─ STAGE := new           activate ─ PREVIOUS := MAIN, MAIN := STAGE           confirm ─ STAGE deleted

A card that replaces an object as a whole never shows a broken MAIN. One that writes as it goes does, from its first command of
`activate` to the last; the container's digest tells, and `recover` writes MAIN once more from STAGE, which is whole. So an
active certificate whose copy is still in STAGE was not confirmed. Source: the design of power-loss-safe writes, section 3.

Each step is a session of its own with the card, which it leaves reset: nothing that was shown to it serves another program,
and a step that was cancelled anywhere leaves nothing half sent.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from optima_bridge.errors import DeviceError, FrameError, NotAuthorised, SlotError, TokenAbsent, WrongSecret
from optima_bridge.link.card import CardLink
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import KeyHolder, LockedStore, Progress, SlotState, StoreTraits
from optima_drivers.pcsc import objects, p256
from optima_drivers.pcsc.application import Application
from optima_drivers.pcsc.management import ManagementKey

STAGE, MAIN, PREVIOUS = range(3)
TAGS = (objects.STAGE, objects.MAIN, objects.PREVIOUS)
NOTHING = bytes.fromhex("FE00")  # an empty container, for cards that do not delete


class PivStore:
    """The secure memory of the PIV card in a reader, with the key for card authentication (slot 9E)."""

    def __init__(
        self, link: CardLink, traits: StoreTraits, management_key: ManagementKey, counters: Counter[str]
    ) -> None:
        self.traits = traits
        self._link = link
        self._key = management_key
        self._counters = counters
        self._card: DeviceIdentity | None = None

    async def connect(self) -> DeviceIdentity:
        self._card = None
        async with self._session():
            assert self._card is not None
            return self._card

    async def inspect(self) -> Sequence[SlotState]:
        async with self._session() as card:
            held = [await self._held(card, slot) for slot in range(len(TAGS))]
        return [
            SlotState(slot)
            if certificate is None
            else SlotState(
                slot,
                sha256=_sha256(certificate),
                size_bytes=len(certificate),
                valid=True,
                active=slot == MAIN,
                confirmed=slot == MAIN and held[STAGE] != certificate,
            )
            for slot, certificate in enumerate(held)
        ]

    async def read(self, slot: int) -> bytes:
        async with self._session() as card:
            return await self._valid(card, slot)

    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        size_bytes = len(certificate)
        if slot == MAIN:
            raise SlotError("the object that the terminal reads is written by activating another slot only")
        if not 0 < size_bytes <= self.traits.max_size_bytes:
            raise SlotError(f"a slot takes 1 to {self.traits.max_size_bytes} bytes, the certificate has {size_bytes}")
        async with self._session() as card:
            await self._log_in(card)
            value = objects.container(certificate)
            await card.put(TAGS[slot], value, lambda done: progress(min(done, size_bytes), size_bytes))

    async def verify(self, slot: int) -> str:
        async with self._session() as card:
            certificate = await self._held(card, slot)
            return "" if certificate is None else _sha256(certificate)

    async def activate(self, slot: int) -> None:
        async with self._session() as card:
            wanted = await self._valid(card, slot)
            present = await self._held(card, MAIN)
            if wanted == present:
                return
            await self._log_in(card)
            if present is not None and slot != PREVIOUS and await self._held(card, PREVIOUS) != present:
                await card.put(TAGS[PREVIOUS], objects.container(present))
                if await self._held(card, PREVIOUS) != present:
                    raise SlotError("the card did not keep a copy of the certificate in use, so it was not replaced")
            await card.put(TAGS[MAIN], objects.container(wanted))

    async def confirm(self) -> None:
        async with self._session() as card:
            present = await self._held(card, MAIN)
            if present is not None and present == await self._held(card, STAGE):
                await self._log_in(card)
                await self._delete(card, STAGE)

    async def erase(self, slot: int) -> None:
        async with self._session() as card:
            if slot == MAIN and await self._held(card, MAIN) is not None:
                raise SlotError("the certificate in use cannot be erased")
            if await card.get(TAGS[slot]) not in (b"", NOTHING):
                await self._log_in(card)
                await self._delete(card, slot)

    async def recover(self) -> None:
        """Write MAIN once more where it was cut off. An object of other programs that we cannot read is left as it is."""
        async with self._session() as card:
            if await self._held(card, MAIN) is not None or not await card.get(TAGS[MAIN]):
                return
            if (staged := await self._held(card, STAGE)) is not None:
                await self._log_in(card)
                await card.put(TAGS[MAIN], objects.container(staged))

    def unlock(self, secret: bytes) -> None:
        self._key.unlock(secret)

    async def authenticate(self) -> None:
        async with self._session() as card:
            await self._log_in(card)

    async def public_key(self) -> bytes | None:
        async with self._session() as card:
            return await self._public_key(card)

    async def make_key(self) -> bytes:
        async with self._session() as card:
            if await self._public_key(card) is not None:
                raise SlotError("slot 9E has a key already; certificates are renewed for it")
            if await self._held(card, MAIN) is not None:
                raise SlotError(
                    "slot 9E has no P-256 key, and a certificate: a new key would leave it without its own",
                    cause="it was enrolled with another kind of key, or by another program",
                    next_step="delete that certificate with the card's own tool, if it is not used any more",
                )
            await self._log_in(card)
            return _spki(ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), await card.generate()))

    async def sign(self, data: bytes) -> bytes:
        async with self._session() as card:
            signature = await card.sign(hashlib.sha256(data).digest())
        if signature is None:
            raise SlotError("slot 9E has no P-256 key")
        return signature

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Application]:
        """The card that `connect` found, and no other."""
        async with self._link.session() as session:
            card = Application(session)
            identity = await card.identify(self._card)
            self._counters["sessions"] += 1
            self._card = self._card or identity
            if identity != self._card:
                raise TokenAbsent(
                    f"the card {identity.serial} is in the reader instead of {self._card.serial}",
                    cause="the card was exchanged halfway",
                    next_step=f"put the card {self._card.serial} back in",
                )
            yield card

    async def _held(self, card: Application, slot: int) -> bytes | None:
        """The certificate in a slot; None: it is empty, or not whole."""
        value = await card.get(TAGS[slot])
        if value in (b"", NOTHING):
            return None
        try:
            return objects.certificate(value)
        except FrameError as error:
            self._counters[f"frames_bad_{error.kind}"] += 1
            return None

    async def _valid(self, card: Application, slot: int) -> bytes:
        if (certificate := await self._held(card, slot)) is None:
            raise SlotError(f"slot {slot} holds no valid certificate")
        return certificate

    async def _log_in(self, card: Application) -> None:
        key = await self._key.key()
        try:
            await card.authenticate(self._key.algorithm, key)
        except WrongSecret:
            self._key.refused()
            raise

    async def _delete(self, card: Application, slot: int) -> None:
        try:
            await card.put(TAGS[slot], b"")
        except NotAuthorised:
            raise
        except DeviceError:
            await card.put(TAGS[slot], NOTHING)

    async def _public_key(self, card: Application) -> bytes | None:
        signed: list[p256.Signed] = []
        for _ in range(2):
            digest = hashlib.sha256(os.urandom(32)).digest()
            if (signature := await card.sign(digest)) is None:
                return None
            signed.append((digest, signature))
        if (key := p256.public_key(*signed)) is None:
            raise DeviceError("two signatures of slot 9E are not of one P-256 key")
        return _spki(key)


def _sha256(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()


def _spki(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


_conforms: type[KeyHolder] = PivStore
_conforms_too: type[LockedStore] = PivStore

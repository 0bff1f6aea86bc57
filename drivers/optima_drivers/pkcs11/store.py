"""A token's secure memory: `KeyHolder` and `LockedStore` over the objects of `optima_drivers.pkcs11.slots`.

Each step is one call on the thread that owns the module: it looks, logs in where something is to be changed, and
changes it. So a step that was begun ends, also where who asked for it was cancelled meanwhile.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from optima_bridge.errors import NotAuthorised, SlotError, WriteProtected
from optima_bridge.link.p256 import der_signature, spki
from optima_bridge.link.pkcs11 import Pkcs11Link, TokenInfo
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import KeyHolder, LockedStore, Progress, Readback, SlotState, StoreTraits
from optima_drivers.pkcs11.pin import Pin
from optima_drivers.pkcs11.slots import ACTIVE, CONFIRMED, PREFIX, SLOTS, STAGED, Credential, Held, label

if TYPE_CHECKING:
    from optima_bridge.link.cryptoki import TokenSession

KEY_LABEL = "optima:key"
T = TypeVar("T")
Write = Callable[["TokenSession"], None]
Plan = Callable[[Credential], list[Write]]
"""What is to be written for what is there, in this order; raises SlotError where it must not be done."""


class Pkcs11Store:
    """Two slots made of certificate objects, and one key. Remembers nothing between two steps but the PIN."""

    def __init__(self, link: Pkcs11Link, pin: Pin, max_size_bytes: int, counters: Counter[str]) -> None:
        self._link = link
        self._pin = pin
        self._counters = counters
        self.traits = StoreTraits(
            slots=SLOTS,
            atomic_object=False,  # the standard does not promise it
            readback=Readback.BYTES,
            max_size_bytes=max_size_bytes,
            can_prove_key=True,
            monotonic=True,
            secret="PIN",  # noqa: S106 - what it is called
        )

    async def connect(self) -> DeviceIdentity:
        return identity(await self._look(lambda token: token.begin()))

    async def inspect(self) -> Sequence[SlotState]:
        return _states(await self._look(_credential))

    async def read(self, slot: int) -> bytes:
        return _valid(slot, await self._look(_credential)).entry.value

    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        size_bytes = len(certificate)
        if not 0 < size_bytes <= self.traits.max_size_bytes:
            raise SlotError(f"a slot takes 1 to {self.traits.max_size_bytes} bytes, the certificate has {size_bytes}")

        def plan(found: Credential) -> list[Write]:
            _refuse_active(slot, found)
            staged = label(STAGED, found.next_generation(slot))
            return [*_destroy(found.in_slot(slot)), lambda token: token.add_certificate(staged, certificate)]

        await self._change(plan)
        progress(size_bytes, size_bytes)

    async def verify(self, slot: int) -> str:
        held = (await self._look(_credential)).slots[slot]
        return "" if held is None else held.digest.hex()

    async def activate(self, slot: int) -> None:
        def plan(found: Credential) -> list[Write]:
            held = _valid(slot, found)
            if held is found.active:
                return []
            newest = found.active is None or held.generation > found.active.generation
            active = label(ACTIVE, held.generation if newest else found.next_generation(slot))
            return [lambda token: token.relabel(held.entry, active)]

        await self._change(plan)

    async def confirm(self) -> None:
        def plan(found: Credential) -> list[Write]:
            used = found.active
            if used is None or found.confirmed(used):
                return []
            return [lambda token: token.add_data(label(CONFIRMED, used.generation), used.digest)]

        await self._change(plan)

    async def erase(self, slot: int) -> None:
        def plan(found: Credential) -> list[Write]:
            _refuse_active(slot, found)
            return _destroy(found.in_slot(slot))

        await self._change(plan)

    async def recover(self) -> None:
        """Remove what counts for nothing; where that may not be done now it harms nobody, and the next one does it."""
        with suppress(NotAuthorised, WriteProtected):
            await self._change(lambda found: _destroy(found.leftovers()))

    async def public_key(self) -> bytes | None:
        keys = await self._look(lambda token: token.public_keys(KEY_LABEL))
        return spki(keys[0].value) if keys else None

    async def make_key(self) -> bytes:
        def make(token: TokenSession) -> bytes:
            self._log_in(token)
            if token.has_private_key(KEY_LABEL):
                raise SlotError(f"{self._link.name} has a key", cause="it was made before")
            for half in token.public_keys(KEY_LABEL):  # the power failed between the two
                token.destroy(half)
            return token.generate_key(KEY_LABEL)

        return spki(await self._look(make))

    async def sign(self, data: bytes) -> bytes:
        """Logs in too: a token shows its private keys only then."""

        def sign(token: TokenSession) -> bytes:
            self._log_in(token)
            return token.sign(hashlib.sha256(data).digest(), label=KEY_LABEL)

        return der_signature(await self._look(sign))

    def unlock(self, secret: bytes) -> None:
        self._pin.give(secret)

    async def authenticate(self) -> None:
        await self._look(self._log_in)

    async def _look(self, step: Callable[[TokenSession], T]) -> T:
        self._counters["calls"] += 1
        return await self._link.call(step)

    async def _change(self, plan: Plan) -> None:
        def step(token: TokenSession) -> None:
            writes = plan(_credential(token))
            if writes and not token.logged_in:
                self._log_in(token)
                writes = plan(_credential(token))  # an object found in one session is not used in another
            for write in writes:
                write(token)

        await self._look(step)

    def _log_in(self, token: TokenSession) -> None:
        info = token.look()
        if info.write_protected:
            raise WriteProtected(f"the token {info.serial} is write-protected")
        if not token.logged_in:
            self._pin.show(info, token.login)
            self._counters["logins"] += 1


def identity(info: TokenInfo) -> DeviceIdentity:
    """Who a token says it is."""
    return DeviceIdentity(info.model, info.serial, info.firmware)


def _credential(token: TokenSession) -> Credential:
    return Credential(token.certificates(PREFIX), token.data(PREFIX))


def _states(found: Credential) -> list[SlotState]:
    return [
        SlotState(slot)
        if held is None
        else SlotState(
            slot,
            generation=held.generation,
            sha256=held.digest.hex(),
            size_bytes=len(held.entry.value),
            valid=True,
            active=held is found.active,
            confirmed=held is found.active and found.confirmed(held),
        )
        for slot, held in enumerate(found.slots)
    ]


def _destroy(unwanted: Sequence[Held]) -> list[Write]:
    return [partial(_destroy_one, held) for held in unwanted]


def _destroy_one(held: Held, token: TokenSession) -> None:
    token.destroy(held.entry)


def _valid(slot: int, found: Credential) -> Held:
    if (held := found.slots[slot]) is None:
        raise SlotError(f"slot {slot} holds no valid certificate")
    return held


def _refuse_active(slot: int, found: Credential) -> None:
    if found.active is not None and found.active.slot == slot:
        raise SlotError(f"slot {slot} is the active one")


_conforms: type[KeyHolder] = Pkcs11Store
_conforms_too: type[LockedStore] = Pkcs11Store

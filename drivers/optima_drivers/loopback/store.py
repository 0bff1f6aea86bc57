"""The loopback device's secure memory: `SecureStore` over raw memory, in the layout of `optima_drivers.loopback.slots`."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from optima_bridge.errors import SlotError
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import Progress, Readback, SecureStore, SlotState, StoreTraits
from optima_drivers.loopback import slots
from optima_drivers.loopback.codec import MAX_DATA_BYTES
from optima_drivers.loopback.slots import (
    ACTIVATED_AT,
    BLANK,
    CONFIRMED_AT,
    DATA_PAGES,
    DONE,
    MAX_SIZE_BYTES,
    PAGE_BYTES,
    RECORD_BYTES,
    REGION_BYTES,
    Record,
)

Held = tuple[Record, bytes] | None
"""The record that counts in a slot and the certificate it is about; None where none is valid."""


class RawMemory(Protocol):
    """What the device can do with its memory; addresses and sizes in bytes, at most MAX_DATA_BYTES together.

    Every method may raise LinkError, and DeviceError outside of the memory.
    """

    async def identify(self) -> DeviceIdentity:
        """Who answers, asked anew."""

    async def read(self, address: int, size_bytes: int) -> bytes:
        """What is there."""

    async def write(self, address: int, data: bytes) -> None:
        """Turn bits from 1 to 0."""

    async def erase(self, address: int) -> None:
        """Turn the page at `address` to FF."""


class LoopbackStore:
    """One region (single slot, written in place) or two (A/B). Remembers nothing between two calls."""

    def __init__(self, memory: RawMemory, slot_count: int = 2) -> None:
        self._memory = memory
        self.traits = StoreTraits(
            slots=slot_count,
            atomic_object=False,
            readback=Readback.BYTES,
            max_size_bytes=MAX_SIZE_BYTES,
            can_prove_key=False,
            monotonic=slot_count > 1,
        )

    async def connect(self) -> DeviceIdentity:
        return await self._memory.identify()

    async def inspect(self) -> Sequence[SlotState]:
        found = await self._records()
        active = _active(found)
        return [
            SlotState(slot)
            if held is None
            else SlotState(
                slot,
                generation=held[0].generation,
                sha256=hashlib.sha256(held[1]).hexdigest(),
                size_bytes=held[0].size_bytes,
                valid=True,
                active=slot == active,
                confirmed=held[0].confirmed == DONE,
            )
            for slot, held in enumerate(found)
        ]

    async def read(self, slot: int) -> bytes:
        return _valid(slot, await self._records())[1]

    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        size_bytes = len(certificate)
        if not 0 < size_bytes <= MAX_SIZE_BYTES:
            raise SlotError(f"a slot takes 1 to {MAX_SIZE_BYTES} bytes, the certificate has {size_bytes}")
        found = await self._records()
        if len(found) > 1:
            _refuse_active(slot, found)
        await self._erase(slot)
        for offset in range(0, size_bytes, MAX_DATA_BYTES):
            chunk = certificate[offset : offset + MAX_DATA_BYTES]
            await self._memory.write(slot * REGION_BYTES + PAGE_BYTES + offset, chunk)
            progress(offset + len(chunk), size_bytes)
        await self._memory.write(slot * REGION_BYTES, slots.header(_next_generation(found), certificate))

    async def verify(self, slot: int) -> str:
        held = (await self._records())[slot]
        return "" if held is None else hashlib.sha256(held[1]).hexdigest()

    async def activate(self, slot: int) -> None:
        found = await self._records()
        record, certificate = _valid(slot, found)
        if _active(found) == slot:
            return
        index = record.index
        if record.active:  # it was active before the one that is now: only a higher generation brings it back
            free = slots.free_index(await self._page(slot))
            if free is None:
                raise SlotError(f"slot {slot} was activated {PAGE_BYTES // RECORD_BYTES} times: stage it anew")
            index = free
            again = slots.header(_next_generation(found), certificate)
            await self._memory.write(slot * REGION_BYTES + index * RECORD_BYTES, again)
        await self._finish(slot, index, ACTIVATED_AT)

    async def confirm(self) -> None:
        found = await self._records()
        active = _active(found)
        if active is not None and (record := _valid(active, found)[0]).confirmed != DONE:
            await self._finish(active, record.index, CONFIRMED_AT)

    async def erase(self, slot: int) -> None:
        _refuse_active(slot, await self._records())
        await self._erase(slot)

    async def recover(self) -> None:
        """Finish torn last bytes: their write had begun, so it had been decided."""
        for slot, held in enumerate(await self._records()):
            if held is not None and held[0].activated not in {DONE, BLANK}:
                await self._finish(slot, held[0].index, ACTIVATED_AT)
            if held is not None and held[0].confirmed not in {DONE, BLANK}:
                await self._finish(slot, held[0].index, CONFIRMED_AT)

    async def _finish(self, slot: int, index: int, at: int) -> None:
        await self._memory.write(slot * REGION_BYTES + index * RECORD_BYTES + at, bytes([DONE]))

    async def _erase(self, slot: int) -> None:
        """The records first: from then on the slot holds nothing, whatever becomes of its data."""
        for page in range(1 + DATA_PAGES):
            await self._memory.erase(slot * REGION_BYTES + page * PAGE_BYTES)

    async def _records(self) -> list[Held]:
        """What each slot holds, read anew."""
        found: list[Held] = []
        for slot in range(self.traits.slots):
            page = await self._page(slot)
            data = await self._read(slot * REGION_BYTES + PAGE_BYTES, slots.longest(page))
            record = slots.newest(page, data)
            found.append((record, data[: record.size_bytes]) if record else None)
        return found

    async def _page(self, slot: int) -> bytes:
        return await self._read(slot * REGION_BYTES, PAGE_BYTES)

    async def _read(self, address: int, size_bytes: int) -> bytes:
        ends = range(address, address + size_bytes, MAX_DATA_BYTES)
        parts = [await self._memory.read(at, min(MAX_DATA_BYTES, address + size_bytes - at)) for at in ends]
        return b"".join(parts)


def _active(found: Sequence[Held]) -> int | None:
    """The slot that the terminal uses."""
    generations = {held[0].generation: slot for slot, held in enumerate(found) if held and held[0].active}
    return generations[max(generations)] if generations else None


def _valid(slot: int, found: Sequence[Held]) -> tuple[Record, bytes]:
    if (held := found[slot]) is None:
        raise SlotError(f"slot {slot} holds no valid certificate")
    return held


def _next_generation(found: Sequence[Held]) -> int:
    return 1 + max((held[0].generation for held in found if held), default=0)


def _refuse_active(slot: int, found: Sequence[Held]) -> None:
    if _active(found) == slot:
        raise SlotError(f"slot {slot} is the active one")


_conforms: type[SecureStore] = LoopbackStore

"""The secure memory of an SMP device: `SecureStore` over files and settings, in the layout of `optima_drivers.smp.layout`."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from optima_bridge.errors import RemoteProtocolError, SlotError
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import Progress, Readback, SecureStore, SlotState, StoreTraits
from optima_drivers.smp import layout
from optima_drivers.smp.device import Device
from optima_drivers.smp.layout import ACTIVE, CONFIRMED, NO_SLOT, NOTHING, ROOT, SERIAL, SLOTS, Pointer

MODEL_AND_FIRMWARE = "vi"  # kernel version, hardware platform; answered in this order, without spaces in them
_WORD = re.compile(r"[!-~]{0,64}")


class SmpStore:
    """Two files in `directory` (A/B). Remembers nothing between two calls."""

    def __init__(self, device: Device, directory: str, max_size_bytes: int) -> None:
        self._device = device
        self._directory = directory
        self.traits = StoreTraits(
            slots=len(SLOTS),
            atomic_object=False,
            readback=Readback.BYTES,
            max_size_bytes=max_size_bytes,
            can_prove_key=False,
            monotonic=True,
        )

    async def connect(self) -> DeviceIdentity:
        await self._device.begin()
        firmware, _, model = (await self._device.info(MODEL_AND_FIRMWARE)).partition(" ")
        serial = (await self._device.setting(SERIAL) or b"").decode("ascii", "replace")
        if not all(map(_WORD.fullmatch, (model, serial, firmware))):
            raise RemoteProtocolError("the device names itself with other than up to 64 visible ASCII characters")
        return DeviceIdentity(model, serial, firmware)

    async def inspect(self) -> Sequence[SlotState]:
        pointer = layout.pointer(await self._device.setting(ACTIVE))
        confirmed = await self._device.setting(CONFIRMED)
        return [await self._look(slot, pointer, confirmed) for slot in range(len(SLOTS))]

    async def read(self, slot: int) -> bytes:
        state = await self._valid(slot)
        content = await self._device.download(self._file(slot), self.traits.max_size_bytes)
        if content is None or hashlib.sha256(content).hexdigest() != state.sha256:
            raise SlotError(f"slot {slot} is read differently than it was hashed")
        return content

    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        size_bytes, most_bytes = len(certificate), self.traits.max_size_bytes
        if not len(NOTHING) < size_bytes <= most_bytes:
            raise SlotError(f"a slot takes {len(NOTHING) + 1} to {most_bytes} bytes, the certificate has {size_bytes}")
        pointer = await self._refuse_active(slot)
        if pointer is not None and pointer.slot == slot:
            # Its file was damaged; the new one must not be active before activate().
            await self._keep(ACTIVE, Pointer(NO_SLOT, pointer.generation).encode())
        await self._device.upload(self._file(slot), certificate, progress)
        await self._keep(layout.digest_key(slot), hashlib.sha256(certificate).digest())

    async def verify(self, slot: int) -> str:
        return (await self._look(slot, None, None)).sha256

    async def activate(self, slot: int) -> None:
        await self._valid(slot)
        now = layout.pointer(await self._device.setting(ACTIVE))
        if now is None or now.slot != slot:
            now = Pointer(slot, now.generation + 1 if now else 1)
        await self._keep(ACTIVE, now.encode())

    async def confirm(self) -> None:
        pointer = layout.pointer(await self._device.setting(ACTIVE))
        if pointer is not None:
            await self._keep(CONFIRMED, layout.generation(pointer.generation))

    async def erase(self, slot: int) -> None:
        await self._refuse_active(slot)
        if await self._device.digest(self._file(slot), self.traits.max_size_bytes) is not None:
            await self._device.upload(self._file(slot), NOTHING, lambda *_: None)

    async def recover(self) -> None:
        """Nothing: a setting is saved as a whole or not at all, and connect() has loaded what was saved."""

    async def _look(self, slot: int, pointer: Pointer | None, confirmed: bytes | None) -> SlotState:
        """One slot, read anew; `pointer` and `confirmed` as they are now."""
        meant = await self._device.setting(layout.digest_key(slot))
        held = await self._device.digest(self._file(slot), self.traits.max_size_bytes)
        if held is None or held[0] != meant:
            return SlotState(slot)
        active = pointer is not None and pointer.slot == slot
        return SlotState(
            slot,
            generation=pointer.generation if pointer and active else 0,
            sha256=held[0].hex(),
            size_bytes=held[1],
            valid=True,
            active=active,
            confirmed=pointer is not None and active and confirmed == layout.generation(pointer.generation),
        )

    async def _keep(self, name: str, value: bytes) -> None:
        """Give a setting this value for good; a value that it has is not written again."""
        await self._device.set(name, value)
        await self._device.save(ROOT)

    async def _valid(self, slot: int) -> SlotState:
        state = await self._look(slot, None, None)
        if not state.valid:
            raise SlotError(f"slot {slot} holds no valid certificate")
        return state

    async def _refuse_active(self, slot: int) -> Pointer | None:
        """Returns the pointer as it is, which does not name this slot, or names it in vain."""
        pointer = layout.pointer(await self._device.setting(ACTIVE))
        if pointer is not None and pointer.slot == slot and (await self._look(slot, pointer, None)).active:
            raise SlotError(f"slot {slot} is the active one")
        return pointer

    def _file(self, slot: int) -> str:
        return layout.file(self._directory, slot)


_conforms: type[SecureStore] = SmpStore

"""Devices whose power can be cut at each operation: what the power-loss test needs of a secure store, and loopback's.

A new store joins by one more factory in WORLDS.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from optima_bridge.link import memory_pair
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import SecureStore
from optima_drivers.loopback import LoopbackDriver
from optima_drivers.loopback.driver import LoopbackSettings
from optima_drivers.loopback.flash import When
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.loopback.store import LoopbackStore, RawMemory
from tests.enroll import world_piv
from tests.enroll.world_pkcs11 import PKCS11_WORLDS
from tests.enroll.world_smp import SmpOnAWire

SERIAL = "till-3"


class World(Protocol):
    """One device, its power and the cable to it.

    Attributes:
        everyday_cuts: how many of all places the test without ``-m slow`` tries; about a second.
    """

    everyday_cuts: int

    def power_up(self) -> SecureStore:
        """Give the power back; returns the store over a fresh connection. What an earlier one left is gone."""

    def cut_at(self, operation: int, when: When, seed: int) -> None:
        """Cut the power at that operation from now, 1 is the next one."""

    def watch(self, on_operation: Callable[[], None]) -> None:
        """Have `on_operation` called before each operation of the device."""

    @property
    def operations(self) -> int:
        """How many since cut_at()."""

    @property
    def writes(self) -> int:
        """How many of all operations could change what the device holds."""

    def credential(self) -> bytes | None:
        """What the terminal takes when it powers up, found without the store."""

    def snapshot(self) -> bytes:
        """All of its memory."""

    def restore(self, snapshot: bytes) -> None:
        """Put it back."""


class _Loopback:
    everyday_cuts = 0

    def __init__(self, slots: int, store: Callable[[RawMemory, int], SecureStore] = LoopbackStore) -> None:
        self.slots, self._store = slots, store
        self.simulator = LoopbackSimulator(serial=SERIAL)
        self.flash = self.simulator.flash

    def cut_at(self, operation: int, when: When, seed: int) -> None:
        self.flash.cut_at(operation, when, seed)

    def watch(self, on_operation: Callable[[], None]) -> None:
        self.flash.on_operation = on_operation

    @property
    def operations(self) -> int:
        return self.flash.operations

    @property
    def writes(self) -> int:
        return self.flash.writes

    def credential(self) -> bytes | None:
        return self.simulator.credential()

    def snapshot(self) -> bytes:
        return bytes(self.flash.content)

    def restore(self, snapshot: bytes) -> None:
        self.flash.content[:] = snapshot


class LoopbackOnAWire(_Loopback):
    """The driver, its frames, a memory link; the power of the device goes, and with it the link."""

    everyday_cuts = 20

    def power_up(self) -> SecureStore:
        return self.driver().store

    def driver(self, **settings: int) -> LoopbackDriver:
        """A driver on a fresh link."""
        self.flash.restart()
        link, self.peer = memory_pair()
        peer = self.peer
        peer.on_write = lambda data: peer.feed(self.simulator.receive(data))
        self.simulator.on_power_cut = peer.unplug
        return LoopbackDriver(link, LoopbackSettings.model_validate({"slots": self.slots, **settings}))


class LoopbackInProcess(_Loopback):
    """Its raw memory without a cable. The store PC is on the same plug: a power cut ends the engine where it stands."""

    everyday_cuts = 150

    def power_up(self) -> SecureStore:
        self.flash.restart()
        return self._store(self, self.slots)

    async def identify(self) -> DeviceIdentity:
        self.flash.read(0, 0)
        return DeviceIdentity("loopback", SERIAL, "1")

    async def read(self, address: int, size_bytes: int) -> bytes:
        return self.flash.read(address, size_bytes)

    async def write(self, address: int, data: bytes) -> None:
        self.flash.program(address, data)

    async def erase(self, address: int) -> None:
        self.flash.erase(address)


WORLDS: dict[str, Callable[[], World]] = {
    "loopback A/B, host and device on one plug": lambda: LoopbackInProcess(2),
    "loopback A/B, device behind a link": lambda: LoopbackOnAWire(2),
    "loopback single slot, host and device on one plug": lambda: LoopbackInProcess(1),
    "loopback single slot, device behind a link": lambda: LoopbackOnAWire(1),
    "smp A/B, device behind a link": lambda: SmpOnAWire(SERIAL),
    **PKCS11_WORLDS,
    **world_piv.worlds(SERIAL),
}

"""An SMP controller behind a link whose power can be cut at each operation on its files and settings."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from optima_bridge.link import memory_pair
from optima_bridge.store import SecureStore
from optima_drivers.loopback.flash import When
from optima_drivers.smp import SmpDriver, memory
from optima_drivers.smp.driver import SmpSettings
from optima_drivers.smp.simulator import SmpSimulator


class SmpOnAWire:
    """The driver, its frames, a memory link; the power of the device goes, and with it the link."""

    everyday_cuts = 20

    def __init__(self, serial: str) -> None:
        self.simulator = SmpSimulator(serial, buffer_bytes=192)  # small: more frames to cut at
        self.memory = self.simulator.memory

    def power_up(self) -> SecureStore:
        self.simulator.restart()
        link, peer = memory_pair()
        peer.on_write = lambda data: peer.feed(self.simulator.receive(data))
        self.simulator.on_power_cut = peer.unplug
        return SmpDriver(link, SmpSettings()).store

    def cut_at(self, operation: int, when: When, seed: int) -> None:
        self.memory.cut_at(operation, memory.When(when), seed)

    def watch(self, on_operation: Callable[[], None]) -> None:
        self.memory.on_operation = on_operation

    @property
    def operations(self) -> int:
        return self.memory.operations

    @property
    def writes(self) -> int:
        return self.memory.writes

    def credential(self) -> bytes | None:
        return self.simulator.credential()

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.memory.image)

    def restore(self, snapshot: bytes) -> None:
        self.memory.image = msgspec.msgpack.decode(snapshot, type=memory.Image)

"""The simulated store: five devices on ptys, and a seeded story of what people do with them.

Keylock, seal and controller speak the loopback protocol until they have drivers of their own.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import msgspec

from optima_bridge.link.ptys import ByteDevice, PtyServer
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.rfid125.simulator import Rfid125Simulator

KEYS = {
    "01B7BA1000000075": "supervisor key 7",
    "017856341200004E": "supervisor key 12",
    "0101EFCDAB00002C": "clerk key 3",
}
CARDS = {"67003B51C6": "card of the shift leader", "100086F444": "card of the store manager"}
SETTINGS = {
    "keylock": 'abilities = ["keylock"]\n',
    "seal": 'abilities = ["seal-switch"]\n',
    "controller": 'abilities = ["terminal", "secure-store"]\n',
}
CYCLE_S = 6.0
FIRST_STEP_S = 0.4
CHAPTER_S = 5.0  # of the credential, behind the first cycle
CUT_AT_BYTE = 300  # of the certificate that is being written
DARK_S = 0.8  # without power


class Attachable(ByteDevice, Protocol):
    """A simulated device that also speaks without being asked."""

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Give it the way to the host."""


class Step(msgspec.Struct, frozen=True):
    """One thing that somebody does, and the one event that must come of it.

    Attributes:
        at_s: seconds after the daemon is there.
        words: what is done, for the screen.
        device, action: the event that follows.
        act: does it; what it returns is awaited.
        behind_all: everything that was done before has to have its event first.
    """

    at_s: float
    words: str
    device: str
    action: str
    act: Callable[[], Awaitable[None] | None]
    behind_all: bool = False


class SimulatedStore:
    """Five devices, each on a pty of its own below `directory`; up while the ``async with`` block runs."""

    def __init__(self, directory: Path, seed: int, enroll: Callable[[], Awaitable[None]]) -> None:
        self._directory = directory
        self._enroll = enroll
        self._servers: dict[str, PtyServer] = {}
        self._rng = random.Random(seed)  # noqa: S311 - a story, not a secret
        self._stack = AsyncExitStack()
        self.keys = Ds2480bSimulator()
        self.cards = Rfid125Simulator(seed=seed)
        self.keylock = LoopbackSimulator("keylock", "KL-1")
        self.seal = LoopbackSimulator("seal", "SEAL-1")
        self.controller = LoopbackSimulator("controller", "CTRL-1")
        self.keylock.lock(1)
        self.seal.seal(False)
        self.controller.controller("READY")
        self._rom = self._rng.choice(tuple(KEYS))
        self._slave = self.keys.put(self._rom)  # the key is on the reader before the daemon is there

    @property
    def devices(self) -> dict[str, tuple[str, Attachable]]:
        """Driver and simulator of each device."""
        return {
            "front-key": ("ds2480b", self.keys),
            "front-card": ("rdm6300", self.cards),
            "keylock": ("loopback", self.keylock),
            "seal": ("loopback", self.seal),
            "controller": ("loopback", self.controller),
        }

    async def __aenter__(self) -> Self:
        for name, (_, simulator) in self.devices.items():
            server = await self._stack.enter_async_context(PtyServer(simulator, symlink=self._directory / name))
            simulator.attach(server.send)
            self._servers[name] = server
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cards.remove()
        await self._stack.aclose()

    def configuration(self) -> str:
        """The ``[devices.*]`` tables."""
        return "\n".join(
            f'[devices.{name}]\ndriver = "{driver}"\nport = "{self._directory / name}"\n{SETTINGS.get(name, "")}'
            for name, (driver, _) in self.devices.items()
        )

    def story(self, seconds: float) -> list[Step]:
        """What happens in `seconds`; the same for the same seed. Every step makes exactly one event."""
        steps = [Step(0.0, f"{KEYS[self._rom]} is on the reader", "front-key", "inserted", _nothing)]
        start_s = 0.0
        while start_s + FIRST_STEP_S <= seconds:
            card = self._rng.choice(tuple(CARDS))
            rom = self._rng.choice(tuple(KEYS))
            lock, seal, controller = self.keylock.lock, self.seal.seal, self.controller.controller
            cycle: list[tuple[float, str, str, str, Callable[[], None]]] = [
                (0.4, f"{CARDS[card]} is held to the reader", "front-card", "inserted", partial(self.cards.insert, card)),
                (1.0, "the keylock is turned to SUPERVISOR", "keylock", "turned", partial(lock, 3)),
                (1.6, "the card is taken away", "front-card", "removed", self.cards.remove),
                (2.6, "the seal is broken", "seal", "opened", partial(seal, True)),
                (3.1, "a transaction is left pending", "controller", "changed", partial(controller, "PENDING")),
                (3.6, "[C] is pressed: the controller is ready", "controller", "changed", partial(controller, "READY")),
                (4.1, "the seal is closed", "seal", "closed", partial(seal, False)),
                (4.6, "the keylock is turned to NORMAL", "keylock", "turned", partial(lock, 2)),
                (5.0, "the key is taken off the reader", "front-key", "removed", self._lift),
                (5.8, f"{KEYS[rom]} is put on the reader", "front-key", "inserted", partial(self._put, rom)),
            ]  # fmt: skip
            for offset_s, words, device, action, act in cycle:
                if start_s + offset_s <= seconds:
                    steps.append(Step(start_s + offset_s, words, device, action, act))
            start_s += CYCLE_S
            if start_s == CYCLE_S:
                steps += [step for step in self._chapter(start_s) if step.at_s + 2 <= seconds]
                start_s += CHAPTER_S
        return steps

    def _chapter(self, start_s: float) -> list[Step]:
        """A credential goes into the controller, another one after it whose power is cut, and that one again."""
        first = "a supervisor credential is enrolled into the controller"
        cut = f"it is to be replaced: the power is cut {CUT_AT_BYTE} bytes into the new one"
        again = "power is back, the old credential is active; enrolled once more"
        return [
            Step(start_s + 0.2, first, "controller", "ended", self._enroll, behind_all=True),
            Step(start_s + 1.4, cut, "controller", "ended", self._enroll_without_power, behind_all=True),
            Step(start_s + 3.4, again, "controller", "ended", self._enroll, behind_all=True),
        ]

    async def _enroll_without_power(self) -> None:
        flash, server = self.controller.flash, self._servers["controller"]

        def dark() -> None:
            server.unplug()
            asyncio.get_running_loop().call_later(DARK_S, light)

        def light() -> None:
            flash.restart()
            server.replug()

        def cut() -> None:
            asyncio.get_running_loop().call_soon(dark)

        self.controller.on_power_cut = cut
        flash.cut_at(CUT_AT_BYTE + 40)  # reads and erased pages come before the certificate
        await self._enroll()

    def _put(self, rom: str) -> None:
        self._slave = self.keys.put(rom)

    def _lift(self) -> None:
        self.keys.lift(self._slave)


def _nothing() -> None:
    """It is so already."""

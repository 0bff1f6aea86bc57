"""No power cut leaves a terminal without a valid certificate: every operation, before, in the middle, after, and once more.

The invariants, of every secure store that survives a power cut (a single slot has them again after recovery):
I1 a complete certificate is there at every moment; I2 the active one is the old or the new one; I3 the generation never
decreases; I4 after recovery all is as before or as after the job; I5 the job run again ends at the new certificate.
I6 and I7, no write before the journal's entry or to a device that is not meant, are in test_engine.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Outcome, Request, Result, fingerprint
from optima_bridge.errors import BridgeError, DeviceError
from optima_bridge.store import Progress, SecureStore
from optima_drivers.loopback.flash import PowerCut, When
from optima_drivers.loopback.store import LoopbackStore
from tests.enroll.worlds import SERIAL, WORLDS, LoopbackInProcess, World

CUTS = [(When.BEFORE, 0), (When.TORN, 0), (When.TORN, 1), (When.TORN, 2), (When.AFTER, 0)]
SIZES = {"small": (70, 90), "real": (600, 858)}  # old and new certificate, bytes; real as measured of issued ones


def certificates(sizes: str) -> tuple[bytes, bytes]:
    chance = random.Random(1)
    old, new = SIZES[sizes]
    return chance.randbytes(old), chance.randbytes(new)


@contextmanager
def state_directory() -> Iterator[Path]:
    """In memory where there is such a thing: the disk's fsync is not what is tested here, thousands of times."""
    shared = Path("/dev/shm")
    with TemporaryDirectory(dir=shared if shared.is_dir() else None) as directory:
        yield Path(directory)


def accept(certificate: bytes) -> None:
    """Any certificate."""


class Rehearsal:
    """One job on one device, cut and repeated; `works` says whether the terminal can use the new certificate."""

    def __init__(self, world: World, directory: Path, sizes: str, works: bool) -> None:
        self.world, self.directory, self.works = world, directory, works
        self.old, self.new = certificates(sizes)
        self.jobs = 0

    async def job(self, store: SecureStore, certificate: bytes) -> Result:
        self.jobs += 1
        request = Request(f"j{self.jobs}", SERIAL, certificate, replace=True, accept_single_slot=True)
        with HostJournal(self.directory) as journal:
            return await enroll(store, request, journal, accept, use=self.use)

    async def use(self, store: SecureStore) -> None:
        if not self.works and self.world.credential() == self.new:
            raise DeviceError("the signature is wrong")

    async def recovery(self, store: SecureStore) -> Result | None:
        with HostJournal(self.directory) as journal:
            return await recover(store, journal, use=self.use)

    async def prepare(self) -> None:
        await self.job(self.world.power_up(), self.old)
        assert self.world.credential() == self.old
        self.before = self.world.snapshot()

    async def lengths(self) -> tuple[int, int]:
        """Operations of the job, and of a recovery in its middle."""
        self.world.cut_at(1 << 30, When.BEFORE, 0)
        await self.job(self.world.power_up(), self.new)
        operations = self.world.operations
        self.world.restore(self.before)
        store = self.world.power_up()
        self.world.cut_at(operations // 2, When.BEFORE, 0)
        await self.until_cut(self.job(store, self.new))
        store = self.world.power_up()
        self.world.cut_at(1 << 30, When.BEFORE, 0)
        await self.recovery(store)
        return operations, self.world.operations

    async def until_cut(self, doing: Awaitable[object]) -> None:
        with suppress(PowerCut, BridgeError):
            await doing

    async def cut(self, operation: int, when: When, seed: int, second: int, second_when: When) -> None:
        world = self.world
        world.restore(self.before)
        store = world.power_up()
        survives = store.traits.survives_power_loss
        allowed = {self.old, self.new} if survives else {self.old, self.new, None}
        generation = await self.generation(store)

        world.cut_at(operation, when, seed)
        await self.until_cut(self.job(store, self.new))
        assert world.credential() in allowed
        store = world.power_up()
        after_cut = await self.generation(store)
        assert not survives or after_cut >= generation

        world.cut_at(second, second_when, seed)
        await self.until_cut(self.recovery(store))
        assert world.credential() in allowed
        store = world.power_up()
        assert not survives or await self.generation(store) >= after_cut

        result = await self.recovery(store)
        active = world.credential()
        assert active in ({self.old, self.new} if self.works else {self.old})
        assert active is not None
        held = [state.sha256 for state in await store.inspect() if state.valid]
        assert fingerprint(active) in held
        if result is not None:
            assert result.outcome is (Outcome.VERIFIED if active == self.new else Outcome.ROLLED_BACK)
            assert result.active_sha256 == fingerprint(active)
            assert active == self.new or not self.works or fingerprint(self.new) not in held
        assert await self.recovery(world.power_up()) is None

        again = await self.job(world.power_up(), self.new)
        assert again.outcome is (Outcome.VERIFIED if self.works else Outcome.ROLLED_BACK)
        assert again.changed is (self.works and active != self.new)
        assert world.credential() == (self.new if self.works else self.old)

    async def generation(self, store: SecureStore) -> int:
        return max((state.generation for state in await store.inspect() if state.active), default=0)


async def rehearse(world: World, sizes: str, cuts: int | None = None, *, works: bool = True) -> int:
    """Cut everywhere, or at that many places evenly; the second cut wanders through the recovery. Returns how many."""
    with state_directory() as directory:
        rehearsal = Rehearsal(world, directory, sizes, works)
        await rehearsal.prepare()
        operations, recovery = await rehearsal.lengths()
        places = [(operation, *cut) for operation in range(1, operations + 1) for cut in CUTS]
        step = 1 if cuts is None else len(places) // cuts
        while step > 1 and step % len(CUTS) == 0:  # or all would be cuts of one kind
            step += 1
        for number, (operation, when, seed) in enumerate(places[::step]):
            second = 1 + number % (recovery + 1)
            second_when = CUTS[number // 7 % len(CUTS)][0]
            try:
                await rehearsal.cut(operation, when, seed, second, second_when)
            except AssertionError as error:
                error.add_note(f"cut {when} operation {operation} (seed {seed}), then {second_when} {second}")
                raise
        return len(places[::step])


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_a_power_cut_leaves_the_old_or_the_new_certificate(name: str, sizes: str) -> None:
    world = WORLDS[name]()
    assert asyncio.run(rehearse(world, sizes, world.everyday_cuts)) >= world.everyday_cuts // 2


@pytest.mark.parametrize("name", WORLDS)
def test_a_power_cut_while_going_back_ends_at_the_old_certificate(name: str) -> None:
    world = WORLDS[name]()
    asyncio.run(rehearse(world, "small", world.everyday_cuts, works=False))


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize("sizes", SIZES)
def test_no_power_cut_at_all_leaves_anything_else(name: str, sizes: str) -> None:
    places = asyncio.run(rehearse(WORLDS[name](), sizes))
    print(f"{name}, {sizes}: {places} cuts, each with a second one during recovery")


@pytest.mark.slow
@pytest.mark.parametrize("name", WORLDS)
def test_no_power_cut_at_all_while_going_back_ends_elsewhere(name: str) -> None:
    places = asyncio.run(rehearse(WORLDS[name](), "small", works=False))
    print(f"{name}, going back: {places} cuts, each with a second one during recovery")


class ErasesBothFirst(LoopbackStore):
    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        await self._erase(1 - slot)
        await super().stage(slot, certificate, progress)


class ActivatesBeforeItIsWhole(LoopbackStore):
    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        await super().stage(slot, certificate, progress)
        await self._erase(1 - slot)
        await super().activate(slot)
        await self._erase(slot)
        await super().stage(slot, certificate, progress)


class NeverActivates(LoopbackStore):
    async def activate(self, slot: int) -> None:
        pass


class BeginsGenerationsAnew(LoopbackStore):
    async def recover(self) -> None:
        for state in await self.inspect():
            if state.active:
                certificate = await self.read(state.slot)
                await self._erase(state.slot)
                await self.stage(state.slot, certificate, lambda _, __: None)
                await super().activate(state.slot)


@pytest.mark.parametrize(
    "store",
    [ErasesBothFirst, ActivatesBeforeItIsWhole, NeverActivates, BeginsGenerationsAnew],
    ids=lambda it: it.__name__,
)
def test_the_rehearsal_notices_a_store_that(store: type[LoopbackStore]) -> None:
    with pytest.raises(AssertionError):
        asyncio.run(rehearse(LoopbackInProcess(2, store), "small", 300))

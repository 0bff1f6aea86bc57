"""One certificate into one device: what is refused, what is repeated, what is undone, what is finished all the same."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import FILE_NAME, HostJournal, Job, JobState
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Outcome, Phase, Request, Result, fingerprint
from optima_bridge.errors import (
    BridgeError,
    CertificateError,
    CertificateTooBig,
    DeviceError,
    EnrollBusy,
    FingerprintMismatch,
    JournalError,
    LinkLost,
    SingleSlot,
    SlotError,
    SlotOccupied,
    VerifyMismatch,
    WriteUncertain,
    WrongDevice,
)
from optima_bridge.model import DeviceIdentity, Event, Subject
from optima_bridge.store import Readback, SecureStore, SlotState
from optima_bridge.testing.awaits import at_every_await, cancelled_at
from optima_drivers.loopback.store import LoopbackStore, RawMemory
from tests.enroll.worlds import SERIAL, WORLDS, LoopbackInProcess, LoopbackOnAWire, World

chance = random.Random(3)
OLD, NEW = chance.randbytes(70), chance.randbytes(90)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[HostJournal]:
    with HostJournal(tmp_path) as journal:
        yield journal


def accept(certificate: bytes) -> None:
    """Any certificate."""


def request(certificate: bytes = NEW, **options: Any) -> Request:
    return Request(**{"job": "7f3a", "serial": SERIAL, "certificate": certificate, "replace": True, **options})


async def enrolled(world: World, journal: HostJournal, certificate: bytes = OLD) -> SecureStore:
    """A device that holds `certificate`."""
    job = request(certificate, job="earlier", accept_single_slot=True)
    assert (await enroll(world.power_up(), job, journal, accept)).outcome is Outcome.VERIFIED
    return world.power_up()


def active(slots: Sequence[SlotState]) -> SlotState:
    [state] = [state for state in slots if state.active]
    return state


# -- refusals


def refuse(certificate: bytes) -> None:
    raise CertificateError("expired")


@pytest.mark.parametrize("name", WORLDS)
@pytest.mark.parametrize(
    ("wanted", "error"),
    [
        (request(serial="till-4"), WrongDevice),
        (request(bytes(2049)), CertificateTooBig),
        (request(b"expired"), CertificateError),
        (request(replace=False), SlotOccupied),
        (request(if_fingerprint=fingerprint(NEW)), FingerprintMismatch),
        (request(job="earlier", accept_single_slot=True), EnrollBusy),
    ],
    ids=lambda it: it.__name__ if isinstance(it, type) else "",
)
async def test_what_is_refused_costs_no_write(
    name: str, wanted: Request, error: type[BridgeError], journal: HostJournal
) -> None:
    world = WORLDS[name]()
    store = await enrolled(world, journal)
    writes, jobs = world.writes, journal.jobs()
    with pytest.raises(error):
        await enroll(store, wanted, journal, refuse if wanted.certificate == b"expired" else accept)
    assert (world.writes, journal.jobs()) == (writes, jobs)
    assert world.credential() == OLD


async def test_a_single_slot_is_refused_unless_it_is_accepted(journal: HostJournal) -> None:
    world = LoopbackOnAWire(1)
    with pytest.raises(SingleSlot):
        await enroll(world.power_up(), request(), journal, accept)
    assert world.writes == 0
    assert (await enroll(world.power_up(), request(accept_single_slot=True), journal, accept)).changed


async def test_a_matching_fingerprint_is_leave_to_replace(journal: HostJournal) -> None:
    world = LoopbackOnAWire(2)
    store = await enrolled(world, journal)
    wanted = request(replace=False, if_fingerprint=fingerprint(OLD))
    assert (await enroll(store, wanted, journal, accept)).outcome is Outcome.VERIFIED
    with pytest.raises(FingerprintMismatch):
        await enroll(LoopbackOnAWire(2).power_up(), wanted, journal, accept)


# -- success


@pytest.mark.parametrize("name", WORLDS)
async def test_the_certificate_that_is_active_already_is_success_without_a_write(
    name: str, journal: HostJournal
) -> None:
    world = WORLDS[name]()
    store = await enrolled(world, journal)
    writes = world.writes
    result = await enroll(store, request(OLD, replace=False), journal, accept)
    assert result == Result("", Outcome.VERIFIED, fingerprint(OLD), changed=False)
    assert world.writes == writes


async def test_phases_and_bytes_are_reported_in_order(journal: HostJournal) -> None:
    world = LoopbackOnAWire(2)
    store = await enrolled(world, journal)
    told: list[tuple[str, int, int]] = []
    result = await enroll(store, request(), journal, accept, report=lambda *it: told.append(it))
    assert result == Result("7f3a", Outcome.VERIFIED, fingerprint(NEW), changed=True)
    assert told == [
        ("check", 0, 0),
        ("backup", 0, 0),
        ("write", 64, 90),
        ("write", 90, 90),
        ("verify", 0, 0),
        ("commit", 0, 0),
        ("confirm", 0, 0),
    ]
    assert [(state.valid, state.active, state.confirmed) for state in await store.inspect()] == [
        (True, False, True),
        (True, True, True),
    ]


async def test_a_revoked_old_certificate_is_erased_in_the_end(journal: HostJournal) -> None:
    world = LoopbackOnAWire(2)
    store = await enrolled(world, journal)
    await enroll(store, request(erase_old=True), journal, accept)
    assert [state.valid for state in await store.inspect()] == [False, True]
    assert OLD not in world.snapshot()


async def test_the_row_is_on_disk_before_the_devices_first_byte(journal: HostJournal, tmp_path: Path) -> None:
    world = LoopbackOnAWire(2)
    store = await enrolled(world, journal)
    reader = sqlite3.connect(f"file:{tmp_path / FILE_NAME}?mode=ro", uri=True)
    seen: list[tuple[int, object]] = []
    world.watch(
        lambda: seen.append((world.writes, reader.execute("SELECT state FROM job WHERE id = '7f3a'").fetchone()))
    )
    before, untouched = world.writes, world.snapshot()
    await enroll(store, request(), journal, accept)
    reader.close()
    assert world.snapshot() != untouched
    states = {state for (writes, state), (later, _) in pairwise(seen) if later > writes}
    assert states == {("staging",), ("activating",)}
    assert seen[0] == (before, None)


async def test_events_go_on_while_a_certificate_is_written(journal: HostJournal) -> None:
    world = LoopbackOnAWire(2)
    driver = world.driver()
    await driver.start()
    events: list[object] = []

    async def listen() -> None:
        async for event in driver.events():
            events.append(event)

    listening = asyncio.create_task(listen())
    world.simulator.attach(world.peer.feed)
    result = await enroll(
        driver.store, request(), journal, accept, report=lambda phase, *_: world.simulator.seal(phase is Phase.WRITE)
    )
    await world.peer.drained()
    listening.cancel()
    assert result.outcome is Outcome.VERIFIED
    seals = [event.action for event in events if isinstance(event, Event) and event.subject is Subject.SEAL]
    assert seals == ["closed", "opened", "closed"]


# -- failures


class Sabotaged(LoopbackInProcess):
    """A device with a defect that begins when it is told."""

    def __init__(self, store: Callable[[RawMemory, int], SecureStore] = LoopbackStore) -> None:
        super().__init__(2, store)
        self.serial = SERIAL
        self.corrupt = False
        self.lost_at_write = -1

    async def identify(self) -> DeviceIdentity:
        return DeviceIdentity("loopback", self.serial, "1")

    async def write(self, address: int, data: bytes) -> None:
        self.lost_at_write -= 1
        if self.lost_at_write == 0:
            raise LinkLost("unplugged")
        await super().write(address, bytes(len(data)) if self.corrupt and len(data) > 16 else data)


async def test_what_reads_back_otherwise_twice_is_undone(journal: HostJournal) -> None:
    world = Sabotaged()
    store = await enrolled(world, journal)
    world.corrupt = True
    result = await enroll(store, request(), journal, accept)
    assert (result.outcome, result.active_sha256, result.changed) == (Outcome.ROLLED_BACK, fingerprint(OLD), False)
    assert isinstance(result.error, VerifyMismatch)
    assert world.credential() == OLD
    job = journal.job("7f3a")
    assert job is not None
    assert (job.state, job.outcome, job.code) == (JobState.CLOSED, Outcome.ROLLED_BACK, "E-ENROLL-VERIFY")


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_credential_that_does_not_work_is_taken_back(slots: int, journal: HostJournal) -> None:
    world = LoopbackOnAWire(slots)
    store = await enrolled(world, journal)

    async def use(store: SecureStore) -> None:
        if active(await store.inspect()).sha256 == fingerprint(NEW):
            raise DeviceError("the signature is wrong")

    result = await enroll(store, request(accept_single_slot=True), journal, accept, use=use)
    assert (result.outcome, result.active_sha256) == (Outcome.ROLLED_BACK, fingerprint(OLD))
    assert world.credential() == OLD
    assert slots == 1 or active(await store.inspect()).generation == 3
    again = await enroll(store, request(job="again", accept_single_slot=True), journal, accept)
    assert (again.outcome, world.credential()) == (Outcome.VERIFIED, NEW)


async def test_a_first_credential_that_does_not_work_stays_and_is_not_called_verified(journal: HostJournal) -> None:
    world = LoopbackOnAWire(2)
    result = await enroll(world.power_up(), request(), journal, accept, use=broken)
    assert (result.outcome, result.active_sha256) == (Outcome.UNCONFIRMED, fingerprint(NEW))
    again = await enroll(world.power_up(), request(job="again", replace=False), journal, accept)
    assert (again.outcome, again.changed) == (Outcome.VERIFIED, False)
    assert active(await world.power_up().inspect()).confirmed


class Blind(LoopbackStore):
    """A device that does not give back what it holds."""

    def __init__(self, memory: RawMemory, slot_count: int) -> None:
        super().__init__(memory, slot_count)
        self.traits = replace(self.traits, readback=Readback.NONE)

    async def inspect(self) -> Sequence[SlotState]:
        return [replace(state, sha256="") for state in await super().inspect()]

    async def read(self, slot: int) -> bytes:
        raise SlotError("this device does not give back what it holds")

    async def verify(self, slot: int) -> str:
        raise SlotError("this device does not give back what it holds")


@pytest.mark.parametrize("slots", [1, 2])
async def test_what_cannot_be_read_back_is_not_called_verified(slots: int, journal: HostJournal) -> None:
    world = LoopbackInProcess(slots, Blind)
    first = await enroll(world.power_up(), request(OLD, job="1", accept_single_slot=True), journal, accept)
    result = await enroll(world.power_up(), request(job="2", accept_single_slot=True), journal, accept)
    assert (first.outcome, result.outcome) == (Outcome.UNCONFIRMED, Outcome.UNCONFIRMED)
    assert world.credential() == NEW


async def broken(store: SecureStore) -> None:
    raise DeviceError("the signature is wrong")


async def test_a_device_that_cannot_be_read_goes_back_to_its_old_slot(journal: HostJournal) -> None:
    world = LoopbackInProcess(2, Blind)
    await enroll(world.power_up(), request(OLD, job="earlier"), journal, accept)
    result = await enroll(world.power_up(), request(), journal, accept, use=broken)
    assert (result.outcome, world.credential()) == (Outcome.ROLLED_BACK, OLD)


async def test_a_job_that_can_go_neither_way_is_closed_so_that_another_one_can_begin(journal: HostJournal) -> None:
    world = LoopbackInProcess(1, Blind)
    await enroll(world.power_up(), request(OLD, job="earlier", accept_single_slot=True), journal, accept)
    result = await enroll(world.power_up(), request(accept_single_slot=True), journal, accept, use=broken)
    assert (result.outcome, result.active_sha256) == (Outcome.NEEDS_ATTENTION, None)
    assert isinstance(result.error, WriteUncertain)
    assert journal.open_job("loopback", SERIAL) is None
    again = await enroll(world.power_up(), request(OLD, job="again", accept_single_slot=True), journal, accept)
    assert (again.outcome, world.credential()) == (Outcome.UNCONFIRMED, OLD)


class KeepsEverything(LoopbackStore):
    async def erase(self, slot: int) -> None:
        raise SlotError("erasing is locked")


async def test_a_revoked_certificate_that_cannot_be_erased_needs_attention(journal: HostJournal) -> None:
    world = LoopbackInProcess(2, KeepsEverything)
    store = await enrolled(world, journal)
    result = await enroll(store, request(erase_old=True), journal, accept)
    assert (result.outcome, result.active_sha256) == (Outcome.NEEDS_ATTENTION, fingerprint(NEW))
    assert (isinstance(result.error, SlotError), world.credential()) == (True, NEW)
    assert journal.open_job("loopback", SERIAL) is None


async def test_a_spare_slot_that_cannot_be_erased_does_not_keep_the_job_open(journal: HostJournal) -> None:
    world = Sabotaged(KeepsEverything)
    store = await enrolled(world, journal)
    world.corrupt = True
    assert (await enroll(store, request(), journal, accept)).outcome is Outcome.ROLLED_BACK
    assert (journal.open_job("loopback", SERIAL), world.credential()) == (None, OLD)


class ForgetsTheOther(LoopbackStore):
    """Main and stage: what is activated takes the place of what was there."""

    async def activate(self, slot: int) -> None:
        await super().activate(slot)
        await self.erase(1 - slot)


async def test_an_old_certificate_that_the_device_gave_up_comes_back_from_the_journal(journal: HostJournal) -> None:
    world = LoopbackInProcess(2, ForgetsTheOther)
    store = await enrolled(world, journal)

    async def use(store: SecureStore) -> None:
        if world.credential() == NEW:
            raise DeviceError("the signature is wrong")

    result = await enroll(store, request(), journal, accept, use=use)
    assert (result.outcome, world.credential()) == (Outcome.ROLLED_BACK, OLD)


async def test_a_link_lost_while_going_back_needs_attention_until_the_device_is_back(journal: HostJournal) -> None:
    world = Sabotaged()
    store = await enrolled(world, journal)

    async def use(store: SecureStore) -> None:
        world.lost_at_write = 1
        raise DeviceError("the signature is wrong")

    assert (await enroll(store, request(), journal, accept, use=use)).outcome is Outcome.NEEDS_ATTENTION
    settled = await recover(world.power_up(), journal, use=broken)
    assert settled is not None
    assert (settled.outcome, world.credential()) == (Outcome.ROLLED_BACK, OLD)


async def test_a_device_swapped_halfway_is_left_as_it_is(journal: HostJournal) -> None:
    world = Sabotaged()
    store = await enrolled(world, journal)
    swapped_at: list[int] = []

    def swap(phase: Phase, done_bytes: int, size_bytes: int) -> None:
        if phase is Phase.WRITE and done_bytes == size_bytes:
            world.serial = "till-4"
            swapped_at.append(world.writes)

    result = await enroll(store, request(), journal, accept, report=swap)
    assert (result.outcome, result.active_sha256) == (Outcome.ROLLED_BACK, fingerprint(OLD))
    assert isinstance(result.error, WrongDevice)
    assert world.writes == swapped_at[0] + 10, "the record, and nothing after another device answered"
    world.serial = SERIAL
    settled = await recover(world.power_up(), journal)
    assert settled is not None
    assert (settled.outcome, world.credential()) == (Outcome.ROLLED_BACK, OLD)


async def test_a_link_lost_while_switching_needs_attention_until_the_device_is_back(journal: HostJournal) -> None:
    world = Sabotaged()
    store = await enrolled(world, journal)

    def lose(phase: Phase, done_bytes: int, size_bytes: int) -> None:
        if phase is Phase.COMMIT:
            world.lost_at_write = 1

    result = await enroll(store, request(), journal, accept, report=lose)
    assert (result.outcome, result.active_sha256) == (Outcome.NEEDS_ATTENTION, None)
    assert isinstance(result.error, WriteUncertain)
    assert result.error.exit_status == 11
    settled = await recover(world.power_up(), journal)
    assert settled == Result("7f3a", Outcome.VERIFIED, fingerprint(NEW), changed=True)
    assert world.credential() == NEW
    assert await recover(world.power_up(), journal) is None


async def test_a_silent_device_ends_in_time_and_leaves_the_old_certificate(journal: HostJournal) -> None:
    world = LoopbackOnAWire(2)
    await enrolled(world, journal)
    store = world.driver(answer_timeout_ms=10).store
    world.simulator.on_power_cut = lambda: None
    result = await enroll(
        store,
        request(),
        journal,
        accept,
        report=lambda phase, *_: setattr(world.flash, "powered", phase is not Phase.WRITE),
    )
    assert (result.outcome, result.error and result.error.code) == (Outcome.ROLLED_BACK, "E-LINK-TIMEOUT")
    assert world.credential() == OLD


# -- cancelling


def test_cancelled_anywhere_it_is_undone_or_finished(tmp_path: Path) -> None:
    ends: list[bytes | None] = []
    left_open: list[int] = []

    async def scenario(k: int) -> bool:
        directory = tmp_path / str(k)
        directory.mkdir()
        world = LoopbackOnAWire(2)
        with HostJournal(directory) as journal:
            store = await enrolled(world, journal)
            reached = await cancelled_at(enroll(store, request(), journal, accept), k)
            ends.append(world.credential())
            job = journal.job("7f3a")
            if job is not None and job.state is JobState.CLOSED:
                assert (job.outcome is Outcome.VERIFIED) == (ends[-1] == NEW)
            else:
                assert ends[-1] == OLD
                left_open.extend([k] if job else [])
            await recover(world.power_up(), journal)
            assert world.credential() == ends[-1]
            assert journal.open_job("loopback", SERIAL) is None
            assert (await enroll(world.power_up(), request(job="b"), journal, accept)).outcome is Outcome.VERIFIED
            return reached

    assert at_every_await(scenario) > 20
    assert ends == sorted(ends, key=lambda it: it == NEW), "up to one point undone, from there on finished"
    assert set(ends[:-1]) == {OLD, NEW}
    assert len(left_open) <= 1, "only where it was cancelled at the journal's first row, before any write"


async def test_a_job_that_is_not_settled_stops_the_next_one(journal: HostJournal) -> None:
    world = Sabotaged()
    store = await enrolled(world, journal)

    def lose(phase: Phase, done_bytes: int, size_bytes: int) -> None:
        world.lost_at_write = 1 if phase is Phase.COMMIT else -1

    await enroll(store, request(), journal, accept, report=lose)
    world.lost_at_write = 1
    with pytest.raises(WriteUncertain):
        await enroll(world.power_up(), request(job="next"), journal, accept)
    assert journal.job("next") is None


class FullDisk(HostJournal):
    """Takes the job's first row and nothing after it."""

    def _change(self, job: Job) -> Job:
        if job.state is self.full_at:
            raise JournalError("the disk is full")
        return super()._change(job)

    full_at = JobState.ACTIVATING


async def test_what_is_not_in_the_journal_is_not_activated(tmp_path: Path) -> None:
    world = LoopbackInProcess(2)
    with FullDisk(tmp_path) as journal:
        result = await enroll(world.power_up(), request(), journal, accept)
    assert (result.outcome, result.error and result.error.code) == (Outcome.ROLLED_BACK, "E-JOURNAL")
    assert world.credential() is None


async def test_a_job_whose_end_is_not_in_the_journal_is_settled_once_more(tmp_path: Path) -> None:
    world = LoopbackInProcess(2)
    with FullDisk(tmp_path) as journal:
        journal.full_at = JobState.CLOSED
        result = await enroll(world.power_up(), request(), journal, accept)
        assert (result.outcome, result.error and result.error.code) == (Outcome.VERIFIED, "E-JOURNAL")
    with HostJournal(tmp_path) as journal:
        assert await recover(world.power_up(), journal) == Result(
            "7f3a", Outcome.VERIFIED, fingerprint(NEW), changed=True
        )


def test_an_outcome_is_an_exit_status() -> None:
    assert [outcome.exit_status for outcome in Outcome] == [0, 11, 10, 11]

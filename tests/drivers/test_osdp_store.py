"""A certificate as an OSDP file: whole or begun anew, in a session or not at all, and never said to be verified."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Outcome, Request
from optima_bridge.errors import LinkTimeout, RemoteProtocolError, SingleSlot, SlotError
from optima_bridge.link import MemoryPeer, memory_pair
from optima_bridge.store import SlotState
from optima_drivers.osdp import messages, store
from optima_drivers.osdp.codec import MAC_TYPES, Frame, FrameDecoder
from optima_drivers.osdp.driver import OsdpDriver
from optima_drivers.osdp.simulator import OsdpSimulator
from optima_drivers.osdp.store import MAX_SIZE_BYTES, fragment_bytes
from tests.drivers.osdp_support import KEY, key_file, running_on, settings_of

KIND = 0x81
CERTIFICATE = bytes(number * 7 & 0xFF for number in range(600))


class Answers(OsdpSimulator):
    """A reader that says to each fragment what it was told to say, the last thing for ever."""

    def __init__(self, *statuses: tuple[int, int, int]) -> None:
        super().__init__(key=KEY)
        self.statuses = list(statuses)
        self.fragments: list[int] = []

    def _take_file(self, data: bytes) -> bytes:
        self.fragments.append(len(data) - messages.FILE_HEADER_BYTES)
        delay_ms, status, max_message_bytes = self.statuses.pop(0) if len(self.statuses) > 1 else self.statuses[0]
        return bytes([messages.FILE_STATUS]) + struct.pack("<BHhH", 1, delay_ms, status, max_message_bytes)


class Slow(OsdpSimulator):
    """A reader that wants 25 ms for each fragment."""

    def _take_file(self, data: bytes) -> bytes:
        reply = super()._take_file(data)
        return reply[:2] + b"\x19\x00" + reply[4:]


def driver_of(reader: OsdpSimulator, directory: Path) -> tuple[OsdpDriver, MemoryPeer]:
    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(reader.receive(data))
    return OsdpDriver(link, settings_of(scbk=key_file(directory), certificate_file_type=KIND)), peer


def silent(_: int, __: int) -> None:
    pass


@pytest.mark.parametrize("exclusive", [False, True])
async def test_a_file_arrives_while_cards_are_read_or_before_where_the_reader_wants_to_be_left_alone(
    exclusive: bool, tmp_path: Path
) -> None:
    reader = Slow(key=KEY)
    reader.exclusive_files = exclusive
    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(reader.receive(data))
    files_before: list[int] = []
    async with running_on(link, scbk=key_file(tmp_path), certificate_file_type=KIND) as panel:
        await panel.polled()

        def progress(done: int, total: int) -> None:
            assert total == len(CERTIFICATE)
            if not files_before:
                reader.card("AA", bits=8)
            files_before.append(done)

        before = panel.driver.counters["polls"]
        await panel.driver.store.stage(0, CERTIFICATE, progress)
        polls_meanwhile = panel.driver.counters["polls"] - before
        assert reader.files == {KIND: CERTIFICATE}
        assert files_before[-1] == len(CERTIFICATE)
        assert polls_meanwhile <= 1 if exclusive else polls_meanwhile > 1
        assert await panel.cards(1) == ["AA"]


async def test_no_byte_of_a_certificate_leaves_in_the_clear(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    driver, peer = driver_of(reader, tmp_path)
    await driver.start()
    await driver.store.stage(0, CERTIFICATE, silent)
    frames = [frame for frame in FrameDecoder().feed(bytes(peer.written)) if isinstance(frame, Frame)]
    fragments = [frame for frame in frames if frame.body[0] == messages.FILE_TRANSFER]
    assert len(fragments) == 3
    assert all(frame.security[0] in MAC_TYPES and CERTIFICATE[:8] not in frame.body for frame in fragments)
    assert max(len(frame.encode()) + 1 for frame in fragments) <= 256


async def test_a_session_that_is_lost_halfway_begins_the_file_anew(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    driver, _ = driver_of(reader, tmp_path)
    await driver.start()
    restarted = False

    def progress(done: int, _: int) -> None:
        nonlocal restarted
        if done > 300 and not restarted:
            restarted = True
            reader.restart()

    await driver.store.stage(0, CERTIFICATE, progress)
    assert restarted
    assert reader.files == {KIND: CERTIFICATE}


async def test_another_task_that_greets_the_reader_halfway_begins_the_file_anew(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    driver, _ = driver_of(reader, tmp_path)
    await driver.start()
    greeting: list[asyncio.Task[object]] = []

    def progress(_: int, __: int) -> None:
        if not greeting:
            greeting.append(asyncio.ensure_future(driver.store.connect()))

    await driver.store.stage(0, CERTIFICATE, progress)
    await greeting[0]
    assert reader.files == {KIND: CERTIFICATE}


@pytest.mark.parametrize(
    "fragment", [pytest.param(1, marks=pytest.mark.slow), 2, pytest.param(3, marks=pytest.mark.slow)]
)
async def test_after_a_power_cut_the_journal_brings_the_whole_file_in(fragment: int, tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY, serial=7)
    (tmp_path / "state").mkdir()
    driver, _ = driver_of(reader, tmp_path)
    await driver.start()
    reader.faults.dies_at_fragment = fragment
    with HostJournal(tmp_path / "state") as journal:
        job = Request("j1", "7", CERTIFICATE, accept_single_slot=True)
        result = await enroll(driver.store, job, journal, lambda _: None)
        assert result.outcome is Outcome.NEEDS_ATTENTION
        assert reader.files == {}
    reader.faults.dead = False
    reader.restart()
    driver, _ = driver_of(reader, tmp_path)
    with HostJournal(tmp_path / "state") as journal:
        recovered = await recover(driver.store, journal)
        assert recovered is not None
        assert recovered.outcome is Outcome.UNCONFIRMED
        assert reader.files == {KIND: CERTIFICATE}
        assert await recover(driver.store, journal) is None


async def test_the_single_place_is_written_only_where_somebody_accepts_it(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY, serial=7)
    (tmp_path / "state").mkdir()
    driver, _ = driver_of(reader, tmp_path)
    with HostJournal(tmp_path / "state") as journal, pytest.raises(SingleSlot):
        await enroll(driver.store, Request("j1", "7", CERTIFICATE), journal, lambda _: None)
    assert reader.files == {}


async def test_of_what_the_reader_holds_nothing_is_told(tmp_path: Path) -> None:
    driver, _ = driver_of(OsdpSimulator(key=KEY), tmp_path)
    place = driver.store
    assert (await place.connect()).serial == "1"
    assert await place.inspect() == [SlotState(0)]
    for doing in (place.read(0), place.verify(0), place.erase(0)):
        with pytest.raises(SlotError):
            await doing
    await place.activate(0)
    await place.confirm()
    await place.recover()


@pytest.mark.parametrize("size_bytes", [0, MAX_SIZE_BYTES + 1])
async def test_a_certificate_of_no_fitting_size_is_refused(size_bytes: int, tmp_path: Path) -> None:
    driver, peer = driver_of(OsdpSimulator(key=KEY), tmp_path)
    with pytest.raises(SlotError, match="4096"):
        await driver.store.stage(0, bytes(size_bytes), silent)
    assert not peer.written


async def test_a_reader_that_refuses_the_file_says_so(tmp_path: Path) -> None:
    for reader, what in [
        (Answers((0, -2, 0)), "status -2"),
        (OsdpSimulator(key=KEY, refused=[messages.FILE_TRANSFER]), "takes no such file"),
    ]:
        driver, _ = driver_of(reader, tmp_path)
        with pytest.raises(SlotError, match=what):
            await driver.store.stage(0, CERTIFICATE, silent)


async def test_a_reader_that_answers_something_else_breaks_the_protocol(tmp_path: Path) -> None:
    class Strange(OsdpSimulator):
        def _take_file(self, data: bytes) -> bytes:
            return bytes([messages.ACK])

    driver, _ = driver_of(Strange(key=KEY), tmp_path)
    with pytest.raises(RemoteProtocolError, match="became of a file"):
        await driver.store.stage(0, CERTIFICATE, silent)


async def test_a_reader_that_restarts_to_take_the_file_over_has_taken_it(tmp_path: Path) -> None:
    driver, _ = driver_of(Answers((0, 0, 0), (0, 0, 0), (0, 2, 0)), tmp_path)
    await driver.store.stage(0, CERTIFICATE, silent)


async def test_the_readers_wishes_for_size_and_pause_are_followed(tmp_path: Path) -> None:
    reader = Answers((10, 0, 128), (0, 0, 0), (0, 0, 0), (0, 3, 0), (0, 1, 0))
    driver, _ = driver_of(reader, tmp_path)
    await driver.store.stage(0, CERTIFICATE[:400], silent)
    assert reader.fragments == [228, 100, 72, 0, 0]


async def test_a_reader_that_never_finishes_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "FINISH_PATIENCE_S", 0.3)
    for exclusive in (0, 1):

        class Endless(Answers):
            def _take_file(self, data: bytes, _interleave: int = exclusive) -> bytes:
                reply = super()._take_file(data)
                return reply[:1] + bytes([_interleave]) + reply[2:]

        driver, _ = driver_of(Endless((0, 3, 0)), tmp_path)
        with pytest.raises(SlotError, match="does not finish"):
            await driver.store.stage(0, CERTIFICATE[:10], silent)


async def test_a_reader_that_is_away_is_waited_for_at_the_beginning_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = OsdpSimulator(key=KEY)
    driver, _ = driver_of(reader, tmp_path)
    reader.faults.lost_commands = 2
    assert (await driver.store.connect()).serial == "1"
    monkeypatch.setattr(store, "RESTART_PATIENCE_S", 0.1)
    reader.faults.dead = True
    doings: list[Any] = [driver.store.connect(), driver.store.stage(0, CERTIFICATE, silent)]
    for doing in doings:
        with pytest.raises(LinkTimeout):
            await doing


def test_a_fragment_fills_the_frame_and_no_more() -> None:
    assert fragment_bytes(256) == 228
    assert fragment_bytes(128) == 100
    assert fragment_bytes(10) == 1

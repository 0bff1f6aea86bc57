"""The DS2480B driver on a memory link in virtual time: what it decides, under every fault its simulator can play."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import aclosing

import pytest
from pydantic import ValidationError

from optima_bridge.errors import LinkError, LinkLost, LinkTimeout, RemoteProtocolError
from optima_bridge.link import memory_pair
from optima_bridge.model import DeviceIdentity, Event, Observation, Subject
from optima_bridge.wire.onewire import Rom, crc8
from optima_drivers.ds2480b import Ds2480bDriver
from optima_drivers.ds2480b.driver import Ds2480bSettings
from optima_drivers.ds2480b.simulator import Ds2480bSimulator, Mode
from tests.virtual_time import run, virtual_loop

A, B = "017856341200004E", "0101EFCDAB00002C"
ID_CHIP = b"\x89" + bytes(6)
ID_CHIP += bytes([crc8(ID_CHIP)])
QUIET = [(Subject.FAULT, False), (Subject.KEY, "absent")]  # what the first poll of an empty probe finds


class Bench:
    """A driver and its simulator, joined in memory; `chunk_bytes` cuts the answers, each piece 1 ms after the last."""

    def __init__(self, chunk_bytes: int = 0, **settings: object) -> None:
        loop = virtual_loop()
        self.link, self.peer = memory_pair(clock_ns=loop.clock_ns)
        self.simulator = Ds2480bSimulator()
        self.simulator.attach(self.peer.feed)
        self.peer.on_write = self._answer
        self.peer.on_break = self.simulator.break_
        self.driver = Ds2480bDriver(self.link, Ds2480bSettings.model_validate(settings))
        self.news: list[Event | Observation] = []
        self.failure: LinkError | RemoteProtocolError | None = None
        self._chunk_bytes = chunk_bytes
        self._running: asyncio.Task[None] | None = None

    def _answer(self, data: bytes) -> None:
        answer = self.simulator.receive(data)
        size_bytes = self._chunk_bytes or max(1, len(answer))
        for index in range(0, len(answer), size_bytes):
            delay_s = 0.001 * (index // size_bytes)
            virtual_loop().call_later(delay_s, self.peer.feed, answer[index : index + size_bytes])

    async def start(self) -> None:
        """Start the driver and collect its news until the test ends."""
        assert await self.driver.start() == DeviceIdentity(model="DS2480B")
        self._running = asyncio.create_task(self._collect())

    async def _collect(self) -> None:
        try:
            async with aclosing(self.driver.events()) as events:
                async for news in events:
                    self.news.append(news)
        except (LinkError, RemoteProtocolError) as error:
            self.failure = error

    async def after(self, duration_s: float) -> list[tuple[Subject, object]]:
        """Let time pass; returns what was said in it, as (subject, action) or (subject, observed state)."""
        self.news.clear()
        await asyncio.sleep(duration_s)
        return [
            (news.subject, news.action)
            if isinstance(news, Event)
            else (news.subject, news.state.get("presence", news.state.get("active")))
            for news in self.news
        ]

    async def keys_after(self, duration_s: float) -> list[object]:
        """The same, keys only."""
        return [said for subject, said in await self.after(duration_s) if subject is Subject.KEY]

    async def stop(self) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait({self._running})
        await self.driver.stop()
        await self.driver.stop()


def play(scenario: Callable[[Bench], Awaitable[None]], *, chunk_bytes: int = 0, started: bool = True, **settings: object) -> None:  # fmt: skip
    """Run `scenario` with a bench, the driver started unless told otherwise, in virtual time."""

    async def main() -> None:
        bench = Bench(chunk_bytes, **settings)
        if started:
            await bench.start()
        await scenario(bench)
        await bench.stop()

    run(main())


async def until(condition: Callable[[], bool]) -> None:
    """Wait for something that the driver counts, at most a virtual minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - virtual time: costs nothing
            await asyncio.sleep(0.001)


def test_an_empty_probe_is_told_once() -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == QUIET
        assert await bench.after(10) == []

    play(scenario)


@pytest.mark.parametrize("chunk_bytes", [0, 1, 2, 5])
def test_a_key_is_inserted_and_removed(chunk_bytes: int) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.put(A)
        assert await bench.after(1) == [(Subject.KEY, "inserted")]
        inserted = bench.news[0]
        assert isinstance(inserted, Event)
        assert inserted.identifier == A
        assert inserted.data == {"family": "01"}
        assert inserted.state == {"presence": "present"}
        bench.simulator.lift()
        assert await bench.after(1) == [(Subject.KEY, "suspect"), (Subject.KEY, "removed")]
        suspect, removed = bench.news
        assert isinstance(suspect, Event)
        assert isinstance(removed, Event)
        assert suspect.state == {"presence": "suspect"}
        assert removed.state == {"presence": "absent"}
        assert removed.identifier == A
        assert removed.data["family"] == "01"
        seen = (suspect.mono_ns - int(str(suspect.data["last_seen_ms"])) * 10**6) // 10**6
        assert seen == (removed.mono_ns - int(str(removed.data["last_seen_ms"])) * 10**6) // 10**6

    play(scenario, chunk_bytes=chunk_bytes)


def test_a_key_that_was_there_before_the_start_is_inserted_and_never_absent() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.start()
        assert await bench.after(1) == [(Subject.FAULT, False), (Subject.KEY, "inserted")]

    play(scenario, started=False)


@pytest.mark.parametrize(("arrival_byte", "limit_ms"), [(0x01, 25), (0xCD, 70), (None, 125)])
def test_an_arrival_byte_shortens_the_wait_and_nothing_else(arrival_byte: int | None, limit_ms: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.arrival_byte = arrival_byte
        await bench.after(0.5)
        before_ns = bench.link.clock_ns()
        bench.simulator.put(A)
        assert await bench.keys_after(1) == ["inserted"]
        inserted = bench.news[0]
        assert isinstance(inserted, Event)
        assert 20 <= (inserted.mono_ns - before_ns) / 1e6 <= limit_ms

    play(scenario)


def test_arrival_bytes_without_a_key_grant_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(0.5)
        for byte in range(1, 256, 4):
            bench.peer.feed(bytes([byte]))
            assert await bench.after(0.01) == []
        assert bench.driver.counters["arrivals"] > 10

    play(scenario)


def test_a_key_that_bounces_is_suspect_and_restored() -> None:
    async def scenario(bench: Bench) -> None:
        key = bench.simulator.put(A)
        assert await bench.keys_after(1) == ["inserted"]
        bench.simulator.lift()
        misses = bench.driver.counters["misses"]
        bench.news.clear()
        await until(lambda: bench.driver.counters["misses"] > misses)
        bench.simulator.bus.keys.append(key)
        await asyncio.sleep(0.5)
        assert [news.action for news in bench.news if isinstance(news, Event)] == ["suspect", "restored"]

    play(scenario)


def test_another_key_in_its_place_removes_the_first() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.lift()
        bench.simulator.put(B)
        assert await bench.keys_after(1) == ["suspect", "removed", "inserted"]
        assert [news.identifier for news in bench.news if isinstance(news, Event)] == [A, A, B]

    play(scenario)


def test_two_keys_are_ambiguous_and_none_counts() -> None:
    async def scenario(bench: Bench) -> None:
        first = bench.simulator.put(A)
        await bench.after(1)
        second = bench.simulator.put(B)
        assert await bench.keys_after(1) == ["removed", "ambiguous"]
        ambiguous = bench.news[1]
        assert isinstance(ambiguous, Event)
        assert (ambiguous.identifier, ambiguous.data) == (None, {"keys": 2})
        bench.simulator.lift(first)
        assert await bench.keys_after(1) == ["inserted"]
        bench.simulator.lift(second)
        assert await bench.keys_after(1) == ["suspect", "removed"]

    play(scenario)


def test_two_keys_whose_and_has_a_right_crc_are_still_two() -> None:
    def with_crc(number: int) -> bytes:
        body = b"\x01" + number.to_bytes(6, "little")
        return body + bytes([crc8(body)])

    def merged(first: bytes, second: bytes) -> bytes:
        return bytes(x & y for x, y in zip(first, second, strict=True))

    base = with_crc(0x5A5A5A)
    other = next(
        rom
        for n in range(1, 10**5)
        if not crc8(merged(base, rom := with_crc(n))) and merged(base, rom) not in (base, rom)
    )

    async def scenario(bench: Bench) -> None:
        bench.simulator.put(base)
        bench.simulator.put(other)
        assert Rom.from_wire(merged(base, other)).family == "01"  # what READ ROM would have believed
        assert await bench.keys_after(1) == ["ambiguous"]

    play(scenario)


def test_chips_of_ignored_families_are_no_keys() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(ID_CHIP)
        assert await bench.after(1) == QUIET
        bench.simulator.put(A)
        assert await bench.keys_after(1) == ["inserted"]

    play(scenario)

    async def told(bench: Bench) -> None:
        bench.simulator.put(ID_CHIP)
        assert await bench.keys_after(1) == ["inserted"]

    play(told, ignore_families=["1a"])


@pytest.mark.parametrize("slots", range(0, 8 + 3 * 64, 7))
def test_a_key_lifted_during_a_search_is_a_miss_and_never_another_key(slots: int) -> None:
    async def scenario(bench: Bench) -> None:
        key = bench.simulator.put(A)
        await bench.after(1)
        misses = bench.driver.counters["misses"]
        bench.simulator.bus.lift_after_slots = slots
        bench.news.clear()
        await until(lambda: bench.driver.counters["misses"] > misses)
        bench.simulator.bus.keys.append(key)
        await asyncio.sleep(0.5)
        events = [(news.action, news.identifier) for news in bench.news if isinstance(news, Event)]
        assert events == [("suspect", A), ("restored", A)]

    play(scenario)


def test_poor_contact_is_read_again_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        key = bench.simulator.put(A)
        await bench.after(1)
        key.damaged_reads = 4
        assert await bench.after(0.5) == []
        assert bench.driver.counters["frames_bad_checksum"] == 4
        key.damaged_reads = 5
        assert await bench.keys_after(0.5) == ["suspect", "restored"]

    play(scenario)


def test_some_lost_bytes_in_either_direction_are_survived_without_a_removal() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        for count in range(1, 10):
            bench.simulator.faults.lost_answers = count
            assert await bench.keys_after(1) in ([], ["suspect", "restored"])
            bench.simulator.faults.lost_bytes = count
            assert await bench.keys_after(1) in ([], ["suspect", "restored"])
            assert bench.failure is None

    play(scenario)


@pytest.mark.parametrize("late_answers", [1, 2, 3, 4, 5])
def test_a_late_answer_never_grants(late_answers: int) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.put(A)
        bench.simulator.faults.late_answers = late_answers
        await until(lambda: bench.driver.counters["timeouts"] > 0)
        bench.simulator.lift()
        assert await bench.keys_after(2) == []
        # One late answer is got over; a chip that is always late is opened anew.
        assert (
            bench.failure is None if late_answers == 1 else bench.failure is None or bench.driver.counters["timeouts"]
        )

    play(scenario)


def test_noise_is_counted_and_does_not_hold_polls_off() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.faults.arrival_byte = None
        polls = bench.driver.counters["polls"]
        for _ in range(300):
            bench.peer.feed(b"\x00\xff\x3e")
            assert await bench.after(0.007) == []
        assert bench.driver.counters["noise_bytes"] > 300
        assert bench.driver.counters["polls"] - polls == 10  # in 2.1 s, with nothing there
        bench.simulator.put(A)
        assert await bench.keys_after(1) == ["inserted"]

    play(scenario)


def test_a_short_is_a_fault_once_and_takes_the_key_away() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.bus.short = True
        said = await bench.after(2)
        assert said == [(Subject.FAULT, "raised"), (Subject.KEY, "suspect"), (Subject.KEY, "removed")]
        raised = bench.news[0]
        assert isinstance(raised, Event)
        assert raised.data == {"code": "probe-short"}
        assert raised.state == {"active": True, "code": "probe-short"}
        bench.simulator.bus.short = False
        assert await bench.after(2) == [(Subject.FAULT, "cleared"), (Subject.KEY, "inserted")]
        cleared = bench.news[0]
        assert isinstance(cleared, Event)
        assert cleared.state == {"active": False, "code": "probe-short"}

    play(scenario)


def test_a_probe_that_is_shorted_from_the_start_is_a_fault() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.bus.short = True
        await bench.start()
        assert await bench.after(1) == [(Subject.FAULT, "raised"), (Subject.KEY, "absent")]

    play(scenario, started=False)


def test_an_alarm_presence_is_a_presence() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.alarm = True
        bench.simulator.put(A)
        assert await bench.keys_after(1) == ["inserted"]

    play(scenario)


@pytest.mark.parametrize("left_by", ["E1", "E1 E3", "3F ED", "E1 F0 E3 B1 E1 00", "B1", "09"])
def test_a_chip_left_in_any_state_is_recovered(left_by: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.peer.on_break = None  # as on a pty, and on bridges that cannot send one
        bench.simulator.receive(b"\xc1" + bytes.fromhex(left_by))
        await bench.start()
        bench.simulator.put(A)
        assert await bench.keys_after(1) == ["inserted"]

    play(scenario, started=False)


def test_a_chip_that_loses_its_state_while_in_use_is_recovered() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        for mode in Mode:
            bench.simulator.mode = mode
            assert await bench.keys_after(1) in ([], ["suspect", "restored"])
            assert bench.failure is None

    play(scenario)


def test_nothing_on_the_port_is_a_timeout_at_start() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.dead = True
        with pytest.raises(LinkTimeout, match="no DS2480B answers"):
            await bench.driver.start()

    play(scenario, started=False)


def test_another_chip_is_refused_at_start() -> None:
    async def older(bench: Bench) -> None:
        bench.simulator.faults.revision = 2
        with pytest.raises(RemoteProtocolError, match="is not a DS2480B"):
            await bench.driver.start()

    async def echo(bench: Bench) -> None:
        bench.peer.on_write = bench.peer.feed
        with pytest.raises(RemoteProtocolError, match="is not a DS2480B"):
            await bench.driver.start()

    play(older, started=False)
    play(echo, started=False)


def test_an_adapter_that_falls_silent_ends_the_events_after_another_try_to_find_it() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.faults.dead = True
        assert await bench.keys_after(0.25) == ["suspect"]
        assert bench.failure is None
        assert await bench.keys_after(2) == []
        assert isinstance(bench.failure, LinkTimeout)

    play(scenario)


def test_a_short_silence_is_survived_by_finding_the_chip_again() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.news.clear()
        bench.simulator.faults.dead = True
        await until(lambda: bench.driver.counters["timeouts"] > 0)
        bench.simulator.faults.dead = False
        assert [news.state for news in bench.news] == [{"presence": "suspect"}]
        assert await bench.keys_after(2) == ["restored"]
        assert bench.failure is None

    play(scenario, misses_to_remove=1)


def test_bytes_from_before_the_start_grant_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        earlier = bytes.fromhex("CD F0 02 00 80 2A 28 22 20 0A 08 02 00 00 00 00 A8 20")
        bench.peer.feed(earlier * 4)
        await bench.start()
        assert await bench.after(1) == QUIET

    play(scenario, started=False)


def test_a_lost_link_goes_through() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.peer.unplug()
        await bench.after(1)
        assert isinstance(bench.failure, LinkLost)

    play(scenario)


@pytest.mark.parametrize(
    "settings",
    [
        {"poll_interval_ms": 19},
        {"poll_interval_ms": 1001},
        {"misses_to_remove": 0},
        {"misses_to_remove": 11},
        {"ignore_families": ["9"]},
        {"ignore_families": "09"},
        {"reads_to_grant": 1},
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Ds2480bDriver.Settings.model_validate(settings)


def test_misses_to_remove_are_counted_in_polls() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        misses = bench.driver.counters["misses"]
        bench.simulator.lift()
        assert await bench.keys_after(3) == ["suspect", "removed"]
        assert bench.driver.counters["misses"] - misses == 7

    play(scenario, misses_to_remove=7)

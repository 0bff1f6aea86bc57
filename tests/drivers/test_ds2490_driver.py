"""The DS2490 driver on a simulated adapter behind pyusb, in virtual time: what it decides, under every fault."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future
from typing import Any

import pytest
from pydantic import ValidationError

from optima_bridge.errors import FrameError, LinkLost, LinkTimeout, TransferRefused
from optima_bridge.link.usb import UsbLink
from optima_bridge.link.usbfind import find
from optima_bridge.model import DeviceIdentity, Subject
from optima_bridge.testing import ConformanceCase, LinkContract
from optima_drivers.ds2490 import Ds2490Driver
from optima_drivers.ds2490.driver import Ds2490Settings
from optima_drivers.ds2490.simulator import Ds2490Simulator
from tests.drivers.news_bench import NewsBench, play_with
from tests.support import until
from tests.virtual_time import virtual_loop

A, B = "017856341200004E", "0101EFCDAB00002C"
QUIET = ["fault False", "absent"]  # what the first poll of an empty probe finds


class Peer:
    """The adapter's end of the cable, for the conformance suite."""

    def __init__(self, simulator: Ds2490Simulator) -> None:
        self._simulator = simulator

    def unplug(self) -> None:
        self._simulator.plug.unplug()

    async def drained(self) -> None:
        searches = self._simulator.chip.searches
        await until(lambda: self._simulator.chip.searches > searches)


def join(simulator: Ds2490Simulator) -> tuple[UsbLink, Peer]:
    return UsbLink(simulator.port, find(simulator.port, simulator.usb)), Peer(simulator)


class TestConformance(LinkContract):
    case = ConformanceCase(
        driver=Ds2490Driver,
        simulator=Ds2490Simulator,
        provoke=lambda simulator: simulator.put(A),
        undo=lambda simulator: simulator.lift(),
        grants=(Subject.KEY, "inserted"),
        identifier=A,
        revokes=(Subject.KEY, "removed"),
        suspects=(Subject.KEY, "suspect"),
        second=lambda simulator: simulator.put(B),
        ambiguous=(Subject.KEY, "ambiguous"),
        settings={"poll_interval_ms": 20},
        join=join,
    )


class AtOnce(Executor):
    """Runs everything where it stands: a thread would live in real time."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:  # noqa: BLE001 - passed on to who waits for it
            done.set_exception(error)
        return done


class Bench(NewsBench):
    """A driver and its simulator, joined by pyusb."""

    def __init__(self, **settings: object) -> None:
        self.simulator = Ds2490Simulator()
        device = find(self.simulator.port, self.simulator.usb)
        self.link = UsbLink(self.simulator.port, device, AtOnce(), virtual_loop().clock_ns)
        super().__init__(Ds2490Driver(self.link, Ds2490Settings.model_validate(settings)))

    @property
    def log(self) -> list[str]:
        return self.simulator.plug.log


def play(scenario: Callable[[Bench], Awaitable[None]], *, started: bool = True, **settings: object) -> None:
    """Run `scenario` with a bench, the driver started unless told otherwise, in virtual time."""
    play_with(lambda: Bench(**settings), scenario, started=started)


def test_it_takes_the_adapter_from_the_kernel_sets_it_up_and_gives_it_back() -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.driver.start() == DeviceIdentity(model="DS2490", serial="1-2")
        assert bench.log == [
            "open", "detach kernel driver", "claim", "alternate 3", "clear halt 83", "clear halt 02", "clear halt 81",
            "control 00 0000 0000", "read 81",
        ]  # fmt: skip
        bench.log.clear()
        await bench.driver.stop()
        assert bench.log == ["release", "attach kernel driver", "close"]
        assert bench.simulator.plug.bound

    play(scenario, started=False)


def test_a_poll_is_a_reset_and_a_search() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(0.05)
        bench.log.clear()
        await bench.after(0.2)
        assert bench.log == [
            "control 01 0c4b 0000", "read 81", "write 02", "control 01 4dfd 08f0", "read 81", "read 83"
        ]  # fmt: skip

    play(scenario)


def test_the_chip_that_is_soldered_in_is_no_key_and_an_empty_probe_is_told_once() -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == QUIET
        assert await bench.after(3) == []

    play(scenario)

    async def told(bench: Bench) -> None:
        assert await bench.after(1) == ["fault False", "inserted"]
        assert bench.event(1).identifier == "81EA8A3000000072"

    play(told, ignore_families=["09"])


def test_an_adapter_without_a_chip_of_its_own_is_an_empty_probe() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.chip.line.lift()
        await bench.start()
        assert await bench.after(1) == QUIET
        bench.simulator.chip.line.put(A)
        assert await bench.after(1) == ["inserted"]

    play(scenario, started=False)


def test_a_key_is_inserted_and_removed() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.put(A)
        assert await bench.after(1) == ["inserted"]
        inserted = bench.event()
        assert (inserted.identifier, inserted.data, inserted.state) == (A, {"family": "01"}, {"presence": "present"})
        assert bench.driver.counters["arrivals"] == 2
        bench.simulator.lift()
        assert await bench.after(1) == ["suspect", "removed"]
        removed = bench.event(1)
        assert (removed.identifier, removed.state) == (A, {"presence": "absent"})
        assert removed.data["family"] == "01"
        assert 40 <= int(str(removed.data["last_seen_ms"])) <= 250
        assert bench.driver.counters["misses"] == 3

    play(scenario)


def test_a_key_that_was_there_before_the_start_is_inserted_and_never_absent() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.start()
        assert await bench.after(1) == ["fault False", "inserted"]

    play(scenario, started=False)


def test_two_keys_are_ambiguous_and_none_counts() -> None:
    async def scenario(bench: Bench) -> None:
        first = bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.put(B)
        assert await bench.after(1) == ["removed", "ambiguous"]
        assert (bench.event(1).identifier, bench.event(1).data) == (None, {"keys": 2})
        bench.simulator.lift(first)
        assert await bench.after(1) == ["inserted"]
        assert bench.event().identifier == B

    play(scenario)


@pytest.mark.parametrize("keys", [7, 8, 20])
def test_more_keys_than_one_search_tells_are_ambiguous_too(keys: int) -> None:
    async def scenario(bench: Bench) -> None:
        for number in range(keys):
            bench.simulator.put(f"01-{number + 1:012x}")
        await bench.start()
        assert await bench.after(0.1) == ["fault False", "ambiguous"]
        assert bench.event(1).data == {"keys": min(keys, 8)}

    play(scenario, started=False)


@pytest.mark.parametrize("slots", range(0, 8 + 3 * 64, 11))
def test_a_key_lifted_during_a_search_is_a_miss_and_never_another_key(slots: int) -> None:
    async def scenario(bench: Bench) -> None:
        key = bench.simulator.put(A)
        await bench.after(1)
        line = bench.simulator.chip.line
        soldered_in = line.keys[0]
        line.lift_after_slots = slots
        async with asyncio.timeout(60):
            while line.lift_after_slots is not None and line.keys:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.001)
        line.keys = [soldered_in, key]
        said = await bench.after(0.5)
        assert said in ([], ["restored"]), said
        assert bench.failure is None

    play(scenario)


def test_poor_contact_is_read_again_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        key = bench.simulator.put(A)
        await bench.after(1)
        key.damaged_reads = 2 * 4  # it speaks twice in each search: the chip that is soldered in comes second
        assert await bench.after(0.5) == []
        assert bench.driver.counters["frames_bad_checksum"] == 4
        key.damaged_reads = 2 * 5
        assert await bench.after(0.5) == ["suspect", "restored"]

    play(scenario)


def test_a_chip_on_a_line_that_stays_bad_is_still_a_reader() -> None:
    async def scenario(bench: Bench) -> None:
        key = bench.simulator.put(A)
        await bench.after(1)
        key.damaged_reads = 1_000_000
        assert await bench.after(60) == ["suspect", "removed"]
        assert bench.failure is None
        key.damaged_reads = 0
        assert await bench.after(1) == ["inserted"]

    play(scenario)


def test_a_chip_that_answers_nonsense_only_ends_the_events() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.chip.faults.status = bytes(5)
        assert await bench.after(1) == ["suspect"]
        assert isinstance(bench.failure, FrameError)

    play(scenario)


def test_a_chip_that_refuses_to_drop_a_damaged_answer_is_reset() -> None:
    async def scenario(bench: Bench) -> None:
        key = bench.simulator.put(A)
        await bench.after(1)
        key.damaged_reads = 2
        bench.simulator.chip.faults.refused_flushes = 1
        assert await bench.after(1) == ["suspect", "restored"]
        assert bench.driver.counters["recoveries"] == 1
        assert bench.failure is None

    play(scenario)


def test_a_short_is_a_fault_once_and_takes_the_key_away() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.chip.line.short = True
        assert await bench.after(2) == ["fault raised", "suspect", "removed"]
        assert bench.event().data == {"code": "probe-short"}
        bench.simulator.chip.line.short = False
        assert await bench.after(2) == ["fault cleared", "inserted"]

    play(scenario)


def test_a_chip_that_is_at_work_is_waited_for() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.chip.faults.busy = 30
        assert await bench.after(1) == []
        assert bench.driver.counters["recoveries"] == 0

    play(scenario)


def test_a_chip_that_never_comes_to_rest_is_reset() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.chip.faults.never_idle = True
        assert await bench.after(2) == ["suspect", "restored"]
        assert bench.driver.counters["recoveries"] == 1

    play(scenario)


def test_a_chip_that_another_program_left_in_the_middle_of_a_block_is_reset_at_start() -> None:
    async def scenario(bench: Bench) -> None:
        assert bench.simulator.chip.control(1, 0x0875, 9)
        assert bench.simulator.chip.faults.never_idle
        await bench.start()
        assert await bench.after(1) == QUIET

    play(scenario, started=False)


def test_a_chip_that_does_not_come_to_rest_even_so_ends_the_events() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.chip.faults.busy = 1_000_000
        await bench.after(5)
        assert isinstance(bench.failure, LinkTimeout)

    play(scenario)


@pytest.mark.parametrize(("fault", "error"), [("refused", TransferRefused), ("late", LinkTimeout)])
def test_a_transfer_that_fails_is_got_over_once(fault: str, error: type[Exception]) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        setattr(bench.simulator.plug, fault, 1)
        assert await bench.after(1) == ["suspect", "restored"]
        assert bench.driver.counters["recoveries"] == 1
        setattr(bench.simulator.plug, fault, 10)
        await bench.after(1)
        assert isinstance(bench.failure, error)

    play(scenario, misses_to_remove=1)


@pytest.mark.parametrize("stale_packets", [1, 2, 3])
def test_a_status_from_before_a_command_is_not_taken_for_its_end(stale_packets: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        for _ in range(20):
            bench.simulator.chip.faults.stale_packets = stale_packets
            assert await bench.after(0.05) == []
        assert bench.driver.counters["misses"] == 0

    play(scenario)


@pytest.mark.parametrize("stale_packets", [0, 1, 2, 3])
def test_a_chip_that_tells_only_failures_is_read_all_the_same(stale_packets: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.chip.faults.only_failures = True
        assert await bench.after(1) == QUIET
        bench.simulator.put(A)
        assert await bench.after(1) == ["inserted"]
        for _ in range(20):
            bench.simulator.chip.faults.stale_packets = stale_packets
            assert await bench.after(0.05) == []
        bench.simulator.lift()
        assert [str(news).split()[0] for news in await bench.after(2)] == ["suspect", "removed"]
        assert bench.driver.counters["recoveries"] == 0

    play(scenario)


def test_a_result_that_is_lost_costs_no_key() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.chip.faults.lost_results = 5
        assert await bench.after(2) == []
        assert bench.driver.counters["misses"] == 0

    play(scenario)


def test_an_adapter_whose_status_is_none_is_refused_at_start() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.chip.faults.status = bytes(15)
        with pytest.raises(FrameError, match="15 bytes"):
            await bench.driver.start()

    play(scenario, started=False)


@pytest.mark.parametrize("transfers", range(14))
def test_pulling_the_plug_at_any_transfer_ends_the_events_and_it_works_again_in_the_same_place(transfers: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(A)
        await bench.after(1)
        bench.simulator.plug.unplug_after = transfers
        assert await bench.after(1) == []
        assert isinstance(bench.failure, LinkLost)
        await bench.driver.stop()
        bench.link.close()
        bench.simulator.replug()
        device = find(f"{bench.simulator.port}@1-2", bench.simulator.usb)
        link = UsbLink("again", device, AtOnce(), virtual_loop().clock_ns)
        again = NewsBench(Ds2490Driver(link, Ds2490Settings()))
        await again.start()
        assert await again.after(1) == ["fault False", "inserted"]
        await again.stop()

    play(scenario)


def test_another_kind_of_device_with_the_same_ids_is_refused() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.chip.alternates = bench.simulator.chip.alternates[:1]
        with pytest.raises(Exception, match="no alternate setting 3"):
            await bench.driver.start()

    play(scenario, started=False)


@pytest.mark.parametrize("settings", [{"poll_interval_ms": 19}, {"misses_to_remove": 11}, {"ignore_families": ["9"]}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Ds2490Settings.model_validate(settings)

"""The contacts driver on memory lines in virtual time, and the contract in real time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pydantic import ValidationError

from optima_bridge.errors import LinkLost
from optima_bridge.link import Line, Sample
from optima_bridge.model import Capability, Event, Subject
from optima_bridge.testing import ConformanceCase, LinkContract
from optima_drivers.contacts import ContactsDriver
from optima_drivers.contacts.driver import ContactsSettings, KeylockLines
from optima_drivers.contacts.simulator import SwitchSimulator
from tests.drivers.contacts_bench import Bench, FollowingLater, join, play
from tests.virtual_time import virtual_loop

CTS, DSR, DCD, RI = Line
SEAL, KEYLOCK, FAULT = Subject.SEAL, Subject.KEYLOCK, Subject.FAULT
SOUND = (FAULT, False)
Scenario = Callable[[Bench], Awaitable[None]]


async def close_the_seal_once_more(simulator: SwitchSimulator) -> None:
    simulator.open(CTS)
    await asyncio.sleep(0.05)
    simulator.close(CTS)


class TestContract(LinkContract):
    case = ConformanceCase(
        driver=ContactsDriver,
        simulator=SwitchSimulator,
        provoke=close_the_seal_once_more,
        undo=lambda simulator: simulator.open(CTS),
        grants=(SEAL, "closed"),
        revokes=(SEAL, "opened"),
        settings={"seal": CTS, "debounce_ms": 20, "poll_interval_ms": 5},
        join=join,
    )


def test_a_closed_seal_is_found_intact_and_each_opening_and_closing_is_told_once() -> None:
    simulator = SwitchSimulator({DCD})

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "intact")]
        simulator.open(DCD)
        assert await bench.after(1) == [(SEAL, "opened")]
        [opened] = bench.news
        assert isinstance(opened, Event)
        assert opened.data == opened.state == {"seal": "broken"}
        simulator.close(DCD)
        assert await bench.after(1) == [(SEAL, "closed")]
        [closed] = bench.news
        assert isinstance(closed, Event)
        assert closed.state == {"seal": "intact"}
        assert await bench.after(100) == []

    play(ContactsDriver, simulator, scenario, seal="dcd")


def test_an_open_seal_is_found_broken_as_soon_as_a_closed_one_would_have_shown() -> None:
    async def scenario(bench: Bench) -> None:
        begun_ns = bench.link.clock_ns()
        await bench.start()
        assert await bench.after(0.03) == [SOUND]
        assert await bench.after(0.04) == [(SEAL, "broken")]
        assert bench.link.clock_ns() - begun_ns < 500_000_000

    play(ContactsDriver, SwitchSimulator(), scenario, started=False, seal="cts")


@pytest.mark.parametrize("follow_ms", [1, 5, 16, 100, 240])
def test_lines_that_follow_the_feed_later_are_found_as_they_are_and_nothing_has_happened(follow_ms: int) -> None:
    follow_s = follow_ms / 1000
    simulator = FollowingLater({CTS, DSR}, off_s=follow_s, on_s=follow_s)

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (KEYLOCK, "supervisor"), (SEAL, "intact")]
        assert await bench.after(200) == []

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "cts"}, seal="dsr")


def test_an_inverted_contact_is_not_granted_while_its_line_still_follows_the_feed() -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (KEYLOCK, "locked")]

    play(
        ContactsDriver,
        FollowingLater({CTS}, off_s=0.1, on_s=0.1),
        scenario,
        keylock={"supervisor": "cts"},
        inverted=["cts"],
    )


def test_opening_is_told_within_a_poll_and_closing_not_before_it_is_steady() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        for _ in range(20):
            await asyncio.sleep(0.0037)
            moved_ns = bench.link.clock_ns()
            simulator.open(CTS)
            await bench.after(0.5)
            [opened] = bench.news
            assert isinstance(opened, Event)
            assert 0 <= opened.mono_ns - moved_ns <= 10_000_000
            moved_ns = bench.link.clock_ns()
            simulator.close(CTS)
            await bench.after(0.5)
            [closed] = bench.news
            assert isinstance(closed, Event)
            assert 50_000_000 <= closed.mono_ns - moved_ns <= 60_001_000

    play(ContactsDriver, simulator, scenario, seal="cts", loop_test_s=0)


@pytest.mark.parametrize(("counts_edges", "told"), [(True, [(SEAL, "opened"), (SEAL, "closed")]), (False, [])])
def test_an_opening_between_two_polls_is_told_where_the_port_counts_edges(
    counts_edges: bool, told: list[tuple[Subject, object]]
) -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        bench.peer.counts_edges = counts_edges
        await bench.after(1)
        simulator.open(CTS)
        simulator.close(CTS)
        assert await bench.after(1) == told
        assert bench.driver.counters["pulses"] == counts_edges

    play(ContactsDriver, simulator, scenario, seal="cts", loop_test_s=0)


def test_a_key_is_supervisor_while_its_contact_is_closed_and_else_locked() -> None:
    simulator = SwitchSimulator()

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (KEYLOCK, "locked")]
        simulator.close(CTS)
        assert await bench.after(1) == [(KEYLOCK, "turned")]
        [turned] = bench.news
        assert isinstance(turned, Event)
        assert turned.data == turned.state == {"position": "supervisor", "position_code": 3}
        simulator.open(CTS)
        assert await bench.after(0.011) == [(KEYLOCK, "turned")]
        [turned] = bench.news
        assert isinstance(turned, Event)
        assert turned.state == {"position": "locked", "position_code": 1}

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "cts"})


def test_an_inverted_contact_grants_while_its_line_is_off() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (KEYLOCK, "locked")]
        simulator.open(CTS)
        assert await bench.after(1) == [(KEYLOCK, "turned")]

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "cts"}, inverted=["cts"])


def test_a_change_over_pair_is_between_while_it_turns() -> None:
    simulator = SwitchSimulator({DSR})

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (KEYLOCK, "locked")]
        for closes, opens, position in ((CTS, DSR, "supervisor"), (DSR, CTS, "locked")):
            simulator.open(opens)
            assert await bench.after(0.1) == [(KEYLOCK, "turned")]
            simulator.close(closes)
            assert await bench.after(1) == [(KEYLOCK, "turned")]
            [turned] = bench.news
            assert isinstance(turned, Event)
            assert turned.data["position"] == position

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "cts", "locked": "dsr"})


@pytest.mark.parametrize("closed", [{CTS, DSR}, set()], ids=["both", "none"])
def test_a_pair_that_contradicts_itself_for_long_is_a_fault_and_the_position_unknown(closed: set[Line]) -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        simulator.open(CTS)
        simulator.close(*closed)
        assert await bench.after(0.19) == [(KEYLOCK, "turned")]
        assert await bench.after(1) == [(FAULT, "raised"), (KEYLOCK, "unknown")]
        raised = bench.news[0]
        assert isinstance(raised, Event)
        assert raised.data == {"code": "lines-contradict", "lines": ["cts", "dsr"]}
        assert raised.state == {"active": True, "code": "lines-contradict", "lines": ["cts", "dsr"]}
        simulator.open(CTS, DSR)
        simulator.close(DSR)
        assert await bench.after(1) == [(FAULT, "cleared"), (KEYLOCK, "locked")]

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "cts", "locked": "dsr"}, loop_test_s=0)


def test_two_positions_at_once_are_no_position_even_without_a_contact_for_locked() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (KEYLOCK, "normal")]
        simulator.close(DSR)
        assert await bench.after(0.1) == [(KEYLOCK, "turned")]
        assert await bench.after(1) == [(FAULT, "raised"), (KEYLOCK, "unknown")]

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "dsr", "normal": "cts"})


def test_a_line_that_stays_on_without_its_feed_is_a_fault_and_grants_nothing() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        simulator.stick(CTS)
        await bench.start()
        assert await bench.after(1) == [(FAULT, "raised"), (KEYLOCK, "unknown")]
        raised = bench.news[0]
        assert isinstance(raised, Event)
        assert raised.data == {"code": "line-stuck", "lines": ["cts"]}
        simulator.stick()
        assert await bench.after(6) == [(FAULT, "cleared"), (KEYLOCK, "supervisor")]
        assert bench.driver.counters["loop_tests"] == 2

    play(ContactsDriver, simulator, scenario, started=False, keylock={"supervisor": "cts"})


def test_a_line_that_sticks_later_is_found_at_the_next_test() -> None:
    simulator = SwitchSimulator({CTS, DSR})

    async def scenario(bench: Bench) -> None:
        assert await bench.after(5) == [SOUND, (KEYLOCK, "supervisor"), (SEAL, "intact")]
        simulator.stick(DSR)
        assert await bench.after(11) == [(FAULT, "raised"), (SEAL, "unknown")]
        simulator.stick()
        simulator.open(DSR)
        assert await bench.after(6) == [(FAULT, "cleared"), (SEAL, "broken")]

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "cts"}, seal="dsr", loop_test_s=10)


def test_loop_tests_of_sound_wires_say_nothing() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        assert await bench.after(100) == []
        assert 90 <= bench.driver.counters["loop_tests"] <= 101
        simulator.open(CTS)
        tests = bench.driver.counters["loop_tests"]
        await bench.after(10)
        assert bench.driver.counters["loop_tests"] == tests  # with every contact open there is nothing to find

    play(ContactsDriver, simulator, scenario, seal="cts", loop_test_s=1)


@pytest.mark.parametrize(
    "keylock", [{"supervisor": "cts"}, {"supervisor": "cts", "locked": "dsr"}], ids=["one", "pair"]
)
def test_a_line_that_is_late_after_a_loop_test_is_a_fault_and_unknown_and_no_turn(keylock: dict[str, str]) -> None:
    simulator = FollowingLater({CTS, DCD})

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (KEYLOCK, "supervisor"), (SEAL, "intact")]
        simulator.on_s = 1
        unknown: list[tuple[Subject, object]] = [(FAULT, "raised"), (KEYLOCK, "unknown"), (SEAL, "unknown")]
        again: list[tuple[Subject, object]] = [(FAULT, "cleared"), (KEYLOCK, "supervisor"), (SEAL, "intact")]
        assert await bench.after(12) == unknown + again
        raised = bench.news[0]
        assert isinstance(raised, Event)
        assert raised.data == {"code": "line-slow", "lines": ["cts", "dcd"]}
        simulator.on_s = 0
        assert await bench.after(20) == []
        assert bench.driver.counters["pulses"] == 0

    play(ContactsDriver, simulator, scenario, keylock=keylock, seal="dcd", loop_test_s=10)


def test_a_contact_that_is_opened_in_a_loop_test_ends_as_open_and_the_others_stay_watched() -> None:
    simulator = SwitchSimulator({CTS, DSR})

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        while simulator.fed:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.005)
        simulator.open(DSR)
        assert await bench.after(0.5) == [(FAULT, "raised"), (SEAL, "unknown")]
        simulator.open(CTS)
        assert await bench.after(0.02) == [(KEYLOCK, "turned")]
        assert await bench.after(1.5) == [(FAULT, "cleared"), (SEAL, "broken")]
        assert await bench.after(30) == []

    play(ContactsDriver, simulator, scenario, keylock={"supervisor": "cts"}, seal="dsr", loop_test_s=10)


def test_edges_that_are_told_late_after_a_loop_test_open_nothing() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        fed: list[float] = []
        switch = bench.peer.on_outputs
        assert switch is not None

        def outputs(dtr: bool, rts: bool) -> None:
            switch(dtr, rts)
            if rts:  # an adapter that holds its news back for 16 ms
                asyncio.get_running_loop().call_later(0.016, bench.peer._edges.update, {CTS: 1000})
                fed.append(1)

        bench.peer.on_outputs = outputs
        assert await bench.after(15) == []
        assert fed

    play(ContactsDriver, simulator, scenario, seal="cts", loop_test_s=10)


def test_without_a_feed_of_ours_there_is_no_loop_test() -> None:
    simulator = SwitchSimulator()
    simulator.stick(CTS)

    async def scenario(bench: Bench) -> None:
        assert await bench.after(10) == [SOUND, (SEAL, "intact")]
        assert bench.driver.counters["loop_tests"] == 0

    play(ContactsDriver, simulator, scenario, seal="cts", feed="none", loop_test_s=1)


def test_the_feed_is_back_when_a_test_is_given_up_and_a_lost_port_ends_the_events() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        assert not simulator.fed  # in the middle of the first test
        await bench.stop()
        assert simulator.fed
        await bench.start()
        await bench.after(1)
        bench.peer.unplug()
        await bench.after(1)
        assert isinstance(bench.failure, LinkLost)

    async def begun(bench: Bench) -> None:
        await asyncio.sleep(0.01)
        await scenario(bench)

    play(ContactsDriver, simulator, begun, seal="cts")


def test_a_port_is_looked_at_each_ten_milliseconds_and_after_a_pause_not_more_often() -> None:
    simulator = SwitchSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        looks, sample = [0], bench.peer.sample

        def counted() -> Sample:
            looks[0] += 1
            return sample()

        bench.peer.sample = counted  # type: ignore[method-assign]
        await bench.after(1)
        for is_closed in (True, False):  # settled in either state
            (simulator.close if is_closed else simulator.open)(CTS)
            await bench.after(0.2)
            looks[0] = 0
            await bench.after(1)
            assert 99 <= looks[0] <= 102
        virtual_loop()._pass(0.5)  # the PC was busy
        looks[0] = 0
        await bench.after(0.1)
        assert looks[0] <= 12

    play(ContactsDriver, simulator, scenario, seal="cts", loop_test_s=0)


@pytest.mark.parametrize(
    ("settings", "what"),
    [
        ({}, "nothing is wired"),
        ({"seal": "cts", "keylock": {"supervisor": "cts"}}, "one line cannot be two contacts"),
        ({"seal": "cts", "inverted": ["dsr"]}, "inverted names a line"),
        ({"seal": "rts"}, "seal"),
        ({"keylock": {"between": "cts"}}, "keylock"),
        ({"seal": "cts", "poll_interval_ms": 11}, "poll_interval_ms"),
        ({"seal": "cts", "debounce_ms": 29}, "debounce_ms must be 3 times"),
    ],
)
def test_a_wiring_that_makes_no_sense_is_refused(settings: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        ContactsSettings.model_validate(settings, strict=False)


def test_a_device_has_the_abilities_of_its_wires() -> None:
    declared = ContactsDriver.info.capabilities
    assert ContactsSettings(seal=CTS).narrow(declared) == {Capability.SEAL_SWITCH}
    assert ContactsSettings(keylock=KeylockLines(normal=CTS)).narrow(declared) == {Capability.KEYLOCK}
    assert ContactsSettings(keylock=KeylockLines(normal=CTS), seal=RI).narrow(declared) == declared

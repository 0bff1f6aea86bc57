"""The seal driver: counters, contact and latch, on memory links in virtual time, and the contract in real time."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from optima_bridge.config.loader import load
from optima_bridge.errors import LinkLost, LinkTimeout
from optima_bridge.link import Line
from optima_bridge.model import DeviceIdentity, Event, Subject
from optima_bridge.testing import ConformanceCase, LinkContract
from optima_drivers.contacts import SealDriver
from optima_drivers.contacts.counters import compare
from optima_drivers.contacts.dialects import Tcr
from optima_drivers.contacts.profiles import PROFILES
from optima_drivers.contacts.readout import ANSWER_TIMEOUT_NS, TRIES, Readout
from optima_drivers.contacts.seal import SealSettings
from optima_drivers.contacts.simulator import ScaleSimulator
from tests.drivers.contacts_bench import Bench, FollowingLater, join, play

CTS = Line.CTS
SEAL, FAULT = Subject.SEAL, Subject.FAULT
SOUND = (FAULT, False)
RINSTRUM: dict[str, Any] = {
    "profile": "rinstrum-r400",
    "baseline": {"serial": 0xABCDEF, "oiml-calibration": 10},
    "check_interval_s": 10,
}
TYPED: dict[str, Any] = {
    "profile": "ohaus-defender",
    "baseline": {"calibration": 999, "configuration": 9},
    "found": {"calibration": 999, "configuration": 9},
    "contact": "cts",
}


def scale(*closed: Line) -> ScaleSimulator:
    return ScaleSimulator(closed, serial=0xABCDEF, oiml_calibration=10)


class TestContract(LinkContract):
    case = ConformanceCase(
        driver=SealDriver,
        simulator=lambda: scale(CTS),
        provoke=lambda simulator: simulator.adjust("oiml-calibration"),
        grants=(SEAL, "broken"),
        settings={**RINSTRUM, "contact": CTS, "check_interval_s": 0.1, "debounce_ms": 30},
        join=join,
    )


def test_equal_counters_are_an_intact_seal() -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.driver.start() == DeviceIdentity(model="rinstrum-r400", serial="00ABCDEF")
        await bench.start()
        assert await bench.after(1000) == [SOUND, (SEAL, "intact")]
        assert bench.news[1].state == {
            "seal": "intact",
            "latched": False,
            "counters": {"serial": 0xABCDEF, "oiml-calibration": 10},
        }

    play(SealDriver, scale(), scenario, started=False, **RINSTRUM)


def test_a_counter_that_moves_breaks_the_seal_until_there_is_a_new_baseline() -> None:
    simulator = scale()

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        simulator.adjust("oiml-calibration")
        assert await bench.after(11) == [(SEAL, "broken")]
        [broken] = bench.news
        assert isinstance(broken, Event)
        state = {"seal": "broken", "latched": True, "counters": {"serial": 0xABCDEF, "oiml-calibration": 11}}
        assert broken.state == state
        assert broken.data == {
            **state, "counter": "oiml-calibration", "baseline": 10, "value": 11, "verdict": "adjusted", "steps": 1,
        }  # fmt: skip
        assert await bench.after(100) == []
        simulator.counters["oiml-calibration"] = 10  # turned back, or the old indicator again
        assert await bench.after(11) == [(SEAL, "broken")]
        assert bench.news[0].state is not None
        assert bench.news[0].state["seal"] == "broken"

    async def restarted(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "broken")]
        assert bench.news[1].state is not None
        assert bench.news[1].state["latched"] is True

    async def sealed_anew(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "intact")]

    play(SealDriver, simulator, scenario, **RINSTRUM)
    simulator.adjust("oiml-calibration")
    play(SealDriver, simulator, restarted, **RINSTRUM)
    play(SealDriver, simulator, sealed_anew, **{**RINSTRUM, "baseline": {"oiml-calibration": 11}})


def test_another_indicator_in_its_place_breaks_the_seal() -> None:
    simulator = ScaleSimulator(serial=0xABCDE0, oiml_calibration=10)

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "broken")]

    play(SealDriver, simulator, scenario, **RINSTRUM)


def test_an_opened_contact_is_told_at_once_and_stays_broken_when_it_closes() -> None:
    simulator = scale(CTS)

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "intact")]
        simulator.open(CTS)
        assert await bench.after(0.011) == [(SEAL, "opened")]
        simulator.close(CTS)
        assert await bench.after(10) == [(SEAL, "closed")]
        assert bench.news[0].state is not None
        assert bench.news[0].state["seal"] == "broken"
        assert bench.news[0].state["latched"] is True

    play(SealDriver, simulator, scenario, contact="cts", **RINSTRUM)


def test_a_contact_is_watched_while_the_scale_is_silent() -> None:
    simulator = scale(CTS)

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        simulator.silent = True
        assert await bench.after(15) == [(FAULT, "raised"), (SEAL, "unknown")]
        assert bench.news[1].state is not None
        assert bench.news[1].state["fault"] == "counter-unread"
        simulator.open(CTS)
        assert await bench.after(0.011) == [(SEAL, "opened")]
        assert bench.news[0].state is not None
        assert bench.news[0].state["seal"] == "broken"
        simulator.silent = False
        assert await bench.after(30) == [(FAULT, "cleared"), (SEAL, "broken")]

    play(SealDriver, simulator, scenario, contact="cts", **RINSTRUM)


def test_a_contact_is_watched_though_the_scale_was_off_from_the_start() -> None:
    simulator = scale(CTS)
    simulator.silent = True

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [(FAULT, "raised"), (SEAL, "unknown")]
        simulator.open(CTS)
        assert await bench.after(0.011) == [(SEAL, "opened")]
        simulator.close(CTS)
        simulator.silent = False
        assert (await bench.after(30))[-1] == (SEAL, "broken")
        assert bench.driver.counters["frames_good"]

    play(SealDriver, simulator, scenario, contact="cts", **RINSTRUM)


def test_a_silent_scale_is_unknown_and_intact_again_when_it_answers() -> None:
    simulator = scale()

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        simulator.silent = True
        assert await bench.after(15) == [(FAULT, "raised"), (SEAL, "unknown")]
        simulator.silent = False
        assert await bench.after(15) == [(FAULT, "cleared"), (SEAL, "intact")]

    play(SealDriver, simulator, scenario, **RINSTRUM)


@pytest.mark.parametrize("simulator", [ScaleSimulator(), ScaleSimulator(address=2, serial=1, oiml_calibration=1)])
def test_a_scale_that_refuses_or_does_not_answer_does_not_start(simulator: ScaleSimulator) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(LinkTimeout, match="no rinstrum-r400 tells its counters"):
            await bench.driver.start()

    play(SealDriver, simulator, scenario, started=False, **RINSTRUM)


def test_a_garbled_answer_breaks_no_seal() -> None:
    simulator = scale()

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        simulator.spoil = 1
        assert await bench.after(25) == []
        assert simulator.spoil == 0
        assert bench.driver.counters["frames_good"] % 2

    play(SealDriver, simulator, scenario, **RINSTRUM)


def test_a_trade_counter_at_its_end_proves_nothing() -> None:
    simulator = ScaleSimulator(trade=65_534)

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "intact")]

    async def at_the_end(bench: Bench) -> None:
        assert await bench.after(1) == [(FAULT, "raised"), (SEAL, "unknown")]
        raised = bench.news[0]
        assert isinstance(raised, Event)
        assert raised.data == {"code": "counter-stopped", "counters": ["trade"]}

    play(SealDriver, simulator, scenario, profile="hbm-we2107", baseline={"trade": 65_534})
    simulator.adjust("trade")
    play(SealDriver, simulator, at_the_end, profile="hbm-we2107", baseline={"trade": 65_535})


def test_counters_that_a_person_typed_in_are_compared_and_the_contact_watched() -> None:
    simulator = ScaleSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        assert await bench.after(10) == [SOUND, (SEAL, "intact")]
        simulator.open(CTS)
        assert await bench.after(1) == [(SEAL, "opened")]
        assert bench.peer.written == b""

    async def adjusted(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "broken")]

    play(SealDriver, simulator, scenario, **TYPED, check_interval_s=1)
    simulator.close(CTS)
    play(SealDriver, simulator, adjusted, **{**TYPED, "found": {"calibration": 0, "configuration": 9}})


def test_a_stuck_wire_makes_the_seal_unknown_and_a_sound_one_tells_it_again() -> None:
    simulator = ScaleSimulator({CTS})

    async def scenario(bench: Bench) -> None:
        simulator.stick(CTS)
        await bench.start()
        assert await bench.after(1) == [(FAULT, "raised"), (SEAL, "unknown")]
        simulator.stick()
        assert await bench.after(6) == [(FAULT, "cleared"), (SEAL, "intact")]
        bench.peer.unplug()
        await bench.after(1)
        assert isinstance(bench.failure, LinkLost)

    play(SealDriver, simulator, scenario, started=False, **TYPED)


@pytest.mark.parametrize("follow_ms", [1, 16, 240])
def test_a_closed_contact_whose_line_follows_its_feed_later_has_not_been_opened(follow_ms: int) -> None:
    follow_s = follow_ms / 1000
    simulator = FollowingLater({CTS}, off_s=follow_s, on_s=follow_s)

    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == [SOUND, (SEAL, "intact")]
        assert await bench.after(200) == []

    play(SealDriver, simulator, scenario, **TYPED)


@pytest.mark.parametrize("is_opened", [False, True])
def test_a_line_that_is_late_after_a_loop_test_is_unknown_and_broken_only_if_it_does_not_come(is_opened: bool) -> None:
    simulator = FollowingLater({CTS})

    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        simulator.on_s = 0.3
        while simulator.fed:  # noqa: ASYNC110 - a poll
            await asyncio.sleep(0.005)
        if is_opened:
            simulator.open(CTS)
        end = (SEAL, "broken" if is_opened else "intact")
        assert await bench.after(3) == [(FAULT, "raised"), (SEAL, "unknown"), (FAULT, "cleared"), end]
        unknown, known = bench.news[1].state, bench.news[3].state
        assert unknown is not None
        assert unknown["fault"] == "line-slow"
        assert known is not None
        assert known["latched"] is is_opened

    play(SealDriver, simulator, scenario, **TYPED)


@given(st.lists(st.sampled_from(["open", "close", "adjust", "back", "mute", "speak", "stick", "loosen"]), max_size=12))
@settings(deadline=None, max_examples=30)
def test_broken_stays_broken_whatever_happens(actions: list[str]) -> None:
    simulator = scale(CTS)

    def act(action: str) -> None:
        match action:
            case "open":
                simulator.open(CTS)
            case "close":
                simulator.close(CTS)
            case "adjust":
                simulator.adjust("oiml-calibration")
            case "back":
                simulator.counters["oiml-calibration"] = 10
            case "mute" | "speak":
                simulator.silent = action == "mute"
            case "stick" | "loosen":
                simulator.stick(*[CTS] * (action == "stick"))

    async def scenario(bench: Bench) -> None:
        said: list[object] = []
        for action in ("speak", *actions):
            act(action)
            await bench.after(1.1)
            said += [news.state["seal"] for news in bench.news if news.subject is SEAL and news.state]
        if "broken" in said:
            assert {*said[said.index("broken") :]} == {"broken"}
        if not {"open", "adjust"} & {*actions}:
            assert "broken" not in said

    play(SealDriver, simulator, scenario, contact="cts", loop_test_s=1, **{**RINSTRUM, "check_interval_s": 0.3})


@given(st.lists(st.sampled_from([b"7\r\n", b"8\r\n", b"?\r\n", b"x\r\n", b""]), max_size=20))
def test_a_reading_ends_after_so_many_questions_and_believes_only_what_was_said_twice(answers: list[bytes]) -> None:
    counters: Counter[str] = Counter()
    readout = Readout(Tcr(), ["trade"], counters)
    now_ns, given_answers, questions = 1, iter(answers), 0
    heard: list[bytes] = []
    while not readout.is_done:
        if readout.ask(now_ns):
            questions += 1
            heard.append(next(given_answers, b""))
            readout.take(heard[-1])
        now_ns += ANSWER_TIMEOUT_NS
    assert questions <= TRIES
    heard = [line for line in heard if line not in (b"", b"x\r\n")]  # silence and noise are no answers
    if readout.failed:
        assert readout.values == {}
    else:
        assert heard[-2:] == [b"%d\r\n" % readout.values["trade"]] * 2
    readout.take(b"9\r\n")  # late
    assert readout.values in ({}, {"trade": 7}, {"trade": 8})


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"profile": "abacus"}, "not one of rinstrum-r400, hbm-we2107"),
        ({"baseline": {"trade": 1}}, "rinstrum-r400 has no counter 'trade'"),
        ({"baseline": {}}, "baseline"),
        ({"baseline": {"serial": -1}}, "goes from 0 to 4294967295"),
        ({"found": {"serial": 1}}, "read over the line"),
        ({"inverted": ["cts"]}, "inverted names a line"),
        ({**TYPED, "found": {}}, "found must have the same counters"),
        ({**TYPED, "contact": None}, "nothing to watch"),
        ({**TYPED, "found": {"calibration": 1000, "configuration": 0}}, "goes from 0 to 999"),
    ],
)
def test_settings_that_do_not_fit_the_scale_are_refused(changed: dict[str, object], what: str) -> None:
    with pytest.raises(ValidationError, match=what):
        SealSettings.model_validate({**RINSTRUM, **changed}, strict=False)


def test_the_example_of_protected_parameters_is_compared_number_by_number() -> None:
    rules = PROFILES["example-c01-c07"].counters
    baseline = {"c01": 1, "c02": 3, "c03": 5, "c04": 15, "c05": 0, "c06": 0, "c07": 0}
    assert [name for name in baseline if compare(rules[name], baseline[name], {**baseline, "c03": 2}[name]).breaks] == [
        "c03"
    ]


@pytest.mark.parametrize("name", ["contacts", "seal"])
def test_the_configuration_of_the_page_is_a_valid_one(name: str, tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / f"docs/reference/devices/{name}.md").read_text(encoding="utf-8")
    file = tmp_path / "config.toml"
    file.write_text('[store]\nsite = "s1"\n' + page.split("```toml\n")[1].split("```")[0])
    [device] = load(file, {}).config.devices.values()
    assert device.settings == device.driver_class.Settings.model_validate(device.settings.model_dump())

"""The PN532 driver on a memory link in virtual time: what it decides, under every fault its simulator can play."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pydantic import ValidationError

from optima_bridge.errors import LinkLost, LinkTimeout, RemoteProtocolError
from optima_bridge.link import memory_pair
from optima_bridge.model import DeviceIdentity, Subject
from optima_bridge.testing import ConformanceCase, DriverContract
from optima_drivers.pn532 import Pn532Driver
from optima_drivers.pn532.cards import Card, Command
from optima_drivers.pn532.codec import Signal
from optima_drivers.pn532.driver import Pn532Settings
from optima_drivers.pn532.simulator import CLASSIC, DESFIRE, NTAG, Pn532Simulator
from tests.drivers.news_bench import NewsBench, play_with
from tests.virtual_time import virtual_loop

PHONE = Card(bytes.fromhex("08112233"), 0x0004, 0x20, bytes.fromhex("0578800000"))


class TestConformance(DriverContract):
    case = ConformanceCase(
        driver=Pn532Driver,
        simulator=Pn532Simulator,
        provoke=lambda simulator: simulator.put(NTAG),
        undo=lambda simulator: simulator.lift(),
        grants=(Subject.CARD, "inserted"),
        identifier="04A1B2C3D4E5F6",
        revokes=(Subject.CARD, "removed"),
        suspects=(Subject.CARD, "suspect"),
        second=lambda simulator: simulator.put(CLASSIC),
        ambiguous=(Subject.CARD, "ambiguous"),
        settings={"poll_interval_ms": 20},
    )


class Bench(NewsBench):
    """A driver and its simulator, joined in memory; `chunk_bytes` cuts the answers, each piece 1 ms after the last."""

    def __init__(self, chunk_bytes: int = 0, **settings: object) -> None:
        self.link, self.peer = memory_pair(clock_ns=virtual_loop().clock_ns)
        self.simulator = Pn532Simulator()
        self.simulator.attach(self.peer.feed)
        self.peer.on_write = self._answer
        super().__init__(Pn532Driver(self.link, Pn532Settings.model_validate(settings)))
        self._chunk_bytes = chunk_bytes
        self._line_free_s = 0.0  # when the last piece so far arrives

    def _answer(self, data: bytes) -> None:
        answer = self.simulator.receive(data)
        size_bytes = self._chunk_bytes or max(1, len(answer))
        for index in range(0, len(answer), size_bytes):
            self._line_free_s = max(virtual_loop().time(), self._line_free_s + 0.001 * bool(self._chunk_bytes))
            virtual_loop().call_at(self._line_free_s, self.peer.feed, answer[index : index + size_bytes])


def play(scenario: Callable[[Bench], Awaitable[None]], *, chunk_bytes: int = 0, started: bool = True, **settings: object) -> None:  # fmt: skip
    """Run `scenario` with a bench, the driver started unless told otherwise, in virtual time."""
    play_with(lambda: Bench(chunk_bytes, **settings), scenario, started=started)


def test_an_empty_field_is_told_once() -> None:
    async def scenario(bench: Bench) -> None:
        assert await bench.after(1) == ["absent"]
        assert await bench.after(3) == []

    play(scenario)


@pytest.mark.parametrize("chunk_bytes", [0, 1, 2, 5])
@pytest.mark.parametrize("card", [CLASSIC, NTAG, DESFIRE], ids=["4 bytes", "7 bytes", "ISO 14443-4"])
def test_a_card_is_inserted_and_removed(card: Card, chunk_bytes: int) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.put(card)
        assert await bench.after(1) == ["inserted"]
        inserted = bench.event()
        assert inserted.identifier == card.uid.hex().upper()
        assert (inserted.data, inserted.state) == ({"uid": "fixed"}, {"presence": "present"})
        bench.simulator.lift()
        assert await bench.after(1) == ["suspect", "removed"]
        suspect, removed = bench.event(0), bench.event(1)
        assert (suspect.state, removed.state) == ({"presence": "suspect"}, {"presence": "absent"})
        assert removed.identifier == inserted.identifier
        seen_ms = [event.mono_ns // 10**6 - int(str(event.data["last_seen_ms"])) for event in (suspect, removed)]
        assert abs(seen_ms[0] - seen_ms[1]) <= 1

    play(scenario, chunk_bytes=chunk_bytes)


def test_a_card_counts_within_two_polls_and_is_revoked_at_the_first_miss() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        before_ns = bench.link.clock_ns()
        bench.simulator.put(NTAG)
        await bench.after(1)
        assert 20 <= (bench.event().mono_ns - before_ns) / 1e6 <= 225
        before_ns = bench.link.clock_ns()
        bench.simulator.lift()
        await bench.after(1)
        assert (bench.event(0).mono_ns - before_ns) / 1e6 <= 105
        assert (bench.event(1).mono_ns - before_ns) / 1e6 <= 150

    play(scenario)


def test_a_card_that_was_there_before_the_start_is_inserted_and_never_absent() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.start()
        assert await bench.after(1) == ["inserted"]

    play(scenario, started=False)


def test_a_card_at_the_edge_of_the_field_is_suspect_and_restored() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        assert await bench.after(1) == ["inserted"]
        bench.simulator.faults.empty_lists = 2
        assert await bench.after(1) == ["suspect", "restored"]
        bench.simulator.faults.empty_lists = 3
        assert await bench.after(1) == ["suspect", "removed", "inserted"]
        assert bench.driver.counters["misses"] == 5

    play(scenario)


def test_another_card_in_its_place_removes_the_first() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.after(1)
        bench.simulator.lift()
        bench.simulator.put(CLASSIC)
        assert await bench.after(1) == ["suspect", "removed", "inserted"]
        assert bench.event(2).identifier == "DEADBEEF"

    play(scenario)


def test_two_cards_are_ambiguous_and_none_counts() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.after(1)
        bench.simulator.put(CLASSIC)
        assert await bench.after(1) == ["removed", "ambiguous"]
        assert (bench.event(1).identifier, bench.event(1).data) == (None, {"cards": 2})
        bench.simulator.lift(NTAG)
        assert await bench.after(1) == ["inserted"]
        bench.simulator.put(DESFIRE)
        await bench.after(1)
        bench.simulator.lift()
        assert await bench.after(1) == ["removed"]
        assert (bench.event().identifier, bench.event().state) == (None, {"presence": "absent"})

    play(scenario)


def test_a_random_uid_is_a_presence_and_no_identifier() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(PHONE)
        assert await bench.after(5) == ["inserted"]
        assert bench.simulator.cards != [PHONE]  # another UID each time the field came up
        assert (bench.event().identifier, bench.event().data) == (None, {"uid": "random"})
        bench.simulator.put(PHONE)
        assert await bench.after(1) == ["removed", "ambiguous"]
        bench.simulator.lift()
        bench.simulator.put(PHONE)
        bench.simulator.put(NTAG)
        assert await bench.after(1) == []

    play(scenario)


@pytest.mark.parametrize("lost_commands", [1, 2])
def test_a_command_that_is_not_acknowledged_is_sent_again(lost_commands: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.lost_commands = lost_commands
        await bench.start()
        bench.simulator.put(NTAG)
        assert await bench.after(1) == ["inserted"]
        bench.simulator.faults.lost_commands = lost_commands
        assert await bench.after(1) == []
        assert bench.driver.counters["unacknowledged"] >= 2 * lost_commands - 1
        assert bench.driver.counters["recoveries"] == 0

    play(scenario, started=False)


def test_an_answer_whose_acknowledgement_got_lost_will_do() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.lost_acks = 50
        bench.simulator.put(NTAG)
        assert await bench.after(1) == ["inserted"]
        assert bench.driver.counters["unacknowledged"] == 0

    play(scenario)


def test_a_damaged_answer_is_asked_for_again() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.after(1)
        bench.simulator.faults.bad_checksums = 1
        assert await bench.after(1) == []
        assert bench.driver.counters["frames_bad_checksum"] == 1
        assert bytes(bench.peer.written).count(Signal.NACK.value) == 1
        assert bench.driver.counters["recoveries"] == 0

    play(scenario)


def test_an_answer_that_never_comes_right_is_given_up_and_the_chip_set_up_anew() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.after(1)
        bench.simulator.faults.bad_checksums = 3
        assert await bench.after(2) == ["suspect", "restored"]
        assert bench.driver.counters["frames_bad_checksum"] == 3
        assert bench.driver.counters["recoveries"] == 1

    play(scenario)


@pytest.mark.parametrize("lost_answers", [1, 2])
def test_a_lost_answer_is_survived_by_setting_the_chip_up_anew(lost_answers: int) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.after(1)
        bench.simulator.faults.lost_answers = lost_answers
        assert await bench.after(2) == (["suspect", "restored"] if lost_answers == 1 else ["suspect"])
        assert (bench.failure is None) == (lost_answers == 1)

    play(scenario)


@pytest.mark.parametrize(
    ("cards", "said"), [([], []), ([NTAG], ["suspect", "restored"]), ([NTAG, CLASSIC], [])], ids=["none", "one", "two"]
)
def test_a_poll_that_fails_is_no_poll_without_the_card(cards: list[Card], said: list[str]) -> None:
    async def scenario(bench: Bench) -> None:
        for card in cards:
            bench.simulator.put(card)
        await bench.after(1)
        bench.simulator.faults.lost_answers = 1
        assert await bench.after(2) == said
        assert (bench.driver.counters["recoveries"], bench.driver.counters["misses"]) == (1, 0)

    play(scenario, misses_to_remove=1)


def test_a_first_poll_that_fails_says_nothing_before_the_chip_is_set_up_anew() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.start()
        bench.simulator.faults.lost_answers = 1
        assert await bench.after(2) == ["inserted"]
        assert bench.driver.counters["recoveries"] == 1

    play(scenario, started=False)


@pytest.mark.parametrize("late_answers", range(1, 6))
def test_a_late_answer_never_grants(late_answers: int) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.put(NTAG)
        bench.simulator.faults.late_answers = late_answers
        done = len(bench.simulator.log)
        async with asyncio.timeout(60):
            while Command.IN_LIST_PASSIVE_TARGET not in bench.simulator.log[done:]:  # noqa: ASYNC110 - virtual time
                await asyncio.sleep(0.001)
        bench.simulator.lift()
        assert await bench.after(5) == []

    play(scenario)


def test_noise_before_every_answer_and_between_polls_changes_nothing() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.noise = bytes.fromhex("00 FF 00 00 00 FF 55")
        await bench.start()
        bench.simulator.put(NTAG)
        assert await bench.after(1) == ["inserted"]
        for _ in range(300):
            bench.peer.feed(b"\x00\xff\x3e")
            assert await bench.after(0.007) == []
        assert bench.driver.counters["noise_bytes"] > 300
        assert bench.driver.counters["frames_bad_length"] > 10

    play(scenario, started=False)


def test_a_chip_whose_power_failed_is_woken_and_set_up_anew() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.after(1)
        bench.simulator.power_cycle()
        assert await bench.after(2) == ["suspect", "restored"]
        assert bench.simulator.settings.retries == 1
        assert bench.driver.counters["recoveries"] == 1

    play(scenario)


def test_a_chip_that_lost_its_settings_and_waits_for_a_card_without_end_is_set_up_anew() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.settings.retries = 0xFF
        assert await bench.after(2) == []
        assert bench.driver.counters["recoveries"] == 1
        assert bench.failure is None

    play(scenario)


def test_a_card_that_comes_while_the_chip_waits_without_end_counts_after_two_polls_only() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.simulator.settings.retries = 0xFF
        await bench.after(0.2)
        bench.simulator.put(NTAG)
        bench.simulator.faults.empty_lists = 100
        assert await bench.after(3) == []

    play(scenario)


def test_a_chip_that_was_left_waiting_by_another_program_is_recovered() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.receive(b"\x55" * 16 + bytes.fromhex("00 00 FF 04 FC D4 4A 01 00 E1 00"))
        bench.simulator.settings.parameters = 0
        assert await bench.start() == DeviceIdentity(model="PN532", firmware="1.6")
        bench.simulator.put(DESFIRE)
        assert await bench.after(1) == ["inserted"]

    play(scenario, started=False)


def test_nothing_on_the_port_is_a_timeout_that_names_the_switches() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.dead = True
        with pytest.raises(LinkTimeout, match="no PN532 answers") as caught:
            await bench.driver.start()
        assert "HSU" in caught.value.next_step
        bench.simulator.faults.dead = False

    play(scenario, started=False)


def test_a_first_answer_that_comes_a_second_late_is_waited_for() -> None:
    async def scenario(bench: Bench) -> None:
        answer, opened_s = bench.simulator.receive, virtual_loop().time()

        def late(data: bytes) -> None:
            delay_s = max(0.0, opened_s + 1.0 - virtual_loop().time())
            virtual_loop().call_later(delay_s, bench.peer.feed, answer(data))

        bench.peer.on_write = late
        await bench.start()
        bench.simulator.put(NTAG)
        assert await bench.after(1) == ["inserted"]

    play(scenario, started=False)


@pytest.mark.parametrize("version", ["33 02 07 07", ""])
def test_another_chip_is_refused_at_start(version: str) -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.version = bytes.fromhex(version)
        with pytest.raises(RemoteProtocolError, match="not a PN532"):
            await bench.driver.start()

    play(scenario, started=False)


def test_a_port_that_gives_everything_back_is_refused_at_start() -> None:
    async def scenario(bench: Bench) -> None:
        bench.peer.on_write = bench.peer.feed
        with pytest.raises(LinkTimeout):
            await bench.driver.start()
        assert bench.driver.counters["late_frames"] > 0

    play(scenario, started=False)


def test_a_line_test_that_gives_other_bytes_back_is_refused() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.echo = lambda text: bytes(len(text)) + b"x"
        with pytest.raises(RemoteProtocolError, match="line test"):
            await bench.driver.start()

    play(scenario, started=False)


def test_a_chip_that_does_not_take_a_command_is_refused() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.faults.refuses = [Command.SAM_CONFIGURATION]
        with pytest.raises(RemoteProtocolError, match="does not take SAM_CONFIGURATION"):
            await bench.driver.start()

    play(scenario, started=False)


def test_a_card_is_trusted_no_more_when_the_chip_falls_silent_which_ends_the_events() -> None:
    async def scenario(bench: Bench) -> None:
        bench.simulator.put(NTAG)
        await bench.after(1)
        bench.simulator.faults.dead = True
        assert await bench.after(0.45) == ["suspect"]
        assert bench.failure is None
        assert await bench.after(0.35) == []
        assert isinstance(bench.failure, LinkTimeout)

    play(scenario)


def test_a_lost_link_goes_through_at_once() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        bench.peer.unplug()
        await bench.after(0.001)
        assert isinstance(bench.failure, LinkLost)

    play(scenario, poll_interval_ms=1000)


def test_the_field_is_off_between_polls_and_after_the_stop() -> None:
    async def scenario(bench: Bench) -> None:
        await bench.after(1)
        assert not bench.simulator.settings.field_on
        bench.simulator.settings.field_on = True
        await bench.driver.stop()
        assert not bench.simulator.settings.field_on

    play(scenario, poll_interval_ms=1000)


@pytest.mark.parametrize("settings", [{"poll_interval_ms": 19}, {"poll_interval_ms": 1001}, {"misses_to_remove": 0}])
def test_settings_out_of_range_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Pn532Settings.model_validate(settings)

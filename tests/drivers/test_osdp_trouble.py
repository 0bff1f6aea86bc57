"""OSDP readers in trouble, and who pretends to be one: what is believed, what it costs the others on the line."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from optima_bridge.errors import LinkTimeout, SlotError
from optima_bridge.link import MemoryPeer
from optima_bridge.model import Observation, Subject
from optima_drivers.osdp import OsdpDriver, messages
from optima_drivers.osdp.codec import MARK, Frame, FrameDecoder
from optima_drivers.osdp.panel import CHALLENGE_BLOCK
from optima_drivers.osdp.simulator import OsdpBus, OsdpSimulator
from tests.drivers.osdp_support import KEY, Panel, key_file, running_on, settings_of
from tests.drivers.test_osdp_driver import faults, in_virtual_time, joined
from tests.virtual_time import virtual_loop

KIND = 0x81


class Impostor:
    """In front of a reader: says something of its own to the commands that `which` picks, and may keep the reader's answer back."""

    def __init__(self, reader: OsdpSimulator, which: Callable[[Frame], bool], says: bytes, *, alone: bool) -> None:
        self.reader = reader
        self.which = which
        self._says, self._alone = says, alone
        self._decoder = FrameDecoder()

    def receive(self, data: bytes) -> bytes:
        (frame,) = [frame for frame in self._decoder.feed(data) if isinstance(frame, Frame)]
        said = b""
        if self.which(frame):
            said = MARK + Frame(frame.address, is_reply=True, sequence=frame.sequence, body=self._says).encode()
            if self._alone:
                return said
        return said + self.reader.receive(data)


def seals(panel: Panel) -> list[object]:
    return [news.state["seal"] for news in panel.news if isinstance(news, Observation) and "seal" in news.state]


async def latency_s(panel: Panel, reader: OsdpSimulator) -> float:
    """From a card's being shown to its event."""
    loop, before = virtual_loop(), len(panel.events(Subject.CARD))
    begun_s = loop.time()
    reader.card("FF", bits=8)
    await panel.cards(before + 1)
    return loop.time() - begun_s


def says_yes(frame: Frame) -> bool:
    return frame.body not in (messages.IDENTIFY, messages.CAPABILITIES)


async def test_who_says_yes_to_the_handshake_has_proved_nothing(tmp_path: Path) -> None:
    genuine = OsdpSimulator(install=True)
    impostor = Impostor(OsdpSimulator(key=KEY), says_yes, bytes([messages.ACK]), alone=True)
    link, peer = joined(impostor)
    driver = OsdpDriver(link, settings_of(scbk=key_file(tmp_path), install=True))
    with pytest.raises(LinkTimeout):
        await driver.start()
    peer.on_write = lambda data: peer.feed(genuine.receive(data))
    await driver.start()
    assert genuine.key == KEY  # a reader that is new is still believed to be new


async def test_nonsense_in_the_clear_does_not_cost_the_true_answer(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    impostor = Impostor(reader, lambda _: False, bytes([messages.CARD]), alone=False)
    link, _ = joined(impostor)
    async with running_on(link, scbk=key_file(tmp_path)) as panel:
        await panel.polled()
        impostor.which = lambda frame: bool(frame.security)
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]
        assert panel.driver.counters["greetings"] == 1


@pytest.mark.parametrize("install", [False, True])
async def test_a_reader_that_is_out_of_step_in_the_handshake_is_greeted_once_more(
    install: bool, tmp_path: Path
) -> None:
    reader, left = OsdpSimulator(key=KEY), [True]

    def first_challenge(frame: Frame) -> bool:
        return frame.security[:1] == bytes([CHALLENGE_BLOCK]) and bool(left and left.pop())

    refusal = bytes([messages.NAK, messages.NakCode.SEQUENCE])
    link, _ = joined(Impostor(reader, first_challenge, refusal, alone=True))
    driver = OsdpDriver(link, settings_of(scbk=key_file(tmp_path), install=install))
    await driver.start()
    assert not left


@pytest.mark.parametrize("fault", ["lost_replies", "damaged_replies"])
async def test_a_key_whose_receipt_gets_lost_was_taken_all_the_same(fault: str, tmp_path: Path) -> None:
    class Unlucky(OsdpSimulator):
        def _do_more(self, code: int, data: bytes, security: bytes) -> tuple[bytes, bytes]:
            if code == messages.KEY_SET:
                setattr(self.faults, fault, 2)
            return super()._do_more(code, data, security)

    reader = Unlucky(install=True)
    link, _ = joined(reader)
    driver = OsdpDriver(link, settings_of(scbk=key_file(tmp_path), install=True))
    await driver.start()
    assert reader.key == KEY


def test_a_tampered_head_stays_a_fault_when_only_the_session_was_lost() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled()
        reader.head(2)
        await panel.polled(3)
        reader.say(bytes([messages.NAK, messages.NakCode.SECURITY_NEEDED]))
        await panel.polled(5)
        assert panel.driver.counters["greetings"] == 2
        assert faults(panel) == [("raised", "reader-tamper")]
        reader.head(0)
        await panel.polled(3)
        assert faults(panel)[1:] == [("cleared", "reader-tamper")]

    in_virtual_time(reader, scenario)


def test_a_head_that_is_in_order_does_not_clear_the_housings_fault() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled()
        reader.local(tampered=True)
        reader.head(0)
        await panel.polled(4)
        assert faults(panel) == [("raised", "reader-tamper")]

    in_virtual_time(reader, scenario)


def test_a_head_that_is_missing_is_still_missing_when_its_peripheral_is_back() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled()
        reader.head(1)
        await panel.polled(3)
        reader.faults.dead = True
        await asyncio.sleep(3)
        reader.faults.dead = False
        await panel.polled(5)
        assert faults(panel) == [("raised", "reader-silent")]

    in_virtual_time(reader, scenario)


def test_a_head_that_was_tampered_with_while_nobody_looked_is_found() -> None:
    reader = OsdpSimulator()
    reader._head = 2

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled(3)
        assert faults(panel) == [("raised", "reader-tamper")]

    in_virtual_time(reader, scenario)


@pytest.mark.parametrize(
    "answer", [bytes([messages.NAK, messages.NakCode.RECORD]), bytes([messages.KEYPAD, 0]), bytes([messages.INPUTS])]
)
def test_a_reader_that_does_not_tell_its_inputs_after_a_greeting_leaves_the_seal_unknown(answer: bytes) -> None:
    class Forgetful(OsdpSimulator):
        forgot = False

        def _do(self, code: int, data: bytes, security: bytes) -> tuple[bytes, bytes]:
            if bytes([code]) == messages.INPUT_STATUS and self.forgot:
                return answer, b""
            return super()._do(code, data, security)

    reader = Forgetful()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled(3)
        assert seals(panel) == ["intact"]
        reader.forgot = True
        reader.say(bytes([messages.NAK, messages.NakCode.SECURITY_NEEDED]))
        await panel.polled(5)
        assert seals(panel) == ["intact", "unknown"]
        reader.input(1, active=True)
        await panel.polled(3)
        assert seals(panel) == ["intact", "unknown", "broken"]

    in_virtual_time(reader, scenario, seal_input=1)


@pytest.mark.parametrize(("others", "busy", "until_known_s"), [(7, False, 1), (3, True, 8)])
def test_readers_that_are_away_cost_the_others_one_try_in_a_round(
    others: int, busy: bool, until_known_s: float
) -> None:
    live, *away = (OsdpSimulator(address) for address in range(others + 1))
    for reader in away:
        reader.faults.dead = not busy

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        if busy:
            await panel.polled(8)
            for reader in away:
                reader.faults.busy = 10**9
        await asyncio.sleep(until_known_s)
        assert max([await latency_s(panel, live) for _ in range(30)]) < 0.5

    in_virtual_time(OsdpBus(live, *away), scenario, addresses=list(range(others + 1)), poll_interval_ms=100)


async def test_a_reader_that_takes_a_file_and_wants_to_be_left_alone_leaves_the_line_to_the_others(
    tmp_path: Path,
) -> None:
    class Thinking(OsdpSimulator):
        """It has the whole file, and does not come to an end with it; each answer wants a pause."""

        def _take_file(self, data: bytes) -> bytes:
            _, _, _, status, _ = struct.unpack("<BBHhH", super()._take_file(data))
            return bytes([messages.FILE_STATUS]) + struct.pack("<BHhH", 0, 300, 3 if status == 1 else status, 0)

    said: set[int] = set()  # to the taker, while it takes

    class Line(OsdpBus):
        def receive(self, data: bytes) -> bytes:
            (frame,) = [frame for frame in FrameDecoder().feed(data) if isinstance(frame, Frame)]
            if frame.address == 0 and taking.is_set():
                said.add(frame.body[0])
            return super().receive(data)

    taking = asyncio.Event()
    taker, other = Thinking(0, key=KEY), OsdpSimulator(1, key=KEY)
    link, _ = joined(Line(taker, other))
    settings = {"scbk": key_file(tmp_path), "addresses": [0, 1], "certificate_file_type": KIND}
    async with running_on(link, **settings) as panel:
        await panel.polled(4)
        loop = asyncio.get_running_loop()
        storing = asyncio.create_task(panel.driver.store.stage(0, bytes(400), lambda *_: taking.set()))
        await taking.wait()
        begun_s = loop.time()
        other.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]
        assert loop.time() - begun_s < 0.3  # no pause of the taker's is in it
        await asyncio.sleep(1)
        taking.clear()
        storing.cancel()
        await asyncio.wait([storing])
        taker.card("BB", bits=8)
        assert await panel.cards(2) == ["AA", "BB"]  # left alone no longer
    assert said == {messages.FILE_TRANSFER}


async def test_a_reader_that_wants_to_be_waited_for_too_long_does_not_get_the_file(tmp_path: Path) -> None:
    class Slow(OsdpSimulator):
        def _take_file(self, data: bytes) -> bytes:
            return super()._take_file(data)[:1] + struct.pack("<BHhH", 1, 60_000, 0, 0)

    link, _ = joined(Slow(key=KEY))
    driver = OsdpDriver(link, settings_of(scbk=key_file(tmp_path), certificate_file_type=KIND))
    await driver.start()
    with pytest.raises(SlotError, match="does not finish"):
        await driver.store.stage(0, bytes(400), lambda *_: None)

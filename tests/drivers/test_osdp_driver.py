"""The OSDP panel and the simulated readers, joined in memory: what is said, what gets lost, what is never believed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from optima_bridge.errors import ConfigError, DeviceError, LinkTimeout, RemoteProtocolError, SlotError, WrongSecret
from optima_bridge.link import MemoryLink, MemoryPeer, SerialFormat, memory_pair
from optima_bridge.link.ptys import ByteDevice
from optima_bridge.model import Capability, Event, Observation, Subject
from optima_drivers.osdp import OsdpDriver, messages
from optima_drivers.osdp.codec import MAC_TYPES, MARK, Frame, FrameDecoder
from optima_drivers.osdp.panel import Conversation, SessionLost
from optima_drivers.osdp.secure import DEFAULT_KEY
from optima_drivers.osdp.simulator import OsdpBus, OsdpSimulator, simulator_on_pty
from tests.drivers.osdp_support import KEY, Panel, key_file, running, running_on, settings_of
from tests.support import until
from tests.virtual_time import run, virtual_loop

CLEAR: dict[str, Any] = {"plain_text": True}
FAULT_FREE = Observation(Subject.FAULT, {"active": False, "faults": []})


def joined(device: ByteDevice, clock_ns: Callable[[], int] | None = None) -> tuple[MemoryLink, MemoryPeer]:
    link, peer = memory_pair(clock_ns=clock_ns) if clock_ns else memory_pair()
    peer.on_write = lambda data: peer.feed(device.receive(data))
    return link, peer


def commands(peer: MemoryPeer) -> list[Frame]:
    """Everything that the panel said."""
    return [frame for frame in FrameDecoder().feed(bytes(peer.written)) if isinstance(frame, Frame)]


def faults(panel: Panel) -> list[tuple[str, object]]:
    return [(event.action, event.data["code"]) for event in panel.events(Subject.FAULT)]


def in_virtual_time(device: ByteDevice, scenario: Callable[[Panel, MemoryPeer], Any], **settings: Any) -> None:
    async def main() -> None:
        link, peer = joined(device, virtual_loop().clock_ns)
        async with running_on(link, **{**CLEAR, **settings}) as panel:
            await scenario(panel, peer)

    run(main())


def test_a_card_is_an_event_with_its_bits_and_the_reader_that_read_it() -> None:
    reader = OsdpSimulator(3)

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        reader.card("A0B0FF", bits=20, reader=1, wiegand=False)
        assert await panel.cards(1) == ["A0B0F0"]
        assert panel.news[0] == FAULT_FREE
        (card,) = panel.events(Subject.CARD)
        assert card.data == {"address": 3, "reader": 1, "bits": 20, "format": "raw"}
        assert card.state is None

    in_virtual_time(reader, scenario, addresses=[3])


def test_of_a_typed_code_only_its_length_is_told() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        reader.keys("8642")
        await panel.cards(1)
        assert panel.events(Subject.CARD)[0].data == {"address": 0, "reader": 0, "keys": 4}
        assert "8642" not in repr(panel.news)

    in_virtual_time(reader, scenario)


def test_a_card_is_answered_by_light_and_sound_where_they_are_configured() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        reader.card("FF", bits=8)
        await panel.cards(1)
        await panel.polled(3)
        assert reader.lights == [(0, 2)]
        assert reader.beeps == [0]

    in_virtual_time(reader, scenario, led="green", beep=True)


def test_a_reader_without_light_is_none_the_worse() -> None:
    reader = OsdpSimulator(refused=[messages.LED])

    async def scenario(panel: Panel, _peer: MemoryPeer) -> None:
        for _ in range(2):
            reader.card("FF", bits=8)
        assert await panel.cards(2) == ["FF", "FF"]
        await panel.polled(3)
        assert panel.driver.counters["refused"] == 2
        assert panel.driver.counters["greetings"] == 1

    in_virtual_time(reader, scenario, led="red")


@pytest.mark.parametrize(
    ("active_means", "first", "then"), [("broken", "intact", "opened"), ("intact", "broken", "closed")]
)
def test_the_seals_contact_is_found_and_then_heard(active_means: str, first: str, then: str) -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _peer: MemoryPeer) -> None:
        await panel.polled()
        assert Observation(Subject.SEAL, {"seal": first}) in panel.news
        for _ in range(2):  # said twice, it is one event
            reader.input(3, active=True)
        await panel.polled(4)
        (event,) = panel.events(Subject.SEAL)
        assert event.action == then
        assert event.data["address"] == 0

    in_virtual_time(reader, scenario, seal_input=3, seal_active=active_means)


def test_an_input_that_is_not_there_is_never_known() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        reader.input(1, active=True)
        await panel.polled(4)
        assert [news for news in panel.news if news.subject is Subject.SEAL] == []

    in_virtual_time(reader, scenario, seal_input=9)


def test_faults_are_raised_and_cleared_and_their_state_tells_all_of_them() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled()
        reader.local(tampered=True, power_failed=True)
        await panel.polled(3)
        reader.local(power_failed=True)
        await panel.polled(3)
        assert faults(panel) == [("raised", "reader-tamper"), ("raised", "reader-power"), ("cleared", "reader-tamper")]
        state = panel.events(Subject.FAULT)[-1].state
        assert state == {"active": True, "faults": [{"address": 0, "code": "reader-power"}]}

    in_virtual_time(reader, scenario)


def test_a_tampered_reader_is_found_at_the_start() -> None:
    reader = OsdpSimulator()
    reader.local(tampered=True)

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled(4)
        assert faults(panel) == [("raised", "reader-tamper")]

    in_virtual_time(reader, scenario)


@pytest.mark.parametrize(("status", "code"), [(1, "reader-silent"), (2, "reader-tamper")])
def test_the_head_behind_a_peripheral_is_looked_after_too(status: int, code: str) -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        reader.say(bytes([messages.READERS, status]))
        await panel.polled(4)
        assert faults(panel) == [("raised", code)]

    in_virtual_time(reader, scenario)


def test_two_readers_on_one_line_are_one_device_whose_events_say_whose_they_are() -> None:
    readers = OsdpSimulator(0), OsdpSimulator(5)

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        readers[0].card("AA", bits=8)
        readers[1].card("BB", bits=8)
        await panel.cards(2)
        assert [(event.identifier, event.data["address"]) for event in panel.events(Subject.CARD)] == [
            ("AA", 0),
            ("BB", 5),
        ]
        readers[1].input(1, active=True)
        await panel.polled(6)
        readers[0].input(1, active=True)
        await panel.polled(6)
        readers[1].input(1, active=False)
        await panel.polled(6)
        assert [event.action for event in panel.events(Subject.SEAL)] == ["opened"]  # one is still broken

    in_virtual_time(OsdpBus(*readers), scenario, addresses=[0, 5], seal_input=1)


def test_a_dead_reader_does_not_silence_the_others_and_is_found_when_it_is_back() -> None:
    readers = OsdpSimulator(0), OsdpSimulator(1)
    readers[1].faults.dead = True

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        loop = asyncio.get_running_loop()
        await panel.polled(20)
        assert faults(panel) == [("raised", "reader-silent")]
        assert Observation(Subject.SEAL, {"seal": "intact"}) not in panel.news  # nobody knows about the dead one's
        began_s = loop.time()
        readers[0].card("AA", bits=8)
        await panel.cards(1)
        assert loop.time() - began_s < 0.4
        readers[1].faults.dead = False
        began_s = loop.time()
        readers[1].card("BB", bits=8)
        await panel.cards(2)
        assert loop.time() - began_s < 1
        assert faults(panel)[1:] == [("cleared", "reader-silent")]
        assert (
            panel.news[-2] == Observation(Subject.SEAL, {"seal": "intact"})
            or Observation(Subject.SEAL, {"seal": "intact"}) in panel.news
        )

    in_virtual_time(OsdpBus(*readers), scenario, addresses=[0, 1], seal_input=1)


def test_a_line_without_anybody_is_given_up_after_eight_seconds_and_its_seal_is_unknown_at_once() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        loop = asyncio.get_running_loop()
        await panel.polled()
        reader.faults.dead = True
        began_s = loop.time()
        await until(lambda: panel.news[-1] == Observation(Subject.SEAL, {"seal": "unknown"}))
        assert loop.time() - began_s < 1
        with pytest.raises(LinkTimeout, match="does not answer"):
            await panel.listening
        assert 8 < loop.time() - began_s < 10

    in_virtual_time(reader, scenario, seal_input=1)


def test_nobody_on_the_line_at_the_start_is_waited_for_some_seconds() -> None:
    async def main() -> None:
        link, _ = joined(OsdpSimulator(9), virtual_loop().clock_ns)
        driver = OsdpDriver(link, settings_of(**CLEAR))
        with pytest.raises(LinkTimeout, match="reader 0 does not answer"):
            await driver.start()
        assert 5 < virtual_loop().time() < 7

    run(main())


@pytest.mark.parametrize("fault", ["lost_commands", "lost_replies", "damaged_replies", "busy"])
@pytest.mark.parametrize("secured", [False, True])
async def test_one_of_each_fault_costs_no_event_and_less_than_a_second(
    fault: str, secured: bool, tmp_path: Path
) -> None:
    reader = OsdpSimulator(key=KEY if secured else None)
    link, _ = joined(reader)
    async with running_on(link, **({"scbk": key_file(tmp_path)} if secured else CLEAR)) as panel:
        await panel.polled()
        reader.card("AA", bits=8)
        setattr(reader.faults, fault, 1)
        async with asyncio.timeout(1):
            assert await panel.cards(1) == ["AA"]
        await panel.polled(3)
        assert await panel.cards(1) == ["AA"]  # once
        assert panel.driver.counters["greetings"] == 1
        assert faults(panel) == []


def test_a_reader_that_is_always_busy_is_as_good_as_silent() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled()
        reader.faults.busy = 1000
        await until(lambda: ("raised", "reader-silent") in faults(panel))

    in_virtual_time(reader, scenario)


@pytest.mark.parametrize("nak", [4, 5, 6])
def test_a_refusal_that_ends_the_session_leads_to_another_greeting_at_once(nak: int) -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        reader.say(bytes([messages.NAK, nak]))
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]
        assert panel.driver.counters["greetings"] == 2
        assert faults(panel) == []

    in_virtual_time(reader, scenario)


@pytest.mark.parametrize("body", [bytes([messages.NAK, 9]), bytes([messages.CARD, 0]), b"\xb1\x00"])
def test_a_poll_that_is_refused_or_answered_by_nonsense_is_one_poll(body: bytes) -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        reader.say(body)
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]
        assert panel.driver.counters["greetings"] == 1

    in_virtual_time(reader, scenario)


async def test_a_new_reader_gets_its_key_once(tmp_path: Path) -> None:
    reader = OsdpSimulator(install=True)
    link, peer = joined(reader)
    async with running_on(link, scbk=key_file(tmp_path), install=True) as panel:
        await panel.polled()
        assert reader.key == KEY
        reader.restart()
        reader.key, reader._install = None, True  # somebody resets it, or puts another one there
        await until(lambda: ("raised", "reader-refused") in faults(panel))
        assert reader.key is None  # not in this life of the panel again
    keysets = [frame for frame in commands(peer) if frame.body[0] == messages.KEY_SET]
    assert len(keysets) == 1


async def test_a_reader_without_any_key_of_ours_is_refused(tmp_path: Path) -> None:
    for reader, install in [(OsdpSimulator(key=bytes(16)), True), (OsdpSimulator(install=True), False)]:
        link, peer = joined(reader)
        with pytest.raises(WrongSecret):
            async with running_on(link, scbk=key_file(tmp_path), install=install):
                pass
        assert messages.KEY_SET not in {frame.body[0] for frame in commands(peer)}


async def test_a_reader_that_says_yes_to_a_key_and_does_not_take_it_is_refused(tmp_path: Path) -> None:
    class Liar(OsdpSimulator):
        def _do_more(self, code: int, data: bytes, security: bytes) -> tuple[bytes, bytes]:
            if code == messages.KEY_SET:
                data = data[:2] + bytes(16)
            return super()._do_more(code, data, security)

    link, _ = joined(Liar(install=True))
    with pytest.raises(WrongSecret, match="did not take"):
        async with running_on(link, scbk=key_file(tmp_path), install=True):
            pass


async def test_a_reader_that_cannot_encrypt_is_refused(tmp_path: Path) -> None:
    link, _ = joined(OsdpSimulator())
    with pytest.raises(DeviceError, match="no secure channel"):
        async with running_on(link, scbk=key_file(tmp_path)):
            pass


async def test_who_answers_without_saying_who_it_is_is_no_reader() -> None:
    class Strange(OsdpSimulator):
        def _do(self, code: int, data: bytes, security: bytes) -> tuple[bytes, bytes]:
            return bytes([messages.ACK]), b""

    link, _ = joined(Strange())
    with pytest.raises(RemoteProtocolError, match="does not say what it is"):
        async with running_on(link, **CLEAR):
            pass


async def test_what_an_impostor_says_in_the_clear_is_never_believed(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    link, peer = joined(reader)
    async with running_on(link, scbk=key_file(tmp_path)) as panel:
        await panel.polled()
        reader.faults.plain_events = True
        for _ in range(3):
            reader.card("AA", bits=8)
            reader.keys("1234")
        await until(lambda: panel.driver.counters["greetings"] >= 3)
        assert panel.events(Subject.CARD) == []
    for frame in commands(peer):
        sealed = bool(frame.security) and frame.security[0] in MAC_TYPES
        assert sealed or frame.body[0] in {0x61, 0x62, messages.CHALLENGE, messages.SERVER_CRYPTOGRAM}


async def test_a_refusal_in_the_clear_costs_the_session_and_tells_nothing(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    link, _ = joined(reader)
    async with running_on(link, scbk=key_file(tmp_path)) as panel:
        await panel.polled()
        reader.faults.plain_events = True
        reader.say(bytes([messages.NAK, 3]))
        await until(lambda: panel.driver.counters["greetings"] == 2)
        reader.faults.plain_events = False
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]
        assert faults(panel) == []


async def test_a_reply_with_a_wrong_mac_costs_the_session_and_tells_nothing(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    link, peer = joined(reader)
    forged: list[Frame] = []

    def forge(data: bytes) -> None:
        (frame,) = FrameDecoder().feed(reader.receive(data))
        assert isinstance(frame, Frame)
        if frame.security == b"\x18" and not forged:
            frame = msgspec.structs.replace(frame, mac=bytes(byte ^ 1 for byte in frame.mac))
            forged.append(frame)
        peer.feed(frame.encode())

    async with running_on(link, scbk=key_file(tmp_path)) as panel:
        await panel.polled()
        peer.on_write = forge
        reader.card("AA", bits=8)
        await until(lambda: panel.driver.counters["greetings"] == 2)
        assert panel.events(Subject.CARD) == []
        reader.card("BB", bits=8)
        assert await panel.cards(1) == ["BB"]


@pytest.mark.parametrize(("block", "change"), [(b"\x14\x01", 1), (b"\x14\x00", 0)], ids=["wrong MAC", "says no"])
async def test_a_handshake_that_the_reader_does_not_end_well_is_none(block: bytes, change: int, tmp_path: Path) -> None:
    class Impostor(OsdpSimulator):
        def _proved(self, cryptogram: bytes) -> tuple[bytes, bytes]:
            reply, _ = super()._proved(cryptogram)
            return reply[:-1] + bytes([reply[-1] ^ change]), block

    link, _ = joined(Impostor(key=KEY))
    with pytest.raises(WrongSecret):
        async with running_on(link, scbk=key_file(tmp_path)):
            pass


async def test_a_key_whose_receipt_comes_in_the_clear_was_taken(tmp_path: Path) -> None:
    class Hasty(OsdpSimulator):
        def _reply_to(self, frame: Frame) -> Frame:
            before = self.key
            reply = super()._reply_to(frame)
            return reply if before == self.key else msgspec.structs.replace(reply, body=b"\x40", security=b"", mac=b"")

    reader = Hasty(install=True)
    link, _ = joined(reader)
    async with running_on(link, scbk=key_file(tmp_path), install=True) as panel:
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]


async def test_a_reader_that_has_to_be_greeted_is_asked_nothing() -> None:
    link, peer = joined(OsdpSimulator())
    driver = OsdpDriver(link, settings_of(**CLEAR))
    with pytest.raises(SessionLost, match="greeted first"):
        await driver._readers[0].ask(messages.POLL)
    assert not peer.written


def test_where_one_reader_answers_at_the_start_the_other_is_a_fault() -> None:
    reader = OsdpSimulator(1)

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        await panel.polled()
        assert faults(panel) == [("raised", "reader-silent")]
        assert panel.events(Subject.FAULT)[0].data["address"] == 0

    in_virtual_time(reader, scenario, addresses=[0, 1])


async def test_a_restarted_reader_is_in_a_session_again_at_once(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    link, _ = joined(reader)
    async with running_on(link, scbk=key_file(tmp_path)) as panel:
        await panel.polled()
        reader.restart()
        reader.card("AA", bits=8)
        async with asyncio.timeout(1):
            assert await panel.cards(1) == ["AA"]
        assert faults(panel) == []


def test_without_a_session_nothing_but_the_greeting_can_be_said() -> None:
    conversation = Conversation(0, secured=True)
    for body in (messages.POLL, messages.key_set(KEY), messages.ABORT, messages.file_fragment(1, 1, 0, b"x")):
        with pytest.raises(SessionLost):
            conversation.command(body)


def test_replies_that_nobody_asked_for_are_none() -> None:
    conversation = Conversation(0, secured=True)
    conversation.command(messages.IDENTIFY)
    ack = Frame(0, is_reply=True, sequence=0, body=b"\x40")
    assert conversation.hear(ack) == messages.Ack()
    for change in (
        {"address": 1},
        {"is_reply": False},
        {"sequence": 2},
        {"security": b"\x16", "mac": bytes(4)},
        {"body": b"\x78" + bytes(16), "security": b"\x14\x01"},
        {"body": b"\x76" + bytes(32), "security": b"\x12\x01"},
    ):
        fields = {"address": 0, "is_reply": True, "sequence": 0, "body": b"\x40", **change}
        assert conversation.hear(Frame(**fields)) is None  # type: ignore[arg-type]


def test_the_random_number_is_another_one_each_time() -> None:
    conversation = Conversation(0, secured=True)
    conversation.command(messages.IDENTIFY)
    challenges = set()
    for _ in range(100):
        (frame,) = FrameDecoder().feed(conversation.challenge(KEY, default=False))
        assert isinstance(frame, Frame)
        challenges.add(frame.body)
    assert len(challenges) == 100


async def test_a_task_that_is_cancelled_leaves_the_line_to_others(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    link, peer = joined(reader)
    async with running_on(link, scbk=key_file(tmp_path)) as panel:
        await panel.polled()
        late: list[bytes] = []
        peer.on_write = lambda data: late.append(reader.receive(data))  # its answers come when nobody waits any more
        asking = asyncio.create_task(panel.driver._readers[0].ask(messages.LOCAL_STATUS))
        await until(lambda: late)
        asking.cancel()
        peer.on_write = lambda data: peer.feed(reader.receive(data))
        peer.feed(b"".join(late))
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]


def test_a_line_that_babbles_does_not_hold_anybody_up_for_ever() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, peer: MemoryPeer) -> None:
        await panel.polled()
        peer.on_write = None
        loop = asyncio.get_running_loop()
        timer: list[asyncio.TimerHandle] = []

        def babble() -> None:
            peer.feed(b"\x53\x80\x00\x01\x04")
            timer[:] = [loop.call_later(0.02, babble)]

        babble()
        await until(lambda: ("raised", "reader-silent") in faults(panel))
        timer[0].cancel()

    in_virtual_time(reader, scenario)


def test_our_own_echo_on_a_two_wire_adapter_is_not_an_answer() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, peer: MemoryPeer) -> None:
        peer.on_write = lambda data: peer.feed(data + reader.receive(data))
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]
        assert panel.driver.counters["frames_ignored"] > 0

    in_virtual_time(reader, scenario)


async def test_readers_answer_over_a_paced_pty(tmp_path: Path) -> None:
    reader = OsdpSimulator(key=KEY)
    async with (
        simulator_on_pty(reader, baud=9600) as path,
        running(path, scbk=key_file(tmp_path)) as panel,
    ):
        assert await panel.driver.start() is not None
        reader.card("AA", bits=8)
        assert await panel.cards(1) == ["AA"]
        assert faults(panel) == []


@pytest.mark.parametrize(
    "text", ["", "00" * 15, "zz" * 16, DEFAULT_KEY.hex()], ids=["empty", "short", "no hex", "default"]
)
async def test_a_key_that_is_none_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "scbk"
    file.write_text(text)
    file.chmod(0o600)
    link, _ = joined(OsdpSimulator(key=KEY))
    driver = OsdpDriver(link, settings_of(scbk={"file": str(file)}))
    with pytest.raises(ConfigError) as caught:
        await driver.start()
    assert text == "" or text not in json.dumps(caught.value.document())


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"addresses": [1, 1], **CLEAR},
        {"addresses": [127], **CLEAR},
        {"install": True, **CLEAR},
        {"certificate_file_type": 1, **CLEAR},
        {"baud": 1200, **CLEAR},
        {"scbk": "00" * 16},
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings_of(**settings)


def test_a_key_and_plain_text_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="either"):
        settings_of(scbk=key_file(tmp_path), plain_text=True)


def test_abilities_and_speed_follow_the_settings(tmp_path: Path) -> None:
    declared = OsdpDriver.info.capabilities
    assert settings_of(**CLEAR).narrow(declared) == {Capability.CARD_READER}
    everything = settings_of(scbk=key_file(tmp_path), seal_input=1, certificate_file_type=128, baud=115200)
    assert everything.narrow(declared) == declared
    assert everything.serial_format(SerialFormat(9600)) == SerialFormat(115200)


def test_without_a_file_type_there_is_no_store() -> None:
    link, _ = memory_pair()
    with pytest.raises(SlotError, match="takes no certificate"):
        _ = OsdpDriver(link, settings_of(**CLEAR)).store


def test_events_say_when_they_were_heard() -> None:
    reader = OsdpSimulator()

    async def scenario(panel: Panel, _: MemoryPeer) -> None:
        before_ns = virtual_loop().clock_ns()
        reader.card("AA", bits=8)
        await panel.cards(1)
        (card,) = panel.events(Subject.CARD)
        assert isinstance(card, Event)
        assert before_ns <= card.mono_ns <= virtual_loop().clock_ns()

    in_virtual_time(reader, scenario)


async def test_a_simulated_reader_refuses_what_is_out_of_order() -> None:
    reader = OsdpSimulator(key=KEY)

    def answer(**fields: Any) -> bytes:
        frame = Frame(**{"address": 0, "is_reply": False, "sequence": 0, "body": messages.POLL, **fields})
        (reply,) = FrameDecoder().feed(reader.receive(MARK + frame.encode()))
        assert isinstance(reply, Frame)
        return reply.body

    assert answer() == b"\x41\x06"
    assert answer(sequence=3) == b"\x41\x04"
    assert answer(sequence=1, security=b"\x15", mac=bytes(4)) == b"\x41\x06"
    assert answer(body=messages.server_cryptogram(bytes(16)), security=b"\x13\x01") == b"\x41\x06"
    reader.key = None
    assert answer(body=messages.challenge(bytes(8)), security=b"\x11\x01") == b"\x41\x05"
    assert reader.receive(Frame(4, is_reply=False, sequence=0, body=messages.POLL).encode()) == b""

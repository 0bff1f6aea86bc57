"""The panel against libosdp's peripheral device, C code in a process of its own, with a man in the middle of the line."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.words import Outcome, Request
from optima_bridge.errors import LinkTimeout, WrongSecret
from optima_bridge.model import Subject
from optima_bridge.store import Readback
from optima_drivers.osdp import messages
from optima_drivers.osdp.codec import MAC_TYPES, Frame
from optima_drivers.osdp.peripheral import Refused
from tests.drivers.osdp_support import KEY, Once, Wire, key_file, libosdp, running
from tests.support import until

pytestmark = [
    pytest.mark.referee,
    pytest.mark.skipif(importlib.util.find_spec("osdp_sys") is None, reason="PyPI package libosdp is not installed"),
]

OTHER_KEY = bytes(range(100, 116))
GREETING = {messages.IDENTIFY[0], messages.CAPABILITIES[0], messages.CHALLENGE, messages.SERVER_CRYPTOGRAM}
BACK_S = 1.0


def is_poll(frame: Frame) -> bool:
    return not frame.is_reply and frame.body == messages.POLL


def is_reply_in_session(frame: Frame) -> bool:
    return frame.is_reply and frame.security[:1] in {b"\x16", b"\x18"}


def is_plain_reply(frame: Frame) -> bool:
    return frame.is_reply and frame.body == b"\x40"


def said_in_the_clear(wire: Wire) -> set[int]:
    """Codes of the commands that were not sealed."""
    return {frame.body[0] for frame in wire.commands if not frame.security or frame.security[0] not in MAC_TYPES}


@pytest.mark.parametrize("secured", [True, False])
async def test_what_happens_at_the_reader_arrives(secured: bool, tmp_path: Path) -> None:
    settings = {"scbk": key_file(tmp_path)} if secured else {"plain_text": True}
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path, key=KEY if secured else None) as reader,
        running(wire.panel_path, seal_input=2, led="green", beep=True, **settings) as panel,
    ):
        await panel.polled()
        await reader.card("a0b0c0", 24)
        assert await panel.cards(1) == ["A0B0C0"]
        await reader.keys("1234")
        await reader.status(0, "00000000")  # its inputs, of which the second is the seal's contact
        await reader.status(0, "00010000")
        await reader.status(2, "0101")  # tampered with, and without its supply
        await panel.polled(12)
        typed = panel.events(Subject.CARD)[1]
        assert (typed.action, typed.identifier, typed.data) == ("typed", None, {"address": 0, "reader": 0, "keys": 4})
        (opened,) = panel.events(Subject.SEAL)
        assert (opened.action, opened.state) == ("opened", {"seal": "broken"})
        assert [event.data["code"] for event in panel.events(Subject.FAULT)] == ["reader-tamper", "reader-power"]
        assert {command["command"] for command in reader.told("command")} >= {2, 3}  # LED, buzzer
        assert "1234" not in str(panel.news)
    assert said_in_the_clear(wire) <= GREETING or not secured


@pytest.mark.slow
async def test_a_checksum_in_place_of_the_crc_is_understood() -> None:
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path, key=None) as reader,
        running(wire.panel_path, plain_text=True, checksum=True) as panel,
    ):
        await reader.card("ff", 8)
        assert await panel.cards(1) == ["FF"]
        assert not any(frame.crc for frame in wire.commands)


async def test_a_new_reader_gets_its_key_and_nothing_is_said_in_the_clear_afterwards(tmp_path: Path) -> None:
    async with Wire() as wire, libosdp(wire.peripheral_path, key=None, flags=("InstallMode",)) as reader:
        for install in (True, False):  # the second time it is known
            async with running(wire.panel_path, scbk=key_file(tmp_path), install=install) as panel:
                await reader.card("ff", 8)
                assert await panel.cards(1) == ["FF"]
        (keyset,) = [command for command in reader.told("command") if command["command"] == 5]
        assert keyset["data"] == KEY.hex()
    assert said_in_the_clear(wire) <= GREETING
    assert not any(KEY in frame.body for frame in wire.commands)


async def test_a_new_reader_is_not_used_where_nobody_said_install(tmp_path: Path) -> None:
    async with Wire() as wire, libosdp(wire.peripheral_path, key=None, flags=("InstallMode",)):
        with pytest.raises(WrongSecret):
            async with running(wire.panel_path, scbk=key_file(tmp_path)):
                pass
    assert said_in_the_clear(wire) <= GREETING
    assert all(frame.security[1:] == b"\x01" for frame in wire.commands if frame.body[0] == messages.CHALLENGE)


@pytest.mark.parametrize("install", [False, True])
async def test_a_reader_with_another_key_is_refused(install: bool, tmp_path: Path) -> None:
    async with Wire() as wire, libosdp(wire.peripheral_path, key=OTHER_KEY, flags=("EnforceSecure",)):
        with pytest.raises(WrongSecret):
            async with running(wire.panel_path, scbk=key_file(tmp_path), install=install):
                pass
    assert said_in_the_clear(wire) <= GREETING
    assert all(frame.body[0] != messages.KEY_SET for frame in wire.commands)


@pytest.mark.parametrize("flip", [False, True], ids=["lost", "damaged"])
@pytest.mark.parametrize("which", [is_poll, is_reply_in_session], ids=["command", "reply"])
async def test_one_spoilt_frame_of_a_session_costs_less_than_a_second(
    which: Callable[[Frame], bool], flip: bool, tmp_path: Path
) -> None:
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path) as reader,
        running(wire.panel_path, scbk=key_file(tmp_path)) as panel,
    ):
        await panel.polled(3)
        spoil = wire.spoil = Once(which, flip=flip)
        await until(lambda: spoil.done)
        began = time.monotonic()
        await reader.card("ff", 8)
        assert await panel.cards(1) == ["FF"]
        took_s = time.monotonic() - began
        print(f"back after {took_s * 1000:.0f} ms")
        assert took_s < BACK_S
        assert panel.events(Subject.FAULT) == []
    assert said_in_the_clear(wire) <= GREETING


@pytest.mark.parametrize(("which", "flip"), [(is_poll, True), (is_plain_reply, False)], ids=["command", "reply"])
async def test_one_spoilt_frame_in_the_clear_costs_less_than_a_second(
    which: Callable[[Frame], bool], flip: bool
) -> None:
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path, key=None) as reader,
        running(wire.panel_path, plain_text=True) as panel,
    ):
        await panel.polled(3)
        spoil = wire.spoil = Once(which, flip=flip)
        await until(lambda: spoil.done)
        began = time.monotonic()
        await reader.card("ff", 8)
        assert await panel.cards(1) == ["FF"]
        assert time.monotonic() - began < BACK_S
        assert panel.driver.counters["greetings"] == 1


async def test_a_refused_command_fails_alone(tmp_path: Path) -> None:
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path) as reader,
        running(wire.panel_path, scbk=key_file(tmp_path)) as panel,
    ):
        await panel.polled()
        peripheral = panel.driver._readers[0]
        for command in (b"\xa1\x01", b"\x65", b"\x69\x00"):  # unknown to it, no answer for it, too short
            async with panel.driver._line.turn:
                with pytest.raises(Refused, match="NAK"):
                    await peripheral.ask(command)
        await reader.card("ff", 8)
        assert await panel.cards(1) == ["FF"]
        assert panel.driver.counters["greetings"] == 1


@pytest.mark.parametrize("silent_s", [0.5, pytest.param(5, marks=pytest.mark.slow)])
async def test_a_reader_that_was_silent_is_back_within_a_second(silent_s: float, tmp_path: Path) -> None:
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path) as reader,
        running(wire.panel_path, scbk=key_file(tmp_path)) as panel,
    ):
        await panel.polled()
        wire.spoil = lambda *_: b""
        await asyncio.sleep(silent_s)
        wire.spoil = lambda _, data: data
        began = time.monotonic()
        await reader.card("ff", 8)
        assert await panel.cards(1) == ["FF"]
        assert time.monotonic() - began < BACK_S
        actions = [event.action for event in panel.events(Subject.FAULT)]
        assert actions == (["raised", "cleared"] if silent_s > 2 else actions)


@pytest.mark.slow
async def test_after_nine_seconds_of_silence_a_fresh_start_is_back_within_a_second(tmp_path: Path) -> None:
    async with Wire() as wire, libosdp(wire.peripheral_path) as reader:
        async with running(wire.panel_path, scbk=key_file(tmp_path)) as panel:
            await panel.polled()
            wire.spoil = lambda *_: b""
            with pytest.raises(LinkTimeout):
                await panel.listening
        wire.spoil = lambda _, data: data
        began = time.monotonic()
        async with running(wire.panel_path, scbk=key_file(tmp_path)) as panel:
            await reader.card("ff", 8)
            assert await panel.cards(1) == ["FF"]
            assert time.monotonic() - began < BACK_S


@pytest.mark.slow
async def test_a_reader_that_is_killed_and_started_again_is_found_again(tmp_path: Path) -> None:
    async with Wire() as wire:
        async with libosdp(wire.peripheral_path):
            leave = running(wire.panel_path, scbk=key_file(tmp_path))
            panel = await leave.__aenter__()
            await panel.polled()
        async with libosdp(wire.peripheral_path) as reader:
            await reader.card("ff", 8)
            assert await panel.cards(1) == ["FF"]
        await leave.__aexit__(None, None, None)
    assert said_in_the_clear(wire) <= GREETING


@pytest.mark.parametrize("size_bytes", [1, 700])
async def test_a_certificate_arrives_as_a_file(size_bytes: int, tmp_path: Path) -> None:
    certificate = bytes(number * 7 & 0xFF for number in range(size_bytes))
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path) as reader,
        running(wire.panel_path, scbk=key_file(tmp_path), certificate_file_type=128) as panel,
    ):
        done: list[int] = []
        await panel.driver.store.stage(0, certificate, lambda so_far, _: done.append(so_far))
        assert reader.told("file") == [hashlib.sha256(certificate).hexdigest()]
        assert done[-1] == size_bytes
        await reader.card("ff", 8)
        assert await panel.cards(1) == ["FF"]
    assert not any(certificate[:16] in frame.body for frame in wire.commands if size_bytes > 16)


@pytest.mark.parametrize("flip", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["lost", "damaged"])
async def test_a_file_survives_a_spoilt_frame(flip: bool, tmp_path: Path) -> None:
    certificate = bytes(number & 0xFF for number in range(1000))
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path) as reader,
        running(wire.panel_path, scbk=key_file(tmp_path), certificate_file_type=128) as panel,
    ):
        await panel.polled()
        replies = 0

        def nth(frame: Frame) -> bool:
            nonlocal replies
            replies += frame.is_reply and len(frame.body) > 16
            return replies == 3

        wire.spoil = Once(nth, flip=flip)
        await panel.driver.store.stage(0, certificate, lambda *_: None)
        assert reader.told("file")[-1] == hashlib.sha256(certificate).hexdigest()


@pytest.mark.slow
async def test_an_enrolment_ends_unconfirmed_for_nothing_tells_what_the_reader_holds(tmp_path: Path) -> None:
    certificate = bytes(range(250)) * 3
    (tmp_path / "state").mkdir()
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path) as reader,
        running(wire.panel_path, scbk=key_file(tmp_path), certificate_file_type=128) as panel,
    ):
        store = panel.driver.store
        assert store.traits.readback is Readback.NONE
        identity = await store.connect()
        with HostJournal(tmp_path / "state") as journal:
            request = Request("j1", identity.serial, certificate, accept_single_slot=True)
            result = await enroll(store, request, journal, lambda _: None)
        assert result.outcome is Outcome.UNCONFIRMED
        assert reader.told("file")[-1] == hashlib.sha256(certificate).hexdigest()


async def test_a_panel_that_talks_in_the_clear_says_that_the_reader_wants_none_of_it() -> None:
    async with (
        Wire() as wire,
        libosdp(wire.peripheral_path, flags=("EnforceSecure",)),
        running(wire.panel_path, plain_text=True) as panel,
    ):
        await until(lambda: panel.events(Subject.FAULT))
        assert panel.events(Subject.FAULT)[0].data == {"address": 0, "code": "reader-refused"}

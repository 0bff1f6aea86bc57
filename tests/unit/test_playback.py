"""Recording and replaying a wire: what a driver made of its device then, it makes of the recording now."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest

from optima_bridge import playback, registry
from optima_bridge.errors import DriverError, LinkTimeout, UsageError
from optima_bridge.link import memory_pair
from optima_bridge.link.tap import SCHEMA, Piece, Wire
from optima_bridge.model import DeviceIdentity, Event
from optima_bridge.playback import Header, Recording
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.rfid125 import Rdm6300Driver
from optima_drivers.rfid125.simulator import Rfid125Simulator
from tests.virtual_time import run, virtual_loop

CAPTURES = sorted((Path(__file__).parents[1] / "captures").glob("wire-*.jsonl"))
ROM, OTHER_ROM, CARD = "01B7BA1000000075", "0101EFCDAB00002C", "67003B51C6"
Step = Callable[[Any], object]
SCENES: dict[str, tuple[Callable[[], Any], list[Step]]] = {
    "ds2480b": (
        Ds2480bSimulator,
        [
            lambda it: it.put(ROM),
            lambda it: it.put(OTHER_ROM),
            lambda it: it.lift(),
            lambda it: it.put(OTHER_ROM),
            lambda it: it.lift(),
        ],
    ),
    "rdm6300": (
        Rfid125Simulator,
        [
            lambda it: it.insert(CARD),
            lambda it: it.spoil("flip", "drop-etx"),
            lambda it: it.noise(),
            lambda it: it.remove(),
        ],
    ),
    "id12la": (lambda: Rfid125Simulator("id12la"), [lambda it: it.insert(CARD), lambda it: it.remove()]),
    "loopback": (LoopbackSimulator, [lambda it: it.key_in(ROM), lambda it: it.key_out(), lambda it: it.card(CARD)]),
}


def record(name: str, *, late_s: float = 0.0) -> Recording:
    """Let the scene happen before the real driver on a tapped link; recording begins so long after the driver."""
    driver = registry.load(name)
    make, steps = SCENES[name]

    async def main() -> list[Piece]:
        link, peer = memory_pair(clock_ns=virtual_loop().clock_ns)
        simulator, wire = make(), Wire()
        tapped = wire.tap(link)
        simulator.attach(peer.feed)
        peer.on_write = lambda data: peer.feed(simulator.receive(data))
        peer.on_break = getattr(simulator, "break_", None)
        unit = driver(tapped, driver.Settings())
        await unit.start()
        wire.started()

        async def watch() -> None:
            async for event in unit.events():
                if isinstance(event, Event):
                    wire.told(event.subject, event.action)

        watching = asyncio.create_task(watch())
        pieces: list[Piece] = []
        await asyncio.sleep(late_s)
        wire.listen(pieces.append)
        for step in steps:
            step(simulator)
            await asyncio.sleep(1.234)
        watching.cancel()
        await unit.stop()
        return pieces

    header = Header(SCHEMA, "front", name, masked=False, settings={})
    return Recording(header, run(main()))


def play(recording: Recording, speed: float = 0) -> list[tuple[str, str]]:
    return playback.play(registry.load(recording.header.driver), recording, lambda _, __: None, speed)


@pytest.mark.parametrize("late_s", [0.0, 1.0171, 60.0])
@pytest.mark.parametrize("name", SCENES)
def test_a_recording_makes_the_events_it_made_then(name: str, late_s: float) -> None:
    recording = record(name, late_s=late_s)
    assert len(recording.events) >= len({*recording.events}) >= 1
    assert play(recording) == recording.events


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_a_capture_makes_the_events_it_made_then(capture: Path) -> None:
    recording = playback.read(capture)
    assert recording.events
    assert play(recording) == recording.events


def test_there_is_a_capture_of_a_device_that_is_asked_and_one_of_a_device_that_only_talks() -> None:
    assert {playback.read(path).header.driver for path in CAPTURES} >= {"ds2480b", "rdm6300"}


def test_a_key_that_is_missing_from_the_recording_is_missed() -> None:
    recording = record("rdm6300")
    pieces = [piece for piece in recording.pieces if piece.dir != "in"]
    assert play(Recording(recording.header, pieces)) == []


def test_events_come_at_their_times() -> None:
    recording = record("rdm6300")
    told = [piece.t_ms for piece in recording.pieces if piece.subject]
    times: list[float] = []
    playback.play(registry.load("rdm6300"), recording, lambda t_ms, _: times.append(t_ms))
    assert times == pytest.approx(told, abs=1)


def test_a_speed_slows_the_replay_down_to_it() -> None:
    began_s = time.monotonic()
    header = Header(SCHEMA, "front", "rdm6300", masked=False, settings={})
    play(Recording(header, [Piece(0), Piece(3000, dir="in", hex="00")]), speed=20)
    assert 0.15 <= time.monotonic() - began_s < 5


def test_a_device_that_answered_nothing_then_answers_nothing_now() -> None:
    header = Header(SCHEMA, "front", "ds2480b", masked=False, settings={})
    with pytest.raises(LinkTimeout):
        play(Recording(header, [Piece(0, dir="out", hex="00"), Piece(5, dir="in", hex="00")]))


def test_what_comes_after_the_end_of_the_driver_is_another_run(tmp_path: Path) -> None:
    path = write(tmp_path, {"t_ms": 1, "dir": "in", "hex": "aa"}, {"t_ms": 2, "link": "closed"}, {"t_ms": 3})
    assert playback.read(path).pieces == [Piece(1, dir="in", hex="aa")]


def write(folder: Path, *lines: object, **header: object) -> Path:
    path = folder / "x.jsonl"
    first = {"schema": SCHEMA, "device": "front", "driver": "rdm6300", "masked": False, "settings": {}, **header}
    path.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in (first, *lines)))
    return path


@pytest.mark.parametrize(
    ("lines", "header", "why"),
    [
        ([{"t_ms": "x"}], {}, "line 2, is no line of a recording"),
        ([{"t_ms": 0}, {"t_ms": 1, "hex": "0"}], {}, "line 3, is no line of a recording"),
        ([{"t_ms": -1}], {}, "line 2, is no line of a recording: t_ms goes from 0 to 31 days, never back: -1"),
        ([{"t_ms": 1e300}], {}, "line 2, is no line of a recording: t_ms goes from 0 to 31 days"),
        (
            [{"t_ms": 2}, {"t_ms": 1}],
            {},
            "line 3, is no line of a recording: t_ms goes from 0 to 31 days, never back: 1",
        ),
        ([], {"driver": 5}, "line 1, is no line of a recording"),
        ([], {"schema": "optima.wire/9"}, "another form: optima.wire/9"),
        ([], {"masked": True}, "holds how many bytes there were, not which"),
    ],
)
def test_what_is_no_recording_is_refused(
    lines: list[object], header: dict[str, object], why: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=why):
        playback.read(write(tmp_path, *lines, **header))


def test_an_empty_file_and_a_folder_are_no_recordings(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    for path, why in ((tmp_path / "empty", "line 1"), (tmp_path, "cannot be read")):
        with pytest.raises(UsageError, match=why):
            playback.read(path)


@pytest.mark.parametrize(
    "name", [name for name in registry.installed() if "memory" not in registry.load(name).info.schemes]
)
def test_a_driver_of_another_kind_of_link_is_refused(name: str) -> None:
    header = Header(SCHEMA, "front", name, masked=False, settings={})
    with pytest.raises(UsageError, match=f"the driver {name} cannot be played to: it works on no byte pipe"):
        play(Recording(header, [Piece(0, dir="in", hex="00")]))


class Failing(Rdm6300Driver):
    """Fails in the given method, a second after the start."""

    where: ClassVar = "events"
    what: ClassVar[BaseException] = KeyError(7)

    async def start(self) -> DeviceIdentity:
        await asyncio.sleep(1)
        if self.where == "start":
            raise self.what
        return await super().start()

    async def events(self) -> AsyncGenerator[Event, None]:
        if self.where == "events":
            raise self.what
        async for event in super().events():
            yield event

    async def stop(self) -> None:
        if self.where == "stop":
            raise self.what


@pytest.mark.parametrize("what", [KeyError(7), asyncio.CancelledError(), TimeoutError()], ids=repr)
@pytest.mark.parametrize("where", ["start", "events", "stop"])
def test_a_driver_that_fails_in_its_own_code_is_named_with_the_time(
    where: str, what: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "where", where)
    monkeypatch.setattr(Failing, "what", what)
    header = Header(SCHEMA, "front", "rdm6300", masked=False, settings={})
    recording = Recording(header, [Piece(0, dir="in", hex="00"), Piece(3000, dir="in", hex="00")])
    with pytest.raises(DriverError) as caught:
        playback.play(Failing, recording, lambda _, __: None)
    t_ms = "3050.000" if where == "stop" else "1000.000"
    assert str(caught.value) == f"the driver rdm6300 failed at t_ms {t_ms} of the replay: {what!r}"
    assert caught.value.__cause__ is what
    assert re.search(rf"{__file__}, line \d+$", caught.value.cause)


def test_what_fails_where_the_events_are_told_is_no_failure_of_the_driver() -> None:
    def told(_: float, __: Event) -> None:
        raise BrokenPipeError

    recording = record("rdm6300")
    with pytest.raises(BrokenPipeError):
        playback.play(registry.load("rdm6300"), recording, told)


def test_settings_that_the_driver_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"does not take the recorded settings: speed: Extra inputs are not permitted$"
    ):
        play(playback.read(write(tmp_path, settings={"speed": 1})))


def test_settings_are_those_of_the_recording(tmp_path: Path) -> None:
    recording = record("rdm6300")
    slow = Recording(msgspec.structs.replace(recording.header, settings={"hold_ms": 5000}), recording.pieces)
    assert ("card", "removed") in recording.events
    assert ("card", "removed") not in play(slow)
    assert json.loads(msgspec.json.encode(slow.header))["settings"] == {"hold_ms": 5000}

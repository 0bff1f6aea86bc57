"""Recording and replaying a wire: what a driver made of its device then, it makes of the recording now."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from optima_bridge import playback, registry
from optima_bridge.errors import LinkTimeout, UsageError
from optima_bridge.link import memory_pair
from optima_bridge.link.tap import SCHEMA, Piece, Wire
from optima_bridge.model import Event
from optima_bridge.playback import Header, Recording
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.loopback.simulator import LoopbackSimulator
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


def test_settings_that_the_driver_does_not_know_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not take the recorded settings"):
        play(playback.read(write(tmp_path, settings={"speed": 1})))


def test_settings_are_those_of_the_recording(tmp_path: Path) -> None:
    recording = record("rdm6300")
    slow = Recording(msgspec.structs.replace(recording.header, settings={"hold_ms": 5000}), recording.pieces)
    assert ("card", "removed") in recording.events
    assert ("card", "removed") not in play(slow)
    assert json.loads(msgspec.json.encode(slow.header))["settings"] == {"hold_ms": 5000}

"""A trace of each model profile, byte by byte: what the drivers make of it, and exactly when."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from optima_bridge import registry
from optima_bridge.errors import LinkLost
from optima_bridge.link import MemoryPeer, RecordPeer, memory_pair, memory_records
from optima_bridge.model import Data, Event, Observation, Subject
from optima_bridge.wire.evdev import RECORD_BYTES
from optima_drivers.keylock.profiles import REPORTED, TEXT, TYPED
from tests.virtual_time import run, virtual_loop

TRACES = sorted((Path(__file__).parents[1] / "captures").glob("keylock-*.toml"))
PLUG_IS_PULLED_MS = 250  # after the last record


def load(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


def ends(capture: dict[str, Any]) -> tuple[Any, MemoryPeer | RecordPeer]:
    clock_ns = virtual_loop().clock_ns
    if capture["driver"] == "keylock-serial":
        return memory_pair(clock_ns=clock_ns)
    return memory_records(descriptor=bytes.fromhex(capture.get("descriptor", "")), clock_ns=clock_ns)


def play(capture: dict[str, Any]) -> list[tuple[float, Data]]:
    """Milliseconds and state of everything that the driver says."""

    async def main() -> list[tuple[float, Data]]:
        loop = virtual_loop()
        link, peer = ends(capture)
        records = capture["trace"]["records"]
        for at_ms, record in records:
            loop.call_at(at_ms / 1000, peer.feed, bytes.fromhex(record))
        loop.call_at((records[-1][0] + PLUG_IS_PULLED_MS) / 1000, peer.unplug)
        driver_class = registry.load(capture["driver"])
        driver = driver_class(link, driver_class.Settings(**settings(capture)))
        await driver.start()
        said = [as_written(news, loop.time()) async for news in until_lost(driver.events())]
        await driver.stop()
        return said

    return run(main())


async def until_lost(events: AsyncIterator[Event | Observation]) -> AsyncIterator[Event | Observation]:
    with contextlib.suppress(LinkLost):
        async for news in events:
            yield news


def as_written(news: Event | Observation, now_s: float) -> tuple[float, Data]:
    assert news.subject is Subject.KEYLOCK
    if isinstance(news, Observation):
        return round(now_s * 1000), {**news.state, "found": True}
    assert (news.action, news.data, news.identifier) == ("turned", news.state, None)
    return news.mono_ns / 1e6, news.data


def settings(capture: dict[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = capture["settings"]
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_trace_means_what_stands_beside_it(path: Path) -> None:
    capture = load(path)
    if capture["driver"] == "keylock-typed" and RECORD_BYTES != 24:
        pytest.skip("the trace is of a 64-bit PC")
    assert play(capture) == [(at_ms, state) for at_ms, state in capture["trace"]["events"]]


def test_every_profile_has_its_trace() -> None:
    traced = {(capture["driver"], capture["settings"]["profile"]) for capture in map(load, TRACES)}
    profiles = [("keylock-typed", TYPED), ("keylock-hid", REPORTED), ("keylock-serial", TEXT)]
    assert traced == {(driver, name) for driver, known in profiles for name in (*known, "generic")}

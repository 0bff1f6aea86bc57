"""The live stream: state, past and present without a gap or a double; and bounds for clients that do not read."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optima_bridge.api import ndjson, since, stream
from optima_bridge.api.since import position_since
from optima_bridge.errors import UsageError
from optima_bridge.journal import Journal
from optima_bridge.model import Record
from tests.unit.api_store import KEY, Store, Stream


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store() as store:
        yield store


async def test_a_stream_begins_with_what_is_and_goes_on_with_what_happens(store: Store) -> None:
    client = await store.stream()
    snapshot = await client.next()
    assert (snapshot["type"], snapshot["devices"][0]["name"]) == ("snapshot", "front")
    store.simulator.key_in(KEY)
    event = await client.next()
    assert (event["type"], event["event"]["type"]) == ("event", "com.optima.key.inserted.v1")
    assert event["event"]["seq"] == snapshot["seq"] + 1
    client.close()


async def test_past_and_present_join_without_a_gap_or_a_double(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "PAGE_RECORDS", 7)
    before = store.service.journal.head[1]
    store.record(50)

    async def go_on() -> None:
        for _ in range(300):
            store.record()
            await asyncio.sleep(0)

    recording = asyncio.create_task(go_on())
    clients = [await store.stream("since=0&snapshot=0") for _ in range(8)]
    expected = list(range(1, before + 351))
    assert [await client.seqs(len(expected)) for client in clients] == [expected] * 8
    await recording
    for client in clients:
        client.close()


async def test_a_client_goes_on_behind_the_last_event_it_has(store: Store) -> None:
    store.record(5)
    epoch, last = store.service.journal.head
    client = await store.stream(f"since={epoch}:{last - 2}&snapshot=0")
    assert await client.seqs(2) == [last - 1, last]
    client.close()


async def test_an_age_brings_what_is_not_older(store: Store) -> None:
    store.record(3)
    client = await store.stream("since=1h&snapshot=0")
    last = store.service.journal.head[1]
    assert await client.seqs(last) == list(range(1, last + 1))
    client.close()


async def test_only_the_wanted_types_and_devices_come(store: Store) -> None:
    keys = await store.stream("types=key,card&snapshot=0&since=0")
    bridge = await store.stream("devices=bridge&snapshot=0&since=0")
    store.record()
    store.simulator.key_in(KEY)
    assert (await keys.next())["event"]["type"] == "com.optima.key.inserted.v1"
    assert (await bridge.next())["event"]["type"] == "com.optima.status.started.v1"
    keys.close()
    bridge.close()


async def test_a_client_that_does_not_read_is_dropped_with_a_last_word(store: Store) -> None:
    client = await store.stream("snapshot=0")
    store.record(1)
    first = (await client.seqs(1))[0]
    for _ in range(60):  # far more than sockets and queue hold
        store.record(200)
        await asyncio.sleep(0)
    records: list[dict[str, Any]] = []
    while not records or records[-1]["type"] == "event":
        records.append(await client.next())
    *events, result = records
    assert [record["event"]["seq"] for record in events] == list(range(first + 1, first + 1 + len(events)))
    assert len(events) < 12_000
    assert (result["ok"], result["rc"], result["error"]["code"]) == (False, 7, "E-TIMEOUT")
    client.close()


async def test_a_client_that_never_reads_again_is_cut_off(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ndjson, "WRITE_TIMEOUT_S", 0.1)
    client = await store.stream("snapshot=0")
    assert len(store.service.hub.listeners) == 1
    for _ in range(60):
        store.record(200)
        await asyncio.sleep(0)
    async with asyncio.timeout(20):
        while store.service.hub.listeners:  # noqa: ASYNC110 - its end makes no event
            await asyncio.sleep(0.01)
    client.close()


async def test_there_are_so_many_places_and_whoever_leaves_makes_room(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_STREAMS", 3)
    clients = [await store.stream() for _ in range(3)]
    status, document = await store.ask("GET", "/v1/events")
    assert (status, document["code"]) == (503, "E-BUSY")
    clients.pop().close()
    async with asyncio.timeout(20):
        while len(store.service.hub.listeners) > 2:  # noqa: ASYNC110 - a client that has gone makes no event
            await asyncio.sleep(0.01)
    clients.append(await store.stream())
    assert clients[-1].status == 200
    for client in clients:
        client.close()


async def test_clients_that_go_away_leave_nothing_and_raise_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        client: Stream = await store.stream()
        store.record(20)
        client.writer.transport.abort()
    async with asyncio.timeout(20):
        while store.service.hub.listeners:
            store.record()
            await asyncio.sleep(0.01)
    assert [line.getMessage() for line in caplog.records if line.levelname in ("WARNING", "ERROR")] == []


async def test_the_end_of_the_daemon_is_said(store: Store) -> None:
    clients = [await store.stream() for _ in range(3)]
    for client in clients:
        await client.next()
    await store.stop()
    results = [await client.next() for client in clients]
    assert [(result["type"], result["ok"], result["error"]["code"]) for result in results] == [
        ("result", False, "E-NO-DAEMON")
    ] * 3
    for client in clients:
        client.close()


async def test_a_position_is_a_sequence_number_with_or_without_epoch(store: Store) -> None:
    journal = store.service.journal
    assert await position_since("7:12", journal, 0) == (7, 12)
    assert await position_since("12", journal, 0) == (journal.epoch, 12)
    for text in ("", "1:", ":1", "-1", "10x", "1 0", "10m ", "٣"):
        with pytest.raises(UsageError):
            await position_since(text, journal, 0)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.lists(st.integers(0, 50), min_size=1, max_size=6), min_size=1, max_size=4), st.integers(-1, 60))
def test_an_age_finds_the_same_place_as_a_walk_through_the_journal(epochs: list[list[int]], begin_s: int) -> None:
    """Epochs of records at growing seconds; `begin_s` is where the age points."""
    import tempfile

    times = iter(sorted(second for epoch in epochs for second in epoch))
    records: list[Record] = []

    async def run(directory: Path) -> None:
        for epoch in epochs:
            journal = Journal.open(directory, wall_ns=lambda: 0)
            journal.attach(asyncio.get_running_loop(), lambda _: None, lambda _: None)
            for _ in epoch:
                records.append(Record(journal.epoch, journal.next_seq(), next(times) * 10**9, "a/b", b"{}"))
                journal.append(records[-1])
            if epoch is epochs[-1]:
                now_s = 100
                after = await position_since(f"{now_s - begin_s}s", journal, now_s * 10**9)
                wanted = [record for record in records if record.wall_ns >= begin_s * 10**9]
                assert await journal.read(after, 1000) == wanted
            await journal.close(10)

    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(run(Path(directory)))


def test_bisection_needs_few_reads() -> None:
    asked = 0

    async def holds(number: int) -> bool:
        nonlocal asked
        asked += 1
        return number <= 12345

    assert asyncio.run(since._last(holds, since.LAST_SEQ)) == 12345
    assert asked <= 51

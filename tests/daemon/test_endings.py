"""However the daemon ends, nothing that was on its way to the disk before is lost, and the broker knows how it ended."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from optima_drivers.loopback.simulator import LoopbackSimulator
from tests.daemon.store import Daemon, destroy, plugged, running
from tests.support import TIMEOUT_S, Mosquitto, Subscriber, subscribed, until

ROUNDS = 12
BURST = 20
BRIDGE_STATUS = "state/bridge/status"


class Cards:
    """Shows cards that are numbered, and never the same one twice."""

    def __init__(self, simulator: LoopbackSimulator) -> None:
        self._simulator = simulator
        self.shown: list[str] = []

    def show(self, count: int = 1) -> list[str]:
        numbers = [f"{len(self.shown) + offset:010X}" for offset in range(count)]
        for number in numbers:
            self._simulator.card(number)
        self.shown += numbers
        return numbers

    async def stream(self) -> None:
        """Cards without an end."""
        while True:
            self.show()
            await asyncio.sleep(0.001)


@pytest.fixture
async def cards(tmp_path: Path) -> AsyncIterator[Cards]:
    async with plugged(tmp_path / "front") as (simulator, _):
        yield Cards(simulator)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    """Without a broker."""
    daemon = Daemon(tmp_path / "node", devices={"front": tmp_path / "front"})
    yield daemon
    destroy(daemon)


@pytest.fixture
def published(tmp_path: Path, mosquitto: Mosquitto) -> Iterator[Daemon]:
    """With one."""
    daemon = Daemon(tmp_path / "published", port=mosquitto.port, devices={"front": tmp_path / "front"})
    yield daemon
    destroy(daemon)


async def until_committed(daemon: Daemon, shown: set[str]) -> None:
    await until(lambda: shown <= set(numbers(daemon.committed("evt/front/card"))))


def numbers(payloads: list[dict[str, Any]]) -> list[str]:
    return [payload["data"]["card_id"] for payload in payloads]


@pytest.mark.broker
async def test_kill_9_loses_nothing_that_is_older_than_the_commit_in_flight(
    mosquitto: Mosquitto, published: Daemon, cards: Cards
) -> None:
    rng = random.Random(1)
    mosquitto.start()
    safe: set[str] = set()
    late: list[list[str]] = []
    async with subscribed(mosquitto.port) as seen:
        for number in range(ROUNDS):
            if number % 4 == 2:
                mosquitto.stop()
            elif number % 4 == 0 and number:
                mosquitto.start()
            await published.start()
            await published.logged("link.opened")
            safe |= set(cards.show(BURST))
            await until_committed(published, safe)
            first_late = len(cards.shown)
            streaming = asyncio.create_task(cards.stream())
            await asyncio.sleep(rng.random() * 0.05)
            await published.kill()
            streaming.cancel()
            late.append(cards.shown[first_late:])
        if mosquitto.is_running:
            mosquitto.stop()
        mosquitto.start()
        async with running(published):
            await published.logged("link.opened")
            last = cards.show()
            await seen.until(lambda: set(last) <= set(numbers(seen.payloads("evt/front/card"))))
    arrived = numbers(first_arrivals(seen))
    assert safe <= set(arrived)
    assert len(arrived) == len(set(arrived)), "no event got two ids"
    for shown in late:
        came = [number for number in shown if number in set(arrived)]
        assert came == shown[: len(came)], "what is lost is the end, without holes"
    assert_numbered(seen)


def first_arrivals(seen: Subscriber, part: str = "evt/front/card") -> list[dict[str, Any]]:
    """What a consumer that drops repeated ids is left with."""
    return list({payload["id"]: payload for payload in seen.payloads(part)}.values())


def assert_numbered(seen: Subscriber) -> None:
    """No (epoch, seq) has two ids, and in each epoch none is missing below the last."""
    ids: dict[tuple[int, int], set[str]] = {}
    for payload in seen.payloads("evt/"):
        ids.setdefault((payload["epoch"], payload["seq"]), set()).add(payload["id"])
    assert {len(same) for same in ids.values()} == {1}
    for epoch in {epoch for epoch, _ in ids}:
        seqs = sorted(seq for one, seq in ids if one == epoch)
        assert seqs == list(range(1, len(seqs) + 1))


@pytest.mark.broker
async def test_after_kill_9_the_will_says_lost_and_the_next_start_says_online_and_unknown(
    mosquitto: Mosquitto, published: Daemon, tmp_path: Path
) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen:
        async with plugged(tmp_path / "front") as (simulator, _):
            await published.start()
            simulator.key_in("01B7BA1000000075")
            await seen.until(lambda: presence(seen)[-1:] == ["present"])
            await seen.until(lambda: status(seen) == "online")
            online = seen.payloads(BRIDGE_STATUS)[-1]
            await published.kill()
            await seen.until(lambda: status(seen) == "lost")
            lost = seen.payloads(BRIDGE_STATUS)[-1]
            assert (lost["epoch"], lost["data"]["conn"]) == (online["epoch"], online["data"]["conn"])
        async with running(published):  # the reader is gone meanwhile
            await seen.until(lambda: presence(seen)[-1] == "unknown")
            await seen.until(lambda: status(seen) == "online")
            online_again = seen.payloads(BRIDGE_STATUS)[-1]
            assert (online_again["epoch"], online_again["data"]["conn"]) > (lost["epoch"], lost["data"]["conn"])
            await seen.until(lambda: seen.payloads("evt/bridge/status")[-1]["epoch"] > online["epoch"])
            started = seen.payloads("evt/bridge/status")[-1]["data"]
            assert started["previous"]["epoch"] == online["epoch"]


def status(seen: Subscriber) -> str:
    """What the bridge's own state topic says."""
    told = seen.payloads(BRIDGE_STATUS)
    return told[-1]["data"]["status"] if told else ""


def presence(seen: Subscriber) -> list[str]:
    """What the state topic of the key says, each change once."""
    told = [p["data"]["presence"] for p in seen.payloads("state/front/") if p["type"] == "com.optima.key.state.v1"]
    return [word for word, _ in groupby(told)]


@pytest.mark.broker
@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM] * 2, [signal.SIGINT]])
async def test_an_orderly_end_loses_nothing_that_was_written_before_it(
    signals: list[signal.Signals], mosquitto: Mosquitto, published: Daemon, cards: Cards
) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen:
        await published.start()
        await published.logged("link.opened")
        streaming = asyncio.create_task(cards.stream())
        await seen.until(lambda: len(seen.payloads("evt/front/card")) > 50)  # it is connected, and in full stream
        assert published.process is not None
        before, asked_s = len(cards.shown), time.monotonic()
        for number in signals:
            published.process.send_signal(number)
        assert await published.ended() == 0
        assert time.monotonic() - asked_s < 10, "2 s where nothing else runs"
        streaming.cancel()
        assert set(cards.shown[:before]) <= set(numbers(published.committed("evt/front/card")))
        await seen.until(lambda: status(seen) == "stopped")
        async with running(published):  # on a busy machine the end is too short for the broker to have everything
            await seen.until(lambda: set(cards.shown[:before]) <= set(numbers(seen.payloads("evt/front/card"))))
    assert_numbered(seen)
    assert published.committed("evt/bridge/status")[-1]["data"]["action"] == "stopped"
    assert_ended_well(published)


def assert_ended_well(daemon: Daemon) -> None:
    assert daemon.entries()[-1]["event"] == "service.stopped"
    assert "Traceback" not in daemon.log_file.read_text()


async def test_a_broker_that_swallows_everything_does_not_hold_up_the_end(tmp_path: Path, cards: Cards) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        daemon = Daemon(tmp_path / "node", port=silent.getsockname()[1], devices={"front": tmp_path / "front"})
        async with running(daemon):
            await daemon.logged("link.opened")
            shown = cards.show(BURST)
            asked_s = time.monotonic()
        assert time.monotonic() - asked_s < 10, "2 s where nothing else runs"
    assert numbers(daemon.committed("evt/front/card")) == shown
    assert_ended_well(daemon)


async def test_sigterm_at_any_moment_of_the_start_ends_it_quietly(daemon: Daemon) -> None:
    began_s = time.monotonic()
    await daemon.start()
    start_s = time.monotonic() - began_s
    await daemon.kill()
    for part in range(1, 10):
        process = daemon.launch()
        await asyncio.sleep(start_s * part / 8)
        process.terminate()
        assert await daemon.ended() in (0, -signal.SIGTERM), daemon.log_file.read_text()
        assert "Traceback" not in daemon.log_file.read_text()
    await daemon.start()  # and nothing was left that hinders the next one
    assert await daemon.stop() == 0
    assert_ended_well(daemon)


async def test_who_watches_is_told_that_the_daemon_was_killed(tmp_path: Path, cards: Cards) -> None:
    daemon = Daemon(tmp_path / "watched", devices={"front": tmp_path / "front"}, api=True)
    watching = [["monitor", "--count", "2", "--json"], ["record", "front", "-o", str(tmp_path / "recording")]]
    try:
        await daemon.start()
        clients = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "optima_bridge.cli", "--socket", str(daemon.directory / "api.sock"), *words),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
            for words in watching
        ]
        async with asyncio.timeout(TIMEOUT_S):
            for client, first_word in zip(clients, (clients[0].stdout, clients[1].stderr), strict=True):
                assert first_word is not None
                assert await first_word.readline(), client
            await daemon.kill()
            answers = [await client.communicate() for client in clients]
    finally:
        destroy(daemon)
    assert [client.returncode for client in clients] == [8, 8]
    assert json.loads(answers[0][0].splitlines()[-1])["error"]["code"] == "E-NO-DAEMON"
    assert b"the stream of events broke off" in answers[1][1]

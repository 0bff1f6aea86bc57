"""Birth, will and last word of the real program at a real mosquitto: how it ends is what subscribers read."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import Mosquitto, Subscriber, subscribed

pytestmark = pytest.mark.broker

BRIDGE = Path(sys.executable).with_name("bridge")


@asynccontextmanager
async def bridge(directory: Path, port: int, mqtt: str = "") -> AsyncIterator[asyncio.subprocess.Process]:
    """`bridge run` as a program of its own; killed at the end of the block if it still runs."""
    file = directory / "config.toml"
    file.write_text(
        f'[store]\nsite = "s1"\nnode = "pc1"\n[mqtt]\nport = {port}\n{mqtt}\n'
        f'[journal]\ndirectory = "{directory}/state"\n[api]\nenabled = false\n'
    )
    process = await asyncio.create_subprocess_exec(BRIDGE, "run", "--config", file)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def statuses(seen: Subscriber) -> list[dict[str, Any]]:
    return seen.payloads("state/bridge/status")


def said(seen: Subscriber) -> list[str]:
    """The daemon's status in order of arrival, repetitions left out."""
    words = [payload["data"]["status"] for payload in statuses(seen)]
    return [word for word, before in zip(words, ["", *words], strict=False) if word != before]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_a_killed_daemon_is_lost_with_the_connection_and_epoch_of_that_life(
    mosquitto: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    mosquitto.start()
    settings = f'protocol = "{protocol}"'
    async with subscribed(mosquitto.port) as seen, bridge(tmp_path, mosquitto.port, settings) as process:
        await seen.until(lambda: said(seen) == ["online"])
        process.kill()
        await seen.until(lambda: said(seen) == ["online", "lost"])
    birth, will = statuses(seen)[0], statuses(seen)[-1]
    assert (will["epoch"], will["boot"], will["data"]["conn"]) == (birth["epoch"], birth["boot"], 1)


@pytest.mark.slow
async def test_after_a_quick_restart_nobody_hears_of_a_loss(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen, bridge(tmp_path, mosquitto.port) as process:
        await seen.until(lambda: said(seen) == ["online"])
        process.kill()
        await process.wait()
        async with bridge(tmp_path, mosquitto.port):
            await seen.until(lambda: len({payload["epoch"] for payload in statuses(seen)}) == 2)
            # a will that is still to come would come before this one, which starts later and waits as long
            async with later_will(mosquitto.port):
                await seen.until(lambda: bool(seen.payloads("later/will")))
            assert said(seen) == ["online"]


@asynccontextmanager
async def later_will(port: int) -> AsyncIterator[None]:
    """A client of another make that dies with the same will delay."""
    marker = ("mosquitto_pub", "-p", str(port), "-t", "marker", "-r", "-m", "x")
    assert await (await asyncio.create_subprocess_exec(*marker)).wait() == 0
    process = await asyncio.create_subprocess_exec(
        "mosquitto_sub", "-V", "5", "-p", str(port), "-t", "marker", "-i", "later", "-c", "-x", "60",
        "--will-topic", "optima/later/will", "--will-payload", '{"x":1}', "-D", "will", "will-delay-interval", "3",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    async with asyncio.timeout(10):
        assert await process.stdout.readline() == b"x\n"
    process.kill()
    await process.wait()
    yield


@pytest.mark.slow
async def test_a_daemon_that_is_stopped_says_so_and_leaves_no_will(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen:
        async with bridge(tmp_path, mosquitto.port) as process:
            await seen.until(lambda: said(seen) == ["online"])
            process.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        async with later_will(mosquitto.port):
            await seen.until(lambda: bool(seen.payloads("later/will")))
    assert said(seen) == ["online", "stopped"]


async def test_each_connection_of_a_life_has_its_own_number(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen, bridge(tmp_path, mosquitto.port):
        await seen.until(lambda: said(seen) == ["online"])
        mosquitto.stop()
        mosquitto.start()
        await seen.until(lambda: any(payload["data"]["conn"] == 2 for payload in statuses(seen)))
    assert len({payload["epoch"] for payload in statuses(seen)}) == 1


async def test_a_broker_that_does_not_hear_the_last_word_publishes_the_will(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen, bridge(tmp_path, mosquitto.port) as process:
        await seen.until(lambda: said(seen) == ["online"])
        mosquitto.freeze(True)
        process.terminate()
        async with asyncio.timeout(20):
            assert await process.wait() == 0
        mosquitto.freeze(False)
        # The word lay in the socket when the connection was broken off: it may be read before the end of the connection.
        await seen.until(lambda: said(seen)[-1] in ("stopped", "lost"))
        await seen.until(lambda: said(seen)[-1] == "lost")

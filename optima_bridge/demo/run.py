"""The demo from start to end. The daemon is a process of its own, started like on a store PC: ``bridge run --config FILE``.

Nothing is left behind: the children have process groups of their own and are ended here, in order, whatever happens, and
everything lives in one temporary directory.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import signal
import statistics
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL, Process
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import msgspec

from optima_bridge.demo.broker import Broker, choose, wait_until_up
from optima_bridge.demo.credential import enroll
from optima_bridge.demo.show import Screen
from optima_bridge.demo.store import SimulatedStore, Step
from optima_bridge.errors import BrokerUnavailable, DaemonUnavailable, LinkTimeout

FIRST_EVENT_TIMEOUT_S = 15.0
LAST_EVENT_TIMEOUT_S = 5.0
CHILD_STOP_S = 3.0
SITE, NODE = "demo-store", "till-3"
DECISIONS = {"key": {"inserted", "removed"}, "card": {"inserted", "removed"}, "keylock": {"turned"},
             "seal": {"opened", "closed"}, "controller": {"changed"}, "job": {"ended"}}  # fmt: skip


class Options(msgspec.Struct, frozen=True):
    """What the command line asks for."""

    seconds: float
    seed: int
    broker: str
    keep: bool


class Seen(msgspec.Struct):
    """An event that came over MQTT (or from the control API without a broker)."""

    topic: str
    payload: bytes
    document: dict[str, object]
    received_ns: int

    @property
    def latency_ms(self) -> float:
        """From the bytes that decided it to here."""
        mono = self.document["mono"]
        assert isinstance(mono, int)
        return (self.received_ns - mono) / 1e6

    @property
    def decision(self) -> tuple[str, str] | None:
        """(device, action) where somebody's act was decided; None for link, status and suspicion."""
        name = self.topic.rsplit("/", 1)[-1]
        data = self.document["data"]
        assert isinstance(data, dict)
        action = data.get("action", "")
        return (str(self.document["subject"]), action) if action in DECISIONS.get(name, ()) else None


async def run(options: Options, screen: Screen) -> int:
    """Play the story; returns the exit status: 0 where every step made its event.

    Raises:
        BridgeError: broker or daemon did not come up.
    """
    began = time.monotonic()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        directory = Path(tempfile.mkdtemp(prefix="optima-demo-"))
        if not options.keep:
            stack.callback(shutil.rmtree, directory, ignore_errors=True)
        broker = choose(options.broker, directory)
        if broker is not None and broker.program:
            await stack.enter_async_context(_child(*broker.program))
        enrolling = partial(enroll, directory / "api.sock", directory / "state")
        store = await stack.enter_async_context(SimulatedStore(directory, options.seed, enrolling))
        configuration = directory / "config.toml"
        configuration.write_text(_configuration(directory, broker) + store.configuration(), encoding="utf-8")
        log = directory / "daemon.log"
        daemon = await stack.enter_async_context(
            _child(sys.executable, "-m", "optima_bridge.cli", "run", "--config", str(configuration), log=log)
        )
        screen.fact("broker", f"mqtt://{broker.host}:{broker.port} ({broker.name})" if broker else "none")
        screen.fact("devices", ", ".join(f"{name} ({driver})" for name, (driver, _) in store.devices.items()))
        screen.fact("files", str(directory))
        screen.fact("look", f"bridge --socket {directory}/api.sock status      (or monitor, devices list)")
        if broker:
            screen.fact("subscribe", f"mosquitto_sub -h {broker.host} -p {broker.port} -v -t 'optima/#'")
        events: asyncio.Queue[Seen] = asyncio.Queue()
        source = _from_broker(broker, events) if broker else _from_api(directory / "api.sock", events)
        player = _Player(store.story(options.seconds), events, screen)
        tasks = [asyncio.create_task(source), asyncio.create_task(player.play(began)), asyncio.create_task(daemon.wait()),
                 asyncio.create_task(stop.wait())]  # fmt: skip
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        if tasks[2] in done and not stop.is_set():
            raise DaemonUnavailable(
                "the daemon ended by itself", cause="see its last lines below", next_step=_tail(log), log=str(log)
            )
        for task in done:
            task.result()
        return player.summarise(interrupted=stop.is_set())


class _Player:
    """Does the steps at their times, and counts the events that must come of them."""

    def __init__(self, steps: list[Step], events: asyncio.Queue[Seen], screen: Screen) -> None:
        self._steps = steps
        self._events = events
        self._screen = screen
        self._wanted: Counter[tuple[str, str]] = Counter()
        self._decided: Counter[tuple[str, str]] = Counter()
        self._seen: list[Seen] = []
        self._first_s = 0.0

    @property
    def _missing(self) -> Counter[tuple[str, str]]:
        return self._wanted - self._decided

    async def play(self, began: float) -> None:
        """Play all steps.

        Raises:
            LinkTimeout: not even the first event came.
        """
        try:
            async with asyncio.timeout(FIRST_EVENT_TIMEOUT_S):
                while not self._decided:
                    self._take(await self._events.get())
        except TimeoutError as error:
            raise LinkTimeout(f"no event within {FIRST_EVENT_TIMEOUT_S:.0f} s of the start") from error
        self._first_s = time.monotonic() - began
        start = time.monotonic()
        for step in self._steps:
            await self._take_until(start + step.at_s)
            if step.behind_all:
                await self._catch_up()
            if step.at_s:
                self._screen.step(step.words)
            self._wanted[step.device, step.action] += 1
            if (doing := step.act()) is not None:
                await doing
        await self._catch_up()

    async def _catch_up(self) -> None:
        """Wait until everything that was done has become an event; not for ever."""
        deadline = time.monotonic() + LAST_EVENT_TIMEOUT_S
        while self._missing and time.monotonic() < deadline:
            await self._take_until(time.monotonic() + 0.05)

    async def _take_until(self, when: float) -> None:
        while (left_s := when - time.monotonic()) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s):
                    self._take(await self._events.get())

    def _take(self, seen: Seen) -> None:
        self._seen.append(seen)
        if seen.decision:
            self._decided[seen.decision] += 1
        self._screen.event(seen.topic, seen.payload, seen.document, seen.latency_ms)

    def summarise(self, *, interrupted: bool) -> int:
        """Say what was seen; 0 where nothing is missing and no sequence number was skipped."""
        positions = sorted((int(str(s.document["epoch"])), int(str(s.document["seq"]))) for s in self._seen)
        gaps = sum(after[1] - before[1] != 1 for before, after in itertools.pairwise(positions))
        latencies = sorted(seen.latency_ms for seen in self._seen if seen.decision)
        p50 = statistics.median(latencies) if latencies else 0.0
        p99 = latencies[int(len(latencies) * 0.99)] if latencies else 0.0
        missing = sum(self._missing.values())
        ok = not missing and not gaps
        asked, came = self._wanted.total(), (self._wanted & self._decided).total()
        lines = [
            f"{came} of {asked} acts became events, {len(self._seen)} records in all, {gaps} gaps in the sequence",
            f"first event {self._first_s:.2f} s after the start; driver to subscriber p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            'next: bridge demo --seconds 600, and look around from another terminal; then README, "I run a store PC"',
        ]
        result: dict[str, object] = {
            "ok": ok, "rc": 0 if ok else 1, "error": None, "acts": asked, "events": came, "records": len(self._seen),
            "gaps": gaps, "first_event_s": round(self._first_s, 3), "interrupted": interrupted,
            "decisions": {f"{device} {action}": count for (device, action), count in sorted(self._decided.items())},
            "latency_ms": {"p50": round(p50, 3), "p99": round(p99, 3)},
        }  # fmt: skip
        self._screen.summary(lines, result)
        return 0 if ok or interrupted else 1


@asynccontextmanager
async def _child(*program: str, log: Path | None = None) -> AsyncIterator[Process]:
    """Run a program in a process group of its own (Ctrl-C is ours to handle) and end it, gently first."""
    output = log.open("wb") if log else None
    try:
        process = await asyncio.create_subprocess_exec(
            *program, stdin=DEVNULL, stdout=output or DEVNULL, stderr=output or DEVNULL, process_group=0
        )
    finally:
        if output:
            output.close()
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            try:
                async with asyncio.timeout(CHILD_STOP_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()


async def _from_broker(broker: Broker, events: asyncio.Queue[Seen]) -> None:
    """Every event of the store as a subscriber sees it."""
    import aiomqtt

    await wait_until_up(broker)
    version = aiomqtt.ProtocolVersion.V5 if broker.protocol == "5" else aiomqtt.ProtocolVersion.V311
    try:
        async with aiomqtt.Client(broker.host, broker.port, protocol=version) as client:
            await client.subscribe(f"optima/v1/{SITE}/{NODE}/evt/#", qos=1)
            async for message in client.messages:
                payload = bytes(message.payload) if isinstance(message.payload, bytes | bytearray) else b"{}"
                events.put_nowait(Seen(message.topic.value, payload, json.loads(payload), time.monotonic_ns()))
    except aiomqtt.MqttError as error:
        raise BrokerUnavailable(f"the demo's subscriber lost {broker.host}:{broker.port}: {error}") from error


async def _from_api(socket: Path, events: asyncio.Queue[Seen]) -> None:
    """Every event of the store as the control API streams it, where there is no broker."""
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=1 << 20)
            break
        await asyncio.sleep(0.02)
    try:
        writer.write(b"GET /v1/events?since=0&snapshot=0 HTTP/1.0\r\nHost: localhost\r\n\r\n")
        while line := await reader.readline():
            if not line.startswith(b'{"type":"event"'):
                continue
            record = json.loads(line)
            document = record["event"]
            payload = json.dumps(document, separators=(",", ":")).encode()
            events.put_nowait(Seen(record["topic"], payload, document, time.monotonic_ns()))
    finally:
        writer.close()


def _configuration(directory: Path, broker: Broker | None) -> str:
    mqtt = (
        f'[mqtt]\nhost = "{broker.host}"\nport = {broker.port}\nprotocol = "{broker.protocol}"\n'
        if broker
        else "[mqtt]\nenabled = false\n"
    )
    return (
        f'[store]\nsite = "{SITE}"\nnode = "{NODE}"\n{mqtt}[journal]\ndirectory = "{directory}/state"\n'
        f'[api]\nsocket = "{directory}/api.sock"\n'
    )


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-5:]) or "bridge run --config FILE"

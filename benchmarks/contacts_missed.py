"""What a poll of modem lines sees and costs: python benchmarks/contacts_missed.py

Missed openings: the contacts driver on memory lines in real time, a seal opened for 1 … 20 ms at random moments; the share
that was told, without and with edge counters. Latency: from the moment a line moves to the event, in memory and behind
pyserial's RFC 2217 server (needs the tests' folder, so it runs from a checkout). CPU: of the
threads that ask local ports, whose answer here is made up, for a pty has no lines: what counts is waking up.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from contextlib import aclosing
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from optima_bridge.link import Line, MemoryPeer, Sample, memory_pair, open_link
from optima_bridge.link.lines import PortLines
from optima_bridge.model import Event
from optima_drivers.contacts import ContactsDriver
from optima_drivers.contacts.driver import ContactsSettings
from optima_drivers.contacts.simulator import SwitchSimulator
from tests.terminal_server import TerminalServer

LENGTHS_MS = (1, 2, 3, 5, 7, 10, 12, 15, 20)
OPENINGS = 40  # of each length and device
DEVICES = 5
CPU_S = 10.0
CTS = Line.CTS
STILL = Sample(frozenset(), dict.fromkeys(Line, 0))
SETTINGS = ContactsSettings(seal=CTS, loop_test_s=0)


class StillLines(PortLines):
    """A local port of which nothing changes."""

    def _read(self) -> Sample:
        return STILL


class Watched:
    """A running driver and when it told what."""

    def __init__(self, link: object) -> None:
        self.driver = ContactsDriver(link, SETTINGS)  # type: ignore[arg-type]
        self.told: list[tuple[str, int]] = []

    async def run(self) -> None:
        await self.driver.start()
        async with aclosing(self.driver.events()) as events:
            async for news in events:
                if isinstance(news, Event):
                    self.told.append((news.action, news.mono_ns))


def in_memory(counts_edges: bool) -> tuple[Watched, SwitchSimulator, MemoryPeer]:
    link, peer = memory_pair()
    simulator = SwitchSimulator({CTS})
    peer.counts_edges = counts_edges
    peer.on_outputs = simulator.outputs
    simulator.attach(peer.set_lines)
    return Watched(link), simulator, peer


async def missed(length_ms: float, counts_edges: bool) -> float:
    """The share of openings that were told, of all devices."""

    async def one() -> int:
        watched, simulator, _ = in_memory(counts_edges)
        running = asyncio.create_task(watched.run())
        told = 0
        await asyncio.sleep(0.1)
        for _ in range(OPENINGS):
            await asyncio.sleep(random.uniform(0.02, 0.03))
            watched.told.clear()
            simulator.open(CTS)
            opened_ns = time.monotonic_ns()
            await asyncio.sleep(length_ms / 1000 - 0.0003)
            while time.monotonic_ns() < opened_ns + length_ms * 1e6:
                pass
            simulator.close(CTS)
            await asyncio.sleep(0.02)
            if watched.told:
                told += 1
                while watched.told[-1][0] != "closed":  # noqa: ASYNC110 - a measurement
                    await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait({running})
        return told

    return sum(await asyncio.gather(*(one() for _ in range(DEVICES)))) / (DEVICES * OPENINGS)


async def latencies(watched: Watched, simulator: SwitchSimulator, running: asyncio.Task[None]) -> str:
    """How late openings and closings are told."""
    late_ms: dict[str, list[float]] = {"opened": [], "closed": []}
    await asyncio.sleep(0.3)
    for _ in range(100):
        for action, move in (("opened", simulator.open), ("closed", simulator.close)):
            watched.told.clear()
            moved_ns = time.monotonic_ns()
            move(CTS)
            await asyncio.sleep(random.uniform(0.12, 0.13))
            late_ms[action] += [(at_ns - moved_ns) / 1e6 for told, at_ns in watched.told if told == action][:1]
    running.cancel()
    await asyncio.wait({running})
    return "; ".join(
        f"{action} mean {statistics.mean(late):.1f} ms, max {max(late):.1f} ms ({len(late)})"
        for action, late in late_ms.items()
    )


async def main() -> None:
    print("opening   told by polls of 10 ms   and edge counters")
    for length_ms in LENGTHS_MS:
        polls, edges = await missed(length_ms, False), await missed(length_ms, True)
        print(f"{length_ms:4} ms   {polls:20.0%}   {edges:17.0%}", flush=True)

    watched, simulator, _ = in_memory(True)
    print("in memory:", await latencies(watched, simulator, asyncio.create_task(watched.run())))

    async with TerminalServer(poll_s=0.005) as server:
        simulator = SwitchSimulator({CTS})
        simulator.attach(server.set_lines)
        server.port.on_outputs = simulator.outputs
        link = await open_link(server.url, ContactsDriver.info.serial_format)
        watched = Watched(link)
        print("rfc2217, the server polls each 5 ms:", await latencies(watched, simulator, asyncio.create_task(watched.run())))  # fmt: skip
        link.close()

    for devices in (1, 8):
        ports = [StillLines(sys.stdin.fileno()) for _ in range(devices)]
        began_s = time.process_time()
        await asyncio.gather(*(port.moved(STILL, CPU_S, 0.01) for port in ports))
        print(
            f"{devices} local ports at rest, asked each 10 ms: {(time.process_time() - began_s) / CPU_S:.2%} of a core"
        )


if __name__ == "__main__":
    asyncio.run(main())

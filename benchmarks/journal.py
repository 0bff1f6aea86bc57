"""How fast the journal takes records beside a busy loop: records/s, append → commit times, memory.

    python benchmarks/journal.py [SECONDS] [RECORDS_PER_S]

Prints one line each for: the cost of append; single records one after the other; a steady stream of RECORDS_PER_S (default
16000) of 450 bytes while the loop is kept busy, as it is while it encodes and publishes; the growth of the process.
"""

from __future__ import annotations

import asyncio
import resource
import statistics
import sys
import tempfile
import time
from pathlib import Path

from optima_bridge.journal import Journal
from optima_bridge.model import Record

TOPIC = "optima/v1/store-1/node-1/evt/till-3/key"
PAYLOAD = b'{"pad":"%s"}' % (b"x" * 390)


def make(journal: Journal) -> Record:
    return Record(journal.epoch, journal.next_seq(), time.time_ns(), TOPIC, PAYLOAD)


def say(name: str, times_s: list[float], extra: str = "") -> None:
    cuts = statistics.quantiles(times_s, n=100) if len(times_s) > 1 else times_s * 100
    print(f"{name:28} p50 {cuts[49] * 1e3:7.3f} ms   p99 {cuts[98] * 1e3:7.3f} ms   {extra}")


async def main(seconds: float, rate: int, directory: Path) -> None:
    journal = Journal.open(directory)
    journal.attach(asyncio.get_running_loop(), lambda problem: print("problem:", problem), print)

    singles: list[float] = []
    for _ in range(500):
        start = time.perf_counter()
        journal.append(make(journal))
        await journal.read(journal.head, 1)
        singles.append(time.perf_counter() - start)
    say("one by one", singles, f"{len(singles) / sum(singles):.0f} records/s")

    peak_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(600):
        for _ in range(10):
            journal.append(make(journal))
        await journal.read(journal.head, 1)
    grown_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak_kib
    print(f"{'growth over 6000 records':28} {grown_kib / 1024:.2f} MiB")

    records = [make(journal) for _ in range(5500)]
    start = time.perf_counter()
    for record in records:
        journal.append(record)
    took = time.perf_counter() - start
    await journal.read(journal.head, 1)
    print(f"{'append':28} {took / len(records) * 1e6:.2f} µs")

    waits: list[float] = []

    async def watch() -> None:
        while True:
            start = time.perf_counter()
            await journal.read(journal.head, 1)
            waits.append(time.perf_counter() - start)

    watcher = asyncio.create_task(watch())
    start, sent, cpu_s = time.perf_counter(), 0, time.process_time()
    while (now := time.perf_counter() - start) < seconds:
        while sent < now * rate:
            journal.append(make(journal))
            sent += 1
        busy_until = time.perf_counter() + 0.002
        while time.perf_counter() < busy_until:
            pass  # the loop's other work
        await asyncio.sleep(0)
    left = journal.stats().pending
    await journal.read(journal.head, 1)
    took = time.perf_counter() - start
    watcher.cancel()
    cpu_s = time.process_time() - cpu_s
    say(
        "stream beside a busy loop",
        waits,
        f"{sent / took:.0f} records/s, {left} pending at the end, CPU {cpu_s / took:.0%}",
    )
    await journal.close(10)


if __name__ == "__main__":
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 5.0
    with tempfile.TemporaryDirectory(dir=".") as name:
        asyncio.run(main(seconds, int(sys.argv[2]) if len(sys.argv) > 2 else 16_000, Path(name)))

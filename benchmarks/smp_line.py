"""A certificate over an SMP line at 115200 baud, against the time that its bytes take on the line.

    python benchmarks/smp_line.py [BAUD]

A simulated controller (buffer of 384 bytes, Zephyr's default; no time for its flash) serves a pty in a process of its own and
lets one character of 10 bits pass per character time, each way. Compared is the wall time of a step with the *line time*:
all bytes that pass during it, both ways, frames and base64 included, times 10 bits over the baud rate. Requests and answers
take turns, so a step cannot be faster than that; the goal for stage and verify together is 1.3 times that.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import select
import subprocess
import sys
import time
import tty
from typing import Any

from optima_bridge.link import ByteLink, open_byte_link
from optima_drivers.smp import SmpDriver
from optima_drivers.smp.driver import SmpSettings
from optima_drivers.smp.simulator import SmpSimulator

GOAL = 1.3
REPETITIONS = 5
BITS_PER_CHARACTER = 10
FIFO_BYTES = 16  # of a UART: so many arrive together
CERTIFICATE = random.Random(1).randbytes(2048)


def main() -> None:
    """Measure; the exit status is 1 where the goal is missed."""
    baud = int(sys.argv[1]) if len(sys.argv) > 1 else 115200
    with subprocess.Popen([sys.executable, __file__, "serve", str(baud)], stdout=subprocess.PIPE, text=True) as device:
        assert device.stdout is not None
        try:
            best = asyncio.run(measure(device.stdout.readline().strip(), baud))
        finally:
            device.terminate()
    sys.exit(best > GOAL)


class Counting:
    """A byte link that counts what passes."""

    def __init__(self, link: ByteLink) -> None:
        self._link = link
        self.passed_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

    async def read(self, timeout_s: float | None = None) -> bytes:
        data = await self._link.read(timeout_s)
        self.passed_bytes += len(data)
        return data

    async def write(self, data: bytes) -> None:
        self.passed_bytes += len(data)
        await self._link.write(data)


async def measure(port: str, baud: int) -> float:
    """Best ratio of stage and verify to their line time."""
    link = Counting(await open_byte_link(port, SmpDriver.info.serial_format))
    driver = SmpDriver(link, SmpSettings())
    await driver.start()
    store, best = driver.store, float("inf")
    print(f"{len(CERTIFICATE)} bytes bare: {line_s(len(CERTIFICATE), baud) * 1e3:.0f} ms of line time at {baud} baud")
    for _ in range(REPETITIONS):
        begin_s, begin_bytes = time.perf_counter(), link.passed_bytes
        await store.stage(1, CERTIFICATE, lambda *_: None)
        staged_s, staged_bytes = time.perf_counter() - begin_s, link.passed_bytes - begin_bytes
        assert await store.verify(1) == hashlib.sha256(CERTIFICATE).hexdigest()
        both_s, both_bytes = time.perf_counter() - begin_s, link.passed_bytes - begin_bytes
        best = min(best, both_s / line_s(both_bytes, baud))
        for step, taken_s, passed_bytes in ("stage", staged_s, staged_bytes), ("stage and verify", both_s, both_bytes):
            least_s = line_s(passed_bytes, baud)
            print(
                f"{step:16} {passed_bytes:5} bytes {taken_s * 1e3:6.1f} ms, line {least_s * 1e3:6.1f} ms: {taken_s / least_s:.3f} x"
            )
        await store.erase(1)
    print(f"best of {REPETITIONS}: {best:.3f} x, goal {GOAL} x")
    await driver.stop()
    link.close()
    return best


def line_s(passed_bytes: int, baud: int) -> float:
    return passed_bytes * BITS_PER_CHARACTER / baud


def serve(baud: int) -> None:
    """The controller: takes characters as fast as the line carries them, answers likewise."""
    simulator = SmpSimulator("bench")
    master, slave = os.openpty()
    tty.setraw(slave)
    print(os.ttyname(slave), flush=True)
    free_s = 0.0  # when the line has carried everything
    while True:
        select.select([master], [], [])
        data = os.read(master, 4096)
        free_s = max(free_s, time.monotonic()) + line_s(len(data), baud)
        wait_until(free_s)
        answer = simulator.receive(data)
        for at in range(0, len(answer), FIFO_BYTES):
            burst = answer[at : at + FIFO_BYTES]
            free_s = max(free_s, time.monotonic()) + line_s(len(burst), baud)
            wait_until(free_s)
            os.write(master, burst)


def wait_until(then_s: float) -> None:
    while (left_s := then_s - time.monotonic()) > 0:
        time.sleep(left_s)


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(int(sys.argv[2]))
    main()

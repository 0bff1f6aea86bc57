"""How fast the machine is just now: a shared one varies by a factor of two within minutes, and every figure with it."""

from __future__ import annotations

import statistics
import time

STEPS = 1_000_000
REPETITIONS = 9


def pace() -> str:
    """A line to print beside a figure: the median time of a loop that does nothing else."""
    return (
        f"pace of this machine: a loop of 1 M steps {statistics.median(_loop_ms() for _ in range(REPETITIONS)):.0f} ms"
    )


def _loop_ms() -> float:
    begun, total = time.perf_counter(), 0
    for step in range(STEPS):
        total += step
    return (time.perf_counter() - begun) * 1000


if __name__ == "__main__":
    print(pace())

"""Throughput of each byte codec on good traffic, a line each: python benchmarks/codecs.py [CODEC]

CODEC is a name of the list, or its first word for all of that family.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.codecs import CODECS, Codec, named

FRAMES = 10_000
CHUNK_BYTES = 4096  # what a link returns at most
REPETITIONS = 5


def main(name: str = "") -> None:
    for title, codec in (named(name) if name else CODECS).items():
        frames = [*codec.traffic] * (FRAMES // len(codec.traffic))
        best_s = min(_read_s(codec, frames) for _ in range(REPETITIONS)) / len(frames)
        print(f"{title}: {1 / best_s:,.0f} frames/s, {best_s * 1e6:.1f} µs a frame", flush=True)


def _read_s(codec: Codec, frames: list[bytes]) -> float:
    if codec.make and codec.cut_anywhere:
        stream = b"".join(frames)
        frames = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
    read = codec.make().feed if codec.make else codec.read
    assert read
    begin_s = time.perf_counter()
    for frame in frames:
        read(frame)
    return time.perf_counter() - begin_s


if __name__ == "__main__":
    main(*sys.argv[1:])

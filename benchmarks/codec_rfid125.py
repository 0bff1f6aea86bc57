"""Throughput of the 125 kHz decoder, frames/s, one line: python benchmarks/codec_rfid125.py"""

from __future__ import annotations

import time

from optima_drivers.rfid125.codec import CardFrame, FrameDecoder, encode

FRAMES = 100_000
CHUNK_BYTES = 4096  # what a link returns at most
REPETITIONS = 5


def main() -> None:
    stream = b"".join(encode(f"{number:010X}", cr_lf=True) for number in range(FRAMES))
    chunks = [stream[at : at + CHUNK_BYTES] for at in range(0, len(stream), CHUNK_BYTES)]
    best_s = min(_decode_s(chunks) for _ in range(REPETITIONS))
    print(f"rfid125 decoder: {FRAMES / best_s:,.0f} frames/s, {best_s / FRAMES * 1e6:.2f} µs a frame")


def _decode_s(chunks: list[bytes]) -> float:
    decoder = FrameDecoder()
    begin_s = time.perf_counter()
    good = sum(isinstance(frame, CardFrame) for chunk in chunks for frame in decoder.feed(chunk))
    elapsed_s = time.perf_counter() - begin_s
    assert good == FRAMES
    return elapsed_s


if __name__ == "__main__":
    main()

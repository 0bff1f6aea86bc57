"""The bytes: golden lines, every cut, every flipped bit, and nothing but FrameError out of rubbish."""

from __future__ import annotations

import pickle

import pytest

from optima_bridge.errors import FrameError, FrameTooLong
from optima_drivers._template.codec import MAX_LINE_BYTES, Decoder

GOLDEN = {b"O\n": True, b"C\n": False}


def good(data: bytes) -> list[bool]:
    return [result for result in Decoder().feed(data) if not isinstance(result, FrameError)]


@pytest.mark.parametrize(("line", "is_open"), GOLDEN.items())
def test_a_golden_line_says_what_the_document_says(line: bytes, is_open: bool) -> None:
    assert Decoder().feed(line) == [is_open]


def test_a_stream_may_be_cut_anywhere() -> None:
    stream = b"".join(GOLDEN)
    for cut in range(len(stream) + 1):
        decoder = Decoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == [True, False]


@pytest.mark.parametrize("line", GOLDEN)
def test_no_flipped_bit_makes_another_message(line: bytes) -> None:
    for bit in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        assert good(bytes(flipped)) == []


def test_a_line_that_never_ends_is_not_kept() -> None:
    decoder = Decoder()
    assert decoder.feed(b"O" * 1_000_000) == []
    assert len(pickle.dumps(decoder)) < 1000  # all that it holds, whatever its names
    [error] = decoder.feed(b"\n")
    assert isinstance(error, FrameTooLong)
    assert len(error.what) < 200
    assert MAX_LINE_BYTES < 100

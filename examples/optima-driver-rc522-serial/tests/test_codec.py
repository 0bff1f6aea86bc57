"""The lines: golden ones, every cut, every flipped bit, and nothing but FrameError out of rubbish."""

from __future__ import annotations

import pickle
import random

import pytest

from optima_bridge.errors import FrameError, FrameTooLong
from optima_driver_rc522_serial.codec import MAX_LINE_BYTES, Decoder, Identity, Look, Message, encode

GOLDEN: dict[bytes, Message] = {
    b"$CARD*14\r\n": Look(frozenset()),
    b"$CARD,04A3B2C1*4C\r\n": Look(frozenset({"04A3B2C1"})),
    b"$CARD,04A3B2C1,77F00A12*64\r\n": Look(frozenset({"04A3B2C1", "77F00A12"})),
    b"$ID,rc522-serial,1.0*2B\r\n": Identity("rc522-serial", "1.0"),
}


def kinds(data: bytes) -> list[str]:
    return [result.kind for result in Decoder().feed(data) if isinstance(result, FrameError)]


@pytest.mark.parametrize(("line", "message"), GOLDEN.items())
def test_a_golden_line_says_what_the_document_says(line: bytes, message: Message) -> None:
    assert Decoder().feed(line) == [message]


def test_lines_are_encoded_as_the_document_shows_them() -> None:
    made = [
        encode("CARD"),
        encode("CARD", "04A3B2C1"),
        encode("CARD", "04A3B2C1", "77F00A12"),
        encode("ID", "rc522-serial", "1.0"),
    ]
    assert made == list(GOLDEN)


def test_a_stream_may_be_cut_anywhere() -> None:
    stream = b"".join(GOLDEN)
    for cut in range(len(stream) + 1):
        decoder = Decoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == list(GOLDEN.values())


@pytest.mark.parametrize(("line", "message"), GOLDEN.items())
def test_no_flipped_bit_makes_another_message(line: bytes, message: Message) -> None:
    for bit in range(8 * len(line)):
        flipped = bytearray(line)
        flipped[bit // 8] ^= 1 << bit % 8
        for result in Decoder().feed(bytes(flipped) + b"\n"):
            assert isinstance(result, FrameError) or result == message


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b"$CARD*51\n", "checksum"),
        (b"CARD*14\n", "characters"),
        (encode("CARD", "04a3b2c1"), "fields"),
        (encode("CARD", "04A3"), "fields"),
        (encode("ID", "rc522-serial"), "fields"),
        (encode("GPGGA", "1"), "fields"),
    ],
)
def test_a_bad_line_says_how_it_is_bad(line: bytes, kind: str) -> None:
    assert kinds(line) == [kind]


def test_a_line_that_never_ends_is_not_kept() -> None:
    decoder = Decoder()
    assert decoder.feed(b"$" * 1_000_000) == []
    assert len(pickle.dumps(decoder)) < 1000  # all that it holds, whatever its names
    [error] = decoder.feed(b"\n")
    assert isinstance(error, FrameTooLong)
    assert MAX_LINE_BYTES < 100


def test_rubbish_never_raises() -> None:
    noise = random.Random(1)
    decoder = Decoder()
    for _ in range(200):
        assert all(isinstance(result, FrameError) for result in decoder.feed(noise.randbytes(64)))

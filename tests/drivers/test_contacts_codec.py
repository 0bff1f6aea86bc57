"""rinCMD and TCR: vectors both ways, every cut, every flipped bit, noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import FrameError
from optima_drivers.contacts.dialects import MAX_LINE_BYTES, Answer, Dialect, Rincmd, Tcr

Results = list[Answer | FrameError]


def kinds(results: Results) -> list[object]:
    return [result.kind if isinstance(result, FrameError) else result for result in results]


def test_the_questions_are_those_of_the_manuals() -> None:
    assert Rincmd(1).ask("oiml-calibration") == b"21110012;"
    assert Rincmd(31).ask("serial") == b"3F110005;"
    assert Tcr().ask("trade") == b"TCR?;"


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (b"81110012:0000000A;", Answer("oiml-calibration", 10)),
        (b"81110012:0000000A\r\n", Answer("oiml-calibration", 10)),
        (b"81110005:00ABCDEF;", Answer("serial", 0xABCDEF)),
        (b"81110013:7;", Answer("ntep-calibration", 7)),
        (b"C1110014:C5;", Answer("ntep-configuration", None)),
        (b"82110012:0000000A;", "message"),  # another indicator's
        (b"21110012:0000000A;", "message"),  # a question
        (b"81050012:0000000A;", "message"),  # another command's answer
        (b"81110021:0000000A;", "message"),  # another register
        (b"81110012:;", "characters"),
        (b"81110012:0000000a;", "characters"),
        (b"81110012:123456789;", "characters"),
        (b"ST,GS,   1.234kg\r\n", "characters"),  # a weight, sent unasked
        (b"8" * (MAX_LINE_BYTES + 1) + b";", "overrun"),
    ],
)
def test_a_rincmd_line_is_read(line: bytes, result: object) -> None:
    assert kinds(Rincmd(1).feed(line)) == [result]


@pytest.mark.parametrize(
    ("line", "result"),
    [
        (b"12\r\n", Answer("trade", 12)),
        (b"0000012\r\n", Answer("trade", 12)),
        (b"     65535\r\n", Answer("trade", 65_535)),
        (b"?\r\n", Answer("trade", None)),
        (b"-1\r\n", "characters"),
        (b"1 2\r\n", "characters"),
        (b"123456789\r\n", "characters"),
        ("١٢\r\n".encode(), "characters"),
    ],
)
def test_a_tcr_line_is_read(line: bytes, result: object) -> None:
    assert kinds(Tcr().feed(line)) == [result]


STREAM = b"81110012:0000000A;\r\nnoise\r\n" + b"x" * 100 + b"\r\n81110013:00000001\r\n7\r\n"


@pytest.mark.parametrize("dialect", [lambda: Rincmd(1), Tcr])
def test_how_the_bytes_are_cut_makes_no_difference(dialect: type[Tcr]) -> None:
    whole = kinds(dialect().feed(STREAM))
    for cut in range(len(STREAM)):
        decoder: Dialect = dialect()
        assert kinds(decoder.feed(STREAM[:cut]) + decoder.feed(STREAM[cut:])) == whole


@given(st.binary(max_size=300))
def test_whatever_comes_only_frame_errors_and_answers_come_out(noise: bytes) -> None:
    for decoder in (Rincmd(1), Tcr()):
        for result in decoder.feed(noise):
            assert isinstance(result, Answer | FrameError)
        assert len(decoder._line) <= MAX_LINE_BYTES + 1


def test_a_flipped_bit_can_make_another_number_so_that_one_answer_is_not_enough() -> None:
    """There is no check: some flips of this answer read as another value, register or refusal."""
    good = b"81110012:0000000A;"
    passed = 0
    for place in range(len(good)):
        for bit in range(8):
            flipped = good[:place] + bytes([good[place] ^ 1 << bit]) + good[place + 1 :]
            passed += any(isinstance(result, Answer) for result in Rincmd(1).feed(flipped))
    assert (passed, 8 * len(good)) == (31, 144)

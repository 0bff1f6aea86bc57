"""SMP frames and messages against vectors, every cut, every flipped bit, and what no device would send."""

from __future__ import annotations

import binascii
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optima_bridge.errors import FrameError
from optima_drivers.smp import message
from optima_drivers.smp.commands import Downloaded, Hashed
from optima_drivers.smp.framing import MAX_FRAME_BYTES, MAX_LINE_BYTES, Decoder, encode
from optima_drivers.smp.message import Message, Op, Refusal, parse, read

unhurried = settings(deadline=None)  # a busy machine is no failure
PARAMETERS = bytes.fromhex("06 09 41 41 73 49 41 41 41 42 41 41 41 41 42 71 42 7a 45 77 3d 3d 0a")
ASKED = Message(Op.READ, 0, 6, 0, {})
"""The question of the transport specification's example."""
SHORT = b"\x0a\x00\x00\x01\x00\x00\x2a\x00\xa0"
LONG = bytes(range(256))
TEXT = b"[00:00:01.234] <inf> main: ready\r\n"
STREAM = (
    TEXT + encode(SHORT) + b"uart:~$ " + encode(LONG) + b"\x04\x14AAAA\n" + b"\x06\x09A*==\n" + TEXT + encode(SHORT)
)
STREAM_RESULTS = [SHORT, LONG, "order", "characters", SHORT]


def results(*chunks: bytes) -> list[bytes | str]:
    """What a fresh decoder makes of the chunks: messages, and kinds of errors."""
    decoder = Decoder()
    found = [one for chunk in chunks for one in decoder.feed(chunk)]
    return [one.kind if isinstance(one, FrameError) else one for one in found]


def framed(raw: bytes) -> bytes:
    """One line, whatever is in it."""
    return b"\x06\x09" + binascii.b2a_base64(raw)


def test_the_example_is_read_and_written() -> None:
    assert encode(message.encode(ASKED)) == PARAMETERS
    [frame] = Decoder().feed(PARAMETERS)
    assert isinstance(frame, bytes)
    assert parse(frame) == ASKED


def test_a_long_message_has_lines_of_127_bytes_at_most() -> None:
    first, second, third = encode(LONG).splitlines(keepends=True)
    assert [len(first), len(second), len(third) <= 127] == [127, 127, True]
    assert (first[:2], second[:2], third[:2]) == (b"\x06\x09", b"\x04\x14", b"\x04\x14")


def test_the_stream_gives_its_results_in_order_wherever_it_is_cut() -> None:
    assert results(STREAM) == STREAM_RESULTS
    assert results(*(bytes([byte]) for byte in STREAM)) == STREAM_RESULTS
    for first, second in combinations(range(0, len(STREAM) + 1, 5), 2):
        assert results(STREAM[:first], STREAM[first:second], STREAM[second:]) == STREAM_RESULTS


@pytest.mark.parametrize("one", [SHORT, LONG])
def test_no_single_flipped_bit_makes_another_message_nor_harms_the_next(one: bytes) -> None:
    frame = encode(one)
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        found = results(bytes(damaged) + TEXT + encode(SHORT))
        assert found[-1] == SHORT
        assert set(found[:-1]) <= {one, "length", "order", "characters", "checksum", "overrun"}


def test_a_frame_without_its_end_gives_way_to_the_next() -> None:
    frame = encode(LONG)
    for cut in range(len(frame)):
        found = results(frame[:cut] + b"\n" + encode(SHORT))
        assert found[-1] == SHORT
        assert found[:-1] in ([], ["length"], ["characters"], ["length", "characters"], [LONG]), cut


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"\x00\x02\x00\x00", b""),
        (b"\x00\x01\x00", "length"),
        (b"\x00\x00", "length"),
        (b"\x00\x02\x00\x00\x00", "length"),
        (b"\x00\x02\x00\x01", "checksum"),
        (b"\xff\xff\x00", "overrun"),
        ((MAX_FRAME_BYTES - 1).to_bytes(2) + b"\x00", "overrun"),
    ],
)
def test_a_size_that_cannot_be_is_refused_at_once(raw: bytes, kind: str | bytes) -> None:
    assert results(framed(raw)) == [kind]


def test_a_flood_is_not_kept() -> None:
    decoder = Decoder()
    for chunk in (b"A" * 4096, b"\x06\x09" * 2048, b"\x04\x14", b"\x06\x09" + b"A" * 10_000):
        for _ in range(64):
            decoder.feed(chunk)
            assert len(decoder._line) <= MAX_LINE_BYTES
            assert len(decoder._raw) <= 2 * MAX_LINE_BYTES
    assert decoder.feed(b"\n" + encode(SHORT))[-1] == SHORT


def test_a_line_that_is_too_long_is_read_the_same_wherever_it_is_cut() -> None:
    line = framed(b"\x0f\xfe" + bytes(8000)) + encode(SHORT)
    assert results(line) == results(*(line[at : at + 100] for at in range(0, len(line), 100))) == [SHORT]


@unhurried
@given(st.lists(st.binary(max_size=300), max_size=4), st.integers(1, 200), st.data())
def test_damaged_streams_give_the_same_in_any_chunks(
    messages: list[bytes], chunk_bytes: int, data: st.DataObject
) -> None:
    stream = bytearray(b"".join(map(encode, messages)))
    for _ in range(data.draw(st.integers(0, 3)) if stream else 0):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    chunks = [bytes(stream[at : at + chunk_bytes]) for at in range(0, len(stream), chunk_bytes)]
    assert results(*chunks) == results(bytes(stream))


@pytest.mark.parametrize("op", list(Op))
@pytest.mark.parametrize("version", [0, 1])
def test_a_message_comes_back_as_it_was(op: Op, version: int) -> None:
    one = Message(op, 0x1234, 7, 255, {"name": "/lfs1/a", "off": 70_000, "data": b"\x00\xff"}, version)
    assert parse(message.encode(one)) == one


def test_maps_of_unknown_length_are_read_as_zephyr_writes_them() -> None:
    body = bytes.fromhex("bf 63 6f 66 66 18 20 ff")
    assert parse(b"\x0b\x00\x00\x08\x00\x08\x01\x00" + body).body == {"off": 32}


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("08 00 00 01 00 00 00", "header"),
        ("0c 00 00 01 00 00 00 06 a0", "header"),
        ("08 00 00 02 00 00 00 06 a0", "header"),
        ("08 00 00 00 00 00 00 06 a0", "header"),
        ("08 00 00 00 00 00 00 06", "body"),
        ("08 00 00 01 00 00 00 06 80", "body"),
        ("08 00 00 01 00 00 00 06 a1", "body"),
        ("08 00 00 05 00 00 00 06 a1 81 01 00 00", "body"),
        ("08 00 00 07 00 00 00 06 a2 61 61 01 61 61 02", "body"),
        ("08 00 00 08 00 00 00 06 a1 61 61 81 81 81 81 80", "body"),
    ],
)
def test_what_is_no_message_is_refused(data: str, kind: str) -> None:
    with pytest.raises(FrameError) as caught:
        parse(bytes.fromhex(data))
    assert caught.value.kind == kind


@unhurried
@given(st.binary(max_size=80))
def test_any_body_is_a_message_or_a_frame_error(body: bytes) -> None:
    expect_only_frame_errors(body)


@unhurried
@given(st.data())
def test_any_damaged_answer_is_read_or_a_frame_error(data: st.DataObject) -> None:
    fields = {"off": 0, "data": bytes(20), "len": 2048, "err": {"group": 8, "rc": 3}}
    body = bytearray(message.encode(Message(Op.READ_REPLY, 8, 0, 1, fields))[8:])
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    expect_only_frame_errors(bytes(body))


def expect_only_frame_errors(body: bytes) -> None:
    for reply in (Downloaded, Hashed):
        try:
            said = read(parse(b"\x09\x00" + len(body).to_bytes(2) + b"\x00\x08\x01\x00" + body).body, reply)
        except FrameError:
            continue
        assert isinstance(said, reply | Refusal)


def test_a_refusal_is_told_in_three_ways() -> None:
    assert read({"err": {"group": 8, "rc": 3}}, Hashed) == Refusal(3, 8)
    assert read({"rc": 8}, Hashed) == Refusal(8)
    assert read({"rc": 0, "len": 2, "output": b"x"}, Hashed) == Hashed(2, b"x")


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"len": 1},
        {"len": "1", "output": b""},
        {"len": 1, "output": "text"},
        {"len": 1 << 32, "output": b""},
        {"rc": "no"},
        {"rc": 10**5000},  # longer than Python prints
        {"err": {"group": 8, "rc": -(10**5000)}},
    ],
)
def test_other_fields_than_the_command_answers_are_refused(body: dict[str, object]) -> None:
    with pytest.raises(FrameError, match="other fields"):
        read(body, Hashed)

"""The 125 kHz frame decoder against the vectors, every cut, every single fault, and the rules written out by hand."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import FrameError
from optima_drivers.rfid125.codec import CardFrame, FrameDecoder, encode

HEX = b"0123456789ABCDEF"
VECTORS = {
    "67003B51C6": "02 36 37 30 30 33 42 35 31 43 36 43 42 03",
    "67003BA86C": "02 36 37 30 30 33 42 41 38 36 43 39 38 03",
    "67003BA867": "02 36 37 30 30 33 42 41 38 36 37 39 33 03",
    "100086F444": "02 31 30 30 30 38 36 46 34 34 34 32 36 03",
    "62E3086CED": "02 36 32 45 33 30 38 36 43 45 44 30 38 03",
    "0C000621A5": "02 30 43 30 30 30 36 32 31 41 35 38 45 03",
}
A = encode("67003B51C6")
ID12LA = bytes.fromhex("02 30 43 30 30 30 36 32 31 41 35 38 45 0D 0A 03")
STREAM = (
    b"\x00\xff67003B51C6CB"
    + A
    + b"\x0267003B51"
    + ID12LA
    + b"\x0268003B51C6CB\x03"
    + b"\x02ZZ003B51C6CB\x03"
    + b"\x0268003B51C6CBDA\x03"
)
STREAM_RESULTS = ["67003B51C6", "0C000621A5", "checksum", "hex", "length"]


def results(*chunks: bytes) -> list[str]:
    """What a fresh decoder makes of the chunks: card numbers and kinds of errors (lower case, so never mixed up)."""
    decoder = FrameDecoder()
    return [_name(found) for chunk in chunks for found in decoder.feed(chunk)]


def _name(found: CardFrame | FrameError) -> str:
    return found.kind if isinstance(found, FrameError) else found.identifier


def by_the_rules(stream: bytes) -> list[str]:
    """The rules of the protocol document, one character after the other."""
    found: list[str] = []
    text: bytes | None = None
    for byte in stream:
        if byte == 2:
            text = b""
        elif text is None:
            continue
        elif byte == 3:
            found.append(_judge(text[:-2] if text.endswith(b"\r\n") else text))
            text = None
        else:
            text += bytes([byte])
            if len(text) > 16:
                found.append("overrun")
                text = None
    return found


def _judge(text: bytes) -> str:
    if len(text) != 12:
        return "length"
    if any(byte not in b"0123456789abcdefABCDEF" for byte in text):
        return "hex"
    checked = 0
    for byte in bytes.fromhex(text.decode()):
        checked ^= byte
    return "checksum" if checked else text[:10].decode().upper()


@pytest.mark.parametrize(("identifier", "frame"), VECTORS.items())
def test_every_vector_is_read_and_written_in_both_layouts(identifier: str, frame: str) -> None:
    rdm6300 = bytes.fromhex(frame)
    id12la = rdm6300[:-1] + b"\r\n\x03"
    assert results(rdm6300) == results(id12la) == [identifier]
    assert encode(identifier) == rdm6300
    assert encode(identifier, cr_lf=True) == id12la


def test_the_test_stream_gives_its_results_in_order() -> None:
    assert results(STREAM) == STREAM_RESULTS == by_the_rules(STREAM)


def test_chunks_make_no_difference_wherever_the_stream_is_cut() -> None:
    assert results(*(bytes([byte]) for byte in STREAM)) == STREAM_RESULTS
    for first, second in combinations(range(len(STREAM) + 1), 2):
        assert results(STREAM[:first], STREAM[first:second], STREAM[second:]) == STREAM_RESULTS


@pytest.mark.parametrize("frame", [A, ID12LA])
def test_a_frame_without_its_end_is_neither_reported_nor_in_the_way(frame: bytes) -> None:
    for cut in range(len(frame)):
        assert results(frame[:cut]) == []
        assert results(frame[:cut] + A) == ["67003B51C6"]


@pytest.mark.parametrize("frame", [A, ID12LA])
def test_a_frame_without_its_beginning_is_ignored(frame: bytes) -> None:
    for cut in range(1, len(frame) + 1):
        assert results(frame[cut:] + A) == ["67003B51C6"]


def test_glued_frames_and_bytes_between_them_are_no_trouble() -> None:
    assert results(A * 300) == ["67003B51C6"] * 300
    assert results(A + b"\x00\xff\r\n" + ID12LA + b"\x03\x03" + A) == ["67003B51C6", "0C000621A5", "67003B51C6"]


@pytest.mark.parametrize("frame", [A, ID12LA])
def test_no_single_wrong_byte_ever_makes_another_card(frame: bytes) -> None:
    card = results(frame)
    for place, byte in product(range(len(frame)), range(256)):
        damaged = frame[:place] + bytes([byte]) + frame[place + 1 :]
        found = results(damaged)
        assert found == by_the_rules(damaged)
        if damaged.upper() != frame and place in range(1, 13) and bytes([byte]).upper() in HEX:
            assert found == ["checksum"]
        else:
            assert found in (card, [], ["length"], ["hex"], ["overrun"])


def test_three_percent_of_double_faults_pass_so_one_frame_is_no_proof() -> None:
    accepted = tried = 0
    for (first, second), (one, other) in product(combinations(range(1, 13), 2), product(HEX, HEX)):
        if one == A[first] or other == A[second]:
            continue
        damaged = bytearray(A)
        damaged[first], damaged[second] = one, other
        tried += 1
        accepted += results(bytes(damaged)) != ["checksum"]
    assert (accepted, tried) == (450, 14850)


def test_no_rotation_of_a_frame_is_a_card() -> None:
    for cut in range(1, len(A)):
        assert results(A[cut:] + A[:cut]) == []


@pytest.mark.parametrize(
    "text", [b"67003B51C6  ", b"0x003B51C6CB", b"67_003B51C6C", b"+67003B51C6C", b"67003B51C6\r\n"]
)
def test_what_number_parsers_forgive_is_no_frame(text: bytes) -> None:
    assert results(b"\x02" + text + b"\x03") in (["hex"], ["length"])


def test_lower_case_is_understood_and_made_canonical() -> None:
    assert results(A.lower()) == ["67003B51C6"]


def test_an_id_12he_frame_of_22_characters_is_an_overrun_not_a_card() -> None:
    assert results(b"\x02" + b"0123456789ABCDEF012345" + b"\x03" + A) == ["overrun", "67003B51C6"]


@pytest.mark.parametrize("begin", [b"", b"\x02"])
def test_a_flood_without_an_end_is_one_error_at_most_and_is_not_kept(begin: bytes) -> None:
    decoder = FrameDecoder()
    found = decoder.feed(begin)
    for _ in range(256):
        found += decoder.feed(b"0" * 4096)
        assert len(decoder._begun) <= 17
    assert [_name(one) for one in found] == ["overrun"] * len(begin)
    assert decoder.feed(A) == [CardFrame("67003B51C6")]


def test_a_flood_of_beginnings_is_not_kept() -> None:
    decoder = FrameDecoder()
    for _ in range(256):
        assert decoder.feed(b"\x02" * 4096) == []
    assert decoder._begun == b"\x02"


def _mutate(frame: bytes, mutations: list[tuple[str, int, int]]) -> bytes:
    damaged = bytearray(frame)
    for kind, place, byte in mutations:
        place %= len(damaged) + 1
        if kind == "insert":
            damaged.insert(place, byte)
        else:
            damaged[place : place + 1] = bytes([byte]) if kind == "replace" else b""
    return bytes(damaged)


_bytes = st.one_of(st.sampled_from(b"\x02\x03\r\n 0Fg"), st.integers(0, 255))
_mutations = st.lists(
    st.tuples(st.sampled_from(["insert", "delete", "replace"]), st.integers(0, 20), _bytes), max_size=3
)
_frames = st.builds(
    lambda number, cr_lf, mutations: _mutate(encode(f"{number:010X}", cr_lf=cr_lf), mutations),
    st.integers(0, (1 << 40) - 1),
    st.booleans(),
    _mutations,
)


@given(st.lists(_frames, max_size=6), st.integers(1, 40))
def test_damaged_frames_in_any_chunks_give_what_the_rules_say(frames: list[bytes], chunk_bytes: int) -> None:
    stream = b"".join(frames)
    chunks = [stream[at : at + chunk_bytes] for at in range(0, len(stream), chunk_bytes)]
    assert results(*chunks) == results(stream) == by_the_rules(stream)

"""PN532 frames both ways, cut, damaged and in noise; the cards in an answer. Vectors: user manual UM0701-02 and nfcpy."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong
from optima_drivers.pn532.cards import Card, Firmware, decode_cards
from optima_drivers.pn532.codec import (
    FROM_CHIP,
    MAX_BODY_BYTES,
    TO_CHIP,
    Frame,
    FrameDecoder,
    Message,
    Signal,
    encode,
)

VECTORS = [
    ("00 00 FF 02 FE D4 02 2A 00", TO_CHIP, "02"),
    ("00 00 FF 06 FA D5 03 32 01 06 07 E8 00", FROM_CHIP, "03 32 01 06 07"),
    ("00 00 FF 05 FB D4 14 01 00 00 17 00", TO_CHIP, "14 01 00 00"),
    ("00 00 FF 05 FB D4 14 01 14 01 02 00", TO_CHIP, "14 01 14 01"),
    ("00 00 FF 02 FE D5 15 16 00", FROM_CHIP, "15"),
    ("00 00 FF 06 FA D4 32 05 FF 01 01 F4 00", TO_CHIP, "32 05 FF 01 01"),
    ("00 00 FF 02 FE D5 33 F8 00", FROM_CHIP, "33"),
    ("00 00 FF 04 FC D4 32 01 00 F9 00", TO_CHIP, "32 01 00"),
    ("00 00 FF 04 FC D4 4A 02 00 E0 00", TO_CHIP, "4A 02 00"),
    ("00 00 FF 03 FD D5 4B 00 E0 00", FROM_CHIP, "4B 00"),
    ("00 00 FF 0C F4 D5 4B 01 01 00 04 08 04 DE AD BE EF 96 00", FROM_CHIP, "4B 01 01 00 04 08 04 DE AD BE EF"),
    ("00 00 FF 08 F8 D4 4A 01 00 DE AD BE EF A9 00", TO_CHIP, "4A 01 00 DE AD BE EF"),
    ("00 00 FF 05 FB D4 40 01 30 00 BB 00", TO_CHIP, "40 01 30 00"),
    ("00 00 FF 03 FD D5 41 01 E9 00", FROM_CHIP, "41 01"),
    ("00 00 FF 09 F7 D4 00 00 6C 69 62 6E 66 63 BE 00", TO_CHIP, "00 00 6C 69 62 6E 66 63"),
    ("00 00 FF 03 FD D4 16 10 06 00", TO_CHIP, "16 10"),
]
NONE = "00"
CLASSIC = "01 01 00 04 08 04 DE AD BE EF"
NTAG = "01 01 00 44 00 07 04 A1 B2 C3 D4 E5 F6"
BOTH = "02 01 00 04 08 04 DE AD BE EF 02 00 44 00 07 04 A1 B2 C3 D4 E5 F6"
DESFIRE = "01 01 03 44 20 07 04 11 22 33 44 55 66 06 75 77 81 02 80"

busy = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])  # this PC may be
messages = st.builds(
    Message, st.sampled_from([TO_CHIP, FROM_CHIP]), st.integers(0, 255), st.binary(max_size=MAX_BODY_BYTES - 2)
)
frames: st.SearchStrategy[Frame] = st.sampled_from(Signal) | messages


def wire(frame: Frame) -> bytes:
    return encode(frame) if isinstance(frame, Message) else frame.value


def decode(*chunks: bytes) -> list[Frame | str]:
    """What comes out; errors by their kind."""
    decoder = FrameDecoder()
    found = [frame for chunk in chunks for frame in decoder.feed(chunk)]
    return [frame.kind if isinstance(frame, FrameError) else frame for frame in found]


def byte_by_byte(data: bytes) -> list[bytes]:
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize(("frame", "direction", "body"), VECTORS)
def test_published_frames_are_made_and_understood(frame: str, direction: int, body: str) -> None:
    code, *data = bytes.fromhex(body)
    message = Message(direction, code, bytes(data))
    assert encode(message) == bytes.fromhex(frame)
    assert decode(bytes.fromhex(frame)) == [message]


def test_a_long_message_has_an_extended_frame() -> None:
    message = Message(FROM_CHIP, 0x41, b"\x00" * 261)
    frame = encode(message)
    assert frame.startswith(bytes.fromhex("00 00 FF FF FF 01 07 F8 D5 41"))
    assert len(frame) == 273
    assert decode(frame) == [message]
    normal = Message(FROM_CHIP, 0x41, b"\x00" * 253)
    assert encode(normal).startswith(bytes.fromhex("00 00 FF FF 01 D5"))
    assert decode(encode(normal)) == [normal]


def test_a_published_stream_gives_the_same_whole_and_byte_by_byte() -> None:
    stream = bytes.fromhex(
        "55 55 00 00 00 00 FF 00 FF 00 00 00 FF 03 FD D5 4B 00 E0 00 FF 00 00 00 FF 06 FA D5 03 32 01 06 07 E8 00"
    )
    none, version = Message(FROM_CHIP, 0x4B, b"\x00"), Message(FROM_CHIP, 0x03, bytes.fromhex("32 01 06 07"))
    assert decode(stream) == [Signal.ACK, none, "length", version]  # 00 FF 00 00 looks like the head of an empty frame
    assert decode(*byte_by_byte(stream)) == decode(stream)


@busy
@given(st.lists(frames, max_size=4), st.data())
def test_every_cut_of_good_frames_gives_the_same(sent: list[Frame], data: st.DataObject) -> None:
    stream = b"".join(map(wire, sent))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=6)))
    chunks = [stream[start:end] for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert decode(*chunks) == sent


def test_every_single_cut_of_a_frame_gives_the_same() -> None:
    for frame, direction, body in VECTORS:
        data = bytes.fromhex(frame)
        message = Message(direction, bytes.fromhex(body)[0], bytes.fromhex(body)[1:])
        for at in range(len(data)):
            assert decode(data[:at], data[at:]) == [message]
            assert decode(data[:at]) == [] or at == len(data) - 1  # the postamble says nothing


@pytest.mark.parametrize(
    "noise", ["", "55 55", "00 FF 00 00", "00 FF 55", "FF 00", "00 00 00 00", "00 FF FF FF 00 00 01"]
)
def test_a_frame_is_found_behind_noise(noise: str) -> None:
    good = Message(FROM_CHIP, 0x15)
    stream = bytes.fromhex(noise) + encode(good) + Signal.ACK.value
    for chunks in ([stream], byte_by_byte(stream)):
        assert [frame for frame in decode(*chunks) if frame != "length"] == [good, Signal.ACK]


def test_every_flipped_bit_of_a_frame_is_noticed() -> None:
    for frame, direction, body in VECTORS:
        good = Message(direction, bytes.fromhex(body)[0], bytes.fromhex(body)[1:])
        data = bytearray.fromhex(frame)
        for bit in range(8, 8 * (len(data) - 1)):  # before and behind are preamble and postamble
            data[bit // 8] ^= 1 << bit % 8
            found = decode(bytes(data) + bytes(MAX_BODY_BYTES))
            assert not any(isinstance(one, Message) for one in found), (frame, bit, good)
            data[bit // 8] ^= 1 << bit % 8


def test_what_a_card_put_into_a_damaged_frame_is_not_taken_for_one() -> None:
    forged = encode(Message(FROM_CHIP, 0x4B, bytes.fromhex(CLASSIC)))
    outer = bytearray(encode(Message(FROM_CHIP, 0x4B, forged)))
    outer[-2] ^= 1
    assert decode(bytes(outer)) == ["checksum"]


@pytest.mark.parametrize(
    ("frame", "kind"),
    [
        ("00 00 FF 03 FC D5 4B 00 E0 00", "length"),
        ("00 00 FF 00 00 00", "length"),
        ("00 00 FF 03 FD D5 4B 01 E0 00", "checksum"),
        ("00 00 FF 01 FF D5 2B 00", "length"),
        ("00 00 FF 02 FE D6 15 15 00", "direction"),
        ("00 00 FF FF FF 01 0A F5 D5", "overrun"),
    ],
)
def test_a_bad_frame_is_named(frame: str, kind: str) -> None:
    assert decode(bytes.fromhex(frame)) == [kind]
    assert decode(*byte_by_byte(bytes.fromhex(frame))) == [kind]


def test_the_chips_error_frame_is_understood() -> None:
    assert decode(bytes.fromhex("00 00 FF 01 FF 7F 81 00")) == [Signal.ERROR]


@busy
@given(st.lists(st.binary(max_size=40) | frames.map(wire), max_size=8), st.integers(0, 8 * 400), st.data())
def test_nothing_but_frames_and_frame_errors_comes_out_of_any_bytes(
    pieces: list[bytes], bit: int, data: st.DataObject
) -> None:
    stream = bytearray(b"".join(pieces))
    if bit // 8 < len(stream):
        stream[bit // 8] ^= 1 << bit % 8
    cut = data.draw(st.integers(0, len(stream)))
    decoder = FrameDecoder()
    found = [*decoder.feed(bytes(stream[:cut])), *decoder.feed(bytes(stream[cut:]))]
    assert all(isinstance(one, Signal | Message | FrameError) for one in found)
    assert len(decoder._buffer) <= MAX_BODY_BYTES + 8


def test_a_flood_is_not_kept() -> None:
    decoder = FrameDecoder()
    for _ in range(1000):
        decoder.feed(b"\x00\xff\xff\x01" + bytes(200))
        assert len(decoder._buffer) <= MAX_BODY_BYTES + 8


def test_errors_have_their_classes() -> None:
    decoder = FrameDecoder()
    [checksum] = decoder.feed(bytes.fromhex("00 FF 02 FE D5 15 17"))
    [overrun] = decoder.feed(bytes.fromhex("00 FF FF FF 01 0A F5"))
    assert (type(checksum), type(overrun)) == (ChecksumError, FrameTooLong)


@pytest.mark.parametrize(
    ("answer", "uids"),
    [
        (NONE, []),
        (CLASSIC, ["DEADBEEF"]),
        (NTAG, ["04A1B2C3D4E5F6"]),
        (BOTH, ["DEADBEEF", "04A1B2C3D4E5F6"]),
        (DESFIRE, ["04112233445566"]),
    ],
)
def test_published_lists_of_cards_are_understood_and_every_cut_of_them_refused(answer: str, uids: list[str]) -> None:
    data = bytes.fromhex(answer)
    assert [card.uid.hex().upper() for card in decode_cards(data)] == uids
    for at in range(len(data)):
        with pytest.raises(FrameError):
            decode_cards(data[:at])
    with pytest.raises(FrameError):
        decode_cards(data + b"\x00")


def test_a_card_is_decoded_whole() -> None:
    assert decode_cards(bytes.fromhex(DESFIRE)) == (
        Card(bytes.fromhex("04112233445566"), 0x0344, 0x20, bytes.fromhex("067577810280")),
    )


@pytest.mark.parametrize(
    "answer",
    [
        "01 01 00 04 08 05 DE AD BE EF 01",
        "01 01 00 04 08 00",
        "03 01 00 04 08 04 DE AD BE EF 02 00 04 08 04 DE AD BE E0 03 00 04 08 04 DE AD BE E1",
        "01 01 03 44 20 04 11 22 33 44 00",
    ],
)
def test_a_list_that_cannot_be_is_refused(answer: str) -> None:
    with pytest.raises(FrameError, match=r"card|UID"):
        decode_cards(bytes.fromhex(answer))


@busy
@given(st.binary(max_size=60))
def test_only_frame_errors_come_out_of_any_list(data: bytes) -> None:
    try:
        cards = decode_cards(data)
    except FrameError:
        return
    assert len(cards) == data[0] <= 2


@pytest.mark.parametrize(("uid", "is_random"), [("08112233", True), ("09112233", False), ("08112233445566", False)])
def test_a_random_uid_is_known_by_its_first_byte(uid: str, is_random: bool) -> None:
    assert Card(bytes.fromhex(uid), 0x0004, 0x20).has_random_uid == is_random


def test_a_firmware_version_is_that_of_a_pn532() -> None:
    assert str(Firmware.from_answer(bytes.fromhex("32 01 06 07"))) == "1.6"
    for answer in ("33 02 07 07", "32 01 06", ""):
        with pytest.raises(FrameError, match="not a PN532"):
            Firmware.from_answer(bytes.fromhex(answer))

"""The loopback protocol's frames: golden bytes, every cut, every damaged byte."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong
from optima_drivers.loopback.codec import (
    MAX_DATA_BYTES,
    MAX_TEXT_BYTES,
    Card,
    Controller,
    Decoder,
    Identity,
    KeyIn,
    KeyOut,
    Lock,
    Memory,
    Message,
    Query,
    Seal,
    Verb,
    encode,
    parse,
)

TEXTS: list[tuple[str, Message]] = [
    ("KEY IN 01B7BA1000000075", KeyIn("01B7BA1000000075")),
    ("KEY OUT", KeyOut()),
    ("CARD 67003B51C6", Card("67003B51C6")),
    ("LOCK 0", Lock(0)),
    ("LOCK 1", Lock(1)),
    ("LOCK 2", Lock(2)),
    ("LOCK 3", Lock(3)),
    ("SEAL OPEN", Seal(is_open=True)),
    ("SEAL CLOSED", Seal(is_open=False)),
    ("CTRL READY", Controller("ready")),
    ("CTRL BUSY", Controller("busy")),
    ("CTRL PENDING", Controller("pending-transaction")),
    ("CTRL ERROR 42", Controller("error", "42")),
    ("READ 0120 40", Memory(Verb.READ, 0x0120, b"\x40")),
    ("DATA 0120 00ff7e", Memory(Verb.DATA, 0x0120, b"\x00\xff\x7e")),
    ("WRITE 11ff b2", Memory(Verb.WRITE, 0x11FF, b"\xb2")),
    ("WROTE 11ff", Memory(Verb.WROTE, 0x11FF)),
    ("ERASE 0100", Memory(Verb.ERASE, 0x0100)),
    ("ERASED 0100", Memory(Verb.ERASED, 0x0100)),
    ("DENIED ffff", Memory(Verb.DENIED, 0xFFFF)),
    ("ID loopback KL-17 1.0", Identity("loopback", "KL-17", "1.0")),
    ("?", Query()),
]
MESSAGES: list[Message] = [message for _, message in TEXTS]
NEXT = KeyIn("0123456789ABCDEF")  # what follows a damaged frame must not be lost with it


def decode(data: bytes) -> list[Message | FrameError]:
    return Decoder().feed(data)


@pytest.mark.parametrize(
    ("golden", "message"), [("02 4c 4f 43 4b 20 33 03 1b", Lock(3)), ("02 3f 03 3c", Query())], ids=repr
)
def test_golden_frames_in_both_directions(golden: str, message: Message) -> None:
    assert encode(message) == bytes.fromhex(golden)
    assert decode(bytes.fromhex(golden)) == [message]


@pytest.mark.parametrize(("text", "message"), TEXTS, ids=[text for text, _ in TEXTS])
def test_every_message_has_its_text_and_comes_back_from_its_frame(text: str, message: Message) -> None:
    assert parse(text) == message
    assert encode(message)[1:-2] == text.encode()
    assert decode(encode(message)) == [message]


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_one_wrong_byte_loses_this_frame_and_no_other(message: Message) -> None:
    """Each byte replaced by each other value, which includes every flipped bit."""
    frame, following = encode(message), encode(NEXT)
    slipped = []
    for place in range(len(frame)):
        for wrong in set(range(256)) - {frame[place]}:
            damaged = frame[:place] + bytes([wrong]) + frame[place + 1 :]
            if [it for it in decode(damaged + following) if not isinstance(it, FrameError)] != [NEXT]:
                slipped.append(damaged.hex(" "))
    assert slipped == []


def of(characters: str, low: int, high: int) -> st.SearchStrategy[str]:
    return st.text(characters, min_size=low, max_size=high)


ADDRESS = st.integers(0, 0xFFFF)
WORD = of("ACKLOUTabc019._-", 1, 12)


@given(
    st.one_of(
        of("0123456789ABCDEF", 16, 16).map(KeyIn),
        of("0123456789ABCDEF", 10, 10).map(Card),
        of("0123456789", 1, 4).map(lambda code: Controller("error", code)),
        st.builds(
            Memory, st.sampled_from([Verb.READ, Verb.DATA, Verb.WRITE]), ADDRESS, st.binary(min_size=1, max_size=8)
        ),
        st.builds(Memory, st.sampled_from([Verb.WROTE, Verb.ERASE, Verb.ERASED, Verb.DENIED]), ADDRESS),
        st.builds(Identity, WORD, WORD, of("abc019._-", 1, 12)),
    )
)
def test_every_flipped_bit_is_refused_whatever_the_fields_hold(message: Message) -> None:
    frame = encode(message)
    for bit in range(len(frame) * 8):
        damaged = bytearray(frame)
        damaged[bit // 8] ^= 1 << bit % 8
        assert [it for it in decode(bytes(damaged)) if not isinstance(it, FrameError)] == []


@pytest.mark.parametrize("message", MESSAGES, ids=repr)
def test_a_frame_cut_anywhere_loses_no_other(message: Message) -> None:
    frame = encode(message)
    for size in range(len(frame)):
        assert decode(frame[:size]) == []
        assert [it for it in decode(frame[:size] + encode(NEXT)) if not isinstance(it, FrameError)] == [NEXT]


def test_it_does_not_matter_how_the_stream_is_cut() -> None:
    stream = b"\xffnoise" + b"".join(map(encode, MESSAGES))
    assert decode(stream) == MESSAGES
    for cut in range(len(stream)):
        decoder = Decoder()
        assert decoder.feed(stream[:cut]) + decoder.feed(stream[cut:]) == MESSAGES
    decoder = Decoder()
    assert [message for byte in stream for message in decoder.feed(bytes([byte]))] == MESSAGES


@pytest.mark.parametrize(
    ("damaged", "error", "kind"),
    [
        (b"\x02LOCK 3\x03\x1c", ChecksumError, "checksum"),
        (b"\x02LOCK\x003\x03\x1b", FrameError, "characters"),
        (b"\x02LOCK 4\x03\x1c", FrameError, "message"),
        (b"\x02\x03\x03", FrameError, "message"),
        (b"\x02" + b"A" * (MAX_TEXT_BYTES + 1), FrameTooLong, "overrun"),
    ],
)
def test_damage_is_counted_by_kind(damaged: bytes, error: type[FrameError], kind: str) -> None:
    [result] = decode(damaged)
    assert type(result) is error
    assert result.kind == kind


def test_a_flood_without_end_is_not_kept() -> None:
    decoder = Decoder()
    assert len(decoder.feed(b"\x02" + b"A" * 100_000)) == 1
    assert decoder.feed(encode(NEXT)) == [NEXT]


@pytest.mark.parametrize(
    "message",
    [
        KeyIn("01b7ba1000000075"),
        KeyIn("01"),
        Card("67003B51C6C6"),
        Controller("error", "C4"),
        Lock(4),
        Lock(-1),
        Controller("error"),
        Controller("ready", "42"),
        Controller("READY"),
        Memory(Verb.WRITE, 0, bytes(MAX_DATA_BYTES + 1)),
        Memory(Verb.ERASE, 0x10000),
        Memory(Verb.ERASE, 0, b"\x00"),
        Memory(Verb.READ, 0),
        Identity("two words", "0", "1"),
        Identity("", "0", "1"),
        Identity("a", "BLOCK", "3"),
    ],
    ids=repr,
)
def test_what_the_protocol_cannot_say_is_not_sent(message: Message) -> None:
    with pytest.raises(ValueError, match="is not a loopback message"):
        encode(message)


@given(st.lists(st.one_of(st.sampled_from(MESSAGES).map(encode), st.binary(max_size=8)), max_size=8).map(b"".join))
def test_nothing_but_messages_and_frame_errors_comes_out_of_any_bytes(stream: bytes) -> None:
    whole = decode(stream)
    decoder = Decoder()
    cut = [result for byte in stream for result in decoder.feed(bytes([byte]))]
    assert list(map(repr, cut)) == list(map(repr, whole))
    assert all(isinstance(result, Message | FrameError) for result in whole)

"""OSDP frames, messages and the secure channel without a line: recorded bytes, every cut, every flipped bit."""

from __future__ import annotations

import binascii
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import FrameError
from optima_drivers.osdp import messages
from optima_drivers.osdp.codec import MARK, MAX_FRAME_BYTES, Frame, FrameDecoder
from optima_drivers.osdp.messages import NakCode, decode_reply
from optima_drivers.osdp.secure import DEFAULT_KEY, SecureChannel, SessionKeys

# One session, recorded from libosdp's peripheral device; key 00 01 … 0F.
RANDOM_A, RANDOM_B = bytes.fromhex("1c41c7ba0b60a6c2"), bytes.fromhex("d764c8cce93255c4")
SCBK = bytes(range(16))
RECORDED = {
    "identify": "53650900046100d97a",
    "identity": "53e5140004450102030201443322110102034372",
    "capabilities?": "53650900056200ba18",
    "capabilities": "53e5200005460101040201010401010801000901000a00010d0101100200702e",
    "challenge": "536513000e031101761c41c7ba0b60a6c226a5",
    "client cryptogram": "53e52b000e031201760102020044332211d764c8cce93255c4edbde4c3e43a05e896a68b3747ffc24a616f",
    "server cryptogram": "53651b000f03130177c76f6395ce50d09a502a656eecbd0b4340d9",
    "first MAC": "53e51b000f03140178b24f5877299cd2f72567ce37119103e35e73",
    "poll": "53650e000d0215603541ef54a2ce",
    "inputs": "53e51e000d02184987f26bbdcd0b871475705c214d63da98a54a17949536",
    "poll again": "53650e000e0215600cae13f2c9d6",
    "ack": "53e50e000e021640fe6ebc9203ac",
}
FRAMES = st.builds(
    Frame,
    address=st.integers(0, 126),
    is_reply=st.booleans(),
    sequence=st.integers(0, 3),
    body=st.binary(min_size=1, max_size=60),
    security=st.sampled_from([b"", b"\x11\x00", b"\x12\x01", b"\x13\x01", b"\x14\x01"]),
    crc=st.booleans(),
) | st.builds(
    Frame,
    address=st.integers(0, 126),
    is_reply=st.booleans(),
    sequence=st.integers(0, 3),
    body=st.binary(min_size=1, max_size=60),
    security=st.sampled_from([b"\x15", b"\x16", b"\x17", b"\x18"]),
    mac=st.binary(min_size=4, max_size=4),
    crc=st.booleans(),
)


def frames_in(data: bytes) -> list[Frame]:
    return [found for found in FrameDecoder().feed(data) if isinstance(found, Frame)]


def recorded(name: str) -> Frame:
    (frame,) = frames_in(bytes.fromhex(RECORDED[name]))
    return frame


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_frame_is_read_and_written_the_same(name: str) -> None:
    frame = recorded(name)
    assert frame.address == 0x65
    assert frame.is_reply is RECORDED[name].startswith("53e5")
    assert frame.encode().hex() == RECORDED[name]


@given(frame=FRAMES)
def test_a_frame_that_is_written_is_read_the_same(frame: Frame) -> None:
    assert frames_in(MARK + frame.encode()) == [frame]


@given(frame=FRAMES, cuts=st.lists(st.integers(0, 90), max_size=4))
def test_cuts_make_no_difference(frame: Frame, cuts: list[int]) -> None:
    data = MARK + frame.encode() + frame.encode()
    decoder, found, at = FrameDecoder(), [], 0
    for cut in [*sorted(cuts), len(data)]:
        found += decoder.feed(data[at:cut])
        at = max(at, cut)
    assert found == [frame, frame]
    assert not decoder.begun


@pytest.mark.parametrize("crc", [True, False])
def test_every_flipped_bit_of_a_short_frame_is_noticed(crc: bool) -> None:
    frame = Frame(5, is_reply=True, sequence=2, body=b"\x50\x00\x01\x08\x00\xa5", crc=crc)
    data = frame.encode()
    for bit in range(len(data) * 8):
        spoilt = bytearray(data)
        spoilt[bit // 8] ^= 1 << bit % 8
        decoder = FrameDecoder()
        found = decoder.feed(bytes(spoilt))
        while decoder.begun:
            found += decoder.give_up()
        assert not [one for one in found if isinstance(one, Frame)], bit


@given(noise=st.binary(max_size=200))
def test_noise_gives_frame_errors_and_nothing_else(noise: bytes) -> None:
    decoder = FrameDecoder()
    found = decoder.feed(noise)
    while decoder.begun:
        found += decoder.give_up()
    assert all(isinstance(one, Frame | FrameError) for one in found)


@given(frame=FRAMES, noise=st.binary(max_size=20))
def test_a_frame_is_found_behind_noise_that_looks_like_a_start(frame: Frame, noise: bytes) -> None:
    decoder = FrameDecoder()
    found = decoder.feed(noise + b"\x53\x00" + frame.encode())
    while decoder.begun:
        found += decoder.give_up()
    assert frame in found


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("5380050004", "length"),
        ("538000000453", "length"),
        ("53800700045e25", "length"),
        ("538008000440ffff", "checksum"),
        ("5380ffff04", "overrun"),
        (Frame(0, is_reply=True, sequence=0, body=b"\x40").encode().hex()[:8] + "0c0440", "checksum"),
    ],
)
def test_a_frame_that_cannot_be_is_named_by_its_kind(data: str, kind: str) -> None:
    found = FrameDecoder().feed(bytes.fromhex(data) + bytes(10))
    assert isinstance(found[0], FrameError)
    assert found[0].kind == kind


@pytest.mark.parametrize("block", ["00", "01", "ff1500"])
def test_a_security_block_that_does_not_fit_is_an_error(block: str) -> None:
    body = bytes.fromhex(block)
    plain = Frame(0, is_reply=True, sequence=1, body=body).covered()
    data = plain[:4] + bytes([plain[4] | 0x08]) + plain[5:]
    found = FrameDecoder().feed(data + binascii.crc_hqx(data, 0x1D0F).to_bytes(2, "little"))
    assert isinstance(found[0], FrameError)
    assert found[0].kind == "security"


def test_a_flood_is_never_kept() -> None:
    decoder = FrameDecoder()
    for _ in range(100):
        decoder.feed(b"\x53" * 100)
        assert len(decoder._buffer) <= MAX_FRAME_BYTES


def test_the_recorded_session_is_understood_from_the_panels_side() -> None:
    keys = SessionKeys.derive(SCBK, RANDOM_A)
    assert keys.encryption.hex() == "e5a447b391ff67d2fd807e6cb4d08dab"
    assert keys.mac1.hex() == "25bdf0429e8d9c3a50c37d5e4cdf498e"
    assert keys.mac2.hex() == "424cc22965d23900ac8a7120acad75bf"
    assert "e5a4" not in repr(keys)
    client = decode_reply(recorded("client cryptogram").body)
    assert isinstance(client, messages.ClientCryptogram)
    assert client.random_b == RANDOM_B
    assert client.cryptogram == keys.cryptogram(RANDOM_A, RANDOM_B)
    server = keys.cryptogram(RANDOM_B, RANDOM_A)
    assert recorded("server cryptogram").body == messages.server_cryptogram(server)
    assert decode_reply(recorded("first MAC").body) == messages.InitialRMac(keys.first_mac(server))
    channel = SecureChannel(keys, keys.first_mac(server))
    for ours, theirs, reply in [
        ("poll", "inputs", messages.Inputs((True, False, False, False))),
        ("poll again", "ack", messages.Ack()),
    ]:
        clear = Frame(0x65, is_reply=False, sequence=recorded(ours).sequence, body=messages.POLL)
        assert channel.seal(clear) == recorded(ours)
        assert decode_reply(channel.open(recorded(theirs))) == reply


def channels() -> tuple[SecureChannel, SecureChannel]:
    keys = SessionKeys.derive(SCBK, RANDOM_A)
    return SecureChannel(keys, bytes(16)), SecureChannel(keys, bytes(16))


@given(bodies=st.lists(st.binary(min_size=1, max_size=70), max_size=4))
def test_what_one_side_seals_the_other_opens(bodies: list[bytes]) -> None:
    panel, peripheral = channels()
    for number, body in enumerate(bodies):
        for sender, receiver, is_reply in [(panel, peripheral, False), (peripheral, panel, True)]:
            frame = sender.seal(Frame(1, is_reply=is_reply, sequence=number % 3 + 1, body=body))
            assert body[1:] not in frame.body or len(body) < 4
            assert receiver.open(frame) == body


def test_no_changed_bit_of_a_sealed_frame_is_believed() -> None:
    data = channels()[0].seal(Frame(1, is_reply=False, sequence=1, body=b"\x69abcdef"))
    for bit in range(len(data.body) * 8):
        body = bytearray(data.body)
        body[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError, match="next one"):
            channels()[1].open(
                Frame(1, is_reply=False, sequence=1, body=bytes(body), security=data.security, mac=data.mac)
            )


def test_a_sealed_frame_is_not_believed_twice() -> None:
    panel, peripheral = channels()
    frame = panel.seal(Frame(1, is_reply=False, sequence=1, body=b"\x60"))
    peripheral.open(frame)
    with pytest.raises(FrameError):
        peripheral.open(frame)


@pytest.mark.parametrize(
    ("security", "body"),
    [(0x16, b"\x50card"), (0x18, b"\x50odd"), (0x15, b"\x40"), (0x18, b"\x50" + bytes(16))],
    ids=["not encrypted", "no whole blocks", "a command's block", "no end"],
)
def test_data_that_are_not_encrypted_as_they_should_be_are_refused(security: int, body: bytes) -> None:
    panel, peripheral = channels()
    forged = Frame(1, is_reply=True, sequence=1, body=body, security=bytes([security]), mac=bytes(4))
    mac = peripheral._mac_of(forged)[:4]
    with pytest.raises(FrameError):
        panel.open(Frame(1, is_reply=True, sequence=1, body=body, security=bytes([security]), mac=mac))


def test_the_reason_of_a_refusal_may_be_in_the_clear_when_its_mac_is_right() -> None:
    panel, peripheral = channels()
    frame = Frame(1, is_reply=True, sequence=1, body=b"\x41\x09", security=b"\x16", mac=bytes(4))
    mac = peripheral._mac_of(frame)[:4]
    assert panel.open(Frame(1, is_reply=True, sequence=1, body=b"\x41\x09", security=b"\x16", mac=mac)) == b"\x41\x09"


def test_an_encrypted_reply_without_data_is_read() -> None:
    panel, peripheral = channels()
    frame = Frame(1, is_reply=True, sequence=1, body=b"\x40", security=b"\x18", mac=bytes(4))
    mac = peripheral._mac_of(frame)[:4]
    assert panel.open(Frame(1, is_reply=True, sequence=1, body=b"\x40", security=b"\x18", mac=mac)) == b"\x40"


def test_the_default_key_is_the_one_that_everybody_knows() -> None:
    assert DEFAULT_KEY == b"0123456789:;<=>?"


@pytest.mark.parametrize(
    ("body", "reply"),
    [
        ("40", messages.Ack()),
        ("79", messages.Busy()),
        ("4103", messages.Nak(NakCode.UNKNOWN_COMMAND)),
        ("45010203020144332211010203", messages.Identity("030201", 2, 1, 0x11223344, "1.2.3")),
        ("46010104", messages.CapabilityList(((1, 1, 4),))),
        ("480100", messages.Local(tampered=True, power_failed=False)),
        ("490001", messages.Inputs((False, True))),
        ("4b02", messages.Readers((2,))),
        ("5000011a00a0b0c0ff", messages.Card(0, True, 26, bytes.fromhex("a0b0c0c0"))),
        ("500100080011", messages.Card(1, False, 8, b"\x11")),
        ("53000431323334", messages.Keypad(0, 4)),
        ("7a010a00ffff8000", messages.FileStatus(True, 10, -1, 128)),
        ("b100", messages.Other(0xB1)),
    ],
)
def test_a_reply_is_understood(body: str, reply: messages.Reply) -> None:
    assert decode_reply(bytes.fromhex(body)) == reply


@pytest.mark.parametrize(
    "body",
    ["", "41", "4500", "4601", "7600", "7800", "4800", "50", "500001000000", "50000109001122ff", "530002ff", "7a00"],
)
def test_a_reply_that_does_not_fit_its_code_is_an_error(body: str) -> None:
    with pytest.raises(FrameError) as caught:
        decode_reply(bytes.fromhex(body))
    assert caught.value.kind == "data"


@given(body=st.binary(max_size=40))
def test_any_reply_is_understood_or_an_error(body: bytes) -> None:
    with suppress(FrameError):
        decode_reply(body)


def test_pressed_keys_are_nowhere_in_the_message() -> None:
    assert "3132" not in repr(decode_reply(b"\x53\x00\x04\x31\x32\x33\x34")) + str(decode_reply(b"\x53\x00\x021\x32"))


def test_a_refusal_prints_its_name() -> None:
    assert str(messages.Nak(6)) == "NAK 6 (security needed)"
    assert str(messages.Nak(77)) == "NAK 77 (unknown)"


def test_commands_are_laid_out_as_specified() -> None:
    assert messages.led(0, 2, 500).hex() == "690000" + "020100" + "0200" + "0500" + "0000000000"
    assert messages.buzzer(1, 500).hex() == "6a0102050001"
    assert messages.file_fragment(0x80, 300, 100, b"ab").hex() == "7c80" + "2c010000" + "64000000" + "0200" + "6162"
    assert messages.key_set(SCBK).hex() == "750110" + SCBK.hex()

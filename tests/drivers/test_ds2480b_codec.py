"""The DS2480B's commands and answers, against the worked exchanges of its protocol notes."""

from __future__ import annotations

import contextlib
import random

import pytest

from optima_bridge.errors import ChecksumError, FrameError
from optima_bridge.wire.onewire import Rom, SearchPass, crc8
from optima_drivers.ds2480b import codec
from optima_drivers.ds2480b.codec import Bus
from optima_drivers.ds2480b.simulator import Ds2480bSimulator

ROM_A = bytes.fromhex("01 78 56 34 12 00 00 4E")
ROM_B = bytes.fromhex("01 01 EF CD AB 00 00 2C")
ANSWER_A = bytes.fromhex("F0 02 00 80 2A 28 22 20 0A 08 02 00 00 00 00 A8 20")
ANSWER_AB_1 = bytes.fromhex("F0 02 00 81 2A 28 22 20 0A 08 02 00 00 00 00 A8 20")
ANSWER_AB_2 = bytes.fromhex("F0 02 00 03 00 AA A8 A2 A0 8A 88 00 00 00 00 A0 08")
PATH_AB_2 = bytes.fromhex("02 00 02 00") + bytes(12)


def sent(path: bytes) -> bytes:
    return bytes.fromhex("E1 F0 E3 B1 E1") + path + bytes.fromhex("E3 A1")


def found(answer: bytes) -> SearchPass:
    one = codec.decode_search(answer)
    assert one is not None
    return one


def test_one_key_is_found_in_one_pass() -> None:
    assert codec.search(0) == sent(bytes(16))
    one = found(ANSWER_A)
    assert one.rom().wire == ROM_A
    assert one.next_path() is None


def test_two_keys_are_found_in_two_passes() -> None:
    first = found(ANSWER_AB_1)
    assert first.rom().wire == ROM_A
    assert first.conflicts == 1 << 8
    path = first.next_path()
    assert path is not None
    assert codec.search(path) == sent(PATH_AB_2)
    second = found(ANSWER_AB_2)
    assert second.follows(path)
    assert second.rom().wire == ROM_B
    assert second.next_path() is None


def test_a_key_lifted_before_the_search_is_nobody() -> None:
    assert codec.decode_search(b"\xf0" + b"\xff" * 16) is None


def test_only_e3_is_doubled_in_data_mode() -> None:
    rom = bytes.fromhex("01 F1 E1 E3 E3 00 00 8D")
    assert codec.escape(rom) == bytes.fromhex("01 F1 E1 E3 E3 E3 E3 00 00 8D")


def test_no_path_contains_an_e3() -> None:
    rng = random.Random(3)
    for path in (0, 2**64 - 1, *(rng.getrandbits(64) for _ in range(500))):
        assert b"\xe3" not in codec.search(path)[5:-2]  # its bit 0 would be no direction


@pytest.mark.parametrize(
    ("answers", "bus"),
    [("CD ED", Bus.PRESENCE), ("CF EF", Bus.NONE), ("CC EC", Bus.SHORT), ("CE EE", Bus.ALARM)],
)
def test_reset_answers_mean_what_the_data_sheet_says(answers: str, bus: Bus) -> None:
    for byte in bytes.fromhex(answers):
        assert codec.decode_reset(bytes([byte])) is bus


def test_all_other_bytes_do_not_answer_a_reset() -> None:
    accepted = set()
    for byte in range(256):
        with contextlib.suppress(FrameError):
            codec.decode_reset(bytes([byte]))
            accepted.add(byte)
    assert accepted == set(bytes.fromhex("CC CD CE CF EC ED EE EF"))


@pytest.mark.parametrize("answer", ["16 44 5A 00 93", "16 44 5A 00 90"])
def test_a_configured_chip_is_accepted_with_its_line_high_or_low(answer: str) -> None:
    codec.check_configured(bytes.fromhex(answer))


def test_a_configure_answer_with_any_flipped_bit_is_refused() -> None:
    answer = bytes.fromhex("16 44 5A 00 93")
    for bit in range(40):
        with pytest.raises(FrameError):
            codec.check_configured((int.from_bytes(answer, "little") ^ 1 << bit).to_bytes(5, "little"))


def test_every_truncation_and_every_surplus_byte_is_refused() -> None:
    for size_bytes in range(len(ANSWER_A)):
        with pytest.raises(FrameError):
            codec.decode_search(ANSWER_A[:size_bytes])
    for size_bytes in range(5):
        with pytest.raises(FrameError):
            codec.check_configured(bytes.fromhex("16 44 5A 00 93")[:size_bytes])
    for surplus in (b"", b"\xcd\xcd"):
        with pytest.raises(FrameError):
            codec.decode_reset(surplus)
    with pytest.raises(FrameError):
        codec.decode_search(ANSWER_A + b"\x00")


def test_no_flipped_bit_of_a_search_answer_makes_another_key() -> None:
    refused = kept = 0
    for bit in range(8 * len(ANSWER_A)):
        damaged = (int.from_bytes(ANSWER_A, "little") ^ 1 << bit).to_bytes(len(ANSWER_A), "little")
        try:
            one = found(damaged)
            assert one.rom().wire == ROM_A
            assert one.conflicts.bit_count() == 1  # a false conflict only costs one more pass
            kept += 1
        except ChecksumError:
            refused += 1
        except FrameError:
            assert bit < 8  # of the leading F0
            refused += 1
    assert (refused, kept) == (8 + 64, 64)


def test_random_bytes_raise_nothing_but_frame_errors() -> None:
    rng = random.Random(7)
    for _ in range(2000):
        noise = rng.choice([b"", b"\xf0"]) + rng.randbytes(rng.choice([1, 5, 16, 17, 40]))
        for decode in (codec.decode_reset, codec.check_configured, codec.decode_search):
            with contextlib.suppress(FrameError):
                decode(noise)


def test_arrival_bytes_before_an_answer_are_taken_away() -> None:
    assert codec.without_arrivals(b"\x01\x55" + ANSWER_A) == ANSWER_A
    assert codec.without_arrivals(b"\x01\xcd") == b"\xcd"
    assert codec.without_arrivals(b"\x01") == b""
    assert codec.without_arrivals(ANSWER_A + b"\x01") == ANSWER_A + b"\x01"


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8])
def test_random_buses_are_enumerated_exactly(size: int) -> None:
    rng = random.Random(size)
    for _ in range(20):
        simulator = Ds2480bSimulator()
        simulator.receive(codec.RESET)
        expected = set()
        for _ in range(size):
            body = bytes([rng.choice([0x01, 0x81])]) + rng.randbytes(rng.choice([1, 6])).ljust(6, b"\x00")
            expected.add(Rom.from_wire(body + bytes([crc8(body)])))
        for rom in expected:
            simulator.put(rom.wire)
        roms: list[Rom] = []
        path: int | None = 0
        while path is not None:
            assert codec.decode_reset(simulator.receive(codec.RESET)) is Bus.PRESENCE
            one = found(simulator.receive(codec.search(path)))
            assert one.follows(path)
            roms.append(one.rom())
            path = one.next_path()
        assert len(roms) == len(expected)
        assert set(roms) == expected

"""ROM numbers, their CRC and their textual forms; the walk of SEARCH ROM."""

from __future__ import annotations

import random

import pytest

from optima_bridge.errors import ChecksumError, FrameError
from optima_bridge.wire.onewire import ROM_SIZE_BYTES, Rom, SearchPass, crc8

KEY = bytes.fromhex("01 B7 BA 10 00 00 00 75")


@pytest.mark.parametrize(
    ("data", "crc"),
    [
        (bytes.fromhex("02 1C B8 01 00 00 00"), 0xA2),  # worked example of the iButton book
        (bytes.fromhex("10 21 F5 35 03 08 00"), 0x55),
        (bytes.fromhex("2D 13 09 09 19 00 00"), 0x71),
        (b"123456789", 0xA1),
        (b"\xff" * 8, 0xC9),
        (b"", 0),
    ],
)
def test_crc8_has_the_published_values(data: bytes, crc: int) -> None:
    assert crc8(data) == crc


def test_crc8_table_begins_as_published() -> None:
    table = [0, 94, 188, 226, 97, 63, 221, 131, 194, 156, 126, 32, 163, 253, 31, 65]
    assert [crc8(bytes([value])) for value in range(16)] == table


@pytest.mark.parametrize(
    "text",
    [
        "01B7BA1000000075",
        "01b7ba1000000075",
        " 01B7BA1000000075\n",
        "7500000010BAB701",
        "01.B7BA10000000",
        "01.b7ba10000000",
        "01.B7BA10000000.75",
        "01-00000010bab7",
        "0100000010BAB7",
    ],
)
def test_every_form_met_in_the_field_is_the_same_key(text: str) -> None:
    rom = Rom.from_text(text)
    assert rom == Rom.from_wire(KEY)
    assert str(rom) == "01B7BA1000000075"
    assert rom.family == "01"


def test_the_example_of_the_vectron_manual_is_read() -> None:
    assert str(Rom.from_text("0600000010BAB7"))[:14] == "06B7BA10000000"


def test_wire_order_wins_where_both_orders_have_a_right_crc() -> None:
    rng = random.Random(1)
    roms = (bytes([1]) + rng.randbytes(6) for _ in range(100_000))
    wire = next(rom for body in roms if crc8((rom := body + bytes([crc8(body)]))[::-1]) == 0 and rom[-1])
    assert Rom.from_text(wire.hex()).wire == wire
    assert Rom.from_text(wire[::-1].hex()).wire == wire[::-1]


@pytest.mark.parametrize(
    "text",
    ["", "key", "01B7BA1000000076", "0" * 16, "01.B7BA10000000.74", "00.000000000000", "01B7 BA10"],
)
def test_what_is_no_key_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not the number of a key"):
        Rom.from_text(text)


def test_every_flipped_bit_of_a_rom_is_refused() -> None:
    for bit in range(64):
        damaged = (int.from_bytes(KEY, "little") ^ 1 << bit).to_bytes(ROM_SIZE_BYTES, "little")
        with pytest.raises(ChecksumError):
            Rom.from_wire(damaged)


@pytest.mark.parametrize("size_bytes", [*range(ROM_SIZE_BYTES), 9])
def test_a_rom_of_another_size_is_refused(size_bytes: int) -> None:
    with pytest.raises(FrameError) as refused:
        Rom.from_wire((KEY + b"\x00")[:size_bytes])
    assert refused.value.kind == "length"


def test_family_00_is_refused_although_its_crc_is_right() -> None:
    for body in (bytes(7), bytes.fromhex("00 12 34 56 78 9a bc")):
        with pytest.raises(FrameError) as refused:
            Rom.from_wire(body + bytes([crc8(body)]))
        assert refused.value.kind == "zero"


def test_the_next_path_takes_the_one_at_the_last_conflict_where_the_zero_was_taken() -> None:
    assert SearchPass(bits=0b0000, conflicts=0b0000).next_path() is None
    assert SearchPass(bits=0b1010, conflicts=0b1010).next_path() is None
    assert SearchPass(bits=0b1010, conflicts=0b0101).next_path() == 0b0110
    assert SearchPass(bits=0b1010, conflicts=0b1001).next_path() == 0b0001


def test_a_pass_that_went_another_way_is_noticed() -> None:
    assert SearchPass(bits=0b1110, conflicts=0).follows(0b0110)
    assert SearchPass(bits=0b1110, conflicts=0).follows(0)
    assert not SearchPass(bits=0b1100, conflicts=0).follows(0b0110)

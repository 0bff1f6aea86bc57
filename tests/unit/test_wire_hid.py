"""Report descriptors and reports: layouts by hand, every cut and every flipped bit of one, and noise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import FrameError, FrameTooLong
from optima_bridge.wire.hid import MAX_DESCRIPTOR_BYTES, InputField, InputReports, parse

NCR = bytes.fromhex("068fff 0901 a101 8505 0509 1901 2904 1500 2501 7501 9504 8102 7504 9501 8103 c0")
KEYBOARD = bytes.fromhex(  # the boot keyboard of HID 1.11, appendix E.6
    "0501 0906 a101 0507 19e0 29e7 1500 2501 7501 9508 8102 9501 7508 8101 9505 7501 0508 1901 2905 9102"
    "9501 7503 9101 9506 7508 1500 2565 0507 1900 2965 8100 c0"
)
LOCK, KEYS = 0xFF8F_0001, 0x0001_0006


def buttons(*numbers: int) -> frozenset[int]:
    return frozenset(0x0009_0000 | number for number in numbers)


def on(descriptor: str, report: str, application: int = 0xFF00_0001) -> frozenset[int] | None:
    return parse(bytes.fromhex(descriptor)).on(bytes.fromhex(report), application)


def test_bits_of_a_report_with_an_id() -> None:
    reports = parse(NCR)
    field = InputField(LOCK, 5, 0, 1, 4, False, 0, ((0x0009_0001, 0x0009_0004),))
    assert reports == InputReports((field,), True, {5: 8})
    assert [reports.on(bytes([5, bits]), LOCK) for bits in (0, 1, 2, 4, 8, 6, 0xF0)] == [
        buttons(), buttons(1), buttons(2), buttons(3), buttons(4), buttons(2, 3), buttons(),
    ]  # fmt: skip


def test_a_keyboard_has_bits_for_modifiers_and_an_array_for_keys() -> None:
    reports = parse(KEYBOARD)
    assert reports.size_bits == {0: 64}
    keys = frozenset({0x0007_00E1, 0x0007_000E, 0x0007_000F, 0x0007_0000})
    assert reports.on(bytes([0x02, 0, 0x0E, 0x0F, 0, 0, 0, 0]), KEYS) == keys
    assert reports.on(bytes([0, 0, 0xFF, 0, 0, 0, 0, 0]), KEYS) == frozenset({0x0007_0000}), "ff is no key"


def test_a_report_of_another_id_or_application_says_nothing() -> None:
    assert parse(NCR).on(b"\x04\x01", LOCK) is None
    assert parse(NCR).on(b"\x05\x01", KEYS) is None
    assert parse(NCR).on(b"", LOCK) is None
    assert parse(b"").on(b"\x01", LOCK) is None


def test_a_report_that_is_cut_short_is_refused() -> None:
    with pytest.raises(FrameError) as caught:
        parse(NCR).on(b"\x05", LOCK)
    assert caught.value.kind == "length"


def test_keyboard_and_lock_in_one_device_are_told_apart() -> None:
    reports = parse(b"\x05\x01\x09\x06\xa1\x01\x85\x01" + KEYBOARD[6:] + NCR)
    assert reports.on(b"\x05\x08", LOCK) == buttons(4)
    assert reports.on(b"\x05\x08", KEYS) is None
    assert reports.on(bytes([1, 0, 0, 0x0E, 0, 0, 0, 0, 0]), LOCK) is None


@pytest.mark.parametrize(
    ("descriptor", "report", "expected"),
    [
        ("0600ff0901a101 0509 0902 0901 0905 7501 9503 8102 c0", "05", buttons(2, 5)),  # usages one by one, in their order
        ("0600ff0901a101 0b02000900 7501 9501 8102 c0", "01", buttons(2)),  # a usage of four bytes brings its page
        ("0600ff0901a101 0509 1b01000900 2b04000900 7501 9504 8102 c0", "08", buttons(4)),
        ("0600ff0901a101 1901 2904 0509 7501 9504 8102 c0", "02", buttons(2)),  # the page at the main item counts
        ("0600ff0901a101 0509 a4 7508 b4 1901 2902 7501 9502 8102 c0", "02", buttons(2)),  # push and pop
        ("0600ff0901a101 fe0355aabbcc 0509 1901 2902 7501 9502 8102 c0", "01", buttons(1)),  # a long item
        ("0600ff0901a101 7501 9503 8103 0509 1901 2902 9502 8102 c0", "10", buttons(2)),  # padding in front
        ("0600ff0901a101 0509 1901 2902 7503 9502 8102 c0", "38", buttons(2)),  # values of three bits, over no byte's end
        ("0600ff0901a101 0509 1901 2903 7506 9503 8102 c0", "c00000", buttons(2)),  # and over a byte's end
        ("0600ff0901a101 0509 1901 2903 7506 9503 8102 c0", "000f00", buttons(2)),
        ("0600ff0901a101 0509 1901 2903 7506 9503 8102 c0", "00f000", buttons(3)),
        ("0600ff0901a101 0509 1901 2903 15ff 7508 9501 8100 c0", "ff", buttons(1)),  # an array that begins at -1
        ("0600ff0901a101 0509 1901 2903 15ff 7508 9501 8100 c0", "01", buttons(3)),
        ("0600ff0901a101 0509 1901 2903 15ff 7508 9501 8100 c0", "80", frozenset()),
        ("0600ff0901a101 0509 1901 2902 7501 9508 8102 c0", "f3", buttons(1, 2)),  # bits without a usage
        ("0600ff0901a101 0901 a100 0509 1901 2902 7501 9502 8102 c0c0", "02", buttons(2)),  # a physical collection within
        ("0600ff0901a101 a101 0509 1901 2902 7501 9502 8102 c0c0", "02", buttons(2)),  # an application without a usage
        ("0600ff0901a101 0509 1901 2902 7500 9502 8102 7501 8102 c0", "02", frozenset()),  # of no size; usages are used up
    ],
)  # fmt: skip
def test_items_mean_what_the_specification_says(descriptor: str, report: str, expected: frozenset[int]) -> None:
    assert on(descriptor, report) == expected


@pytest.mark.parametrize(
    ("descriptor", "kind"),
    [
        ("05", "length"),
        ("fe", "length"),
        ("fe0200aa", "length"),
        ("b4", "nesting"),
        ("c0", "nesting"),
        ("0600ff0901a101", "nesting"),
        ("0509 2904 1901 7501 9504 8102", "usage"),
        ("0509 1904 2901 7501 9504 8102", "usage"),
        ("8500", "id"),
        ("860001", "id"),
        ("7501 9700000200 8102 8102", "overrun"),
        ("77ffffffff 97ffffffff 8103", "overrun"),
    ],
)
def test_what_does_not_hold_together_is_refused(descriptor: str, kind: str) -> None:
    with pytest.raises(FrameError) as caught:
        parse(bytes.fromhex(descriptor))
    assert caught.value.kind == kind


def test_a_descriptor_longer_than_the_kernel_takes_is_refused() -> None:
    assert parse(b"\xa4" * MAX_DESCRIPTOR_BYTES).fields == ()
    with pytest.raises(FrameTooLong):
        parse(b"\xa4" * (MAX_DESCRIPTOR_BYTES + 1))


def read(descriptor: bytes, report: bytes) -> None:
    """Nothing but a FrameError may come out."""
    try:
        reports = parse(descriptor)
        for application in {field.application for field in reports.fields}:
            reports.on(report, application)
    except FrameError:
        pass


@given(st.binary(max_size=300), st.binary(max_size=40))
def test_noise_is_refused_or_read(descriptor: bytes, report: bytes) -> None:
    read(descriptor, report)


def test_every_cut_and_every_changed_byte_is_refused_or_read() -> None:
    for place in range(len(NCR)):
        read(NCR[:place], b"\x05\x01")
        for byte in range(256):
            read(NCR[:place] + bytes([byte]) + NCR[place + 1 :], b"\x05\x01")


@given(st.lists(st.tuples(st.integers(0, len(KEYBOARD) - 1), st.integers(0, 255)), max_size=4), st.binary(max_size=9))
def test_a_damaged_keyboard_is_refused_or_read(damage: list[tuple[int, int]], report: bytes) -> None:
    descriptor = bytearray(KEYBOARD)
    for place, byte in damage:
        descriptor[place] = byte
    read(bytes(descriptor), report)

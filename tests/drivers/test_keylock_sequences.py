"""Keylock sequences within other typing: cuts, gaps, repeats, overlaps, Shift; and nothing of what people type comes out."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.errors import FrameError
from optima_bridge.wire.evdev import (
    EV_KEY,
    EV_SYN,
    PRESSED,
    RECORD_BYTES,
    RELEASED,
    REPEATED,
    SYN_DROPPED,
    SYN_REPORT,
    InputEvent,
    encode,
)
from optima_drivers.keylock.keys import KEYS, PASSED_OVER
from optima_drivers.keylock.profiles import TYPED
from optima_drivers.keylock.sequences import SequenceDecoder

HEADER = Path("/usr/include/linux/input-event-codes.h")
NS_PER_MS = 1_000_000
GAP_MS = 60
LEFTSHIFT, CAPSLOCK = 42, 58
POSIFLEX = {tuple(KEYS[name] for name in it.keys.split()): it.code for it in TYPED["posiflex"].positions}

Typed = tuple[str | int, int, int]  # key, value, at_ms


def packet(key: str | int, value: int, at_ms: int) -> bytes:
    code = KEYS[key] if isinstance(key, str) else key
    at_ns = at_ms * NS_PER_MS
    return encode(InputEvent(at_ns, EV_KEY, code, value), InputEvent(at_ns, EV_SYN, SYN_REPORT, 0))


def found(typed: Iterable[Typed], gap_ms: int = GAP_MS) -> list[int | FrameError]:
    decoder = SequenceDecoder(POSIFLEX, gap_ms * NS_PER_MS)
    return [result for it in typed for result in decoder.feed(packet(*it))]


def kinds(results: list[int | FrameError]) -> list[int | str]:
    return [result.kind if isinstance(result, FrameError) else result for result in results]


def pressed(keys: str, each_ms: int = 10, at_ms: int = 1000) -> list[Typed]:
    return [(key, PRESSED, at_ms + place * each_ms) for place, key in enumerate(keys.split())]


@pytest.mark.parametrize(
    ("keys", "positions"),
    [
        ("K L 2", [3]),
        ("K L 0 K L 4", [1, "typing", 5]),
        ("K L 0 K", [1, "typing"]),
        ("1 K L 1", ["typing"]),
        ("K L 1 1", [2, "typing"]),
        ("K L 1 1 2 3", [2, "typing"]),
        ("K L 1 1 K L 2", [2, "typing", "typing"]),
        ("K K L 1", ["typing"]),
        ("K L K L 1", ["typing"]),
        ("S K L 2 4 7 1 ENTER", ["typing"]),
        ("K L L 1", []),
        ("K L", []),
        ("K 1 L", []),
        ("L 2 K", []),
        ("K L 9", []),
        ("K ENTER L 2", []),
    ],
)
def test_a_sequence_is_a_position_only_where_no_other_key_is_near(keys: str, positions: list[int | str]) -> None:
    assert kinds(found(pressed(keys))) == positions


@pytest.mark.parametrize(("gap_ms", "results"), [(GAP_MS, ["typing"]), (GAP_MS + 1, [3])])
def test_a_sequence_begins_only_behind_a_gap(gap_ms: int, results: list[int | str]) -> None:
    assert kinds(found([("ENTER", PRESSED, 1000), *pressed("K L 2", at_ms=1000 + gap_ms)])) == results


@pytest.mark.parametrize(("gap_ms", "results"), [(GAP_MS, [3, "typing"]), (GAP_MS + 1, [3])])
def test_a_key_right_behind_a_sequence_is_told(gap_ms: int, results: list[int | str]) -> None:
    assert kinds(found([*pressed("K L 2", 0), ("ENTER", PRESSED, 1000 + gap_ms)])) == results


def test_presses_that_the_kernel_forgot_are_keys_before_a_sequence_too() -> None:
    decoder = SequenceDecoder(POSIFLEX, GAP_MS * NS_PER_MS)
    dropped = encode(InputEvent(1000 * NS_PER_MS, EV_SYN, SYN_DROPPED, 0), InputEvent(1000 * NS_PER_MS, EV_SYN, 0, 0))
    results = decoder.feed(dropped)
    for at_ms in (1000 + GAP_MS, 2000):
        results += [result for it in pressed("K L 2", at_ms=at_ms) for result in decoder.feed(packet(*it))]
    assert kinds(results) == ["overrun", "typing", 3]


@pytest.mark.parametrize(("each_ms", "positions"), [(0, [3]), (GAP_MS, [3]), (GAP_MS + 1, []), (150, [])])
def test_keys_typed_as_slowly_as_people_do_are_no_sequence(each_ms: int, positions: list[int]) -> None:
    assert found(pressed("K L 2", each_ms)) == positions


def test_a_sequence_that_stops_in_the_middle_is_forgotten() -> None:
    assert found([*pressed("K L"), *pressed("2", at_ms=1500), *pressed("K L 0", at_ms=2000)]) == [1]


def test_a_clock_that_jumps_back_is_a_gap() -> None:
    assert found([("K", PRESSED, 1000), ("L", PRESSED, 990), ("2", PRESSED, 1000)]) == []


def test_releases_and_repeats_mean_nothing() -> None:
    typed: list[Typed] = []
    for key, _, at_ms in pressed("K L 2"):
        typed += [
            (key, PRESSED, at_ms),
            (key, REPEATED, at_ms + 1),
            ("9", RELEASED, at_ms + 2),
            (key, RELEASED, at_ms + 3),
        ]
    assert found(typed) == [3]
    assert found([(key, value, at) for value in (RELEASED, REPEATED) for key, _, at in pressed("K L 2")]) == []


@pytest.mark.parametrize("shift", sorted(PASSED_OVER))
def test_capitals_are_the_same_keys(shift: int) -> None:
    typed: list[Typed] = [(shift, PRESSED, 900)]
    for key, _, at_ms in pressed("K L 2"):
        typed += [(shift, PRESSED, at_ms - 1), (key, PRESSED, at_ms), (shift, RELEASED, at_ms + 1)]
    assert found(typed) == [3]


def test_control_and_alt_are_keys_like_others() -> None:
    assert found(pressed("K LEFTCTRL L 2")) == found(pressed("K L LEFTALT 2")) == []


def test_several_keys_in_one_packet_count_in_their_order() -> None:
    at_ns = 1000 * NS_PER_MS
    together = encode(
        *(InputEvent(at_ns, EV_KEY, KEYS[key], PRESSED) for key in "KL2"), InputEvent(at_ns, EV_SYN, SYN_REPORT, 0)
    )
    assert SequenceDecoder(POSIFLEX, 0).feed(together) == [3]


def test_presses_that_the_kernel_forgot_end_a_sequence_and_are_told() -> None:
    decoder = SequenceDecoder(POSIFLEX, GAP_MS * NS_PER_MS)
    results = [result for it in pressed("K L") for result in decoder.feed(packet(*it))]
    at_ns = 1020 * NS_PER_MS
    dropped = encode(
        InputEvent(at_ns, EV_SYN, SYN_DROPPED, 0), InputEvent(at_ns, EV_KEY, KEYS["2"], PRESSED), InputEvent(at_ns, EV_SYN, 0, 0)
    )  # fmt: skip
    [error] = decoder.feed(dropped)
    assert isinstance(error, FrameError)
    assert (results, error.kind, decoder.feed(packet("2", PRESSED, 1021))) == ([], "overrun", [])


def test_a_packet_that_is_no_packet_is_refused() -> None:
    [error] = SequenceDecoder(POSIFLEX, 0).feed(b"\0" * (RECORD_BYTES + 1))
    assert isinstance(error, FrameError)
    assert error.kind == "length"


@given(st.binary(max_size=6 * RECORD_BYTES))
def test_any_bytes_give_positions_or_frame_errors(data: bytes) -> None:
    for result in SequenceDecoder(POSIFLEX, 10**18).feed(data):
        assert isinstance(result, FrameError) or result in POSIFLEX.values()


OTHER_KEYS = sorted(set(range(1, 250)) - {key for keys in POSIFLEX for key in keys})


@given(st.lists(st.sampled_from(OTHER_KEYS), max_size=40))
def test_nothing_of_what_people_type_stays_in_the_decoder(keys: list[int]) -> None:
    decoder, fresh = (SequenceDecoder(POSIFLEX, GAP_MS * NS_PER_MS) for _ in range(2))
    for place, key in enumerate(keys):
        assert decoder.feed(packet(key, PRESSED, 1000 + place)) == []
    assert decoder._is_alone is PASSED_OVER.issuperset(keys)
    when_and_whether = {"_last_ns", "_is_alone"}
    rest = [
        {name: value for name, value in vars(it).items() if name not in when_and_whether} for it in (decoder, fresh)
    ]
    assert rest[0] == rest[1]


SOMETIMES_SEQUENCES = st.lists(
    st.sampled_from([*POSIFLEX, *POSIFLEX, *((key,) for key in sorted(KEYS.values()))]), max_size=30
)


@given(SOMETIMES_SEQUENCES.map(lambda parts: [key for part in parts for key in part]), st.integers(1, 30))
def test_positions_are_found_exactly_where_their_keys_are(keys: list[int], each_ms: int) -> None:
    """Against the plain definition: all keys so far are sequences, one behind the other, and the last key ends one."""
    decoder = SequenceDecoder(POSIFLEX, GAP_MS * NS_PER_MS)
    expected: list[list[int]] = []
    for end in range(1, len(keys) + 1):
        cut = [tuple(keys[at : min(at + 3, end)]) for at in range(0, end, 3)]
        expected.append([POSIFLEX[cut[-1]]] if all(part in POSIFLEX for part in cut) else [])
    results = [decoder.feed(packet(key, PRESSED, place * each_ms)) for place, key in enumerate(keys)]
    assert [[it for it in result if not isinstance(it, FrameError)] for result in results] == expected


@pytest.mark.skipif(not HEADER.exists(), reason=f"{HEADER} is not installed (linux-libc-dev)")
def test_the_names_of_keys_are_those_of_the_kernel() -> None:
    text = HEADER.read_text(encoding="utf-8")
    kernel = {name: int(code, 0) for name, code in re.findall(r"#define KEY_(\w+)\s+(0x[0-9a-f]+|\d+)\b", text)}
    assert {name: kernel[name] for name in KEYS} == KEYS
    assert {kernel[name] for name in ("LEFTSHIFT", "RIGHTSHIFT", "CAPSLOCK")} == PASSED_OVER

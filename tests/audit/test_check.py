"""Whatever is done to an audit log is noticed, and named."""

from __future__ import annotations

import io
import random
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optima_bridge.audit.check import MAX_LINE_BYTES, check, lines
from optima_bridge.audit.record import Entry, encode, link
from tests.audit.logs import SOMEBODY, chain, entry, head_of, named, verdict_of

LOG = chain(6)
HEAD = head_of(LOG)
WHOLE = b"".join(LOG)
OF_A_BYTE = ("edited", "torn", "truncated")


def line_of(offset: int) -> int:
    return WHOLE[:offset].count(b"\n") + 1


def test_a_log_as_it_was_written_is_whole_with_and_without_its_head() -> None:
    for kept in (None, HEAD, *(head_of(LOG, n) for n in range(1, 7))):
        verdict = verdict_of(LOG, kept)
        assert (verdict.findings, verdict.records, verdict.head.n, verdict.head.hash) == ((), 6, 6, HEAD.hash)
    assert verdict_of([]).findings == ()


@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_noticed_in_its_line(bit: int) -> None:
    for offset in range(len(WHOLE)):
        changed = bytearray(WHOLE)
        changed[offset] ^= 1 << bit
        for kept in (None, HEAD):
            found = named([bytes(changed)], kept)
            assert found is not None
            assert found[0] == line_of(offset), (offset, found)
            assert found[1] in OF_A_BYTE


@pytest.mark.slow
def test_any_byte_in_the_place_of_another_is_noticed_in_its_line() -> None:
    whole, head = b"".join(LOG[:3]), head_of(LOG, 3)
    for offset, byte in enumerate(whole):
        for other in range(256):
            if other != byte:
                found = named([whole[:offset] + bytes([other]) + whole[offset + 1 :]], head)
                assert found is not None
                assert (found[0], found[1] in OF_A_BYTE) == (line_of(offset), True)


def test_any_byte_put_in_or_taken_out_is_noticed_in_its_line() -> None:
    for offset in range(len(WHOLE)):
        for changed in (WHOLE[:offset] + WHOLE[offset + 1 :], WHOLE[:offset] + b"7" + WHOLE[offset:]):
            found = named([changed], HEAD)
            assert found is not None
            assert found[0] == line_of(offset)
            assert found[1] in OF_A_BYTE


@pytest.mark.parametrize("at", range(6))
def test_any_deleted_line_is_missed(at: int) -> None:
    left = LOG[:at] + LOG[at + 1 :]
    assert named(left, HEAD) == ((at + 1, "missing") if at < 5 else (6, "truncated"))
    assert named(left) == ((at + 1, "missing") if at < 5 else None)  # the chain alone cannot tell a cut end


@pytest.mark.parametrize("at", range(7))
@pytest.mark.parametrize("which", range(6))
def test_any_line_copied_to_any_place_is_found_there(at: int, which: int) -> None:
    place = at + 1 if at != which else at + 2  # before itself: of two equal lines the second one is too many
    assert named([*LOG[:at], LOG[which], *LOG[at:]], HEAD) == (place, "inserted")


@pytest.mark.parametrize(("first", "second"), [(a, b) for a in range(6) for b in range(a + 1, 6)])
def test_any_two_exchanged_lines_are_found_at_the_first(first: int, second: int) -> None:
    order = list(LOG)
    order[first], order[second] = order[second], order[first]
    assert named(order, HEAD) == (first + 1, "reordered")
    assert named(order) == (first + 1, "reordered")


def test_any_cut_is_noticed_by_the_head() -> None:
    for size_bytes in range(len(WHOLE)):
        assert named([WHOLE[:size_bytes]], HEAD) == (line_of(size_bytes), "truncated")


def test_a_torn_line_behind_the_head_is_torn_and_nothing_else() -> None:
    for size_bytes in range(1, len(LOG[5])):
        made = [*LOG[:5], LOG[5][:size_bytes]]
        assert named(made, head_of(LOG, 5)) == (6, "torn")
        assert named(made) == (6, "torn")
        assert verdict_of(made, head_of(LOG, 5)).only_torn


@pytest.mark.parametrize("at", range(1, 5))
def test_a_record_that_was_written_anew_with_its_hash_is_found_by_the_next_one(at: int) -> None:
    forged, _ = encode(entry(at + 1, head_of(LOG, at).hash, "another story"))
    assert link(forged) is not None
    assert named([*LOG[:at], forged, *LOG[at + 1 :]], HEAD) == (at + 1, "edited")
    assert named([*LOG[:at], forged, *LOG[at:]], HEAD) == (at + 1, "inserted")


def test_a_first_record_that_claims_to_follow_another_is_found() -> None:
    assert named(chain(3, prev="1" * 64)) == (1, "edited")


@pytest.mark.parametrize("at", range(6))
def test_a_history_written_anew_from_any_record_on_is_found_by_the_head(at: int) -> None:
    forged, head = encode(entry(at + 1, head_of(LOG, at).hash if at else "0" * 64, "another story"))
    rewritten = [*LOG[:at], forged, *chain(5 - at, head.hash, at + 2)]
    assert named(rewritten) is None
    assert named(rewritten, HEAD) == (6, "edited")


def test_a_line_that_is_no_record_is_found_where_it_stands() -> None:
    for at in range(6):
        for noise in (b"\n", b"{}\n", b"x" * 3 * MAX_LINE_BYTES + b"\n", b"\xff\xfe\n", b"[" * 5000 + b"\n"):
            assert named([*LOG[:at], noise, *LOG[at:]], HEAD) == (at + 1, "inserted")
    assert named([*LOG, b"{}\n"], HEAD) == (7, "torn")
    assert named([*LOG, b"{}\n"]) == (7, "edited")


def test_a_well_hashed_line_that_is_no_record_is_none() -> None:
    good = entry(1, "0" * 64)
    line, _ = encode(good)
    assert link(line) is not None
    for body in (b"", b"[]", b'{"n":0,"time":"","prev":""', b'{"n":"1"', b'{"n":1,"prev":"\xff"'):
        assert link(body + b',"hash":"' + sha256(body).hexdigest().encode() + b'"}\n') is None


def test_a_torn_line_is_accounted_for_by_the_record_behind_it_and_by_nothing_else() -> None:
    torn = LOG[2][:40] + b"\n"
    marker, head = encode(
        Entry(n=3, time="", action="audit.torn", who=SOMEBODY, torn=sha256(torn).hexdigest(), prev=head_of(LOG, 2).hash)
    )
    made = [*LOG[:2], torn, marker, *chain(2, head.hash, 4)]
    verdict = verdict_of(made)
    assert (verdict.findings, verdict.records, verdict.marked) == ((), 5, 1)
    assert named([*made[:2], *made[3:]]) == (3, "missing")
    assert named([*made[:2], b"x" + torn[1:], *made[3:]]) == (3, "edited")
    assert named([*made[:2], torn, torn, *made[3:]]) == (3, "edited")


def test_of_several_findings_the_first_is_told_and_all_are_counted() -> None:
    made = chain(9)
    del made[6], made[2]
    error = verdict_of(made).error("audit.ndjson")
    assert error is not None
    assert (error.data["line"], error.data["kind"]) == (3, "missing")
    assert error.what == "audit.ndjson: line 3 missing: record 3 is not before record 4; 1 more"
    assert (error.code, error.exit_status) == ("E-AUDIT-BROKEN", 10)


def test_only_so_much_of_the_file_is_read_as_was_asked_for() -> None:
    file = io.BytesIO(WHOLE + b"half a rec")
    assert check(lines(file, len(WHOLE)), HEAD).findings == ()


LONG = chain(60)


@settings(max_examples=300, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(["edit", "delete", "copy", "swap", "cut"]))
def test_any_one_change_of_a_longer_log_is_noticed_where_it_was_made(dice: random.Random, how: str) -> None:
    made, at = list(LONG), dice.randrange(60)
    kinds = {
        "edit": ("edited",),
        "delete": ("missing", "truncated"),
        "copy": ("inserted",),
        "swap": ("reordered",),
        "cut": ("truncated",),
    }
    place = at + 1
    match how:
        case "edit":
            line = bytearray(made[at])
            line[dice.randrange(len(line) - 1)] ^= dice.randrange(1, 256)
            made[at] = bytes(line)
        case "delete":
            del made[at]
        case "copy":
            which = dice.choice([n for n in range(60) if n != at])
            made.insert(at, LONG[which])
        case "swap":
            other = dice.choice([n for n in range(60) if n != at])
            place = min(at, other) + 1
            made[at], made[other] = made[other], made[at]
        case "cut":
            del made[at:]
    found = named(made, head_of(LONG))
    assert found is not None
    assert (found[0], found[1] in kinds[how]) == (place, True), found


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from([*LONG[:12], b"x\n", b"\n", LONG[0][:50]]), max_size=14))
def test_any_mixture_of_lines_has_a_verdict_and_only_the_right_one_is_whole(made: list[bytes]) -> None:
    verdict = verdict_of(made, head_of(LONG, len(made)) if made else None)
    assert (verdict.findings == ()) == (made == LONG[: len(made)])

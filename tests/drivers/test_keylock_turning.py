"""When a keylock's position counts: slow to grant, quick to revoke; bounces, skipped positions, unknown."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_drivers.keylock.turning import BETWEEN, LOCK, NORM, SUPR, Turn, Turning

SETTLE_MS = 80
X = 4

Script = list[tuple[int, int]]


def play(script: Script, turning: Turning | None = None, end_ms: int = 10_000) -> list[tuple[int | None, int]]:
    """Positions and milliseconds that are decided; `expire` is called exactly when it must be."""
    turning = turning or Turning(SETTLE_MS)
    turns: list[Turn] = []
    for at_ms, code in [*script, (end_ms, -1)]:
        while (deadline := turning.deadline_ns()) is not None and deadline < at_ms:
            turns += turning.expire(deadline)
        if code >= 0:
            turns += turning.heard(code, at_ms)
    return [(turn.code, turn.at_ns) for turn in turns]


def test_a_position_counts_when_it_has_lasted() -> None:
    assert play([(0, LOCK)]) == [(LOCK, 80)]
    assert play([(0, LOCK), (79, NORM)]) == [(NORM, 159)]
    assert play([(0, LOCK), (81, NORM)]) == [(LOCK, 80), (NORM, 161)]


def test_a_position_that_is_contradicted_before_anybody_saw_its_time_pass_does_not_count() -> None:
    late = Turning(SETTLE_MS)
    assert [late.heard(SUPR, 0), late.heard(LOCK, 500), late.expire(500), late.expire(580)] == [
        [],
        [],
        [],
        [Turn(LOCK, 580)],
    ]


def test_a_position_told_again_lasts_from_its_first_time_and_counts_once() -> None:
    assert play([(0, LOCK), (50, LOCK), (100, LOCK), (500, LOCK)]) == [(LOCK, 80)]


@pytest.mark.parametrize(("next_code", "at_once"), [(BETWEEN, BETWEEN), (LOCK, LOCK), (NORM, NORM), (X, BETWEEN)])
def test_supervisor_ends_with_the_first_thing_that_is_not_supervisor(next_code: int, at_once: int) -> None:
    turns = play([(0, SUPR), (500, next_code)])
    assert turns[:2] == [(SUPR, 80), (at_once, 500)]
    assert turns[2:] == ([(X, 580)] if next_code == X else [])


def test_a_position_of_the_models_own_has_rights_like_supervisor() -> None:
    assert play([(0, X), (500, SUPR)]) == [(X, 80), (BETWEEN, 500), (SUPR, 580)]


@pytest.mark.parametrize("bounce_ms", [1, 5, 20])
def test_a_real_turn_upwards_is_one_event_however_it_bounces(bounce_ms: int) -> None:
    bounces = [(500 + place * bounce_ms, code) for place, code in enumerate([BETWEEN, NORM, LOCK, NORM, BETWEEN, NORM])]
    assert play([(0, LOCK), *bounces]) == [(LOCK, 80), (NORM, bounces[-1][0] + 80)]


def test_a_bounce_back_to_where_it_was_is_no_event() -> None:
    assert play([(0, LOCK), (500, NORM), (510, LOCK)]) == [(LOCK, 80)]


def test_supervisor_that_bounces_is_lost_and_granted_again() -> None:
    assert play([(0, SUPR), (500, BETWEEN), (510, SUPR)]) == [(SUPR, 80), (BETWEEN, 500), (SUPR, 590)]


def test_positions_that_are_only_passed_do_not_count() -> None:
    assert play([(0, LOCK), (500, NORM), (530, SUPR)]) == [(LOCK, 80), (SUPR, 610)]
    assert play([(0, SUPR), (500, NORM), (530, LOCK)]) == [(SUPR, 80), (NORM, 500), (LOCK, 610)]


def test_a_key_left_between_two_positions_is_told() -> None:
    assert play([(0, LOCK), (500, BETWEEN)]) == [(LOCK, 80), (BETWEEN, 580)]


def test_a_lock_that_waits_itself_counts_at_once_without_a_detour() -> None:
    assert play([(0, SUPR), (500, X), (510, LOCK)], Turning()) == [(SUPR, 0), (X, 500), (LOCK, 510)]


def test_a_lock_that_is_asked_must_answer_twice_and_loses_at_the_first_other_answer() -> None:
    twice = Turning(reads_to_grant=2)
    script = [(0, SUPR), (100, LOCK), (200, SUPR), (300, SUPR), (400, LOCK), (500, NORM), (600, NORM)]
    assert play(script, twice) == [(SUPR, 300), (LOCK, 400), (NORM, 600)]


def test_nonsense_cancels_what_is_pending_and_leaves_the_position() -> None:
    turning = Turning(SETTLE_MS)
    turning.heard(LOCK, 0)
    assert turning.expire(80) == [Turn(LOCK, 80)]
    assert turning.heard(SUPR, 100) == []
    assert turning.disturbed(110, lost=False) == []
    assert turning.deadline_ns() is None
    assert turning.position == LOCK


def test_nonsense_ends_the_rights_of_a_lock_that_says_each_turn_once() -> None:
    once = Turning(SETTLE_MS, says_once=True)
    for code, ends in ((LOCK, []), (NORM, []), (SUPR, [Turn(BETWEEN, 1110)]), (X, [Turn(BETWEEN, 1110)])):
        once.heard(code, 1000)
        assert once.expire(1080) == [Turn(code, 1080)]
        assert once.disturbed(1110, lost=False) == ends
        assert once.disturbed(1120, lost=False) == []


def test_nonsense_leaves_the_rights_of_a_lock_of_which_more_is_to_come() -> None:
    twice = Turning(reads_to_grant=2)
    assert play([(0, SUPR), (100, SUPR)], twice) == [(SUPR, 100)]
    assert twice.disturbed(200, lost=False) == []
    assert twice.heard(NORM, 300) == [Turn(NORM, 300)]


def test_lost_input_makes_the_position_unknown_until_it_is_heard_again() -> None:
    turning = Turning()
    assert turning.heard(SUPR, 0) == [Turn(SUPR, 0)]
    assert turning.disturbed(10, lost=True) == [Turn(None, 10, found=True)]
    assert turning.disturbed(20, lost=True) == []
    assert turning.heard(SUPR, 30) == [Turn(SUPR, 30)]


def test_what_was_found_by_asking_is_no_turn_and_what_comes_then_is() -> None:
    turning = Turning(SETTLE_MS)
    turning.heard(NORM, 0, found=True)
    assert turning.expire(80) == [Turn(NORM, 80, found=True)]
    turning.heard(LOCK, 100)
    assert turning.expire(180) == [Turn(LOCK, 180)]


@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 5)), max_size=30))
def test_rights_are_only_there_while_nothing_else_was_heard(steps: list[tuple[int, int]]) -> None:
    turning = Turning(SETTLE_MS)
    at_ms, last, since_ms = 0, -1, 0
    said: list[int | None] = [None]
    for wait_ms, code in steps:
        at_ms += wait_ms
        said += [turn.code for turn in turning.expire(at_ms)]
        if turning.position is not None and turning.position >= SUPR:
            assert turning.position == last
            assert at_ms - since_ms >= SETTLE_MS
        last, since_ms = code, since_ms if code == last else at_ms
        said += [turn.code for turn in turning.heard(code, at_ms)]
        assert turning.position in {None, BETWEEN, LOCK, NORM, code}
    assert all(before != after for before, after in pairwise(said)), "each decision is a change"

"""Both presence machines against what must always be true, over every short sequence, and against worked examples."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import product, takewhile

import pytest

from optima_bridge.model import Data
from optima_bridge.presence import ABSENT, AMBIGUOUS, PRESENT, SUSPECT, Change, PolledPresence, RepeatedPresence

A, B = "01B7BA1000000075", "01AABB10000000C4"
NONE: frozenset[str] = frozenset()
ONLY_A, ONLY_B, BOTH = frozenset({A}), frozenset({B}), frozenset({A, B})
MS = 1_000_000
STATE_AFTER = {
    "inserted": PRESENT,
    "restored": PRESENT,
    "suspect": SUSPECT,
    "removed": ABSENT,
    "ambiguous": AMBIGUOUS,
}


class Consumer:
    """Someone who believes the changes, and checks that they tell a possible story."""

    def __init__(self) -> None:
        self.held: str | None = None
        self.state: Data = ABSENT
        self.at_ns = 0

    def take(self, changes: Iterable[Change]) -> None:
        for change in changes:
            assert change.state == STATE_AFTER[change.action]
            assert change.last_seen_ns <= change.at_ns
            assert change.at_ns >= self.at_ns
            match change.action:
                case "inserted":
                    assert self.held is None
                    self.held = change.identifier
                case "suspect":
                    assert (self.held, self.state) == (change.identifier, PRESENT)
                case "restored":
                    assert (self.held, self.state) == (change.identifier, SUSPECT)
                case "ambiguous":
                    assert self.held is None
                    assert change.identifier is None
                case "removed":
                    assert change.identifier == self.held
                    assert self.state == AMBIGUOUS if self.held is None else self.state in (PRESENT, SUSPECT)
                    self.held = None
            self.state, self.at_ns = change.state, change.at_ns


@pytest.mark.parametrize(("reads", "misses"), [(2, 3), (1, 1), (3, 2)])
def test_every_short_sequence_of_polls_tells_a_possible_and_safe_story(reads: int, misses: int) -> None:
    for polls in product((NONE, ONLY_A, ONLY_B, BOTH), repeat=7):
        presence, consumer = PolledPresence(reads, misses), Consumer()
        for number, poll in enumerate(polls):
            changes = presence.poll(poll, number)
            consumer.take(changes)
            _check_polled(presence, consumer, polls[: number + 1], changes, reads, misses)


def _check_polled(
    presence: PolledPresence,
    consumer: Consumer,
    polls: tuple[frozenset[str], ...],
    changes: list[Change],
    reads: int,
    misses: int,
) -> None:
    now, last = len(polls) - 1, polls[-1]
    assert consumer.held == presence.held
    assert (consumer.state == AMBIGUOUS) == presence.ambiguous
    assert all(change.at_ns == now for change in changes)
    # Slow to grant: only equal single reads in a row, and then always.
    if any(change.action == "inserted" for change in changes):
        assert set(polls[-reads:]) == {last}
    if len(last) == 1 and len(polls) >= reads and set(polls[-reads:]) == {last}:
        assert (consumer.held, consumer.state) == (next(iter(last)), PRESENT)
    # Quick to revoke: trusted only while the last poll said exactly this token; gone after too many misses.
    assert consumer.state != PRESENT or last == {consumer.held}
    assert consumer.held is None or any(poll == {consumer.held} for poll in polls[-misses:])
    if len(last) > 1:
        assert (consumer.held, consumer.state) == (None, AMBIGUOUS)
    for change in changes:
        if change.action == "removed" and change.identifier is not None:
            assert change.last_seen_ns == max(
                at
                for at, poll in enumerate(polls)
                if poll == {change.identifier} or (at == now and change.identifier in poll)
            )


@pytest.mark.parametrize(("reads", "misses"), [(2, 3), (1, 1), (3, 2)])
def test_a_failed_poll_takes_trust_away_and_nothing_else(reads: int, misses: int) -> None:
    for polls in product((NONE, ONLY_A, ONLY_B, BOTH, None), repeat=6):
        presence, consumer = PolledPresence(reads, misses), Consumer()
        for number, poll in enumerate(polls):
            before = (presence.held, presence.ambiguous)
            changes = presence.failed(number) if poll is None else presence.poll(poll, number)
            consumer.take(changes)
            if poll is None:
                assert (presence.held, presence.ambiguous) == before
                assert consumer.state == (AMBIGUOUS if presence.ambiguous else SUSPECT if presence.held else ABSENT)
            if any(change.action == "inserted" for change in changes):
                assert set(polls[number + 1 - reads : number + 1]) == {poll}
            if any(change.action == "removed" for change in changes) and poll == NONE and before[0] is not None:
                complete = [one for one in polls[: number + 1] if one is not None]
                assert {consumer.held, before[0]}.isdisjoint(set().union(*complete[-misses:]))


def test_two_keys_are_none_until_one_of_them_is_read_twice() -> None:
    presence = PolledPresence()
    polls = [ONLY_A, ONLY_A, BOTH, BOTH, ONLY_B, ONLY_A, ONLY_B, ONLY_B, BOTH, NONE]
    actions = [[change.action for change in presence.poll(poll, number)] for number, poll in enumerate(polls)]
    assert actions == [
        [],
        ["inserted"],
        ["removed", "ambiguous"],
        [],
        [],
        [],
        [],
        ["inserted"],
        ["removed", "ambiguous"],
        ["removed"],
    ]


def test_a_key_is_settled_only_while_nothing_is_pending() -> None:
    presence = PolledPresence()
    settled = []
    for number, poll in enumerate([NONE, ONLY_A, ONLY_A, NONE, ONLY_A, NONE, BOTH, NONE]):
        presence.poll(poll, number)
        settled.append(presence.settled)
    assert settled == [True, False, True, False, True, False, True, True]


STEPS = tuple(product((5, 65, 160), (A, B, None)))  # milliseconds to wait, frame to see
REPEATED = {"suspect_ns": 150 * MS, "hold_ns": 300 * MS, "gap_ns": 20 * MS}


def test_every_short_sequence_of_frames_tells_a_possible_and_safe_story() -> None:
    for steps in product(STEPS, repeat=5):
        presence, consumer = RepeatedPresence(2, **REPEATED), Consumer()
        now_ns = 0
        frames: list[tuple[int, str]] = []
        for wait_ms, identifier in steps:
            now_ns += wait_ms * MS
            changes = presence.expire(now_ns)
            if identifier is not None:
                frames.append((now_ns, identifier))
                changes += presence.seen(identifier, now_ns)
            consumer.take(changes)
            _check_repeated(presence, consumer, frames, now_ns, changes)


def _check_repeated(
    presence: RepeatedPresence, consumer: Consumer, frames: list[tuple[int, str]], now_ns: int, changes: list[Change]
) -> None:
    assert consumer.held == presence.held
    assert all(change.at_ns <= now_ns for change in changes)
    deadline_ns = presence.deadline_ns()
    assert (deadline_ns is None) == (presence.held is None)
    assert deadline_ns is None or deadline_ns > now_ns  # waiting for it is never a busy loop
    equal = takewhile(lambda frame: frame[1] == frames[-1][1], reversed(frames))
    run_ns = [at_ns for at_ns, _ in equal]  # times of the last equal frames, latest first
    if any(change.action == "inserted" for change in changes):
        assert run_ns[0] - run_ns[-1] >= 20 * MS
        assert run_ns[0] == now_ns
    if len(run_ns) > 1 and run_ns[0] == now_ns and 20 * MS <= run_ns[0] - run_ns[1] < 300 * MS:
        assert (consumer.held, consumer.state) == (frames[-1][1], PRESENT)
    if consumer.held is not None:
        silence_ns = now_ns - max(at_ns for at_ns, identifier in frames if identifier == consumer.held)
        assert silence_ns < 300 * MS
        assert consumer.state == (PRESENT if silence_ns < 150 * MS else SUSPECT)
    for change in changes:
        if change.action == "removed" and change.at_ns != now_ns:
            assert change.at_ns == change.last_seen_ns + 300 * MS


def test_what_is_decided_does_not_depend_on_how_often_silence_is_looked_at() -> None:
    chance = random.Random(1)
    for _ in range(200):
        frames = [(chance.choice((5, 65, 130, 160, 310)) * MS, chance.choice((A, A, A, B))) for _ in range(12)]
        assert _decide(frames, look_ns=None) == _decide(frames, look_ns=7 * MS)


def _decide(frames: list[tuple[int, str]], look_ns: int | None) -> list[Change]:
    presence = RepeatedPresence(2, **REPEATED)
    changes: list[Change] = []
    now_ns = 0
    for wait_ns, identifier in frames:
        if look_ns:
            for look_at_ns in range(now_ns, now_ns + wait_ns, look_ns):
                changes += presence.expire(look_at_ns)
        now_ns += wait_ns
        changes += presence.seen(identifier, now_ns)
    return changes + presence.expire(now_ns + 1000 * MS)


def test_frames_that_arrive_together_count_as_one() -> None:
    presence = RepeatedPresence(2, **REPEATED)
    assert [presence.seen(A, at_ns) for at_ns in (0, 0, 1 * MS, 19 * MS)] == [[], [], [], []]
    assert [change.action for change in presence.seen(A, 20 * MS)] == ["inserted"]


def test_frames_that_arrive_together_late_in_a_row_count_as_one_too() -> None:
    presence = RepeatedPresence(3, **REPEATED)
    assert [presence.seen(A, at_ms * MS) for at_ms in (0, 65, 65, 66)] == [[], [], [], []]
    assert [change.action for change in presence.seen(A, 130 * MS)] == ["inserted"]


def test_a_stray_frame_of_another_card_changes_nothing_while_the_held_one_repeats() -> None:
    presence = RepeatedPresence(2, **REPEATED)
    for number in range(40):
        presence.seen(A, number * 65 * MS)
        if number > 1:
            assert presence.seen(B, (number * 65 + 30) * MS) == []
    assert presence.held == A


def test_a_first_frame_is_forgotten_after_the_hold_time() -> None:
    presence = RepeatedPresence(2, **REPEATED)
    assert presence.seen(A, 0) == []
    assert presence.seen(A, 301 * MS) == []
    assert [change.action for change in presence.seen(A, 366 * MS)] == ["inserted"]


@pytest.mark.parametrize("suspect_ms", [300, 400])
def test_without_time_for_suspicion_a_card_is_removed_at_once(suspect_ms: int) -> None:
    presence = RepeatedPresence(1, suspect_ns=suspect_ms * MS, hold_ns=300 * MS)
    presence.seen(A, 0)
    assert presence.deadline_ns() == 300 * MS
    assert presence.expire(300 * MS - 1) == []
    assert presence.expire(300 * MS) == [Change("removed", A, 300 * MS, 0, ABSENT)]


@pytest.mark.parametrize(
    ("hold_ms", "fewest", "most"), [(150, 1770 * 0.9, 1770 * 1.1), (300, 71 * 0.7, 71 * 1.3), (500, 0, 3)]
)
def test_false_removals_in_an_hour_at_the_edge_of_the_field_are_as_computed(
    hold_ms: int, fewest: float, most: float
) -> None:
    """125 kHz protocol document, section 4: a period of 65 ms, every fifth frame lost."""
    presence = RepeatedPresence(2, hold_ns=hold_ms * MS)
    chance = random.Random(1)
    removals = 0
    for at_ms in range(0, 3_600_000, 65):
        if chance.random() >= 0.2:
            removals += sum(change.action == "removed" for change in presence.seen(A, at_ms * MS))
    assert fewest <= removals <= most

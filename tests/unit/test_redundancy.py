"""Two readers, one place: what is told against what hands really did, whatever reader dies, returns or is blind when."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable, Iterable
from itertools import count

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from optima_bridge.model import Capability, Data, Event, Observation, Subject
from optima_bridge.presence import ABSENT, AMBIGUOUS, PRESENT, SUSPECT
from optima_bridge.redundancy import BLIND_NS, TOUCH_NS, Redundancy, Told, View, shared

A, B = "01B7BA1000000075", "01AABB10000000C4"
FRONT, SPARE = "front", "front-b"
READERS = (FRONT, SPARE)
MS = 1_000_000
LAG_MS = 500  # between what a hand does and what a reader reports
EXAMPLES = int(os.environ.get("EXAMPLES", "60"))
BLIND_MS = BLIND_NS // MS
SLOW_MS = 700  # between what a hand does and what it does next

LOCKED: Data = {"position": "locked", "position_code": 1}
NORMAL: Data = {"position": "normal", "position_code": 2}
BETWEEN: Data = {"position": "between", "position_code": 0}
SUPERVISOR: Data = {"position": "supervisor", "position_code": 3}


class World:
    """Hands, two simulated readers with their lags, and someone who believes what is told."""

    def __init__(self) -> None:
        self.place = Redundancy(Subject.KEY, FRONT, SPARE)
        self.now_ms = 0
        self.key: str | None = None
        self.done: list[tuple[str, str]] = []
        self.told: list[Told] = []
        self.held: str | None = None  # by one who believes the events; None, too, where nothing is known
        self.alive = dict.fromkeys(READERS, False)
        self.up = dict.fromkeys(READERS, False)
        self.blind = dict.fromkeys(READERS, False)
        self.saw: dict[str, str | None] = {}  # what the reader's driver has decided
        self.said: dict[str, str | None] = {}  # what of it has arrived
        self.life = dict.fromkeys(READERS, 0)
        self._last_ms = dict.fromkeys(READERS, 0)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = count()

    # -- hands

    def put(self, key: str | None, lags_ms: tuple[int, int]) -> None:
        """Swap what is in the reader."""
        if self.key not in (None, key):
            self.done.append(("removed", self.key or ""))
        if key not in (None, self.key):
            self.done.append(("inserted", key or ""))
        self.key = key
        for reader, lag_ms in zip(READERS, lags_ms, strict=True):
            self.look(reader, lag_ms)

    def look(self, reader: str, lag_ms: int) -> None:
        if self.alive[reader] and not self.blind[reader]:
            for report in self._reports(reader):
                self._deliver(reader, report, lag_ms)

    def touch(self, card: str, lags_ms: tuple[int, int], missed_by: str | None) -> None:
        """Hold a card to readers that tell arrival only."""
        self.done.append(("presented", card))
        for reader, lag_ms in zip(READERS, lags_ms, strict=True):
            if reader != missed_by:
                event = Event(Subject.CARD, "presented", self.now_ms * MS, identifier=card)
                self._deliver(reader, event, lag_ms)

    def _reports(self, reader: str) -> Iterable[Event | Observation]:
        before, is_first = self.saw.get(reader), reader not in self.saw
        self.saw[reader] = self.key
        now_ns = self.now_ms * MS
        if before not in (None, self.key):
            yield Event(Subject.KEY, "removed", now_ns, identifier=before, state=ABSENT)
        if self.key not in (None, before):
            yield Event(Subject.KEY, "inserted", now_ns, identifier=self.key, state=PRESENT)
        elif is_first:
            yield Observation(Subject.KEY, ABSENT)

    def _deliver(self, reader: str, report: Event | Observation, lag_ms: int) -> None:
        life = self.life[reader]

        def deliver() -> None:
            if self.life[reader] == life:
                holds = report.state == PRESENT and isinstance(report, Event)
                self.said[reader] = report.identifier if holds and isinstance(report, Event) else None
                self._take(self.place.heard(reader, report, self.now_ms * MS))

        self._last_ms[reader] = max(self._last_ms[reader], self.now_ms + lag_ms)
        self._at(self._last_ms[reader], deliver)

    # -- readers

    def rise(self, reader: str, lag_ms: int) -> None:
        if not self.alive[reader]:
            self._lose(reader)
            self.life[reader] += 1
            self.alive[reader] = self.up[reader] = True
            self.saw.pop(reader, None)
            self.said.pop(reader, None)
            self._take(self.place.up(reader, self.now_ms * MS))
            self.look(reader, lag_ms)

    def die(self, reader: str, noticed_after_ms: int) -> None:
        if self.alive[reader]:
            self.life[reader] += 1
            self.alive[reader] = False
            life = self.life[reader]

            def notice() -> None:
                if self.life[reader] == life:
                    self._lose(reader)

            self._at(self.now_ms + noticed_after_ms, notice)

    def _lose(self, reader: str) -> None:
        if self.up[reader]:
            self.up[reader] = False
            self.said.pop(reader, None)
            self._take(self.place.lost(reader, self.now_ms * MS))

    # -- time

    def _at(self, at_ms: int, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (at_ms, next(self._number), what))

    def wait(self, duration_ms: int) -> None:
        end_ms = self.now_ms + duration_ms
        while True:
            deadline_ns = self.place.deadline_ns()
            deadline_ms = end_ms + 1 if deadline_ns is None else -(-deadline_ns // MS)
            next_ms = self._queue[0][0] if self._queue else end_ms + 1
            if min(deadline_ms, next_ms) > end_ms:
                break
            self.now_ms = max(self.now_ms, min(deadline_ms, next_ms))
            if next_ms <= deadline_ms:
                heapq.heappop(self._queue)[2]()
            else:
                self._take(self.place.expire(self.now_ms * MS))
        self.now_ms = end_ms

    def _take(self, news: list[Told]) -> None:
        self.told += news
        for event in (told.event for told in news if told.event.state is not None):
            if event.action == "removed":
                assert event.identifier == self.held
            else:
                assert self.held is None
            self.held = event.identifier if event.action == "inserted" else None
        leader = self.place.leader
        assert (leader is None) == (not any(self.up.values()))
        assert leader is None or self.up[leader]
        if (view := self.place.view) is not None and view.state == PRESENT:
            assert view.identifier in [self.said.get(reader) for reader in READERS if self.up[reader]]
        if leader is None:
            assert self.place.view is None
            self.held = None

    def story(self) -> list[tuple[str, str]]:
        return [(told.event.action, told.event.identifier or "") for told in self.told]


LAG = st.integers(0, LAG_MS)
LAGS = st.tuples(LAG, LAG)
KEY = st.sampled_from([None, A, B])
READER = st.sampled_from(READERS)
STEPS = st.one_of(
    st.tuples(st.just("put"), KEY, LAGS),
    st.tuples(st.just("die"), READER, st.integers(0, LAG_MS)),
    st.tuples(st.just("rise"), READER, LAG),
)
BLINDNESS = st.tuples(st.just("blind"), READER, LAG)
MOMENTS = st.integers(0, BLIND_MS + 1000)


def both_up() -> World:
    world = World()
    for reader in READERS:
        world.rise(reader, 0)
    world.wait(1)
    return world


def play(world: World, step: tuple[str, object, object]) -> None:
    match step:
        case "put", key, lags:
            world.put(key, lags)  # type: ignore[arg-type]
        case "die", str(reader), int(after_ms):
            world.die(reader, after_ms)
        case "rise", str(reader), int(lag_ms):
            world.rise(reader, lag_ms)
        case "blind", str(reader), int(lag_ms):
            world.blind[reader] = not world.blind[reader]
            world.look(reader, lag_ms)


@given(st.lists(st.tuples(MOMENTS, STEPS), max_size=40))
@settings(max_examples=EXAMPLES, deadline=None)
def test_each_action_is_told_once_and_in_order_while_one_of_the_two_lives(
    script: list[tuple[int, tuple[str, object, object]]],
) -> None:
    world = both_up()
    hand_free_ms = 0
    for pause_ms, step in script:
        world.wait(pause_ms)
        if step[0] == "put":
            world.wait(max(0, hand_free_ms - world.now_ms))
            hand_free_ms = world.now_ms + SLOW_MS
        if step[0] == "die" and not world.alive[READERS[step[1] == FRONT]]:
            continue  # the last one
        play(world, step)
    world.wait(10_000)
    assert world.story() == world.done
    assert world.place.blind == frozenset()
    assert world.place.leader == (FRONT if world.alive[FRONT] else SPARE)
    assert world.place.view is not None
    assert world.place.view.identifier == world.key


@given(st.lists(st.tuples(st.integers(0, 1500), KEY, LAGS), max_size=60))
@settings(max_examples=EXAMPLES, deadline=None)
def test_each_action_is_told_once_and_in_order_however_fast_hands_are(
    script: list[tuple[int, str | None, tuple[int, int]]],
) -> None:
    world = both_up()
    for pause_ms, key, lags in script:
        world.wait(pause_ms)
        world.put(key, lags)
    world.wait(10_000)
    assert world.story() == world.done
    assert world.place.blind == frozenset()
    assert world.place.leader == FRONT


@given(st.lists(st.tuples(MOMENTS, st.one_of(STEPS, BLINDNESS)), max_size=40))
@example(
    [
        (0, ("blind", SPARE, 0)),
        (0, ("put", A, (0, 0))),
        (0, ("put", A, (0, 0))),
        (800, ("blind", SPARE, 500)),
        (0, ("put", None, (0, 0))),
    ]
)  # seen again as late as can be, and removed before it says so
@example(
    [
        (0, ("blind", SPARE, 0)),
        (0, ("put", A, (0, 0))),
        (BLIND_MS + 100, ("blind", SPARE, 500)),
        (0, ("put", None, (0, 0))),
    ]
)  # the same after it was found blind
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_only_one_reader_sees_is_told_late_but_once(
    script: list[tuple[int, tuple[str, object, object]]],
) -> None:
    world = both_up()
    hand_free_ms = 0
    seeing_ms = dict.fromkeys(READERS, -BLIND_MS)
    for pause_ms, step in script:
        world.wait(pause_ms)
        if step[0] in ("die", "rise"):
            continue
        if step[0] == "blind":
            reader, other = step[1], READERS[step[1] == FRONT]
            if world.blind[other] or world.now_ms < seeing_ms[other] + BLIND_MS:
                continue  # the other one is blind, or was: one fault at a time
            seeing_ms[str(reader)] = world.now_ms
        if step[0] == "put":
            world.wait(max(0, hand_free_ms - world.now_ms))
            hand_free_ms = world.now_ms + SLOW_MS
        play(world, step)
    world.wait(10_000)
    assert sorted(world.story()) == sorted(world.done)  # late: maybe after what came next
    assert world.place.view is not None
    assert world.place.view.identifier == world.key


@given(st.lists(st.tuples(MOMENTS, st.one_of(STEPS, BLINDNESS)), max_size=60))
@settings(max_examples=EXAMPLES, deadline=None)
def test_whatever_happens_nothing_is_granted_that_no_reader_sees_and_all_is_well_in_the_end(
    script: list[tuple[int, tuple[str, object, object]]],
) -> None:
    world = World()  # it checks each grant
    for pause_ms, step in script:
        world.wait(pause_ms)
        play(world, step)
    for reader in READERS:
        world.rise(reader, 0)
        world.blind[reader] = False
        world.look(reader, 0)
    world.wait(10_000)
    assert world.place.view is not None
    assert world.place.view.identifier == world.key
    assert world.held in (world.key, None)


@given(st.lists(st.tuples(st.integers(0, 1500), st.sampled_from([A, B]), LAGS, st.sampled_from([None, *READERS]))))
@settings(max_examples=EXAMPLES, deadline=None)
def test_each_touch_is_told_once_and_at_once_where_both_readers_see_it(
    script: list[tuple[int, str, tuple[int, int], str | None]],
) -> None:
    world = both_up()
    for pause_ms, card, lags_ms, missed_by in script:
        world.touch(card, lags_ms, missed_by)
        world.wait(max(lags_ms))
        if missed_by is None:
            assert world.story() == world.done
        world.wait(TOUCH_NS // MS + pause_ms)
        assert world.story() == world.done


class Pair:
    """Two readers that are up, and what is told of them, for worked examples."""

    def __init__(self, subject: Subject = Subject.KEY, found: Data | None = ABSENT) -> None:
        self.place = Redundancy(subject, FRONT, SPARE)
        self.subject = subject
        self.now_ns = 0
        for reader in READERS:
            assert self.place.up(reader, 0) == []
            if found is not None:
                assert self.find(reader, found) == []

    def find(self, reader: str, state: Data) -> list[str]:
        return self._words(self.place.heard(reader, Observation(self.subject, state), self.now_ns))

    def see(self, reader: str, action: str, identifier: str | None = None, state: Data | None = None) -> list[str]:
        event = Event(self.subject, action, self.now_ns, identifier=identifier, state=state)
        return self._words(self.place.heard(reader, event, self.now_ns))

    def put(self, reader: str, key: str = A) -> list[str]:
        return self.see(reader, "inserted", key, PRESENT)

    def take(self, reader: str, key: str = A) -> list[str]:
        return self.see(reader, "removed", key, ABSENT)

    def lose(self, reader: str) -> list[str]:
        return self._words(self.place.lost(reader, self.now_ns))

    def rise(self, reader: str) -> list[str]:
        return self._words(self.place.up(reader, self.now_ns))

    def wait(self, duration_ns: int) -> list[str]:
        self.now_ns += duration_ns
        return self._words(self.place.expire(self.now_ns))

    def _words(self, news: list[Told]) -> list[str]:
        """``front inserted``; an event that changes no state any more has ``late`` behind it."""
        assert all(told.event.state is None for told in news if told.is_late)
        return [f"{told.reader} {told.event.action}{' late' * told.is_late}" for told in news]


def test_what_the_primary_sees_is_told_at_once_and_the_standby_repeats_nothing() -> None:
    pair = Pair()
    assert pair.put(FRONT) == ["front inserted"]
    assert pair.put(SPARE) == []
    assert pair.take(SPARE) == []
    assert pair.take(FRONT) == ["front removed"]
    assert pair.wait(10 * BLIND_NS) == []
    assert pair.place.deadline_ns() is None
    assert pair.place.blind == frozenset()


def test_a_primary_that_misses_a_key_is_blind_until_it_sees_one() -> None:
    pair = Pair()
    assert pair.put(SPARE) == []
    assert pair.place.deadline_ns() == BLIND_NS
    assert pair.wait(BLIND_NS - 1) == []
    assert pair.wait(1) == ["front-b inserted"]
    assert (pair.place.blind, pair.place.leader, pair.place.view) == (frozenset({FRONT}), SPARE, View(PRESENT, A))
    pair.lose(FRONT)
    pair.rise(FRONT)
    pair.find(FRONT, ABSENT)  # opening it again proves nothing
    assert pair.take(SPARE) == ["front-b removed"]
    assert pair.place.leader == SPARE
    pair.wait(BLIND_NS)
    assert pair.put(FRONT) == []
    assert pair.put(SPARE) == ["front-b inserted"]
    assert (pair.place.blind, pair.place.leader) == (frozenset(), FRONT)


def test_a_blind_primary_that_reports_late_is_not_told_and_believed_again() -> None:
    pair = Pair()
    pair.put(SPARE)
    assert pair.wait(BLIND_NS) == ["front-b inserted"]
    assert pair.put(FRONT) == []
    assert (pair.place.blind, pair.place.leader) == (frozenset(), FRONT)


def test_a_standby_that_misses_a_key_is_blind_and_changes_nothing() -> None:
    pair = Pair()
    assert pair.put(FRONT) == ["front inserted"]
    assert pair.wait(BLIND_NS) == []
    assert (pair.place.blind, pair.place.leader) == (frozenset({SPARE}), FRONT)
    assert pair.put(SPARE) == []
    assert pair.place.blind == frozenset()


def test_what_only_the_lost_primary_saw_is_unknown_until_the_standby_says_so_or_is_believed() -> None:
    pair = Pair()
    pair.put(FRONT)
    assert pair.lose(FRONT) == []
    assert pair.place.view is None
    assert pair.put(SPARE) == []
    assert pair.place.view == View(PRESENT, A)

    pair = Pair()
    pair.put(FRONT)
    pair.lose(FRONT)
    assert pair.wait(BLIND_NS) == ["front-b removed"]
    assert pair.place.view == View(ABSENT)


def test_what_the_standby_saw_first_is_told_when_the_primary_is_lost() -> None:
    pair = Pair()
    pair.put(SPARE)
    assert pair.lose(FRONT) == ["front-b inserted"]
    assert pair.rise(FRONT) == []
    assert pair.put(FRONT) == []
    assert pair.place.leader == FRONT


def test_a_primary_that_returns_and_sees_no_key_where_the_standby_sees_one_is_not_believed() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.put(SPARE)
    pair.lose(FRONT)
    pair.rise(FRONT)
    assert pair.find(FRONT, ABSENT) == []
    assert pair.wait(BLIND_NS) == []
    assert (pair.place.blind, pair.place.leader) == (frozenset({FRONT}), SPARE)
    assert pair.lose(SPARE) == ["front removed"]
    assert pair.place.view == View(ABSENT)


def test_a_reader_that_stops_knowing_what_it_sees_is_not_believed() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.put(SPARE)
    assert pair.find(FRONT, {"presence": "unknown"}) == []
    assert (pair.place.leader, pair.place.view) == (SPARE, View(PRESENT, A))
    assert pair.find(SPARE, {"presence": "unknown"}) == []
    assert pair.place.view is None
    assert pair.find(SPARE, ABSENT) == ["front-b removed"]


def test_what_a_lost_standby_alone_saw_is_told_without_becoming_true() -> None:
    pair = Pair()
    pair.put(SPARE)
    pair.lose(SPARE)
    assert pair.wait(BLIND_NS) == ["front-b inserted late"]
    assert pair.place.view == View(ABSENT)

    pair = Pair()
    pair.put(SPARE)
    pair.lose(SPARE)
    assert pair.lose(FRONT) == ["front-b inserted late"]
    assert pair.place.view is None


def test_a_touch_that_the_primary_missed_comes_before_what_it_saw_after_it() -> None:
    pair = Pair()
    assert pair.put(SPARE) + pair.take(SPARE) + pair.put(SPARE, B) == []
    assert pair.put(FRONT, B) == ["front-b inserted", "front-b removed", "front inserted"]
    assert pair.place.view == View(PRESENT, B)

    pair = Pair()
    assert pair.put(FRONT, B) == ["front inserted"]
    assert pair.put(SPARE) + pair.take(SPARE) == []
    assert pair.put(SPARE, B) == ["front-b inserted late", "front-b removed late"]
    assert pair.place.view == View(PRESENT, B)


def test_one_key_for_another_during_the_change_over_is_a_removal_and_an_insertion() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.put(SPARE)
    pair.lose(SPARE)
    pair.rise(SPARE)
    pair.lose(FRONT)
    assert pair.put(SPARE, B) == ["front-b removed", "front-b inserted"]


def test_a_standby_that_comes_to_its_senses_late_tells_nothing() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.put(SPARE)
    assert pair.take(FRONT) == ["front removed"]
    pair.wait(BLIND_NS)
    assert pair.put(FRONT, B) == ["front inserted"]
    assert pair.take(SPARE) + pair.put(SPARE, B) == []
    assert pair.wait(BLIND_NS) == []
    assert pair.place.blind == frozenset()


@pytest.mark.parametrize(
    ("subject", "before", "steps"),
    [
        (Subject.KEY, ABSENT, [("inserted", A, PRESENT), ("removed", A, ABSENT)]),
        (
            Subject.SEAL,
            {"seal": "intact"},
            [("opened", None, {"seal": "broken"}), ("closed", None, {"seal": "intact"})],
        ),
        (Subject.KEYLOCK, LOCKED, [("turned", None, SUPERVISOR), ("turned", None, LOCKED)]),
        (Subject.KEYLOCK, LOCKED, [("turned", None, NORMAL), ("turned", None, SUPERVISOR)]),
    ],
)
def test_a_blind_standby_that_catches_up_with_what_is_over_tells_nothing(
    subject: Subject, before: Data, steps: list[tuple[str, str | None, Data]]
) -> None:
    pair = Pair(subject, before)
    first, second = steps
    assert pair.see(FRONT, *first) == [f"front {first[0]}"]
    assert pair.wait(BLIND_NS) == []
    assert pair.place.blind == frozenset({SPARE})
    assert pair.see(FRONT, *second) == [f"front {second[0]}"]
    assert pair.see(SPARE, *first) + pair.see(SPARE, *second) == []
    assert pair.wait(BLIND_NS) == []
    assert (pair.place.blind, pair.place.leader) == (frozenset(), FRONT)


def test_what_a_reader_sees_long_after_it_missed_something_is_no_catching_up() -> None:
    pair = Pair()
    assert pair.put(SPARE) + pair.take(SPARE) == []
    assert pair.wait(BLIND_NS) == ["front-b inserted", "front-b removed"]
    assert pair.wait(2 * BLIND_NS) == []
    assert pair.place.blind == frozenset({FRONT})
    assert pair.put(FRONT) + pair.take(FRONT) == []
    assert pair.wait(BLIND_NS) == ["front inserted", "front removed"]


def test_what_a_new_leader_sees_settles_what_it_missed() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.lose(FRONT)
    assert pair.put(SPARE, B) == ["front-b removed", "front-b inserted"]
    assert pair.place.view == View(PRESENT, B)


def test_doubts_are_those_of_the_reader_that_leads() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.put(SPARE)
    assert pair.see(SPARE, "suspect", A, SUSPECT) == []
    assert pair.see(SPARE, "restored", A, PRESENT) == []
    assert pair.see(FRONT, "suspect", A, SUSPECT) == ["front suspect"]
    assert pair.lose(FRONT) == ["front-b restored"]
    assert pair.see(SPARE, "suspect", A, SUSPECT) == ["front-b suspect"]
    assert pair.take(SPARE) == ["front-b removed"]


def test_a_key_that_is_doubted_from_the_start_is_not_granted_by_a_change_over() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.put(SPARE)
    pair.take(FRONT)
    pair.wait(BLIND_NS)
    pair.see(SPARE, "suspect", A, SUSPECT)
    assert pair.lose(FRONT) == []
    assert pair.see(SPARE, "restored", A, PRESENT) == ["front-b inserted"]


def test_several_keys_on_both_readers_are_told_once() -> None:
    pair = Pair()
    pair.put(FRONT)
    pair.put(SPARE)
    assert pair.take(FRONT) == ["front removed"]
    assert pair.see(FRONT, "ambiguous", None, AMBIGUOUS) == ["front ambiguous"]
    assert pair.take(SPARE) + pair.see(SPARE, "ambiguous", None, AMBIGUOUS) == []
    assert pair.lose(FRONT) == []
    assert pair.see(SPARE, "removed", None, ABSENT) == ["front-b removed"]


@pytest.mark.parametrize(
    ("subject", "action", "before", "after"),
    [
        (Subject.KEYLOCK, "turned", NORMAL, LOCKED),
        (Subject.SEAL, "opened", {"seal": "intact"}, {"seal": "broken"}),
        (Subject.SEAL, "closed", {"seal": "broken"}, {"seal": "intact"}),
    ],
)
def test_keylocks_and_seals_fail_over_as_keys_do(subject: Subject, action: str, before: Data, after: Data) -> None:
    pair = Pair(subject, before)
    assert pair.see(FRONT, action, None, {**after, "name": "more than the other tells"}) == [f"front {action}"]
    assert pair.see(SPARE, action, None, after) == []
    pair.lose(FRONT)
    assert pair.place.view == View(after)
    pair.rise(FRONT)
    pair.find(FRONT, before)
    assert pair.lose(SPARE) == [
        f"front {'turned' if action == 'turned' else {'opened': 'closed', 'closed': 'opened'}[action]}"
    ]


def test_on_its_way_a_keylock_is_told_by_the_leader_only() -> None:
    pair = Pair(Subject.KEYLOCK, LOCKED)
    assert pair.see(FRONT, "turned", None, NORMAL) == ["front turned"]
    assert pair.see(SPARE, "turned", None, BETWEEN) + pair.see(SPARE, "turned", None, NORMAL) == []
    assert pair.see(SPARE, "turned", None, BETWEEN) + pair.see(SPARE, "turned", None, LOCKED) == []
    assert pair.see(FRONT, "turned", None, LOCKED) == ["front turned"]
    assert pair.wait(BLIND_NS) == []
    assert pair.place.blind == frozenset()
    pair.lose(FRONT)
    assert pair.see(SPARE, "turned", None, BETWEEN) == ["front-b turned"]
    assert pair.place.view == View(BETWEEN)


def test_a_turn_is_told_once_when_the_primary_is_lost_before_the_standby_is_on_its_way() -> None:
    pair = Pair(Subject.KEYLOCK, LOCKED)
    assert pair.see(FRONT, "turned", None, NORMAL) == ["front turned"]
    assert pair.lose(FRONT) == []
    assert pair.see(SPARE, "turned", None, BETWEEN) + pair.see(SPARE, "turned", None, NORMAL) == []
    assert pair.place.view == View(NORMAL)

    pair = Pair(Subject.KEYLOCK, LOCKED)
    pair.see(FRONT, "turned", None, NORMAL)
    pair.lose(FRONT)
    assert pair.see(SPARE, "turned", None, BETWEEN) == []
    assert pair.wait(BLIND_NS) == ["front-b turned"]  # it stays there
    assert pair.place.view == View(BETWEEN)


def test_what_happens_to_a_seal_that_stays_broken_is_told_once() -> None:
    pair = Pair(Subject.SEAL, {"seal": "intact"})
    latched: Data = {"seal": "broken", "latched": True}
    assert pair.see(FRONT, "opened", None, latched) == ["front opened"]
    assert pair.see(SPARE, "opened", None, latched) == []
    assert pair.see(SPARE, "closed", None, latched) == []
    assert pair.see(FRONT, "closed", None, latched) == ["front closed"]
    assert pair.see(FRONT, "broken", None, latched) == ["front broken"]
    assert pair.see(SPARE, "broken", None, latched) == []
    assert pair.see(SPARE, "opened", None, latched) == []
    assert pair.lose(FRONT) == ["front-b opened"]
    assert pair.wait(BLIND_NS) == []


def test_an_action_is_told_in_the_words_of_the_driver() -> None:
    pair = Pair(Subject.SEAL, {"seal": "intact"})
    assert pair.see(FRONT, "broken", None, {"seal": "broken", "counters": {"C01": 5}}) == ["front broken"]
    assert pair.see(SPARE, "opened", None, {"seal": "broken"}) == []
    assert pair.wait(BLIND_NS) == []


def test_touches_are_paired_one_by_one() -> None:
    pair = Pair(Subject.CARD, None)
    assert pair.see(FRONT, "presented", A) == ["front presented"]
    assert pair.see(FRONT, "presented", A) == ["front presented"]
    assert pair.see(SPARE, "presented", A) + pair.see(SPARE, "presented", A) == []
    assert pair.see(SPARE, "presented", B) == []
    assert pair.see(FRONT, "presented", B) == ["front presented"]
    assert pair.wait(BLIND_NS) == []
    assert pair.place.blind == frozenset()


def test_a_touch_that_one_reader_misses_makes_it_blind() -> None:
    pair = Pair(Subject.CARD, None)
    pair.see(FRONT, "presented", A)
    pair.wait(TOUCH_NS)
    assert (pair.place.blind, pair.place.leader) == (frozenset({SPARE}), FRONT)
    assert pair.see(SPARE, "presented", B) == []
    assert pair.wait(TOUCH_NS) == ["front-b presented"]
    assert (pair.place.blind, pair.place.leader) == (frozenset({FRONT, SPARE}), SPARE)
    assert pair.see(FRONT, "presented", A) == []
    assert pair.see(SPARE, "presented", A) == ["front-b presented"]
    assert pair.wait(TOUCH_NS) == []
    assert (pair.place.blind, pair.place.leader) == (frozenset(), FRONT)


def test_a_touch_that_the_primary_missed_is_not_taken_for_its_next_one() -> None:
    pair = Pair(Subject.CARD, None)
    assert pair.see(SPARE, "presented", A) + pair.see(SPARE, "presented", B) == []
    assert pair.see(FRONT, "presented", B) == ["front-b presented", "front presented"]
    assert pair.see(FRONT, "presented", A) == ["front presented"]


def test_a_touch_that_was_told_late_is_not_taken_for_the_next_one() -> None:
    pair = Pair(Subject.CARD, None)
    assert pair.see(SPARE, "presented", A) == []
    assert pair.wait(TOUCH_NS) == ["front-b presented"]
    assert pair.see(FRONT, "presented", A) == []
    assert pair.see(SPARE, "presented", A) == ["front-b presented"]
    assert (pair.place.blind, pair.place.leader) == (frozenset(), FRONT)
    assert pair.wait(TOUCH_NS) == []


def test_two_devices_share_what_both_can_see() -> None:
    one = frozenset({Capability.KEY_READER, Capability.SEAL_SWITCH, Capability.TERMINAL})
    assert shared(one, one) == {Subject.KEY, Subject.SEAL}
    assert shared(one, frozenset({Capability.SECURE_STORE, Capability.TERMINAL})) == frozenset()

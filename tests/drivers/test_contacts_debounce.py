"""Slow to grant, quick to revoke: whatever a contact does."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_drivers.contacts.debounce import Debounce

STABLE_MS = 50
NS_PER_MS = 1_000_000

samples = st.lists(
    st.tuples(st.integers(1, 60), st.sampled_from(["open", "closed", "half"]), st.booleans() | st.just(False)),
    max_size=120,
)


@given(samples)
def test_no_value_is_granted_before_it_was_steady_for_long_enough(steps: list[tuple[int, str, bool]]) -> None:
    debounce = Debounce("open", STABLE_MS * NS_PER_MS)
    now_ms = 0
    seen: list[tuple[int, str, bool]] = []
    for pause_ms, raw, disturbed in steps:
        now_ms += pause_ms
        seen.append((now_ms, raw, disturbed))
        before = debounce.value
        debounce.sample(raw, now_ms * NS_PER_MS, disturbed=disturbed)
        if debounce.value == before or debounce.value == "open":
            continue
        steady = []
        for at_ms, value, moved in reversed(seen):
            if value != raw:
                break
            steady.append(at_ms)
            if moved:  # it moved before this sample: what was earlier does not count
                break
        assert steady[0] - steady[-1] >= STABLE_MS
        within = [at_ms for at_ms in steady if at_ms >= now_ms - STABLE_MS]
        assert all(later - earlier <= STABLE_MS / 2 for later, earlier in pairwise(within))


@given(samples)
def test_a_granted_value_is_revoked_by_the_first_sample_that_differs_or_moved(
    steps: list[tuple[int, str, bool]],
) -> None:
    debounce = Debounce("open", STABLE_MS * NS_PER_MS)
    now_ms = 0
    for pause_ms, raw, disturbed in steps:
        now_ms += pause_ms
        granted = debounce.value
        debounce.sample(raw, now_ms * NS_PER_MS, disturbed=disturbed)
        if granted is not None and (raw == "open" or (granted != "open" and (raw != granted or disturbed))):
            assert debounce.value == "open"


@given(samples)
def test_the_safe_value_is_the_first_one_only_after_the_time_in_which_another_could_be_granted(
    steps: list[tuple[int, str, bool]],
) -> None:
    debounce = Debounce("open", STABLE_MS * NS_PER_MS)
    now_ms = 0
    for pause_ms, raw, disturbed in steps:
        now_ms += pause_ms
        before = debounce.value
        debounce.sample(raw, now_ms * NS_PER_MS, disturbed=disturbed)
        if before is None and raw == "open":
            assert (debounce.value == "open") == (now_ms - steps[0][0] >= STABLE_MS)


@given(samples, st.integers(1, 25))
def test_a_value_that_stays_is_granted_in_the_end(steps: list[tuple[int, str, bool]], poll_ms: int) -> None:
    debounce = Debounce("open", STABLE_MS * NS_PER_MS)
    now_ms = 0
    for pause_ms, raw, disturbed in steps:
        now_ms += pause_ms
        debounce.sample(raw, now_ms * NS_PER_MS, disturbed=disturbed)
    for _ in range(STABLE_MS // poll_ms + 3):
        now_ms += poll_ms
        debounce.sample("closed", now_ms * NS_PER_MS)
    assert debounce.value == "closed"


def test_nothing_is_known_before_the_first_decision_and_after_forgetting() -> None:
    debounce = Debounce("open", STABLE_MS * NS_PER_MS)
    debounce.sample("closed", NS_PER_MS)
    assert debounce.value is None
    debounce.sample("open", 2 * NS_PER_MS)
    assert debounce.value is None
    debounce.sample("open", (STABLE_MS + 1) * NS_PER_MS)
    assert debounce.value == "open"
    debounce.forget()
    assert debounce.value is None


def test_samples_that_are_far_apart_prove_nothing() -> None:
    debounce = Debounce("open", STABLE_MS * NS_PER_MS)
    for at_ms in range(0, 1000, STABLE_MS // 2 + 1):
        debounce.sample("closed", at_ms * NS_PER_MS)
        assert debounce.value is None


@pytest.mark.parametrize(("poll_ms", "on_ms", "off_ms"), [(5, 63, 13), (10, 68, 18), (20, 88, 28)])
def test_a_contact_that_bounces_for_8_ms_is_granted_late_and_revoked_early_without_a_false_event(
    poll_ms: int, on_ms: int, off_ms: int
) -> None:
    chance = random.Random(1)
    for is_closing in [True, False] * 300:
        before, after = ("open", "closed") if is_closing else ("closed", "open")
        debounce = Debounce("open", STABLE_MS * NS_PER_MS)
        debounce.value = before
        now_ms, changes = chance.uniform(0, poll_ms), []
        while now_ms < 200:
            value = debounce.value
            raw = chance.choice([before, after]) if now_ms < 8 else after
            debounce.sample(raw, int(now_ms * NS_PER_MS))
            if debounce.value != value:
                changes.append((debounce.value, now_ms))
            now_ms += poll_ms
        [(value, at_ms)] = changes
        assert value == after
        assert (STABLE_MS if is_closing else 0) <= at_ms <= (on_ms if is_closing else off_ms)

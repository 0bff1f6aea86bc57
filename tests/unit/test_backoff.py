"""Pauses between tries."""

from __future__ import annotations

import random

from optima_bridge.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_jitter_takes_at_most_half() -> None:
    for seed in range(50):
        backoff = Backoff(0.1, 5.0, random.Random(seed))
        for nominal_s in [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]:
            assert nominal_s / 2 <= backoff.next_s() <= nominal_s


def test_after_success_it_starts_small_again() -> None:
    backoff = Backoff(0.1, 5.0)
    for _ in range(10):
        backoff.next_s()
    backoff.reset()
    assert backoff.tries == 0
    assert backoff.next_s() <= 0.1


def test_a_year_of_failures_does_not_overflow() -> None:
    backoff = Backoff(0.1, 5.0)
    backoff.tries = 10_000_000
    assert 2.5 <= backoff.next_s() <= 5.0


def test_many_stores_do_not_knock_in_step() -> None:
    assert len({Backoff(1.0, 5.0).next_s() for _ in range(100)}) > 90

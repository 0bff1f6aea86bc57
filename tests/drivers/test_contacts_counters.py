"""What a counter proves beside its baseline, by every rule."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optima_drivers.contacts.counters import Finding, Overflow, Rule, Verdict, compare
from optima_drivers.contacts.profiles import PROFILES

WRAPS = Rule(1000, Overflow.WRAPS)
STOPS = Rule(65_536, Overflow.STOPS)
UNKNOWN = Rule(100_000)
FIXED = Rule(1 << 32, Overflow.NOT_COUNTED)

rules = st.builds(Rule, st.integers(2, 1 << 32), st.sampled_from(Overflow))


@pytest.mark.parametrize(
    ("rule", "baseline", "value", "finding"),
    [
        (WRAPS, 19, 19, Finding(Verdict.SAME)),
        (WRAPS, 19, 20, Finding(Verdict.ADJUSTED, 1)),
        (WRAPS, 999, 0, Finding(Verdict.WRAPPED, 1)),
        (WRAPS, 999, 999, Finding(Verdict.SAME)),
        (WRAPS, 20, 19, Finding(Verdict.OTHER)),  # 999 steps, or another scale
        (STOPS, 12, 13, Finding(Verdict.ADJUSTED, 1)),
        (STOPS, 13, 12, Finding(Verdict.OTHER)),
        (STOPS, 65_535, 65_535, Finding(Verdict.UNPROVEN)),
        (STOPS, 65_534, 65_535, Finding(Verdict.ADJUSTED, 1)),
        (UNKNOWN, 99_999, 0, Finding(Verdict.OTHER)),
        (UNKNOWN, 99_999, 99_999, Finding(Verdict.SAME)),
        (FIXED, 3000, 3000, Finding(Verdict.SAME)),
        (FIXED, 3000, 3001, Finding(Verdict.OTHER)),
    ],
)
def test_a_value_proves(rule: Rule, baseline: int, value: int, finding: Finding) -> None:
    assert compare(rule, baseline, value) == finding


@given(rules, st.data())
def test_any_difference_breaks_the_seal_and_no_equality_does(rule: Rule, data: st.DataObject) -> None:
    baseline = data.draw(st.integers(0, rule.size - 1))
    value = data.draw(st.integers(0, rule.size - 1) | st.just(baseline))
    assert compare(rule, baseline, value).breaks == (value != baseline)


@given(st.integers(2, 1 << 32), st.data())
def test_a_counter_that_wraps_tells_few_steps_from_any_baseline(size: int, data: st.DataObject) -> None:
    baseline = data.draw(st.integers(0, size - 1))
    steps = data.draw(st.integers(1, size // 2))
    finding = compare(Rule(size, Overflow.WRAPS), baseline, (baseline + steps) % size)
    assert finding.steps == steps
    assert finding.verdict is (Verdict.ADJUSTED if baseline + steps < size else Verdict.WRAPPED)


def test_every_profile_says_where_it_comes_from() -> None:
    assert all(profile.source and profile.counters for profile in PROFILES.values())
    assert "example" in PROFILES["example-c01-c07"].source
    assert [*PROFILES["example-c01-c07"].counters] == ["c01", "c02", "c03", "c04", "c05", "c06", "c07"]

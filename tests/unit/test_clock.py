"""Wall time as text, and how far it can be trusted."""

from __future__ import annotations

import re
import time

import pytest

from optima_bridge import clock as clock_module
from optima_bridge.clock import SAMPLE_NS, STEP_NS, STEPPED_FOR_NS, Clock

SECOND_NS = 1_000_000_000


@pytest.mark.parametrize(
    ("wall_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000Z"),
        (999_999, "1970-01-01T00:00:00.000Z"),
        (999_999_999, "1970-01-01T00:00:00.999Z"),
        (1_709_251_199_001_000_000, "2024-02-29T23:59:59.001Z"),
        (1_795_347_162_238_999_999, "2026-11-22T11:32:42.238Z"),
        (4_102_444_800_000_000_000, "2100-01-01T00:00:00.000Z"),
    ],
)
def test_times_are_written_as_rfc_3339_in_utc_with_milliseconds(wall_ns: int, text: str) -> None:
    clock = Clock()
    assert clock.rfc3339(wall_ns) == text
    assert clock.rfc3339(wall_ns) == text, "the second time from the same second"


def test_an_earlier_second_is_not_taken_for_the_last_one() -> None:
    clock = Clock()
    assert clock.rfc3339(5 * SECOND_NS) == "1970-01-01T00:00:05.000Z"
    assert clock.rfc3339(4 * SECOND_NS) == "1970-01-01T00:00:04.000Z"


def test_the_boot_is_the_kernel_s() -> None:
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", Clock().boot)


class Hands:
    """The two clocks of the machine, set by the test."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_ns, self.mono_ns, self.synced = 1_800_000_000 * SECOND_NS, 100 * SECOND_NS, True
        monkeypatch.setattr(time, "time_ns", lambda: self.wall_ns)
        monkeypatch.setattr(time, "monotonic_ns", lambda: self.mono_ns)
        monkeypatch.setattr(clock_module, "kernel_synced", lambda: self.synced)

    def pass_ns(self, elapsed_ns: int) -> None:
        self.wall_ns += elapsed_ns
        self.mono_ns += elapsed_ns


@pytest.fixture
def hands(monkeypatch: pytest.MonkeyPatch) -> Hands:
    return Hands(monkeypatch)


@pytest.mark.parametrize("step_ns", [STEP_NS + 1, -STEP_NS - 1, 3600 * SECOND_NS])
def test_a_step_of_the_clock_is_told_for_a_while(hands: Hands, step_ns: int) -> None:
    clock = Clock()
    assert clock.quality(clock.now()[1]) == "synced"
    hands.wall_ns += step_ns
    assert clock.now() == (hands.wall_ns, hands.mono_ns)
    assert clock.quality(hands.mono_ns) == "stepped"
    hands.pass_ns(STEPPED_FOR_NS - 1)
    clock.now()
    assert clock.quality(hands.mono_ns) == "stepped"
    hands.pass_ns(1)
    clock.now()
    assert clock.quality(hands.mono_ns) == "synced"


def test_a_clock_that_is_slewed_did_not_step(hands: Hands) -> None:
    clock = Clock()
    for _ in range(100):
        hands.pass_ns(SECOND_NS)
        hands.wall_ns += STEP_NS // 10
        clock.now()
        assert clock.quality(hands.mono_ns) == "synced"


def test_the_kernel_is_asked_now_and_then_only(hands: Hands) -> None:
    clock = Clock()
    assert clock.quality(hands.mono_ns) == "synced"
    hands.synced = False
    hands.pass_ns(SAMPLE_NS - 1)
    assert clock.quality(hands.mono_ns) == "synced"
    hands.pass_ns(1)
    assert clock.quality(hands.mono_ns) == "unsynced"


def test_the_kernel_answers() -> None:
    assert clock_module.kernel_synced() in (True, False)
    assert Clock().quality(time.monotonic_ns()) in ("synced", "unsynced")

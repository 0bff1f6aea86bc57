"""The switches on one port: their lines polled, their edges compared, their wires tested.

    feed (RTS or DTR) ──► contact ──► line        poll  each 10 ms  level, and edges since the last poll
                                                  test  each minute: feed off, every line must go off; feed on again

A line that stays on without its feed is shorted or fed from elsewhere: stuck. One that does not come back with its feed is
late: unknown until it is back, or open after all. A cut wire looks like an open contact, which is why a closed one must be
the one that grants. At the start the lines get time to follow the feed, so that a closed contact is not found open.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Literal, Self

import msgspec
from pydantic import Field, model_validator

from optima_bridge.beat import next_beat_ns
from optima_bridge.driver import DriverSettings
from optima_bridge.link import Line, ModemLines, Sample

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000
FEED_OFF_S = 0.02  # an input's filter, and the 16 ms that an FTDI adapter may hold its news back
LOOP_LIMIT_S = 0.25  # for the lines to follow the feed: an adapter that asks now and then, a busy PC
LATE_LIMIT_S = 1.5  # behind a terminal server, some look once a second; and for a late line to come back
RETEST_S = 5  # while a line is stuck
MIN_POLLS = 3
LONG_NS = 3600 * NS_PER_S
SETTLE_MS = 40  # after the feed is back, edges may still be reported that the test has made


class PanelSettings(DriverSettings):
    """Configuration keys that every driver of contacts has."""

    inverted: frozenset[Line] = Field(
        default=frozenset(),
        description="lines that are off while their contact is closed: a contact in a relay's place",
    )
    debounce_ms: int = Field(
        default=50, ge=10, le=1000, description="how long a contact must be steady before it grants, milliseconds"
    )
    poll_interval_ms: int = Field(default=10, ge=1, le=10, description="from one poll to the next, milliseconds")
    feed: Literal["rts", "dtr", "none"] = Field(
        default="rts",
        description="the output that the contacts get their voltage from; none: from elsewhere, no loop test",
    )
    loop_test_s: int = Field(
        default=60, ge=0, le=86_400, description="from one loop test to the next, seconds; 0: none"
    )

    @model_validator(mode="after")
    def _sees_enough(self) -> Self:
        if self.debounce_ms < MIN_POLLS * self.poll_interval_ms:
            raise ValueError(
                f"debounce_ms must be {MIN_POLLS} times poll_interval_ms or more: so many polls must agree"
            )
        return self


class View(msgspec.Struct, frozen=True):
    """What one poll found.

    Attributes:
        closed: lines whose contact is closed.
        moved: lines that changed since the last poll, as far as the port counts that.
        stuck: lines that were on without their feed.
        late: lines that are not back after a loop test and may still come.
        at_ns: when.
    """

    closed: frozenset[Line]
    moved: frozenset[Line]
    stuck: frozenset[Line]
    late: frozenset[Line]
    at_ns: int

    @property
    def unsure(self) -> frozenset[Line]:
        """Lines that say nothing about their contact."""
        return self.stuck | self.late


class Panel:
    """Polls the watched lines of a link.

    Args:
        counters: gets ``pulses`` (seen by edges alone) and ``loop_tests``.
    """

    def __init__(
        self, link: ModemLines, settings: PanelSettings, lines: frozenset[Line], counters: Counter[str]
    ) -> None:
        self._link = link
        self._settings = settings
        self._lines = lines
        self._counters = counters
        self._before: Sample | None = None
        self._stuck: frozenset[Line] = frozenset()
        self._late: frozenset[Line] = frozenset()
        self._limit_s = LATE_LIMIT_S if link.name.startswith("rfc2217:") else LOOP_LIMIT_S
        self._slowest_s = 0.0  # that a line has followed its feed in a loop test
        self._test_due_ns = self._settled_ns = self._late_until_ns = 0

    async def start(self) -> None:
        """Feed the contacts and let the lines follow. Raises LinkError: the port has no modem lines."""
        await self._link.set_outputs(dtr=True, rts=True)
        await self._until(self._lines.issubset, 0 if self._settings.feed == "none" else self._limit_s)
        self._test_due_ns = self._link.clock_ns()

    async def poll(self) -> View:
        """The contacts now; at times after a loop test. Raises LinkError."""
        sample = await self._link.read_lines()
        if self._tests_loop and not self._late and self._link.clock_ns() >= self._test_due_ns:
            self._stuck = frozenset()
            if on := sample.on & self._lines:  # with none on there is nothing to test: it waits for one
                await self._test_loop(on)
                sample = await self._link.read_lines()
        now_ns = self._link.clock_ns()
        if self._late:
            self._late = self._late - sample.on if now_ns < self._late_until_ns else frozenset()
            self._settled_ns = now_ns + SETTLE_MS * NS_PER_MS
        moved = self._moved(sample, now_ns)
        self._before = sample
        return View((sample.on ^ self._settings.inverted) & self._lines, moved, self._stuck, self._late, now_ns)

    def wait_s(self) -> float:
        """Seconds until the next poll is due."""
        now_ns = self._link.clock_ns()
        return (next_beat_ns(now_ns, self._settings.poll_interval_ms) - now_ns) / NS_PER_S

    async def rest(self, until_ns: int | None = None) -> None:
        """Poll on until a line moves, a loop test is due, or at `until_ns`. For when more of the same says nothing new."""
        if self._before is None:
            return  # the first poll is still to come
        now_ns = self._link.clock_ns()
        due_ns = now_ns + LONG_NS if until_ns is None else until_ns
        if self._tests_loop and self._before.on & self._lines:
            due_ns = min(due_ns, self._test_due_ns)
        timeout_s = max(0, due_ns - now_ns) / NS_PER_S
        await self._link.lines_moved(self._before, timeout_s, self._settings.poll_interval_ms / 1000)

    @property
    def _tests_loop(self) -> bool:
        return self._settings.feed != "none" and self._settings.loop_test_s > 0

    def _moved(self, sample: Sample, now_ns: int) -> frozenset[Line]:
        before = self._before
        if before is None or before.edges is None or sample.edges is None or now_ns < self._settled_ns:
            return frozenset()
        moved = frozenset(line for line in self._lines if sample.edges[line] != before.edges[line])
        self._counters["pulses"] += len(moved - (before.on ^ sample.on))
        return moved

    async def _test_loop(self, on: frozenset[Line]) -> None:
        """Take the feed away from the lines that are on, and give it back.

        What is on without it is stuck; what is not back as soon as it went off (at its slowest, and somewhat more) is late.
        """
        self._counters["loop_tests"] += 1
        rts_feeds = self._settings.feed == "rts"
        begun_ns = self._link.clock_ns()
        try:
            await self._link.set_outputs(dtr=rts_feeds, rts=not rts_feeds)
            await asyncio.sleep(FEED_OFF_S)
            self._stuck = await self._until(lambda lines: not lines, self._limit_s)
            if not self._stuck:
                self._slowest_s = max(self._slowest_s, (self._link.clock_ns() - begun_ns) / NS_PER_S)
        finally:
            await self._link.set_outputs(dtr=True, rts=True)
        self._late = on - await self._until(on.issubset, LOOP_LIMIT_S + self._slowest_s)
        pause_s = min(RETEST_S, self._settings.loop_test_s) if self._stuck else self._settings.loop_test_s
        now_ns = self._link.clock_ns()
        self._late_until_ns = now_ns + int(LATE_LIMIT_S * NS_PER_S)
        self._settled_ns = now_ns + SETTLE_MS * NS_PER_MS
        self._test_due_ns = now_ns + pause_s * NS_PER_S

    async def _until(self, fits: Callable[[frozenset[Line]], bool], limit_s: float) -> frozenset[Line]:
        """The watched lines that are on as soon as that fits, or when the limit has passed."""
        end_ns = self._link.clock_ns() + int(limit_s * NS_PER_S)
        while True:
            on = (await self._link.read_lines()).on & self._lines
            if fits(on) or self._link.clock_ns() >= end_ns:
                return on
            await asyncio.sleep(self._settings.poll_interval_ms / 1000)

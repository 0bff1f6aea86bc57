"""How things look in a terminal and in a pipe: aligned columns, times, the state of a device in a few words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from optima_bridge.cli.options import Settings
from optima_bridge.text import printable

ABOUT_A_STATE = ("quality", "since")
NOT_SHOWN_AS_STATE = ("link", "health")
GOOD_WORDS = frozenset({"up", "connected", "ready"})
BAD_WORDS = frozenset({"down", "away", "not ready"})


def table(settings: Settings, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; the headings only for people, so that a pipe gets one record a line."""
    lines = [[printable(cell) or "-" for cell in row] for row in rows]
    if settings.for_people and lines:
        lines.insert(0, list(headings))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = [_painted(settings, cell) + " " * (width - len(cell)) for cell, width in zip(line, widths, strict=True)]
        click.echo("  ".join(cells).rstrip())


def _painted(settings: Settings, cell: str) -> str:
    color = "green" if cell in GOOD_WORDS else "red" if cell in BAD_WORDS else ""
    return settings.paint(cell, color) if color else cell


def ago(seconds: float) -> str:
    """``12 s``, ``5 min``, ``3 h``, ``9 d``."""
    for limit_s, unit_s, unit in ((90, 1, "s"), (5400, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit_s:
            return f"{seconds / unit_s:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def since(settings: Settings, seconds: float) -> str:
    """How long ago for people, when for programs."""
    if settings.for_people:
        return ago(seconds)
    return (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat(timespec="seconds").replace("+00:00", "Z")


def size(number_bytes: float) -> str:
    """``812 kB``, ``1.4 MB``, ``85 GB``."""
    for unit_bytes, unit in ((1e9, "GB"), (1e6, "MB")):
        if number_bytes >= unit_bytes:
            return f"{number_bytes / unit_bytes:.1f} {unit}"
    return f"{number_bytes / 1e3:.0f} kB"


def state_words(states: Mapping[str, Mapping[str, Any]]) -> str:
    """``key absent, fault line-stuck cts``: the first fact of each state, and what each fault is; unknown ones once, at the end."""
    known: list[str] = []
    unknown: list[str] = []
    for subject, state in states.items():
        facts = [value for key, value in state.items() if key not in ABOUT_A_STATE]
        if subject in NOT_SHOWN_AS_STATE or not facts:
            continue
        if state.get("quality") == "unknown":
            unknown.append(subject)
        elif subject == "fault":
            known += _fault_words(state)
        else:
            known.append(f"{subject} {facts[0]}")
    return ", ".join(known + ([f"{len(unknown)} unknown"] if unknown else []))


def _fault_words(state: Mapping[str, Any]) -> Iterator[str]:
    """``fault line-stuck cts``, once for each of several; none while there is no fault."""
    for fault in state.get("faults", [state]) if state.get("active") else ():
        facts = [value for key, value in fault.items() if key not in (*ABOUT_A_STATE, "active", "code")]
        details = [str(part) for fact in facts for part in (fact if isinstance(fact, list) else [fact])]
        yield " ".join(["fault", str(fault.get("code", "")), *details]).rstrip()


def device_row(settings: Settings, device: Mapping[str, Any]) -> list[str]:
    """One device as a row under DEVICE_HEADINGS."""
    problem = device["problem"]
    leaders = {*device["state"].get("link", {}).get("readers", {}).values()} - {device["name"]}
    words = [
        problem["code"] if problem else "",
        "" if problem and not leaders else state_words(device["state"]),
        f"{' and '.join(sorted(leaders))} leads" if leaders else "",
        f"standby of {device['standby_of']}" if device.get("standby_of") else "",
    ]
    return [
        device["name"],
        device["link"],
        since(settings, device["since_s"]),
        device["driver"],
        ", ".join(filter(None, words)),
        device["label"],
    ]


DEVICE_HEADINGS = ("DEVICE", "LINK", "SINCE", "DRIVER", "STATE", "LABEL")


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """All leaves of a document: dotted path, value."""
    for key, value in document.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif value not in (None, "", []):
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)

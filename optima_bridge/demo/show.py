"""What the demo prints: people get one event beside its topic and payload, programs get one JSON record a line."""

from __future__ import annotations

import json
import os
import sys
from datetime import datetime
from typing import Literal

Look = Literal["rich", "plain", "json"]

BOLD, DIM, GREEN, RESET = "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[0m"
LESS = ("key_ref", "card_ref", "action")


class Screen:
    """Prints in one of three looks: ``rich`` (a terminal), ``plain`` (one line each), ``json`` (NDJSON)."""

    def __init__(self, look: Look) -> None:
        self._look = look
        self._colour = look == "rich" and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"

    def title(self, text: str) -> None:
        """The first line, before anything is imported."""
        if self._look != "json":
            self._say(self._paint(BOLD, text))

    def fact(self, name: str, value: str) -> None:
        """Where something is."""
        if self._look == "json":
            self._record({"type": "phase", "name": name, "value": value})
        else:
            self._say(f"  {name:<10} {value}")

    def step(self, words: str) -> None:
        """What somebody does in the simulated store."""
        if self._look == "json":
            self._record({"type": "phase", "name": "step", "value": words})
        else:
            self._say(f"\n{self._paint(DIM, '· ' + words)}" if self._look == "rich" else f"step  {words}")

    def event(self, topic: str, payload: bytes, document: dict[str, object], latency_ms: float) -> None:
        """One event as it was published."""
        if self._look == "json":
            self._record({"type": "event", "topic": topic, "latency_ms": round(latency_ms, 3), "event": document})
            return
        data = document["data"]
        assert isinstance(data, dict)
        details = " ".join(
            f"{key}={value}" for key, value in data.items() if key not in LESS and value not in (None, "", False)
        )
        time = datetime.fromisoformat(str(document["time"])).astimezone().strftime("%H:%M:%S.%f")[:12]
        name = topic.rsplit("/", 1)[-1]
        what = f"{document['subject']}: {name} {data.get('action', '')}"
        if self._look == "plain":
            self._say(f"event {document['time']} {what} {details}\n      {topic} {payload.decode()}")
        else:
            self._say(f"{time}  {self._paint(GREEN, what)}  {details}  {self._paint(DIM, f'{latency_ms:.1f} ms')}")
            self._say(self._paint(DIM, f"  {topic}\n  {payload.decode()}"))

    def summary(self, lines: list[str], result: dict[str, object]) -> None:
        """The end; `result` is the last record of the JSON look."""
        if self._look == "json":
            self._record({"type": "result", **result})
        else:
            self._say("\n" + "\n".join(lines))

    def _paint(self, colour: str, text: str) -> str:
        return f"{colour}{text}{RESET}" if self._colour else text

    def _record(self, record: dict[str, object]) -> None:
        self._say(json.dumps(record, separators=(",", ":")))

    def _say(self, text: str) -> None:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()

"""Faults of one device: several codes at a time, each raised and cleared once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from optima_bridge.model import Data, Event, JsonValue, Observation, Subject


class Faults:
    """Remembers which codes are raised."""

    def __init__(self) -> None:
        self.active: Mapping[str, Data] | None = None

    def update(self, active: Mapping[str, Data], now_ns: int) -> Iterator[Event | Observation]:
        """Say what is new about `active`: facts by code, empty facts where the code says it all."""
        before, self.active = self.active, active
        if before is None and not active:
            yield Observation(Subject.FAULT, self._state())
        for code in [code for code in before or {} if code not in active]:
            yield Event(Subject.FAULT, "cleared", now_ns, data={"code": code}, state=self._state())
        for code in [code for code in active if code not in (before or {})]:
            yield Event(Subject.FAULT, "raised", now_ns, data={"code": code, **active[code]}, state=self._state())

    def _state(self) -> dict[str, JsonValue]:
        for code, facts in (self.active or {}).items():
            return {"active": True, "code": code, **facts}
        return {"active": False}

"""One place with two readers, as its keepers see it: they speak to it as to the hub, and it speaks to the hub for both.

What both can see is told under the primary's name, by whichever leads (see `redundancy`). All else passes through.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from optima_bridge.errors import ReaderBlind
from optima_bridge.hub import Hub, Quality
from optima_bridge.log import get_logger
from optima_bridge.model import Data, Event, JsonValue, Observation, Subject
from optima_bridge.redundancy import Redundancy, Told

BLIND_ALERT = "blind"

log = get_logger(__name__)


class Place:
    """A primary, whose name is that of the place, and its standby.

    Args:
        merged: what both can see.
    """

    def __init__(self, name: str, standby: str, merged: Iterable[Subject], hub: Hub) -> None:
        self.name = name
        self._standby = standby
        self._hub = hub
        self._merged = {subject: Redundancy(subject, name, standby) for subject in merged}
        self._unknown: dict[Subject, Data] = {}
        self._leaders: dict[str, str] = {}
        self._link: Data = {"link": "down"}  # of the primary
        self._timer: asyncio.TimerHandle | None = None

    def record(self, device: str, event: Event) -> None:
        """A reader decided something."""
        merged = self._merged.get(event.subject)
        if merged is None:
            self._hub.record(device, event)
            return
        msgspec.json.encode(event.data)  # a driver's bug shows now, in its own keeper, not when the event is told
        self._tell(merged.heard(device, event, self._now_ns()))
        self._announce()

    def set_state(self, device: str, subject: Subject, data: Data, quality: Quality = "good") -> None:
        """A reader found something, or, with quality ``unknown``, is not heard yet."""
        merged = self._merged.get(subject)
        if merged is None:
            self._hub.set_state(device, subject, data, quality)
        elif quality == "unknown":
            self._unknown.setdefault(subject, data)
            self._show(subject)
        else:
            self._tell(merged.heard(device, Observation(subject, data), self._now_ns()))
            self._announce()

    def forget(self, device: str, unknown: Mapping[Subject, Data]) -> None:
        """A reader is lost; `happened` comes next and says why."""
        self._hub.forget(device, unknown, spared=self._merged.keys())
        self._tell(told for merged in self._merged.values() for told in merged.lost(device, self._now_ns()))

    def happened(self, device: str, subject: Subject, action: str, data: Data, state: Data) -> None:
        """A reader's link is up or down: an event of its own. The state of the primary's link is that of the place."""
        if action == "up":
            self._tell(told for merged in self._merged.values() for told in merged.up(device, self._now_ns()))
        if device == self.name:
            self._link = state
            state = self._link_state()
        self._hub.happened(device, subject, action, data, state)
        self._announce()

    def close(self) -> None:
        """Say nothing more of itself."""
        if self._timer is not None:
            self._timer.cancel()

    def _now_ns(self) -> int:
        return self._hub.clock.now()[1]

    def _tell(self, news: Iterable[Told]) -> None:
        for told in news:
            about: dict[str, JsonValue] = (
                {"reader": told.reader, "late": True} if told.is_late else {"reader": told.reader}
            )
            self._hub.record(self.name, msgspec.structs.replace(told.event, data={**told.event.data, **about}))
        for subject in self._merged:
            self._show(subject)
        for device in (self.name, self._standby):
            self._warn(device)
        self.close()
        deadlines = [at_ns for merged in self._merged.values() if (at_ns := merged.deadline_ns()) is not None]
        if deadlines:
            in_s = (min(deadlines) - self._now_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(in_s, self._expire)

    def _expire(self) -> None:
        self._tell(told for merged in self._merged.values() for told in merged.expire(self._now_ns()))
        self._announce()

    def _show(self, subject: Subject) -> None:
        view = self._merged[subject].view
        if view is not None:
            self._hub.set_state(self.name, subject, view.state, identifier=view.identifier)
        elif (unknown := self._unknown.get(subject)) is not None:  # none where only arrival is told
            self._hub.set_state(self.name, subject, unknown, "unknown")

    def _warn(self, device: str) -> None:
        other = self._standby if device == self.name else self.name
        missed = [subject.value for subject, merged in self._merged.items() if device in merged.blind]
        if missed:
            error = ReaderBlind(f"{device} did not see what {other} saw: {', '.join(missed)}")
            self._hub.raise_alert(device, BLIND_ALERT, error)
        else:
            self._hub.clear_alert(device, BLIND_ALERT)

    def _announce(self) -> None:
        """Say who leads, where that has changed."""
        before, now = self._leaders, self._leaders_now()
        if before == now:
            return
        self._leaders = now
        if before and now:
            log.warning("reader.switched", device=self.name, readers=now)
            self._hub.happened(self.name, Subject.LINK, "switched", {"readers": now}, self._link_state())
        else:
            self._hub.set_state(self.name, Subject.LINK, self._link_state())

    def _leaders_now(self) -> dict[str, str]:
        return {subject.value: merged.leader for subject, merged in self._merged.items() if merged.leader is not None}

    def _link_state(self) -> Data:
        readers = self._leaders_now()
        return {"link": "up", "readers": readers} if readers else self._link

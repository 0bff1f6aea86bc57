"""Two readers for one place, made one: which of them is believed, and what of their reports is news. Sans-io, as `presence`.

One of the two *leads*: what it reports is told at once, and its view is the state of the place. What the other one reports
is only compared: what was told before is *owed* by it, and is no news when it comes; with what it reports first it is
*ahead*, until the leader reports the same. So an action is told once, in whatever order the two report it.

The other one takes the lead

- at once when the leader is lost, or does not know what it sees any more,
- when it is ahead for too long: the leader is *blind*. What it saw is told then, late but once.

The primary leads again as soon as its view is what was told, and, if it was blind, it has seen an action that the other
saw, too. A change of the leader by itself is no news; where the new leader sees something else than was told, that is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

import msgspec

from optima_bridge.model import Capability, Data, Event, Observation, Subject
from optima_bridge.presence import ABSENT

BLIND_NS = 2_000_000_000  # after this long, what one reader saw and the other did not makes the other blind
TOUCH_NS = 1_500_000_000  # the same for readers that tell arrival only: the same number within this time is one touch

MERGED = {
    Capability.KEY_READER: Subject.KEY,
    Capability.CARD_READER: Subject.CARD,
    Capability.KEYLOCK: Subject.KEYLOCK,
    Capability.SEAL_SWITCH: Subject.SEAL,
}
"""The abilities that two readers of one place can share."""

DOUBTS = frozenset({"suspect", "restored"})  # about one reader's contact, no action of a person
ACTIONS = {
    "present": "inserted",
    "suspect": "suspect",
    "absent": "removed",
    "ambiguous": "ambiguous",
    "broken": "opened",
    "intact": "closed",
}


def shared(one: frozenset[Capability], other: frozenset[Capability]) -> frozenset[Subject]:
    """What devices with these abilities can both see."""
    return frozenset(subject for ability, subject in MERGED.items() if ability in one & other)


class View(msgspec.Struct, frozen=True):
    """What is true of the subject."""

    state: Data
    identifier: str | None = None

    @property
    def word(self) -> object:
        """The one fact that counts."""
        return _word(self.state)

    def is_like(self, other: View | None) -> bool:
        return other is not None and (self.word, self.identifier) == (other.word, other.identifier)


class Told(msgspec.Struct, frozen=True):
    """One event of the place, and the reader that saw it; `is_late`: it happened, but is not true any more."""

    reader: str
    event: Event
    is_late: bool = False


class _Report(msgspec.Struct, frozen=True):
    event: Event
    view: View | None  # None: it changes nothing that could be compared
    until_ns: int


class _Reader:
    def __init__(self, name: str) -> None:
        self.name = name
        self.up = False
        self.blind = False
        self.view: View | None = None
        self.owed: deque[_Report] = deque()
        self.ahead: deque[_Report] = deque()
        self.differs_until_ns: int | None = None
        self.agreed_ns = -1

    @property
    def owes_until_ns(self) -> int | None:
        """When the oldest that it owes is written off: as one that is late, it may report it just before the next one."""
        if not self.owed:
            return None
        is_followed = len(self.owed) > 1 and self.owed[0].event.state is not None
        return self.owed[is_followed].until_ns

    def agree(self, now_ns: int) -> None:
        """It saw an action that the other one saw, too."""
        self.blind, self.agreed_ns = False, now_ns


class Redundancy:
    """One subject of one place. Each method takes what happened and returns what is to be told, in order."""

    def __init__(self, subject: Subject, primary: str, standby: str) -> None:
        self._subject = subject
        self._primary, self._standby = _Reader(primary), _Reader(standby)
        self._leader: _Reader | None = None
        self._told: View | None = None
        self._news: list[Told] = []

    @property
    def leader(self) -> str | None:
        """Who is believed; None: neither reader is up."""
        return self._leader.name if self._leader else None

    @property
    def view(self) -> View | None:
        """What is true now; None: unknown, also while a new leader has not reported yet what was told before."""
        return None if self._leader is None or self._leader.owed else self._leader.view

    @property
    def blind(self) -> frozenset[str]:
        """Readers that did not see what the other one saw."""
        return frozenset(reader.name for reader in (self._primary, self._standby) if reader.blind)

    def up(self, name: str, now_ns: int) -> list[Told]:
        """A reader's link is up; nothing is known of what it sees."""
        self._expire(now_ns)
        reader = self._named(name)
        reader.up = True
        if self._leader is None:
            self._leader = reader
        return self._settled(now_ns)

    def lost(self, name: str, now_ns: int) -> list[Told]:
        """A reader is gone."""
        self._expire(now_ns)
        reader = self._named(name)
        other = self._other(reader)
        reader.up, reader.view = False, None
        reader.owed.clear()
        if self._leader is reader:
            if other.up:
                self._lead(other, now_ns)
            else:
                self._leader = self._told = None
        if self._leader is None:  # and nobody will report again what either was ahead with
            self._tell_late(reader)
            self._tell_late(other)
        return self._settled(now_ns)

    def heard(self, name: str, report: Event | Observation, now_ns: int) -> list[Told]:
        """A reader that is up says something about the subject."""
        self._expire(now_ns)
        reader = self._named(name)
        view = _view(report)
        if isinstance(report, Event) and report.action not in DOUBTS:
            self._act(reader, report, view, now_ns)
        else:
            reader.view = view
            if self._leader is reader and isinstance(report, Event) and not reader.owed:
                self._tell(reader, report, view, now_ns)
            elif self._leader is reader:
                self._catch_up(reader, now_ns)
            if self._is_as_told(reader):
                reader.owed.clear()
        return self._settled(now_ns)

    def deadline_ns(self) -> int | None:
        """When `expire` must be called at the latest; None: not before something else happens."""
        return min(self._deadlines(), default=None)

    def expire(self, now_ns: int) -> list[Told]:
        """Let silence speak."""
        self._expire(now_ns)
        return self._settled(now_ns)

    # -- reports ---------------------------------------------------------------------------------------------------------

    def _act(self, reader: _Reader, event: Event, view: View | None, now_ns: int) -> None:
        other = self._other(reader)
        before = reader.view
        if event.state is not None:
            reader.view = view
        if view is not None and view.is_like(before):
            view = None  # a fact by itself, as a touch: a latched seal is closed, and stays broken
        if (found := _index(reader.owed, event)) is not None:
            _drop(reader.owed, found + 1)
            if reader.blind and event.state is not None:
                reader.ahead.clear()  # it only catches up
            self._tell_late(reader)
            reader.agree(now_ns)
        elif before is None and reader.owed and event.state is not None:
            pass  # it found what was true before that
        elif reader.owed and _is_passing(view):
            pass  # the way to what it owes
        elif self._leader is not reader:
            known = next((report.view for report in reversed(reader.ahead) if report.view is not None), self._told)
            if _is_news(event, view, known):
                reader.ahead.append(_Report(event, view, now_ns + _window_ns(event)))
        else:
            if (found := _index(other.ahead, event)) is not None:
                for _ in range(found):
                    if _is_passing(other.ahead[0].view):
                        other.ahead.popleft()
                    else:
                        self._tell_ahead(other, now_ns)
                other.ahead.popleft()
                for seeing in (reader, other):
                    seeing.agree(now_ns)
                self._tell(reader, event, view, now_ns, owed_by_other=False)
            else:
                self._tell(reader, event, view, now_ns)
            reader.owed.clear()  # what it did not report before this, it will not report any more
        if self._is_as_told(reader) and event.state is not None and not reader.owed:
            reader.agree(now_ns)

    def _tell(
        self, reader: _Reader, event: Event, view: View | None, now_ns: int, *, owed_by_other: bool = True
    ) -> None:
        """Tell what leads from what was told to `view`; nothing where that is the same."""
        steps = [event]
        if view is not None and self._told is not None:
            steps = [_in_own_words(step, event) for step in self._steps(self._told, view, event.mono_ns)]
        if event.state is not None and steps:
            self._told = _view(steps[-1])
        other = self._other(reader)
        in_step = not other.owed and not other.blind and view is not None and view.is_like(other.view)
        for step in steps:
            self._news.append(Told(reader.name, step))
            if owed_by_other and other.up and not in_step and step.action not in DOUBTS:
                other.owed.append(_Report(step, view, now_ns + _window_ns(step)))

    def _tell_ahead(self, reader: _Reader, now_ns: int) -> None:
        report = reader.ahead.popleft()
        is_over = report.event.state is None and report.until_ns <= now_ns  # a touch is not reported late, but again
        self._tell(reader, report.event, report.view, now_ns, owed_by_other=not is_over)

    def _tell_late(self, reader: _Reader) -> None:
        """Tell what the leader will not report any more, and what is not true any more."""
        for report in (report for report in reader.ahead if not _is_passing(report.view)):
            self._news.append(Told(reader.name, msgspec.structs.replace(report.event, state=None), is_late=True))
        reader.ahead.clear()

    def _catch_up(self, reader: _Reader, now_ns: int) -> None:
        """What the leader sees is true, however it came about."""
        if reader.view is None or reader.owed:
            return
        if self._told is None:
            self._told = reader.view
        for step in list(self._steps(self._told, reader.view, now_ns)):
            self._tell(reader, step, _view(step), now_ns)

    def _steps(self, told: View, view: View, now_ns: int) -> Iterator[Event]:
        """The events between two truths."""
        if view.is_like(told):
            return
        state, subject = view.state, self._subject
        if "presence" not in state:
            action = ACTIONS.get(str(state.get("seal")), "turned")
            yield Event(subject, action, now_ns, state, state=state)
            return
        is_same_token = view.identifier is not None and view.identifier == told.identifier
        if told.word != "absent" and not is_same_token:
            yield Event(subject, "removed", now_ns, identifier=told.identifier, state=ABSENT)
        if (view.word == "suspect" and not is_same_token) or view.word == "absent":
            return  # a key that is doubted from the start is not granted
        action = "restored" if is_same_token and view.word == "present" else ACTIONS[str(view.word)]
        yield Event(subject, action, now_ns, identifier=view.identifier, state=state)

    # -- who leads -------------------------------------------------------------------------------------------------------

    def _lead(self, reader: _Reader, now_ns: int) -> None:
        self._leader = reader
        while reader.ahead:
            self._tell_ahead(reader, now_ns)
        self._catch_up(reader, now_ns)

    def _settled(self, now_ns: int) -> list[Told]:
        """Let the right one lead, and hand over the news."""
        if self._leader is not None:
            other = self._other(self._leader)
            knows_alone = self._leader.view is None and other.view is not None
            preferred = self._standby if self._primary.blind and not self._standby.blind else self._primary
            agrees = self._is_as_told(other) and not other.blind and not other.owed and not other.ahead
            if other.up and (knows_alone or (other is preferred and agrees and not self._leader.owed)):
                self._lead(other, now_ns)
            self._leader.differs_until_ns = None
            other = self._other(self._leader)
            if other.view is None or self._told is None or other.ahead or self._is_as_told(other):
                other.differs_until_ns = None
            elif other.differs_until_ns is None and not other.blind:
                other.differs_until_ns = now_ns + BLIND_NS
        news, self._news = self._news, []
        return news

    def _is_as_told(self, reader: _Reader) -> bool:
        if reader.view is None:
            return reader.up and self._told is None
        return reader.view.is_like(self._told)

    # -- time ------------------------------------------------------------------------------------------------------------

    def _deadlines(self) -> Iterator[int]:
        for reader in (self._primary, self._standby):
            if reader.differs_until_ns is not None:
                yield reader.differs_until_ns
            if reader.owes_until_ns is not None:
                yield reader.owes_until_ns
            if reader.ahead:
                yield reader.ahead[0].until_ns

    def _expire(self, now_ns: int) -> None:
        while (deadline_ns := self.deadline_ns()) is not None and deadline_ns <= now_ns:
            for reader in (self._primary, self._standby):
                self._expire_one(reader, deadline_ns)

    def _expire_one(self, reader: _Reader, now_ns: int) -> None:
        leads = reader is self._leader
        if reader.differs_until_ns is not None and reader.differs_until_ns <= now_ns:
            reader.differs_until_ns, reader.blind = None, True
        while reader.owes_until_ns is not None and reader.owes_until_ns <= now_ns:
            report = reader.owed.popleft()
            if report.event.state is None and not leads and reader.agreed_ns < report.until_ns - TOUCH_NS:
                reader.blind = True
            if leads:
                self._catch_up(reader, now_ns)
        if reader.ahead and reader.ahead[0].until_ns <= now_ns:
            if reader.up and self._leader is not None:
                self._leader.blind = True
                self._lead(reader, now_ns)
            else:
                self._tell_late(reader)

    # -- helpers ---------------------------------------------------------------------------------------------------------

    def _named(self, name: str) -> _Reader:
        return self._primary if name == self._primary.name else self._standby

    def _other(self, reader: _Reader) -> _Reader:
        return self._standby if reader is self._primary else self._primary


def _word(state: Data) -> object:
    """Presence, seal or position: readers of two makes may tell more, and not the same."""
    return state.get("presence") or state.get("seal") or (state.get("position"), state.get("position_code"))


def _view(report: Event | Observation) -> View | None:
    """What is true after `report`; None where it does not say, or says that the reader does not know."""
    state = report.state
    if state is None or "unknown" in state.values():
        return None
    holds_token = state.get("presence") in ("present", "suspect")
    return View(state, report.identifier if isinstance(report, Event) and holds_token else None)


def _is_news(event: Event, view: View | None, known: View | None) -> bool:
    """Whether a reader that does not lead adds something to what is known: it may only be late."""
    if view is None:
        return True
    if event.action == "removed" and known is not None and known.identifier != event.identifier:
        return False
    return not view.is_like(known)


def _is_passing(view: View | None) -> bool:
    """Whether a keylock is on its way to a position: not every make tells that."""
    return view is not None and view.state.get("position") == "between"


def _window_ns(event: Event) -> int:
    return TOUCH_NS if event.state is None else BLIND_NS


def _outcome(event: Event) -> tuple[str | None, object]:
    return event.identifier, event.state and _word(event.state)


def _is_same(one: Event, other: Event) -> bool:
    """Whether two readers report the same action."""
    return one.action == other.action and _outcome(one) == _outcome(other)


def _in_own_words(step: Event, event: Event) -> Event:
    """`event` where it is this step, for the driver says more about it; a doubt that ends is no insertion."""
    is_step = _outcome(step) == _outcome(event) and (step.action == event.action or event.action not in DOUBTS)
    return event if is_step else step


def _index(reports: deque[_Report], event: Event) -> int | None:
    return next((index for index, report in enumerate(reports) if _is_same(report.event, event)), None)


def _drop(reports: deque[_Report], count: int) -> None:
    for _ in range(count):
        reports.popleft()

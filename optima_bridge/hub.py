"""Where events become records and states, and from where everybody gets them.

Drivers decide events; the keeper hands them in; the hub numbers and encodes them once, gives them to the journal and the
sinks at the same moment, and keeps the retained documents: what is true now.

Payloads are CloudEvents 1.0 (structured, JSON) with extensions; see docs/reference/mqtt.md.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from itertools import islice
from typing import Literal, Protocol

import msgspec

from optima_bridge.clock import Clock
from optima_bridge.errors import BridgeError
from optima_bridge.identifiers import IdentifierPolicy, Uuid7
from optima_bridge.journal import Journal, Loss
from optima_bridge.model import Data, Event, JsonValue, Record, Subject
from optima_bridge.topics import BRIDGE, Topics

Quality = Literal["good", "stale", "unknown"]

KNOWN_ALL_THE_SAME = frozenset({Subject.LINK, Subject.JOB})  # by the daemon itself, whatever becomes of the device

MAX_DATA_BYTES = 3072  # of a payload of 4 KiB; the rest is what stands around it
CUT_CHARACTERS = (128, 16)  # 16 entries with texts of the second length fit in any case


class EventDocument(msgspec.Struct, frozen=True, gc=False):
    """The payload of an event topic. Key order is part of it: ``replay`` stands before ``data``."""

    specversion: str
    id: str
    source: str
    subject: str
    type: str
    time: str
    dataschema: str
    epoch: int
    seq: int
    boot: str
    mono: int
    clock: str
    replay: bool
    ctx: str
    data: msgspec.Raw


class StateDocument(msgspec.Struct, frozen=True, gc=False):
    """The payload of a state topic: what is true, since when, how well it is known, and the event that said so."""

    source: str
    subject: str
    type: str
    time: str
    since: str
    quality: Quality
    last_evt: str | None
    boot: str
    epoch: int
    data: msgspec.Raw


class Sink(Protocol):
    """Takes what the hub has; must not block and must not raise."""

    def offer(self, record: Record) -> None:
        """A new record; it is in the journal's hands already."""

    def offer_retained(self, topic: str) -> None:
        """The retained document of this topic changed."""


class _Truth(msgspec.Struct):
    data: Data
    since: str
    quality: Quality
    last_event: str | None


class Hub:
    """The middle of the daemon; used from the event loop's thread only.

    Attributes:
        retained: topic → payload of every retained document that this node stands for; empty payload: cleared.
        listeners: called with each record, for the live stream.
        alerts: open problems by (device, name).
    """

    def __init__(self, topics: Topics, journal: Journal, policy: IdentifierPolicy, clock: Clock) -> None:
        self.topics = topics
        self.journal = journal
        self.clock = clock
        self.retained: dict[str, bytes] = {}
        self.listeners: set[Callable[[Record], None]] = set()
        self.alerts: dict[tuple[str, str], dict[str, JsonValue]] = {}
        self.sinks: list[Sink] = []
        self._policy = policy
        self._source = topics.prefix
        self._truths: dict[tuple[str, str], _Truth] = {}
        self._encode = msgspec.json.Encoder().encode
        self._new_id = Uuid7().new
        self._event_names: dict[tuple[str, Subject, str], tuple[str, str, str]] = {}

    def record(self, device: str, event: Event) -> Record:
        """Number, journal and publish one event; if it carries a state, that becomes true."""
        wall_now_ns, mono_now_ns = self.clock.now()
        wall_ns = wall_now_ns - (mono_now_ns - event.mono_ns)
        data = event.data
        if event.identifier is not None:
            data = {**data, **self._policy.fields(event.subject, event.identifier)}
        name = (device, event.subject, event.action)
        topic, kind, schema = self._event_names.get(name) or self._name(name)
        encoded = self._fit({"action": event.action, **data})  # first: a driver's bug costs no sequence number
        time = self.clock.rfc3339(wall_ns)
        event_id = self._new_id(wall_ns)
        journal = self.journal
        seq = journal.next_seq()
        quality = self.clock.quality(mono_now_ns)
        payload = self._encode(
            EventDocument(
                "1.0",
                event_id,
                self._source,
                device,
                kind,
                time,
                schema,
                journal.epoch,
                seq,
                self.clock.boot,
                event.mono_ns,
                quality,
                False,
                "normal",
                encoded,
            )
        )
        record = Record(journal.epoch, seq, wall_ns, topic, payload)
        for sink in self.sinks:
            sink.offer(record)
        journal.append(record)
        for listener in tuple(self.listeners):
            listener(record)
        if event.state is not None:
            state = self._with_reference(event.subject, event.state, event.identifier)
            self._become(device, event.subject, state, "good", event_id, time)
        return record

    def _name(self, name: tuple[str, Subject, str]) -> tuple[str, str, str]:
        device, subject, action = name
        found = (
            self.topics.event(device, subject.value),
            f"com.optima.{subject.value}.{action}.v1",
            f"optima:{subject.value}/1.0",
        )
        self._event_names[name] = found
        return found

    def happened(self, device: str, subject: Subject, action: str, data: Data, state: Data | None = None) -> Record:
        """Record something that the daemon itself decided, now."""
        return self.record(device, Event(subject, action, self.clock.now()[1], data, None, state))

    def _with_reference(self, subject: Subject, state: Data, identifier: str | None) -> Data:
        if identifier is None or state.get("presence") == "absent":
            return state
        return {**state, **self._policy.fields(subject, identifier)}

    def set_state(
        self, device: str, subject: Subject, data: Data, quality: Quality = "good", identifier: str | None = None
    ) -> None:
        """Make something true without an event: at start, on a poll."""
        data = self._with_reference(subject, data, identifier)
        self._become(device, subject, data, quality, None, self.clock.rfc3339(self.clock.now()[0]))

    def forget(self, device: str, unknown: Mapping[Subject, Data] = {}, spared: Container[Subject] = ()) -> None:
        """The device is lost: nothing that it said is known any more. Unknown is locked, never the last value.

        `unknown` says how a subject looks then; of the others every text becomes ``unknown`` and numbers are left out.
        What is `spared` is known from elsewhere.
        """
        for (owner, name), truth in list(self._truths.items()):
            if owner != device or name in KNOWN_ALL_THE_SAME or name in spared:
                continue
            if truth.quality != "unknown":
                now = self.clock.rfc3339(self.clock.now()[0])
                data = unknown.get(Subject(name)) or _unknown(truth.data)
                self._become(device, Subject(name), data, "unknown", truth.last_event, now)

    def state_of(self, device: str) -> dict[str, Data]:
        """All that is known of a device, by subject, with since and quality."""
        return {
            name: {"quality": truth.quality, "since": truth.since, **truth.data}
            for (owner, name), truth in self._truths.items()
            if owner == device
        }

    def _become(self, device: str, subject: Subject, data: Data, quality: Quality, event: str | None, now: str) -> None:
        key = (device, subject.value)
        before = self._truths.get(key)
        same = before is not None and before.data == data and before.quality == quality
        if before is not None and same and event is None:
            return
        since = before.since if before is not None and same else now
        self._truths[key] = _Truth(data, since, quality, event)
        self.retain(self.topics.state(device, subject.value), self._document(device, subject, self._truths[key], now))

    def document(self, device: str, subject: Subject, data: Data) -> bytes:
        """A state payload that is not (yet) true: the will, the last word."""
        now = self.clock.rfc3339(self.clock.now()[0])
        return self._document(device, subject, _Truth(data, now, "good", None), now)

    def _document(self, device: str, subject: Subject, truth: _Truth, now: str) -> bytes:
        return self._encode(
            StateDocument(
                self._source,
                device,
                f"com.optima.{subject.value}.state.v1",
                now,
                truth.since,
                truth.quality,
                truth.last_event,
                self.clock.boot,
                self.journal.epoch,
                self._fit(truth.data),
            )
        )

    def _fit(self, data: Data) -> msgspec.Raw:
        """`data` as JSON that fits into a payload of 4 KiB; ``cut`` says that a device told more."""
        encoded = self._encode(data)
        for most in CUT_CHARACTERS:
            if len(encoded) <= MAX_DATA_BYTES:
                break
            encoded = self._encode({**_cut(data, most), "cut": True})
        return msgspec.Raw(encoded)

    def retain(self, topic: str, payload: bytes) -> None:
        """Put a retained document in place; empty clears it."""
        self.retained[topic] = payload
        for sink in self.sinks:
            sink.offer_retained(topic)

    def describe(self, device: str, name: str, data: Data) -> None:
        """Publish what the device or bridge is (class ``meta``)."""
        self.retain(self.topics.meta(device, name), bytes(self._fit(data)))

    def raise_alert(self, device: str, name: str, error: BridgeError) -> None:
        """Open a problem, once; raising it again with other words updates it quietly."""
        now = self.clock.rfc3339(self.clock.now()[0])
        known = self.alerts.get((device, name))
        document: dict[str, JsonValue] = {"since": known["since"] if known else now, "device": device, "name": name}
        document |= {key: value for key, value in error.document().items() if key != "rc"}  # type: ignore[misc]
        if known == document:
            return
        self.alerts[device, name] = document
        self.retain(self.topics.alert(device, name), self._encode(document))
        if known is None:
            self.happened(device, Subject.FAULT, "raised", {"alert": name, "code": error.code, "what": error.what})

    def clear_alert(self, device: str, name: str) -> None:
        """The problem is solved; does nothing where there was none."""
        if self.alerts.pop((device, name), None) is not None:
            self.retain(self.topics.alert(device, name), b"")
            self.happened(device, Subject.FAULT, "cleared", {"alert": name})

    def lost(self, loss: Loss) -> None:
        """Records were dropped undelivered: say so, with the range."""
        first, last = loss.first, loss.last
        self.happened(
            BRIDGE,
            Subject.LOSS,
            "dropped",
            {
                "first": {"epoch": first[0], "seq": first[1]},
                "last": {"epoch": last[0], "seq": last[1]},
                "count": loss.count,
                "reason": loss.reason,
            },
        )


def _unknown(data: Data) -> dict[str, JsonValue]:
    """`data` with every value unknown: consumers keep their keys and find the word ``unknown``."""
    return {
        key: "unknown" for key, value in data.items() if isinstance(value, str) and not key.endswith(("_ref", "_id"))
    }


def _cut(data: Data, most: int) -> dict[str, JsonValue]:
    """The first entries of `data` without what is nested, texts at most `most` characters long."""
    plain = {key: value for key, value in data.items() if isinstance(value, str | int | float | bool | None)}
    return {key: value[:most] if isinstance(value, str) else value for key, value in islice(plain.items(), 16)}

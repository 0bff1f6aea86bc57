"""The hub on a real journal: events are numbered once, states are what is true, alerts are open problems."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from optima_bridge.errors import LinkBusy, LinkLost
from optima_bridge.hub import Hub
from optima_bridge.journal import Loss
from optima_bridge.model import Event, Record, Subject

KEY = "01B7BA1000000075"
PREFIX = "optima/v1/s1/pc1"


class Told:
    """A sink that keeps what it is offered."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.topics: list[str] = []

    def offer(self, record: Record) -> None:
        self.records.append(record)

    def offer_retained(self, topic: str) -> None:
        self.topics.append(topic)


@pytest.fixture
def hub(hub_and_payloads: tuple[Hub, list[dict[str, Any]]]) -> Hub:
    return hub_and_payloads[0]


@pytest.fixture
def told(hub: Hub) -> Told:
    told = Told()
    hub.sinks.append(told)
    return told


def key_in(mono_ns: int | None = None) -> Event:
    now_ns = time.monotonic_ns() if mono_ns is None else mono_ns
    return Event(Subject.KEY, "inserted", now_ns, {"reader": 1}, KEY, {"presence": "present"})


def key_out() -> Event:
    return Event(Subject.KEY, "removed", time.monotonic_ns(), {}, KEY, {"presence": "absent"})


def retained(hub: Hub, path: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(hub.retained[f"{PREFIX}/{path}"])
    return document


async def test_an_event_is_numbered_without_gaps_and_goes_to_journal_sinks_and_listeners(hub: Hub, told: Told) -> None:
    heard: list[Record] = []
    hub.listeners.add(heard.append)
    made = [hub.record("front", key_in()) for _ in range(3)]
    assert [record.position for record in made] == [(hub.journal.epoch, seq) for seq in (1, 2, 3)]
    assert told.records == heard == made
    assert await hub.journal.read((0, 0), 10) == made
    assert {record.topic for record in made} == {f"{PREFIX}/evt/front/key"}
    payloads = [json.loads(record.payload) for record in made]
    assert len({payload["id"] for payload in payloads}) == 3
    assert [(payload["epoch"], payload["seq"]) for payload in payloads] == [record.position for record in made]


async def test_the_payload_is_a_cloud_event_with_the_time_at_which_the_bytes_came(hub: Hub) -> None:
    captured_ns = time.monotonic_ns() - 5_000_000_000
    record = hub.record("front", key_in(captured_ns))
    payload = json.loads(record.payload)
    assert payload | {"id": "", "time": "", "clock": "", "data": {}} == {
        "specversion": "1.0",
        "id": "",
        "source": PREFIX,
        "subject": "front",
        "type": "com.optima.key.inserted.v1",
        "time": "",
        "dataschema": "optima:key/1.0",
        "epoch": hub.journal.epoch,
        "seq": 1,
        "boot": hub.clock.boot,
        "mono": captured_ns,
        "clock": "",
        "replay": False,
        "ctx": "normal",
        "data": {},
    }
    assert payload["time"] == hub.clock.rfc3339(record.wall_ns)
    assert 4.9e9 < time.time_ns() - record.wall_ns < 60e9


async def test_an_identifier_leaves_as_a_reference_only_and_not_with_an_empty_reader(hub: Hub) -> None:
    inserted = json.loads(hub.record("front", key_in()).payload)["data"]
    assert inserted == {"action": "inserted", "reader": 1, "key_ref": inserted["key_ref"]}
    assert retained(hub, "state/front/key")["data"] == {"presence": "present", "key_ref": inserted["key_ref"]}
    removed = json.loads(hub.record("front", key_out()).payload)["data"]
    assert removed == {"action": "removed", "key_ref": inserted["key_ref"]}
    assert retained(hub, "state/front/key")["data"] == {"presence": "absent"}
    everything = b"".join(record.payload for record in await hub.journal.read((0, 0), 10))
    assert KEY.encode() not in everything + b"".join(hub.retained.values())


async def test_what_cannot_be_said_costs_no_sequence_number(hub: Hub, told: Told) -> None:
    for data in ({"x": object()}, {"x": "\ud800"}):
        with pytest.raises((TypeError, ValueError)):
            hub.record("front", Event(Subject.KEY, "inserted", time.monotonic_ns(), data))  # type: ignore[arg-type]
    assert hub.record("front", key_in()).seq == 1
    assert len(told.records) == 1


async def test_a_state_names_its_event_and_keeps_its_beginning(hub: Hub, told: Told) -> None:
    hub.set_state("front", Subject.KEY, {"presence": "absent"})
    found = retained(hub, "state/front/key")
    assert found["last_evt"] is None
    assert found["quality"] == "good"
    hub.set_state("front", Subject.KEY, {"presence": "absent"})
    assert told.topics == [f"{PREFIX}/state/front/key"], "what is true already is not told again"
    first = json.loads(hub.record("front", key_in()).payload)
    assert retained(hub, "state/front/key")["last_evt"] == first["id"]
    assert retained(hub, "state/front/key")["since"] == first["time"]
    again = json.loads(hub.record("front", key_in()).payload)
    assert retained(hub, "state/front/key")["last_evt"] == again["id"]
    assert retained(hub, "state/front/key")["since"] == first["time"], "it was true all the time"


async def test_forgetting_makes_everything_of_that_device_unknown_but_its_link(hub: Hub) -> None:
    hub.record("front", key_in())
    hub.record("back", key_in())
    hub.set_state("front", Subject.KEYLOCK, {"position": "locked", "position_code": 1})
    hub.set_state("front", Subject.CONTROLLER, {"status": "ready", "depth": 3})
    hub.happened("front", Subject.LINK, "down", {}, {"link": "down"})
    event_id = retained(hub, "state/front/key")["last_evt"]
    hub.forget("front", {Subject.KEYLOCK: {"position": "unknown", "position_code": 0}})
    assert retained(hub, "state/front/key")["data"] == {"presence": "unknown"}
    assert retained(hub, "state/front/key")["quality"] == "unknown"
    assert retained(hub, "state/front/key")["last_evt"] == event_id
    assert retained(hub, "state/front/keylock")["data"] == {"position": "unknown", "position_code": 0}
    assert retained(hub, "state/front/controller")["data"] == {"status": "unknown"}
    assert retained(hub, "state/front/link")["data"] == {"link": "down"}
    assert retained(hub, "state/back/key")["data"]["presence"] == "present"


async def test_a_problem_raised_twice_is_one_event_and_one_alert_that_is_emptied_when_solved(
    hub: Hub, told: Told
) -> None:
    hub.raise_alert("front", "link", LinkLost("gone"))
    hub.raise_alert("front", "link", LinkLost("gone"))
    assert told.topics == [f"{PREFIX}/alert/front/link"]
    first = retained(hub, "alert/front/link")
    assert first.items() >= {"device": "front", "name": "link", "code": "E-LINK-LOST", "what": "gone"}.items()
    hub.raise_alert("front", "link", LinkBusy("held", holder={"pid": 1, "program": "x"}))
    second = retained(hub, "alert/front/link")
    assert second["code"] == "E-PORT-BUSY"
    assert second["data"] == {"holder": {"pid": 1, "program": "x"}}
    assert second["since"] == first["since"]
    assert list(hub.alerts) == [("front", "link")]
    hub.clear_alert("front", "link")
    hub.clear_alert("front", "link")
    assert hub.retained[f"{PREFIX}/alert/front/link"] == b""
    assert not hub.alerts
    assert [json.loads(record.payload)["data"]["action"] for record in told.records] == ["raised", "cleared"]


async def test_one_problem_does_not_hide_another(hub: Hub) -> None:
    hub.raise_alert("front", "link", LinkLost("gone"))
    hub.raise_alert("back", "link", LinkLost("gone"))
    hub.clear_alert("front", "link")
    assert list(hub.alerts) == [("back", "link")]


async def test_a_loss_says_which_records_are_gone(hub: Hub, told: Told) -> None:
    hub.lost(Loss(first=(1, 2), last=(3, 4), count=5, reason="age"))
    assert told.records[0].topic == f"{PREFIX}/evt/bridge/loss"
    assert json.loads(told.records[0].payload)["data"] == {
        "action": "dropped",
        "first": {"epoch": 1, "seq": 2},
        "last": {"epoch": 3, "seq": 4},
        "count": 5,
        "reason": "age",
    }


async def test_a_document_that_is_not_true_yet_changes_nothing(hub: Hub, told: Told) -> None:
    will = json.loads(hub.document("bridge", Subject.STATUS, {"status": "lost", "conn": 1}))
    assert will["data"] == {"status": "lost", "conn": 1}
    assert will["epoch"] == hub.journal.epoch
    assert not told.topics
    assert not hub.retained

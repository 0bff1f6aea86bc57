"""Requests over MQTT without a broker: each way to be refused has its code, and an answer is given once."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest

from optima_bridge.commands import MAX_REQUEST_BYTES, REMEMBERED, Commands
from optima_bridge.errors import SinkError
from optima_bridge.hub import Hub
from optima_bridge.model import Subject

Range = tuple[tuple[int, int], tuple[int, int]]


class Desk:
    """Takes requests and keeps the answers."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.answers: list[tuple[str, dict[str, Any]]] = []
        self.replays: list[Range] = []
        self.busy = False
        self.commands = Commands(
            hub, lambda topic, payload: self.answers.append((topic, json.loads(payload))), self.replay
        )

    def replay(self, first: tuple[int, int], last: tuple[int, int]) -> None:
        if self.busy:
            raise SinkError("a replay is running already")
        self.replays.append((first, last))

    def ask(
        self, verb: str, request: dict[str, Any] | bytes, *, retained: bool = False, device: str = "bridge"
    ) -> None:
        payload = request if isinstance(request, bytes) else json.dumps({"req": "r1", "by": "hq"} | request).encode()
        self.commands.take(self.hub.topics.command(device, verb), payload, retained)

    @property
    def last(self) -> dict[str, Any]:
        return self.answers[-1][1]


@pytest.fixture
def desk(hub_and_payloads: tuple[Hub, list[dict[str, Any]]]) -> Desk:
    return Desk(hub_and_payloads[0])


async def test_a_ping_says_where_the_journal_is(desk: Desk) -> None:
    desk.hub.happened("bridge", Subject.STATUS, "started", {})
    desk.ask("ping", {})
    epoch = desk.hub.journal.epoch
    assert desk.answers == [
        ("optima/v1/s1/pc1/res/hq/r1", {"req": "r1", "status": "done", "result": {"epoch": epoch, "seq": 1}})
    ]


async def test_get_tells_every_retained_document_again(desk: Desk) -> None:
    class Told:
        topics: list[str] = []  # noqa: RUF012

        def offer(self, record: object) -> None:
            pass

        def offer_retained(self, topic: str) -> None:
            self.topics.append(topic)

    desk.hub.set_state("front", Subject.KEY, {"presence": "absent"})
    desk.hub.describe("front", "device", {})
    desk.hub.sinks.append(Told())
    desk.ask("get", {})
    assert desk.last["result"] == {"topics": 2}
    assert Told.topics == list(desk.hub.retained)


@pytest.mark.parametrize(
    ("args", "first", "last"),
    [
        ({}, (0, 1), (0, 3)),
        ({"from": 2}, (0, 2), (0, 3)),
        ({"from": 2, "to": 2}, (0, 2), (0, 2)),
        ({"from": 2, "to": 9}, (0, 2), (0, 3)),
        ({"from": 7, "to": 9, "epoch": 5}, (5, 7), (5, 9)),
    ],
)
async def test_a_replay_takes_a_range_of_sequence_numbers(
    desk: Desk, args: dict[str, int], first: tuple[int, int], last: tuple[int, int]
) -> None:
    for _ in range(3):
        desk.hub.happened("bridge", Subject.STATUS, "started", {})
    present = desk.hub.journal.epoch
    desk.ask("replay", {"args": args})
    assert desk.last["status"] == "done"
    assert desk.replays == [((first[0] or present, first[1]), (last[0] or present, last[1]))]


@pytest.mark.parametrize(
    ("code", "verb", "request_"),
    [
        ("unknown-verb", "unlock", {}),
        ("malformed", "ping", {"exp": "tomorrow"}),
        ("malformed", "ping", {"exp": "2026-11-22T11:32:42"}),
        ("expired", "ping", {"exp": 1}),
        ("expired", "ping", {"exp": "2001-01-01T00:00:00Z"}),
        ("bad-range", "replay", {"args": {"from": 0}}),
        ("bad-range", "replay", {"args": {"from": 5, "to": 4}}),
        ("bad-range", "replay", {"args": {"from": 2}}),
        ("bad-range", "replay", {"args": {"to": 7, "epoch": 2**64 - 1}}),
        ("bad-range", "replay", {"args": {"from": 2**63, "to": 2**64 - 1}}),
        ("bad-range", "replay", {"args": {"to": 7, "epoch": -1}}),
    ],
)
async def test_a_refusal_has_its_code_and_a_reason(desk: Desk, code: str, verb: str, request_: dict[str, Any]) -> None:
    desk.ask(verb, request_)
    assert desk.last.keys() == {"req", "status", "code", "why"}
    assert (desk.last["status"], desk.last["code"]) == ("rejected", code)
    assert desk.last["why"]
    assert not desk.replays


async def test_no_device_takes_requests(desk: Desk) -> None:
    desk.ask("ping", {}, device="front")
    assert desk.last["code"] == "unknown-verb"


async def test_a_retained_request_is_refused(desk: Desk) -> None:
    desk.ask("ping", {}, retained=True)
    assert desk.last["code"] == "retained"


async def test_a_second_replay_is_told_to_wait(desk: Desk) -> None:
    desk.hub.happened("bridge", Subject.STATUS, "started", {})
    desk.busy = True
    desk.ask("replay", {})
    assert desk.last["code"] == "busy"


async def test_a_request_nested_too_deeply_to_decode_ends_nothing(desk: Desk) -> None:
    desk.ask("ping", b'{"req":"deep","x":' + b"[" * 8000 + b"]" * 8000 + b"}")  # Python 3.13 decodes what 3.11 refuses
    desk.ask("ping", b'{"req":"next"}')
    assert [answer["req"] for _, answer in desk.answers][-1] == "next"


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"\xff\xfe",
        b'{"by":"hq"}',
        b'{"req":1}',
        b'{"req":"r1","by":"a/b"}',
        b'{"req":"#"}',
        b'{"req":""}',
        b'{"req":"r1","args":{"from":"1"}}',
        b'{"req":"r1","by":"hq"' + b" " * MAX_REQUEST_BYTES + b"}",
    ],
)
async def test_nobody_is_answered_where_it_is_not_sure_who_asks(desk: Desk, payload: bytes) -> None:
    desk.ask("ping", payload)
    assert not desk.answers


async def test_a_request_is_good_until_its_time(desk: Desk) -> None:
    later_s = time.time() + 3600
    desk.ask("ping", {"exp": later_s})
    desk.ask("ping", {"req": "r2", "exp": datetime.fromtimestamp(later_s, UTC).isoformat()})
    desk.ask("ping", {"req": "r3", "exp": "2100-01-01T00:00:00+02:00"})
    assert [answer["status"] for _, answer in desk.answers] == ["done"] * 3


@pytest.mark.parametrize("exp", [1e300, -1e300, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
async def test_a_time_beyond_all_calendars_is_answered(desk: Desk, exp: float | str) -> None:
    desk.ask("ping", {"exp": exp})
    assert desk.last["status"] in ("done", "rejected")


async def test_a_request_that_comes_twice_is_carried_out_once_and_answered_twice(desk: Desk) -> None:
    desk.hub.happened("bridge", Subject.STATUS, "started", {})
    desk.ask("replay", {})
    desk.ask("replay", {})
    assert len(desk.replays) == 1
    assert desk.answers[0] == desk.answers[1]
    desk.ask("replay", {"by": "another"})
    assert len(desk.replays) == 2


async def test_answers_are_remembered_within_a_bound(desk: Desk) -> None:
    desk.hub.happened("bridge", Subject.STATUS, "started", {})
    for number in range(REMEMBERED + 1):
        desk.ask("replay", {"req": f"r{number}"})
    desk.ask("replay", {"req": f"r{REMEMBERED}"})
    assert len(desk.replays) == REMEMBERED + 1, "the last one is remembered"
    desk.ask("replay", {"req": "r0"})
    assert len(desk.replays) == REMEMBERED + 2, "the first one is forgotten"

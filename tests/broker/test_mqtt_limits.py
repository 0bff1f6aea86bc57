"""Limits that a broker sets: how many publishes may be unacknowledged, how large one may be."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from optima_bridge.model import Subject
from tests.nodes import running
from tests.support import Mosquitto, subscribed, until

pytestmark = pytest.mark.broker


@pytest.mark.parametrize("receive_maximum", [1, 20])
async def test_no_more_publishes_are_in_flight_than_the_broker_allows(
    mosquitto: Mosquitto, tmp_path: Path, receive_maximum: int
) -> None:
    mosquitto.start(f"allow_anonymous true\nmax_inflight_messages {receive_maximum}\n")
    most = 0
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        mqtt = node.service.mqtt
        assert mqtt is not None
        await seen.until(lambda: bool(seen.payloads("state/bridge/status")))
        for number in range(100):
            node.key(number)

        def all_came() -> bool:
            nonlocal most
            most = max(most, mqtt._window.in_flight)
            return len(seen.payloads("evt/front/key")) == 100

        await until(all_came)
        assert mqtt.status()["connections"] == 1
    assert most <= receive_maximum
    assert [payload["data"]["n"] for payload in seen.payloads("evt/front/key")] == list(range(100))


async def test_an_event_larger_than_the_broker_takes_is_named_and_the_others_go_on(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    mosquitto.start("allow_anonymous true\nmax_packet_size 1500\n")
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        mqtt = node.service.mqtt
        assert mqtt is not None
        await seen.until(lambda: bool(seen.payloads("state/bridge/status")))
        node.key(1)
        big = node.hub.happened("back", Subject.KEY, "inserted", {"note": "x" * 1500})
        node.key(2)
        await seen.until(lambda: len(seen.payloads("evt/front/key")) == 2)
        assert mqtt.status()["connections"] == 1
        assert any("larger than the broker takes" in json.dumps(alert) for alert in node.hub.alerts.values())
    assert not seen.payloads("evt/back/key")
    mosquitto.stop()
    mosquitto.start("allow_anonymous true\n")
    async with subscribed(mosquitto.port) as later, running(tmp_path / "node", mosquitto.port):
        await later.until(lambda: bool(later.payloads("evt/back/key")))
    assert later.payloads("evt/back/key")[0]["seq"] == big.seq


async def test_a_broker_that_drops_a_large_payload_by_its_own_rule_is_named_too(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    mosquitto.start("allow_anonymous true\nmessage_size_limit 1200\n")
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        node.hub.happened("back", Subject.KEY, "inserted", {"note": "x" * 1200})
        node.key(2)
        await seen.until(lambda: len(seen.payloads("evt/front/key")) == 1)
        await until(lambda: any("denies" in json.dumps(alert) for alert in node.hub.alerts.values()))

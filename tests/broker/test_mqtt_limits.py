"""Limits that a broker sets: how many publishes may be unacknowledged, how large one may be, who may write what."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from optima_bridge.model import Event, Subject
from tests.nodes import running
from tests.support import Mosquitto, subscribed, until

pytestmark = pytest.mark.broker

CONFIG = Path(__file__).parents[2] / "config"


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


@pytest.mark.parametrize("letter", ["x", "\x07", "\u20ac"])
async def test_a_device_that_tells_too_much_is_cut_to_four_kilobytes(
    mosquitto: Mosquitto, tmp_path: Path, letter: str
) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        told = {f"text-{number}": letter * 1000 for number in range(20)} | {"list": [letter] * 1000}
        record = node.hub.record(
            "back", Event(Subject.CARD, "inserted", 0, told, None, {"presence": "present", **told})
        )
        node.hub.describe("back", "device", told)
        assert len(record.payload) <= 4096
        await until(
            lambda: all(seen.payloads(part) for part in ("evt/back/card", "state/back/card", "meta/back/device"))
        )
        assert all(len(payload) <= 4096 for payload in node.hub.retained.values())
    event, state = seen.payloads("evt/back/card")[0], seen.payloads("state/back/card")[0]
    assert (event["data"]["action"], event["data"]["cut"]) == ("inserted", True)
    assert (state["data"]["presence"], state["data"]["cut"]) == ("present", True)


async def test_a_broker_that_drops_a_large_payload_by_its_own_rule_is_named_too(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    mosquitto.start("allow_anonymous true\nmessage_size_limit 1200\n")
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        node.hub.happened("back", Subject.KEY, "inserted", {"note": "x" * 1200})
        node.key(2)
        await seen.until(lambda: len(seen.payloads("evt/front/key")) == 1)
        await until(lambda: any("denies" in json.dumps(alert) for alert in node.hub.alerts.values()))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
async def test_the_access_list_and_settings_that_we_recommend_let_the_daemon_do_all_it_needs(
    mosquitto: Mosquitto, tmp_path: Path, protocol: str
) -> None:
    acl, passwords, secret = tmp_path / "acl", tmp_path / "passwords", tmp_path / "secret"
    acl.write_text((CONFIG / "acl-example.conf").read_text().replace("s1042", "s1"))
    for user in ("s1-pc1", "dashboard", "loss-prevention"):
        new = () if passwords.exists() else ("-c",)
        words = ("mosquitto_passwd", *new, "-b", str(passwords), user, "secret")
        assert await (await asyncio.create_subprocess_exec(*words)).wait() == 0
    secret.write_text("secret")
    for path in (acl, passwords, secret):
        path.chmod(0o600)
    settings = (CONFIG / "mosquitto-recommended.conf").read_text().replace("listener 1883 127.0.0.1", "")
    settings = settings.replace("/etc/mosquitto/optima-passwords", str(passwords))
    settings = settings.replace("/etc/mosquitto/optima-acl.conf", str(acl))
    mosquitto.start(settings)
    login = f'username = "s1-pc1"\npassword = {{ file = "{secret}" }}\nprotocol = "{protocol}"'
    as_user = ("-p", str(mosquitto.port), "-u", "loss-prevention", "-P", "secret", "-q", "1")
    async with running(tmp_path / "node", mosquitto.port, login) as node:
        mqtt = node.service.mqtt
        assert mqtt is not None
        await until(lambda: mqtt.connected)
        reader = await asyncio.create_subprocess_exec(
            "mosquitto_sub", *as_user, "-t", "optima/v1/+/+/res/loss-prevention/#", "-t", "optima/v1/+/+/state/#", "-v",
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert reader.stdout is not None
        async with asyncio.timeout(10):
            assert b"state/bridge/status" in await reader.stdout.readline()
        ask = ("mosquitto_pub", *as_user, "-t", "optima/v1/s1/pc1/cmd/bridge/ping", "-m")
        assert await (await asyncio.create_subprocess_exec(*ask, '{"req":"r1","by":"loss-prevention"}')).wait() == 0
        async with asyncio.timeout(10):
            while b"res/loss-prevention/r1" not in await reader.stdout.readline():
                pass
        reader.kill()
        await reader.wait()
        node.key(1)
        if protocol == "3.1.1":
            await until(mqtt._echoed.is_set)
        assert await mqtt.drain(10)
        assert mqtt.status()["denied_topics"] == []
        assert not node.hub.alerts

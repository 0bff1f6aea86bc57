"""The real service against a real mosquitto that is stopped, restarted, killed, that denies, refuses and hangs."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from optima_bridge.journal import Position
from optima_bridge.model import Record
from optima_bridge.sinks import mqtt as sink_module
from optima_bridge.sinks import window as window_module
from optima_bridge.sinks.window import flag_replay
from tests.nodes import running
from tests.support import Mosquitto, subscribed, until

pytestmark = pytest.mark.broker


def numbers(payloads: list[dict[str, Any]]) -> list[int]:
    return [payload["data"]["n"] for payload in payloads]


def first_arrivals(payloads: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a consumer that drops repeated ids is left with."""
    first: dict[str, dict[str, Any]] = {}
    for payload in payloads:
        first.setdefault(payload["id"], payload)
    return list(first.values())


async def test_an_event_arrives_as_the_contract_says(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        await seen.until(lambda: bool(seen.payloads("state/bridge/status")))
        node.key(7)
        await seen.until(lambda: bool(seen.payloads("evt/front/key")) and bool(seen.payloads("state/front/key")))
    event = seen.payloads("evt/front/key")[0]
    state = seen.payloads("state/front/key")[0]
    assert event["specversion"] == "1.0"
    assert event["type"] == "com.optima.key.inserted.v1"
    assert event["source"] == "optima/v1/s1/pc1"
    assert event["data"].keys() == {"action", "n", "key_ref"}
    assert event["data"]["key_ref"].startswith("hmac:")
    assert "01B7BA1000000075" not in json.dumps(seen.lines)
    assert event["replay"] is False
    assert state["last_evt"] == event["id"]
    assert state["data"]["presence"] == "present"
    assert state["data"]["key_ref"] == event["data"]["key_ref"]
    stopped = seen.payloads("state/bridge/status")[-1]
    assert stopped["data"]["status"] == "stopped"


async def test_states_are_retained_and_events_never(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with running(tmp_path / "node", mosquitto.port) as node, subscribed(mosquitto.port) as early:
        await early.until(lambda: bool(early.payloads("state/bridge/status")))
        node.key(1)
        await early.until(lambda: bool(early.payloads("evt/front/key")))
        async with subscribed_late(mosquitto.port) as topics:
            assert "optima/v1/s1/pc1/state/front/key" in topics
            assert not [topic for topic in topics if "/evt/" in topic]


class subscribed_late:  # noqa: N801 - reads like a function
    """Topics of everything that the broker retains."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def __aenter__(self) -> list[str]:
        process = await asyncio.create_subprocess_exec(
            "mosquitto_sub", "-p", str(self._port), "-t", "optima/#", "--retained-only", "-W", "1", "-F", "%t",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        output, _ = await process.communicate()
        return output.decode().split()

    async def __aexit__(self, *_: object) -> None:
        pass


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
async def test_every_event_arrives_in_order_though_the_broker_goes_away(
    mosquitto: Mosquitto, tmp_path: Path, how: signal.Signals
) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        await seen.until(lambda: bool(seen.payloads("state/bridge/status")))
        sent = 0
        for _ in range(2):
            # mosquitto acknowledges, then saves: killed in between it forgets what it queued for an absent subscriber
            await until(lambda: len(first_arrivals(seen.payloads("evt/front/key"))) == sent)  # noqa: B023 - at once
            for _ in range(40):
                node.key(sent)
                sent += 1
                await asyncio.sleep(0.001)
            mosquitto.stop(how)
            for _ in range(40):
                node.key(sent)
                sent += 1
            mosquitto.start()
        await seen.until(lambda: len(first_arrivals(seen.payloads("evt/front/key"))) == sent)
    events = first_arrivals(seen.payloads("evt/front/key"))
    assert numbers(events) == list(range(sent))
    seqs = [event["seq"] for event in events]
    assert seqs == sorted(seqs)
    every = {payload["seq"]: payload["id"] for payload in seen.payloads("evt/")}
    assert {payload["seq"]: payload["id"] for payload in reversed(seen.payloads("evt/"))} == every, "one id per seq"


async def test_more_events_than_the_queue_holds_come_from_the_journal_in_order(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    count = window_module.LIVE_RECORDS + 700
    async with running(tmp_path / "node", mosquitto.port) as node:
        for number in range(count):
            node.key(number)
        assert node.service.mqtt is not None
        assert len(node.service.mqtt._window._queue) <= window_module.LIVE_RECORDS
        mosquitto.start()
        async with subscribed(mosquitto.port) as seen:
            await seen.until(lambda: bool(seen.payloads("state/bridge/status")))
            for number in range(count, count + 50):
                node.key(number)
                await asyncio.sleep(0)
            assert await node.service.mqtt.drain(20)
            await seen.until(
                lambda: (
                    bool(seen.payloads("evt/front/key")) and numbers(seen.payloads("evt/front/key"))[-1] == count + 49
                )
            )
            arrived = numbers(seen.payloads("evt/front/key"))
            assert arrived == list(range(arrived[0], count + 50))


async def test_an_event_that_comes_while_the_journal_is_read_is_not_passed_over(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = window_module.LIVE_RECORDS + 10
    async with running(tmp_path / "node", mosquitto.port) as node:
        for number in range(count):
            node.key(number)
        read, late = node.service.journal.read, [count]

        async def read_while_something_happens(
            after: Position, limit: int, upto: Position | None = None
        ) -> list[Record]:
            if late:  # an empty answer, and by the time it is here it is no longer true
                node.key(late.pop())
                return []
            return await read(after, limit, upto)

        monkeypatch.setattr(node.service.journal, "read", read_while_something_happens)
        mosquitto.start()
        async with subscribed(mosquitto.port) as seen:
            await until(lambda: not late)
            node.key(count + 1)
            await seen.until(lambda: count + 1 in numbers(seen.payloads("evt/front/key")))
            arrived = numbers(seen.payloads("evt/front/key"))
    assert arrived[-2:] == [count, count + 1]
    assert arrived == list(range(arrived[0], count + 2))


async def test_what_one_life_could_not_send_the_next_one_does(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with running(tmp_path / "node", mosquitto.port) as node:
        for number in range(20):
            node.key(number)
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen:
        await asyncio.sleep(0.3)
        async with running(tmp_path / "node", mosquitto.port):
            await seen.until(lambda: len(seen.payloads("evt/front/key")) >= 20)
            await seen.until(
                lambda: len([p for p in seen.payloads("evt/bridge/status") if p["data"]["action"] == "started"]) == 2
            )
    assert numbers(seen.payloads("evt/front/key")) == list(range(20))
    first, second = [p for p in seen.payloads("evt/bridge/status") if p["data"]["action"] == "started"]
    assert second["epoch"] > first["epoch"]
    assert second["data"]["previous"]["epoch"] == first["epoch"]


async def test_a_denied_topic_is_named_and_its_events_arrive_once_it_is_allowed(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(window_module, "DENIED_RETRY_S", 0.2)
    acl = tmp_path / "acl"
    prefix = "optima/v1/s1/pc1"
    allowed = f"topic readwrite {prefix}/state/#\ntopic readwrite {prefix}/alert/#\ntopic readwrite {prefix}/evt/bridge/#\ntopic read #\n"
    acl.write_text(allowed)
    mosquitto.start(f"allow_anonymous true\nacl_file {acl}\n")
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        assert node.service.mqtt is not None
        node.key(1)
        node.key(2)
        await seen.until(lambda: any("evt/front/key" in json.dumps(alert) for alert in seen.payloads("alert/")))
        assert f"{prefix}/evt/front/key" in str(node.service.mqtt.status()["denied_topics"])
        assert not seen.payloads("evt/front/key")
        acl.write_text(allowed + f"topic readwrite {prefix}/#\n")
        mosquitto.reload()
        await seen.until(lambda: len(first_arrivals(seen.payloads("evt/front/key"))) == 2)
        await seen.until(lambda: not node.service.mqtt.status()["denied_topics"])  # type: ignore[union-attr]
    assert numbers(first_arrivals(seen.payloads("evt/front/key"))) == [1, 2]
    cleared = [line for line in seen.lines if "alert/bridge/denied" in line["topic"] and not line["payload"]]
    assert cleared, "the alert was emptied"


async def test_status_names_what_is_wrong_with_the_broker(mosquitto: Mosquitto, tmp_path: Path) -> None:
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    (tmp_path / "secret").write_text("wrong")
    (tmp_path / "secret").chmod(0o600)
    async with running(tmp_path / "a", mosquitto.port) as node:
        await problem(node, "nothing listens")
    mosquitto.start(f"allow_anonymous false\npassword_file {passwords}\n")
    login = f'username = "u"\npassword = {{ file = "{tmp_path}/secret" }}\n'
    async with running(tmp_path / "b", mosquitto.port, login) as node:
        await problem(node, "refuses the login")


async def test_a_broker_that_hangs_is_named_and_the_daemon_stops_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "CONNECT_TIMEOUT_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody reads
        await hangs(tmp_path, silent.getsockname()[1])


async def test_a_password_that_went_away_is_named_and_the_daemon_goes_on(mosquitto: Mosquitto, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    secret.chmod(0o600)
    login = f'username = "u"\npassword = {{ file = "{secret}" }}\n'
    async with running(tmp_path / "a", mosquitto.port, login) as node:
        await problem(node, "nothing listens")
        secret.unlink()
        await problem(node, "cannot be read")
        secret.write_text("x")
        secret.chmod(0o600)
        mosquitto.start()
        await until(lambda: node.service.mqtt.connected)  # type: ignore[union-attr]


async def test_a_host_that_cannot_be_a_name_is_named(tmp_path: Path) -> None:
    async with running(tmp_path / "a", 1883, 'host = "broker..example"') as node:
        await problem(node, "does not resolve")


async def hangs(tmp_path: Path, port: int) -> None:
    async with running(tmp_path / "a", port) as node:
        node.key(1)
        await problem(node, "does not answer")
        assert node.service.journal.head[1] >= 2


async def problem(node: Any, words: str) -> None:
    await until(lambda: words in str((node.service.mqtt.status()["problem"] or {}).get("what")))


async def publish(port: int, topic: str, payload: str, *extra: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "mosquitto_pub", "-p", str(port), "-t", topic, "-q", "1", "-m", payload, *extra
    )
    assert await process.wait() == 0


async def test_requests_are_answered_and_bad_ones_refused_by_name(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    command = "optima/v1/s1/pc1/cmd/bridge"
    await publish(mosquitto.port, f"{command}/ping", '{"req":"old","by":"hq"}', "-r")
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:

        def answer(request: str) -> dict[str, Any]:
            return next(iter(seen.payloads(f"res/hq/{request}")), {})

        await seen.until(lambda: bool(answer("old")))
        assert answer("old")["code"] == "retained"
        for request, verb, body, code in (
            ("r1", "ping", "{}", None),
            ("r2", "open-till", "{}", "unknown-verb"),
            ("r3", "ping", '{"exp":"2001-01-01T00:00:00Z"}', "expired"),
            ("r4", "replay", '{"args":{"from":9,"to":3}}', "bad-range"),
        ):
            await publish(
                mosquitto.port, f"{command}/{verb}", json.dumps({"req": request, "by": "hq", **json.loads(body)})
            )
            await until(partial(answer, request))
            assert answer(request).get("code") == code
        for garbage in ("", "{", '{"req":1}', '{"req":"../../x","by":"hq"}', "x" * 20000):
            await publish(mosquitto.port, f"{command}/ping", garbage)
        for number in range(5):
            node.key(number)
        await publish(mosquitto.port, f"{command}/replay", '{"req":"r9","by":"hq","args":{"from":1}}')
        await seen.until(lambda: len(seen.payloads("evt/front/key")) >= 10)
        again = [payload for payload in seen.payloads("evt/front/key") if payload["replay"]]
        assert numbers(again) == list(range(5))
        assert {p["id"] for p in again} == {p["id"] for p in seen.payloads("evt/front/key") if not p["replay"]}


async def test_a_second_daemon_with_the_same_client_id_is_named(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with running(tmp_path / "a", mosquitto.port) as first:
        await until(lambda: first.service.mqtt.connected)  # type: ignore[union-attr]
        async with running(tmp_path / "b", mosquitto.port):
            await problem(first, "end again and again")


def test_a_replayed_document_differs_in_the_flag_only() -> None:
    before = b'{"seq":1,"replay":false,"data":{"text":"\\"replay\\":false"}}'
    assert flag_replay(before) == b'{"seq":1,"replay":true,"data":{"text":"\\"replay\\":false"}}'

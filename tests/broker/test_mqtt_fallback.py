"""MQTT 3.1.1: everything works but the naming of denials, and the daemon says so; brokers that have no version 5."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from optima_bridge.model import JsonValue
from optima_bridge.sinks import mqtt as sink_module
from tests.nodes import Node, running
from tests.support import Mosquitto, free_port, subscribed, until

pytestmark = pytest.mark.broker

OLD = 'protocol = "3.1.1"'
PREFIX = "optima/v1/s1/pc1"


def status(node: Node) -> dict[str, JsonValue]:
    assert node.service.mqtt is not None
    return node.service.mqtt.status()


async def test_events_states_and_requests_work_and_the_blind_spot_is_told_once(
    mosquitto: Mosquitto, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mosquitto.start()
    async with subscribed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port, OLD) as node:
        await seen.until(lambda: bool(seen.payloads("state/bridge/status")))
        assert status(node)["protocol"] == "3.1.1"
        assert status(node)["denials"] == "invisible"
        node.key(1)
        request = ("mosquitto_pub", "-p", str(mosquitto.port), "-t", f"{PREFIX}/cmd/bridge/ping", "-m")
        assert await (await asyncio.create_subprocess_exec(*request, '{"req":"r1","by":"hq"}')).wait() == 0
        await seen.until(lambda: bool(seen.payloads("evt/front/key")) and bool(seen.payloads("state/front/key")))
        await seen.until(lambda: bool(seen.payloads("res/hq/r1")))
        mosquitto.stop()
        mosquitto.start()
        await until(lambda: status(node)["connections"] == 2)
    assert capsys.readouterr().out.count("3.1.1") == 1


async def test_the_echo_of_the_birth_settles_the_session(mosquitto: Mosquitto, tmp_path: Path) -> None:
    async with running(tmp_path / "node", mosquitto.port, OLD) as node:
        await until(lambda: status(node)["problem"])  # nothing listens
        mosquitto.start()
        await until(lambda: not status(node)["problem"])
        assert not node.hub.alerts


@pytest.mark.parametrize("allowed", [f"topic write {PREFIX}/#", f"topic read {PREFIX}/#"], ids=["no read", "no write"])
async def test_a_birth_that_does_not_come_back_is_named(
    mosquitto: Mosquitto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, allowed: str
) -> None:
    monkeypatch.setattr(sink_module, "STEADY_S", 0.1)
    monkeypatch.setattr(sink_module, "ECHO_S", 0.3)
    acl = tmp_path / "acl"
    acl.write_text(f"{allowed}\n")
    mosquitto.start(f"allow_anonymous true\nacl_file {acl}\n")
    async with running(tmp_path / "node", mosquitto.port, OLD) as node:
        await until(lambda: "took the birth but did not deliver it" in json.dumps(status(node)["problem"]))
        assert status(node)["state"] == "connected"
        assert "E-BROKER-REFUSED" in json.dumps(list(node.hub.alerts.values()))


@pytest.mark.skipif(find_spec("amqtt") is None, reason="the extra optima-bridge[broker] is not installed")
async def test_a_broker_without_version_5_is_named_and_works_with_the_older_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sink_module, "CONNECT_TIMEOUT_S", 1.0)  # it waits for the rest of what it takes for 3.1.1
    async with embedded() as port:
        async with running(tmp_path / "node", port) as node:
            await until(lambda: 'set protocol = \\"3.1.1\\"' in json.dumps(status(node)["problem"]))
            node.key(1)
        async with running(tmp_path / "node", port, OLD) as node:
            await until(lambda: status(node)["state"] == "connected")
            assert node.service.mqtt is not None
            assert await node.service.mqtt.drain(10)


@asynccontextmanager
async def embedded() -> AsyncIterator[int]:
    """The broker of `bridge demo` on a free port."""
    port = free_port()
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "optima_bridge.demo.embedded", str(port))

    def listens() -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return True
        return False

    try:
        await until(listens)
        yield port
    finally:
        process.terminate()
        await process.wait()

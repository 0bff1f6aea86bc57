"""What stays on a real broker: nothing that nobody stands for; and each class of topic as docs/reference/mqtt.md lists it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from optima_bridge.config import load
from optima_bridge.errors import LinkLost
from optima_bridge.journal import Journal
from optima_bridge.model import Subject
from optima_bridge.service import Service
from optima_bridge.sinks.ledger import RetainedLedger
from tests.nodes import Node, running
from tests.support import Mosquitto, Subscriber, until

pytestmark = pytest.mark.broker

PREFIX = "optima/v1/s1/pc1"


async def retained_topics(port: int) -> set[str]:
    """What the broker retains, as a client of another make sees it; it ends behind a marker of ours."""
    arguments = ("mosquitto_sub", "-p", str(port), "-t", "optima/#", "-t", "marker", "--retained-only", "-F", "%t")
    await (
        await asyncio.create_subprocess_exec("mosquitto_pub", "-p", str(port), "-t", "marker", "-r", "-m", "x")
    ).wait()
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    found: set[str] = set()
    async with asyncio.timeout(10):
        while (topic := (await process.stdout.readline()).decode().strip()) != "marker":
            found.add(topic)
    process.kill()
    await process.wait()
    return found


async def settled(node: Node) -> None:
    """Everything that the node had to say is acknowledged."""
    mqtt = node.service.mqtt
    assert mqtt is not None
    await until(lambda: mqtt.connected)
    assert await mqtt.drain(10)


async def test_what_the_next_configuration_no_longer_has_is_cleared(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with running(tmp_path / "node", mosquitto.port) as node:
        node.key(1)
        node.hub.set_state("back", Subject.KEYLOCK, {"position": "locked"})
        node.hub.raise_alert("back", "link", LinkLost("gone"))
        await until(lambda: f"{PREFIX}/alert/back/link" in ledger(tmp_path))
        await settled(node)
    ghosts = {f"{PREFIX}/state/back/keylock", f"{PREFIX}/alert/back/link"}
    assert ghosts < await retained_topics(mosquitto.port)
    async with running(tmp_path / "node", mosquitto.port) as node:  # "back" was removed
        node.key(2)
        await until(lambda: not ghosts & ledger(tmp_path))
        await settled(node)
    assert not ghosts & await retained_topics(mosquitto.port)
    assert f"{PREFIX}/state/front/key" in await retained_topics(mosquitto.port)


async def test_a_renamed_node_leaves_nothing_under_its_old_name(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with running(tmp_path / "node", mosquitto.port) as node:
        node.key(1)
        await until(lambda: f"{PREFIX}/state/front/key" in ledger(tmp_path))
        await settled(node)
    async with renamed(tmp_path / "node", mosquitto.port) as node:
        await until(lambda: not any(topic.startswith(PREFIX) for topic in ledger(tmp_path)))
        await settled(node)
    topics = await retained_topics(mosquitto.port)
    assert {topic.split("/")[3] for topic in topics} == {"till-7"}


@asynccontextmanager
async def renamed(directory: Path, port: int) -> AsyncIterator[Node]:
    """The same state directory under another name of the node."""
    text = (directory / "config.toml").read_text().replace('node = "pc1"', 'node = "till-7"')
    (directory / "config.toml").write_text(text)
    config = load(directory / "config.toml", {}).config
    service = Service(config, Journal.open(Path(config.journal.directory)))
    task = asyncio.create_task(service.run())
    try:
        yield Node(service, task)
    finally:
        service.stop()
        await task


def ledger(tmp_path: Path) -> set[str]:
    with contextlib.suppress(FileNotFoundError):
        return set((tmp_path / "node/state/retained-topics").read_text().split())
    return set()


async def test_a_clearing_that_is_denied_stays_listed_and_is_tried_again(mosquitto: Mosquitto, tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    mosquitto.start()
    ghost = f"{PREFIX}/state/back/keylock"
    async with running(tmp_path / "node", mosquitto.port) as node:
        node.hub.set_state("back", Subject.KEYLOCK, {"position": "locked"})
        await until(lambda: ghost in ledger(tmp_path))
        await settled(node)
    acl.write_text(
        f"topic write {PREFIX}/evt/#\ntopic write {PREFIX}/state/bridge/#\ntopic write {PREFIX}/meta/#\ntopic read #\n"
    )
    mosquitto.stop()
    mosquitto.start(f"allow_anonymous true\nacl_file {acl}\n")
    async with running(tmp_path / "node", mosquitto.port) as node:
        await settled(node)
        assert not node.hub.alerts
    assert ghost in ledger(tmp_path)
    mosquitto.stop()
    mosquitto.start("allow_anonymous true\n")
    async with running(tmp_path / "node", mosquitto.port):
        await until(lambda: ghost not in ledger(tmp_path))
    assert ghost not in await retained_topics(mosquitto.port)


async def test_a_ledger_that_cannot_be_written_holds_nothing_up(tmp_path: Path) -> None:
    nowhere = RetainedLedger(tmp_path / "absent" / "retained-topics")
    await nowhere.add(["optima/v1/s/n/state/front/key"])
    assert "optima/v1/s/n/state/front/key" in nowhere


async def test_a_damaged_ledger_is_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "retained-topics"
    path.write_bytes(b"\xff\xfe garbage")
    damaged = RetainedLedger(path)
    assert damaged.ghosts({}) == []
    await damaged.add(["b", "a"])
    assert path.read_text() == "a\nb\n"
    assert RetainedLedger(path).ghosts({"a": b"x"}) == ["b"]


def of(seen: Subscriber, topic: str) -> dict[str, Any]:
    """The first message on a topic, as mosquitto_sub printed it."""
    return next(line for line in seen.lines if line["topic"] == f"{PREFIX}/{topic}" and line["payload"])


DAY_S = 86400
CLOUD_EVENT, JSON = "application/cloudevents+json", "application/json"


@pytest.mark.parametrize(
    ("topic", "retain", "expiry_s", "content_type"),
    [
        ("evt/front/key", 0, 7 * DAY_S, CLOUD_EVENT),
        ("evt/bridge/status", 0, 7 * DAY_S, CLOUD_EVENT),
        ("evt/back/fault", 0, 30 * DAY_S, CLOUD_EVENT),
        ("state/front/key", 1, None, JSON),
        ("state/bridge/status", 1, None, JSON),
        ("alert/back/link", 1, None, JSON),
        ("meta/bridge/info", 1, None, JSON),
        ("res/hq/r1", 0, 120, JSON),
    ],
)
async def test_qos_retain_expiry_and_content_type_are_those_of_the_reference(
    mosquitto: Mosquitto, tmp_path: Path, topic: str, retain: int, expiry_s: int | None, content_type: str
) -> None:
    mosquitto.start()
    async with printed(mosquitto.port) as seen, running(tmp_path / "node", mosquitto.port) as node:
        await settled(node)
        node.key(1)
        node.hub.raise_alert("back", "link", LinkLost("gone"))
        assert node.service.mqtt is not None
        node.service.mqtt.reply(f"{PREFIX}/res/hq/r1", b"{}")
        await seen.until(lambda: any(line["topic"] == f"{PREFIX}/{topic}" and line["payload"] for line in seen.lines))
    message = of(seen, topic)
    properties = message.get("properties", {})
    assert message["qos"] == 1
    assert message["retain"] == retain
    assert properties.get("content-type") == content_type
    if expiry_s is None:
        assert "message-expiry-interval" not in properties
    else:
        assert (
            expiry_s - 5 <= properties["message-expiry-interval"] <= expiry_s
        )  # whole seconds of waiting are taken off


@asynccontextmanager
async def printed(port: int) -> AsyncIterator[Subscriber]:
    """mosquitto_sub with retain as published: live messages show the flag they were sent with."""
    process = await asyncio.create_subprocess_exec(
        "mosquitto_sub", "-V", "5", "-p", str(port), "-t", "optima/#", "-q", "1", "-F", "%j", "--retain-as-published",
        stdout=asyncio.subprocess.PIPE, limit=1 << 20,
    )  # fmt: skip
    lines: list[dict[str, Any]] = []

    async def read() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            lines.append(json.loads(line))

    task = asyncio.create_task(read())
    try:
        yield Subscriber(lines)
    finally:
        process.kill()
        await process.wait()
        await task


async def test_every_retained_document_comes_again_at_a_reconnect(mosquitto: Mosquitto, tmp_path: Path) -> None:
    mosquitto.start()
    async with running(tmp_path / "node", mosquitto.port) as node:
        node.key(1)
        await settled(node)
        before = await retained_topics(mosquitto.port)
        mosquitto.stop()
        (tmp_path / "broker/mosquitto.db").unlink()
        await until(lambda: node.service.mqtt and not node.service.mqtt.connected)
        mosquitto.start()
        await settled(node)
        assert await retained_topics(mosquitto.port) >= before

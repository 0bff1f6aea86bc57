"""The middle of the daemon for tests: a hub on a real journal, the real service of a store without devices."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from optima_bridge.clock import Clock
from optima_bridge.config import load
from optima_bridge.hub import Hub
from optima_bridge.identifiers import IdentifierPolicy
from optima_bridge.journal import Journal
from optima_bridge.model import Event, Subject
from optima_bridge.service import Service
from optima_bridge.topics import Topics
from tests.support import TIMEOUT_S


@asynccontextmanager
async def journaled_hub(directory: Path) -> AsyncIterator[tuple[Hub, list[dict[str, Any]]]]:
    """A hub on a real journal, and the payloads of what it records."""
    journal = Journal.open(directory)
    journal.attach(asyncio.get_running_loop(), lambda _: None, lambda _: None)
    hub = Hub(Topics("s1", "pc1"), journal, IdentifierPolicy(b"a secret of some length"), Clock())
    payloads: list[dict[str, Any]] = []
    hub.listeners.add(lambda record: payloads.append(json.loads(record.payload)))
    try:
        yield hub, payloads
    finally:
        await journal.close(TIMEOUT_S)


class Node:
    """The real service of a store without devices; tests speak through its hub."""

    def __init__(self, service: Service, task: asyncio.Task[None]) -> None:
        self.service = service
        self.hub = service.hub
        self.task = task

    def key(self, number: int) -> None:
        """A key was inserted; `number` is in the payload as ``n``."""
        event = Event(
            Subject.KEY, "inserted", time.monotonic_ns(), {"n": number}, "01B7BA1000000075", {"presence": "present"}
        )
        self.hub.record("front", event)


@asynccontextmanager
async def running(directory: Path, port: int, mqtt: str = "", extra: str = "") -> AsyncIterator[Node]:
    """Run the service against a broker on loopback until the block ends; it must end without an error."""
    directory.mkdir(exist_ok=True)
    file = directory / "config.toml"
    file.write_text(
        f'[store]\nsite = "s1"\nnode = "pc1"\n[mqtt]\nport = {port}\n{mqtt}\n[journal]\ndirectory = "{directory}/state"\n'
        f"[api]\nenabled = false\n{extra}"
    )
    config = load(file, {}).config
    service = Service(config, Journal.open(Path(config.journal.directory)))
    task = asyncio.create_task(service.run())
    try:
        ready = asyncio.create_task(service.ready.wait())
        await asyncio.wait({ready, task}, return_when=asyncio.FIRST_COMPLETED)
        yield Node(service, task)
    finally:
        service.stop()
        async with asyncio.timeout(TIMEOUT_S):
            await task

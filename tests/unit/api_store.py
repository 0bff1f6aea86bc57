"""A store for tests of the control API and the command line: the real daemon, one loopback device on a real pty."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from optima_bridge.config import load
from optima_bridge.journal import Journal
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import Subject
from optima_bridge.service import Serve, Service
from optima_drivers.loopback.simulator import LoopbackSimulator

KEY = "01B7BA1000000075"
BRIDGE = (sys.executable, "-m", "optima_bridge.cli")

CONFIG = """
[store]
site = "s1"
node = "pc1"
[mqtt]
enabled = false
[journal]
directory = "{directory}/journal"
[api]
socket = "{directory}/run/api.sock"
view_group = "{groups[0]}"
tech_group = "{groups[1]}"
admin_group = "{groups[2]}"
[devices.front]
driver = "loopback"
port = "{directory}/front"
label = "Front"
"""


def load_api() -> Serve:
    from optima_bridge.api.server import serve

    return serve


class Store:
    """Runs while the ``async with`` block does; `directory` can be entered by every user of the machine."""

    def __init__(self, groups: tuple[str, str, str] = ("no-such-group",) * 3, extra: str = "") -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="optima-test-"))
        self.directory.chmod(0o755)
        self.socket = self.directory / "run/api.sock"
        self.config_file = self.directory / "config.toml"
        self.config_file.write_text(CONFIG.format(directory=self.directory, groups=groups) + extra)
        self.simulator = LoopbackSimulator()
        self._pty = PtyServer(self.simulator, symlink=self.directory / "front")

    async def __aenter__(self) -> Self:
        config = load(self.config_file, {}).config
        self.service = Service(config, Journal.open(config.journal.directory), load_api)
        await self._pty.__aenter__()
        self.simulator.attach(self._pty.send)
        self._running = asyncio.create_task(self.service.run())
        async with asyncio.timeout(30):
            await self.service.ready.wait()
        await self.until(lambda: self.service.keepers["front"].status.link == "up")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
        await self._pty.__aexit__(kind, error, trace)
        shutil.rmtree(self.directory)

    async def stop(self) -> None:
        self.service.stop()
        async with asyncio.timeout(10):
            await self._running

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what comes with a record."""
        changed = asyncio.Event()
        stop_listening = self.service.listen(lambda _: changed.set())
        async with asyncio.timeout(30):
            while not holds():
                changed.clear()
                await changed.wait()
        stop_listening()

    def record(self, number: int = 1) -> None:
        """Let something happen, `number` times, as a driver would."""
        for n in range(number):
            self.service.hub.happened("front", Subject.FAULT, "raised", {"n": n})

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, Any]:
        """HTTP status and document."""
        head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        answer = await self.talk(head.encode() + body)
        head, _, content = answer.partition(b"\r\n\r\n")  # type: ignore[assignment]
        return int(answer.split()[1]), json.loads(content)

    async def talk(self, data: bytes) -> bytes:
        """Send bytes, return all that comes until the daemon closes."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        try:
            writer.write(data)
            async with asyncio.timeout(20):
                return await reader.read()
        finally:
            writer.close()

    async def stream(self, query: str = "") -> Stream:
        reader, writer = await asyncio.open_unix_connection(self.socket, limit=1 << 20)
        writer.write(f"GET /v1/events?{query} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
        stream = Stream(reader, writer)
        await stream.begin()
        return stream


class Stream:
    """An HTTP/1.0 client of /v1/events: without chunks, the body is the lines."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self.writer = writer
        self.status = 0

    async def begin(self) -> None:
        async with asyncio.timeout(20):
            head = await self._reader.readuntil(b"\r\n\r\n")
        self.status = int(head.split()[1])

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            line = await self._reader.readline()
        record: dict[str, Any] = json.loads(line)
        return record

    async def seqs(self, number: int) -> list[int]:
        return [(await self.next())["event"]["seq"] for _ in range(number)]

    def close(self) -> None:
        self.writer.close()


async def bridge(*arguments: str, env: Mapping[str, str] = {}) -> tuple[int, str, str]:
    """Run the real program; returns exit status, output and errors."""
    process = await asyncio.create_subprocess_exec(
        *BRIDGE,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **env},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()

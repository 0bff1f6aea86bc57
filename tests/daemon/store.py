"""The real `bridge run --config FILE` in a process of its own, watched through its log, its journal and its socket."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest

from optima_bridge.link.ptys import PtyServer
from optima_drivers.loopback.simulator import LoopbackSimulator
from tests.support import TIMEOUT_S, until

CONFIG = """
[store]
site = "s1"
node = "pc1"
[identifiers]
publish = "raw"
[mqtt]
enabled = {mqtt}
port = {port}
[journal]
directory = "{state}"
[api]
enabled = {api}
socket = "{directory}/api.sock"
[log]
format = "json"
"""


UNPRIVILEGED = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
"""Wrapper that leaves root its uid and takes away its right to pass over permissions."""

needs_permissions = pytest.mark.skipif(
    os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root may do everything; setpriv is not installed"
)


class Daemon:
    """One configuration, and the process that runs on it; started again and again by some tests.

    Args:
        directory: for configuration, log and state; made if absent.
        port: of the broker; 0: no MQTT.
        devices: name → port of loopback devices.
        keys: name → more lines of its table.
        wrapper: program and arguments that start the daemon, such as setpriv.
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 0,
        devices: Mapping[str, Path] = {},
        keys: Mapping[str, str] = {},
        api: bool = False,
        state: Path | None = None,
        wrapper: Sequence[str] = (),
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.state = state or directory / "state"
        self.log_file = directory / "log"
        self._wrapper = wrapper
        self._config = directory / "config.toml"
        switch = {True: "true", False: "false"}
        tables = [
            f'[devices.{name}]\ndriver = "loopback"\nport = "{path}"\n{keys.get(name, "")}\n'
            for name, path in devices.items()
        ]
        self._config.write_text(
            CONFIG.format(
                mqtt=switch[port != 0], port=port or 1, state=self.state, api=switch[api], directory=directory
            )
            + "".join(tables)
        )
        self.process: subprocess.Popen[bytes] | None = None

    def launch(self, env: Mapping[str, str] = {}) -> subprocess.Popen[bytes]:
        """Start the process with an empty log; do not wait."""
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                [*self._wrapper, sys.executable, "-m", "optima_bridge.cli", "run", "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | env,
            )
        return self.process

    async def start(self, env: Mapping[str, str] = {}) -> None:
        """Start it and wait until it is ready."""
        self.launch(env)
        await self.logged("service.ready")

    def entries(self, event: str = "") -> list[dict[str, Any]]:
        """The log, or its lines of one event."""
        lines = [line for line in self.log_file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        found = [json.loads(line) for line in lines if line.startswith("{")]
        return [entry for entry in found if event in ("", entry["event"])]

    async def logged(self, event: str, count: int = 1) -> None:
        """Wait for a line in the log."""
        assert self.process is not None
        running = self.process
        await until(lambda: len(self.entries(event)) >= count or running.poll() is not None)
        assert len(self.entries(event)) >= count, self.log_file.read_text()

    async def ended(self) -> int:
        """Wait for the end; returns the exit status, of which a signal is the negative."""
        assert self.process is not None
        running = self.process
        await until(lambda: running.poll() is not None)
        return running.wait()

    async def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return await self.ended()

    async def kill(self) -> None:
        assert await self.stop(signal.SIGKILL) == -signal.SIGKILL

    async def ask(self, path: str) -> Any:
        """The document that the control API has at this path."""
        reader, writer = await asyncio.open_unix_connection(self.directory / "api.sock")
        async with asyncio.timeout(TIMEOUT_S):
            writer.write(f"GET {path} HTTP/1.0\r\nHost: x\r\n\r\n".encode())
            answer = await reader.read()
        writer.close()
        return json.loads(answer.partition(b"\r\n\r\n")[2])

    async def device(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = await self.ask(f"/v1/devices/{name}")
        return found

    async def until_device(self, name: str, link: str, code: str | None = None) -> dict[str, Any]:
        """Wait until a device is `link`, with `code` as its problem; returns all about it."""
        async with asyncio.timeout(TIMEOUT_S):
            while True:
                found = await self.device(name)
                if found["link"] == link and (found["problem"] or {}).get("code") == code:
                    return found
                await asyncio.sleep(0.02)

    def committed(self, part: str) -> list[dict[str, Any]]:
        """Payloads that are in the journal's file, of topics that contain `part`."""
        with closing(sqlite3.connect(f"file:{self.state}/journal.db?mode=ro", uri=True)) as db:
            rows = db.execute(
                "SELECT payload FROM record WHERE instr(topic, ?) ORDER BY epoch, seq", (part,)
            ).fetchall()
        return [json.loads(payload) for (payload,) in rows]


@asynccontextmanager
async def running(daemon: Daemon, env: Mapping[str, str] = {}) -> AsyncIterator[Daemon]:
    """The daemon from ready to a good end; killed where the block fails."""
    try:
        await daemon.start(env)
        yield daemon
        assert await daemon.stop() == 0, daemon.log_file.read_text()
    finally:
        destroy(daemon)


def destroy(daemon: Daemon) -> None:
    """End what a failed test left behind."""
    if daemon.process is not None and daemon.process.poll() is None:
        daemon.process.kill()
        daemon.process.wait()


@asynccontextmanager
async def plugged(path: Path) -> AsyncIterator[tuple[LoopbackSimulator, PtyServer]]:
    """A loopback device behind a pty at `path`."""
    simulator = LoopbackSimulator()
    async with PtyServer(simulator, symlink=path) as server:
        simulator.attach(server.send)
        yield simulator, server

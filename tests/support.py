"""What tests of several levels share: waiting, a real mosquitto on loopback, a subscriber of another make."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
TIMEOUT_S = 20.0


async def until(condition: Callable[[], object], timeout_s: float = TIMEOUT_S) -> None:
    """Wait for something that happens elsewhere."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - in another process, or without an event of its own
            await asyncio.sleep(0.01)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


class Mosquitto:
    """One broker on one port; can be stopped, killed and started again with other settings."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.directory = directory
        self.directory.mkdir()
        self.settings = "allow_anonymous true\n"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, settings: str | None = None) -> None:
        if settings is not None:
            self.settings = settings
        configuration = self.directory / "mosquitto.conf"
        user = "user root\n" if os.geteuid() == 0 else ""
        configuration.write_text(
            f"listener {self.port} 127.0.0.1\n{user}persistence true\npersistence_location {self.directory}/\n"
            f"autosave_on_changes true\nautosave_interval 1\nmax_queued_messages 100000\n{self.settings}"
        )
        assert MOSQUITTO is not None
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen([MOSQUITTO, "-c", str(configuration)], stdout=log, stderr=log)
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self._process.poll() is None, (self.directory / "log").read_text()
            time.sleep(0.01)
        raise AssertionError("mosquitto did not start")

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def reload(self) -> None:
        """Read the access list again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)

    def freeze(self, frozen: bool) -> None:
        """Take all its time away, or give it back."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if frozen else signal.SIGCONT)

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(10)
            self._process = None


class Subscriber:
    """Everything below a filter, as an MQTT 5 client of another make receives it; survives restarts of the broker."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.lines = lines

    def payloads(self, part: str) -> list[dict[str, Any]]:
        """JSON payloads of the messages whose topic contains `part`."""
        return [line["payload"] for line in self.lines if part in line["topic"] and line["payload"]]

    async def until(self, condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
        """Wait for something that messages bring about."""
        await until(condition, timeout_s)


@asynccontextmanager
async def subscribed(port: int, topic: str = "optima/#") -> AsyncIterator[Subscriber]:
    """mosquitto_sub with a persistent session."""
    lines: list[dict[str, Any]] = []

    async def one_life() -> None:
        process = await asyncio.create_subprocess_exec(
            "mosquitto_sub", "-V", "5", "-h", "127.0.0.1", "-p", str(port), "-t", topic, "-q", "1", "-i", "referee", "-c",
            "-x", "3600", "-F", "%j", stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, limit=1 << 20,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                message = json.loads(line)
                with contextlib.suppress(ValueError, TypeError):
                    message["payload"] = json.loads(message["payload"])
                lines.append(message)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def live_on() -> None:
        while True:
            await one_life()
            await asyncio.sleep(0.05)

    task = asyncio.create_task(live_on())
    try:
        await asyncio.sleep(0)
        yield Subscriber(lines)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

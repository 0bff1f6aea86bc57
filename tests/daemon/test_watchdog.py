"""What systemd hears of the daemon, on a real datagram socket."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.daemon.store import Daemon, running
from tests.nodes import running as running_here
from tests.support import free_port, until


class Systemd:
    """The manager's end."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.setblocking(False)
        self.env = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": "100000"}
        self.heard: list[str] = []

    def listen(self) -> list[str]:
        """Everything that has come, also what came before."""
        try:
            while True:
                self.heard += self.socket.recv(4096).decode().splitlines()
        except BlockingIOError:
            return self.heard


@pytest.fixture
async def systemd(tmp_path: Path) -> AsyncIterator[Systemd]:
    systemd = Systemd(tmp_path / "notify")
    loop = asyncio.get_running_loop()
    loop.add_reader(systemd.socket, systemd.listen)  # the kernel keeps ten datagrams, then it drops
    yield systemd
    loop.remove_reader(systemd.socket)
    systemd.socket.close()


async def test_systemd_hears_ready_then_heartbeats_then_stopping(systemd: Systemd, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "node", api=True)
    async with running(daemon, systemd.env):
        await until(lambda: systemd.listen().count("WATCHDOG=1") >= 3)
        assert systemd.heard.count("READY=1") == 1
        assert (daemon.directory / "api.sock").is_socket()
        assert "STOPPING=1" not in systemd.heard
    assert systemd.listen().count("STOPPING=1") == 1


async def test_a_daemon_that_ends_before_it_is_ready_never_says_ready(systemd: Systemd, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "node", state=tmp_path / "notify")  # a socket in the place of the state directory
    daemon.launch(systemd.env)
    assert await daemon.ended() == 9
    assert systemd.listen() == []


async def test_a_stalled_process_is_not_heard(systemd: Systemd, tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "node")
    async with running(daemon, systemd.env):
        assert daemon.process is not None
        await until(lambda: "WATCHDOG=1" in systemd.listen())
        daemon.process.send_signal(signal.SIGSTOP)
        await until(lambda: "(stopped)" in Path(f"/proc/{daemon.process.pid}/status").read_text())  # type: ignore[union-attr]
        before = len(systemd.listen())
        await asyncio.sleep(0.5)
        assert len(systemd.listen()) == before
        daemon.process.send_signal(signal.SIGCONT)
        await until(lambda: len(systemd.listen()) > before)


async def test_a_blocked_loop_starves_the_watchdog(
    systemd: Systemd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in systemd.env.items():
        monkeypatch.setenv(name, value)
    async with running_here(tmp_path / "node", free_port(), "enabled = false"):
        await until(lambda: "WATCHDOG=1" in systemd.listen())
        before = len(systemd.listen())
        time.sleep(0.5)  # the loop is this test's
        assert len(systemd.listen()) == before
        await until(lambda: len(systemd.listen()) > before)

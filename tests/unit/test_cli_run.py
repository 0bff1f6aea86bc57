"""`bridge run`: the daemon as systemd starts and stops it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from optima_bridge.link.ptys import PtyServer
from optima_drivers.loopback.simulator import LoopbackSimulator
from tests.unit.api_store import BRIDGE, CONFIG, bridge

NO_GROUPS = ("no-such-group",) * 3


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[Path]:
    """A configuration whose one device answers."""
    async with PtyServer(LoopbackSimulator(), symlink=tmp_path / "front"):
        yield write(tmp_path)


def write(directory: Path, text: str = CONFIG) -> Path:
    path = directory / "config.toml"
    path.write_text(text.format(directory=directory, groups=NO_GROUPS))
    return path


async def start(config: Path, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(*BRIDGE, "run", "--config", str(config), "--log-format", "json", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def until(process: asyncio.subprocess.Process, event: str) -> dict[str, object]:
    """The first log line of this name."""
    assert process.stderr
    async with asyncio.timeout(60):
        async for line in process.stderr:
            document: dict[str, object] = json.loads(line)
            if document["event"] == event:
                return document
    raise AssertionError(f"the daemon ended without {event}")


async def end(process: asyncio.subprocess.Process) -> tuple[int | None, float]:
    """Exit status after SIGTERM, and how long that took, seconds."""
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(30):
        await process.communicate()
    return process.returncode, time.monotonic() - began


async def test_the_daemon_serves_until_sigterm_and_leaves_no_socket(config: Path) -> None:
    process = await start(config)
    await until(process, "service.ready")
    path = config.parent / "run/api.sock"
    assert (await bridge("status", "--socket", str(path)))[0] == 0
    assert (await end(process))[0] == 0
    assert not path.exists()


async def test_a_broker_that_never_answers_does_not_hold_up_the_end(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as hole:
        port = hole.getsockname()[1]
        write(config.parent, CONFIG.replace("enabled = false", f'host = "127.0.0.1"\nport = {port}'))
        process = await start(config)
        await until(process, "service.ready")
        status, took_s = await end(process)
    assert status == 0
    assert took_s < 5  # about 0.9 s on an idle machine; a library's own time-outs are 5 s and more


can_unshare = os.geteuid() == 0 and subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_unshare, reason="a resolver of our own needs root and a mount namespace")
async def test_a_broker_name_that_hangs_in_dns_does_not_hold_up_the_end(config: Path, tmp_path: Path) -> None:
    """The resolver never answers, and the look-up sits in a thread that nobody can cancel."""
    write(tmp_path, CONFIG.replace("enabled = false", 'host = "broker.example"'))
    (tmp_path / "resolv.conf").write_text("nameserver 127.0.0.99\noptions timeout:10 attempts:3\n")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.99", 53))
        silent.setblocking(False)
        process = await asyncio.create_subprocess_exec(
            *("unshare", "-m", "sh", "-c", 'mount --bind "$1" /etc/resolv.conf && shift && exec "$@"', "sh"),
            *(str(tmp_path / "resolv.conf"), *BRIDGE, "run", "--config", str(config), "--log-format", "json"),
            stderr=asyncio.subprocess.PIPE,
        )
        await until(process, "service.ready")
        async with asyncio.timeout(20):
            question = await asyncio.get_running_loop().sock_recv(silent, 512)
        assert b"broker" in question
        status, took_s = await end(process)
    assert status == 0
    assert took_s < 5  # the resolver's own time-out is 30 s


async def test_every_mistake_in_the_configuration_is_named(tmp_path: Path) -> None:
    config = write(tmp_path, CONFIG.replace("loopback", "loopbak").replace("[mqtt]", "[mqtt]\nport = 99999"))
    status, out, err = await bridge("run", "--config", str(config))
    assert (status, out) == (13, "")
    places = [line for line in err.splitlines() if line.startswith(f"{config}:")]
    assert [place.split(" ")[1] for place in places] == ["mqtt.port", "devices.front.driver"]


async def test_a_smoke_test_ends_when_every_device_is_up(config: Path) -> None:
    status, _, err = await bridge(
        "run", "--config", str(config), "--once-ready", "--timeout", "30", "--log-format", "json"
    )
    assert (status, "service.stopped" in err) == (0, True)


async def test_a_smoke_test_names_the_device_that_is_not_up(tmp_path: Path) -> None:
    status, _, err = await bridge("run", "--config", str(write(tmp_path)), "--once-ready", "--timeout", "2")
    assert status == 7
    assert "error E-TIMEOUT: after 2 s not up: front (" in err


async def test_a_second_daemon_is_told_who_the_first_is(config: Path) -> None:
    process = await start(config)
    await until(process, "service.ready")
    status, _, err = await bridge("run", "--config", str(config))
    assert (status, f"in use by pid {process.pid}" in err) == (9, True)
    assert (await end(process))[0] == 0


ACTIVATE = """
import os, sys
os.dup2(int(sys.argv[1]), 3, inheritable=True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv(sys.argv[2], sys.argv[2:])
"""


async def test_a_socket_from_systemd_is_used_and_left_in_place(config: Path, tmp_path: Path) -> None:
    path = tmp_path / "systemd.sock"
    with socket.socket(socket.AF_UNIX) as passed:
        passed.bind(str(path))
        passed.listen()
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ACTIVATE, str(passed.fileno())),
            *(*BRIDGE, "run", "--config", str(config), "--log-format", "json"),
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[passed.fileno()],
        )
        opened = await until(process, "api.opened")
        assert opened["socket"] == str(path)
        assert (await bridge("status", "--socket", str(path)))[0] == 0
        assert not (tmp_path / "run").exists()
        assert (await end(process))[0] == 0
    assert path.exists()


async def test_a_socket_from_systemd_of_the_wrong_kind_is_refused_while_events_flow(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ACTIVATE, str(passed.fileno())),
            *(*BRIDGE, "run", "--config", str(config), "--log-format", "json"),
            stderr=asyncio.subprocess.PIPE,
            pass_fds=[passed.fileno()],
        )
        failed = await until(process, "api.failed")
        assert "not a listening Unix stream socket" in str(failed["why"])
        await until(process, "service.ready")
        assert (await end(process))[0] == 0
    assert os.path.lexists(config.parent / "front")

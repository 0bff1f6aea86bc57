"""The program `bridge` against the running daemon."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import pty
import signal
import sys
from collections.abc import AsyncIterator

import pytest

from tests.support import TIMEOUT_S
from tests.unit.api_store import BRIDGE, KEY, Store, bridge


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store() as store:
        yield store


@pytest.fixture
def env(store: Store) -> dict[str, str]:
    return {"OPTIMA_BRIDGE_SOCKET": str(store.socket)}


async def test_status_shows_the_daemon_and_its_devices(store: Store, env: dict[str, str]) -> None:
    status, out, err = await bridge("status", env=env)
    assert (status, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == ["daemon", "broker", "journal", "clock", "front"]
    assert lines[4].split()[1] == "up"
    status, out, _ = await bridge("status", "--json", env=env)
    assert (status, json.loads(out)["schema"]) == (0, "optima.status/1")


async def test_status_names_open_problems_with_their_remedy(store: Store, env: dict[str, str]) -> None:
    (store.directory / "front").unlink()
    store.simulator.attach(lambda _: None)
    await store._pty.__aexit__(None, None, None)
    await store.until(lambda: bool(store.service.hub.alerts))
    status, out, _ = await bridge("status", env=env)
    assert status == 0
    assert "problem E-" in out


async def test_waiting_ends_when_the_state_comes_and_fails_when_it_does_not(store: Store, env: dict[str, str]) -> None:
    answers = await asyncio.gather(
        bridge("status", "--wait", "ready", "--for", "20", env=env),
        bridge("devices", "wait", "front", "--for", "20", env=env),
        bridge("status", "--wait", "online", "--for", "0", env=env),
        bridge("devices", "wait", "front", "--state", "down", "--for", "0", env=env),
    )
    assert [status for status, _, _ in answers] == [0, 0, 7, 7]
    assert "the broker is off" in answers[2][2]


async def test_devices_are_listed_shown_and_missed(store: Store, env: dict[str, str]) -> None:
    status, out, _ = await bridge("devices", "list", env=env)
    assert (status, out.split()[:2]) == (0, ["front", "up"])
    status, out, _ = await bridge("devices", "list", "--all", "--json", env=env)
    assert status == 0
    assert str(store.directory / "front") not in [port["path"] for port in json.loads(out)["ports"]]
    status, out, _ = await bridge("devices", "show", "front", env=env)
    assert (status, "identity.model  " in out) == (0, True)
    status, _, err = await bridge("devices", "show", "frnt/../..", env=env)
    assert (status, err.splitlines()[0].startswith("error E-NOT-FOUND: no device 'frnt/../..'")) == (3, True)


async def test_monitor_shows_what_is_and_then_what_happens(store: Store, env: dict[str, str]) -> None:
    watching = asyncio.create_task(bridge("monitor", "front", "--count", "2", "--type", "key", "--since", "0", env=env))
    store.simulator.key_in(KEY)
    store.simulator.key_out()
    status, out, err = await watching
    assert (status, err) == (0, "")
    first, inserted, removed = out.splitlines()
    assert first.startswith("now  front  link up")
    assert "  front  key inserted  key_ref=" in inserted
    assert "  front  key removed  key_ref=" in removed
    assert KEY not in out


async def test_monitor_as_json_ends_in_a_result(store: Store, env: dict[str, str]) -> None:
    store.record(3)
    status, out, _ = await bridge("monitor", "--json", "--since", "0", "--count", "3", env=env)
    *records, result = map(json.loads, out.splitlines())
    assert [record["type"] for record in records] == ["snapshot", "event", "event", "event"]
    assert (status, result) == (0, {"type": "result", "ok": True, "rc": 0, "error": None, "events": 3})


async def test_too_few_events_in_time_are_an_error_only_where_they_were_counted(
    store: Store, env: dict[str, str]
) -> None:
    answers = await asyncio.gather(
        bridge("monitor", "--for", "0.3", "--json", env=env),
        bridge("monitor", "--for", "0.3", "--json", "--type", "seal", "--count", "1", env=env),
    )
    results = [json.loads(out.splitlines()[-1]) for _, out, _ in answers]
    assert [(status, result["ok"], result["rc"]) for (status, _, _), result in zip(answers, results, strict=True)] == [
        (0, True, 0),
        (7, False, 7),
    ]


async def test_monitor_says_how_to_go_on_when_the_daemon_ends(store: Store, env: dict[str, str]) -> None:
    watching = asyncio.create_task(bridge("monitor", "--since", "0", env=env))
    async with asyncio.timeout(20):
        while not store.service.hub.listeners:  # noqa: ASYNC110 - a client that comes makes no event
            await asyncio.sleep(0.01)
    await store.stop()
    status, out, err = await watching
    last = out.splitlines()[-1].split()[1]
    assert status == 8
    assert f"then go on: bridge monitor --since {last}" in err


async def start(*arguments: str, env: dict[str, str], stdout: int) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *BRIDGE, *arguments, env={**os.environ, **env}, stdout=stdout, stderr=asyncio.subprocess.PIPE
    )


async def test_ctrl_c_ends_a_stream_with_its_result(store: Store, env: dict[str, str]) -> None:
    process = await start("monitor", "--json", env=env, stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    out, err = await process.communicate()
    result = json.loads(out.splitlines()[-1])
    assert (process.returncode, err) == (130, b"")
    assert (result["ok"], result["rc"]) == (False, 130)


async def test_a_reader_that_has_had_enough_ends_the_program_quietly(store: Store, env: dict[str, str]) -> None:
    read, write = os.pipe()
    process = await start("monitor", env=env, stdout=write)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert await asyncio.to_thread(pipe.readline)
    store.record(3)
    assert process.stderr
    assert (await process.stderr.read(), await process.wait()) == (b"", 141)


async def test_people_get_headings_and_relative_times_on_a_terminal(store: Store, env: dict[str, str]) -> None:
    master, slave = pty.openpty()
    process = await start("devices", "list", env={**env, "NO_COLOR": "1", "TERM": "xterm"}, stdout=slave)
    assert await process.wait() == 0
    os.close(slave)
    out = b""
    with os.fdopen(master, "rb", buffering=0) as terminal, contextlib.suppress(OSError):  # EIO: the end of a terminal
        while True:
            out += terminal.read(4096)
    heading, device = out.decode().splitlines()[:2]
    assert heading.split() == ["DEVICE", "LINK", "SINCE", "DRIVER", "STATE", "LABEL"]
    assert device.split()[:2] == ["front", "up"]
    assert b"\x1b" not in out


async def test_a_replay_without_mqtt_says_so(store: Store, env: dict[str, str]) -> None:
    status, _, err = await bridge("events", "replay", "--from", "1", "--to", "2", env=env)
    assert status == 7
    assert err.splitlines()[0] == "error E-SINK: MQTT is switched off"


AS_NOBODY = """
import grp, os, sys

from optima_bridge.cli.client import Daemon
from optima_bridge.cli.options import Settings
from optima_bridge.errors import AccessDenied

daemon = Daemon(Settings(socket=sys.argv[1]))
daemon.get("/v1/status")  # all is imported now, for the other user may not be able to read the virtual environment
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
try:
    daemon.get("/v1/status")
except AccessDenied as error:
    sys.exit(0 if error.next_step.startswith("sudo usermod -aG ") else 2)
sys.exit(1)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start children of other users")
async def test_a_user_who_may_not_connect_learns_which_group_is_missing(store: Store) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", AS_NOBODY, str(store.socket))
    async with asyncio.timeout(TIMEOUT_S):
        assert await process.wait() == 0

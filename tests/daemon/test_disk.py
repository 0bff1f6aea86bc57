"""A state directory that is full, damaged, taken or closed."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from optima_bridge import service as service_module
from optima_bridge.model import Subject
from tests.daemon.store import UNPRIVILEGED, Daemon, destroy, needs_permissions, plugged, running
from tests.nodes import running as running_here
from tests.support import Mosquitto, Subscriber, free_port, subscribed, until

SECRET = "identifier-secret"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("only root may mount a small disk, outside of most containers")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = Daemon(tmp_path / "node")
    yield daemon
    destroy(daemon)


@pytest.mark.broker
async def test_with_a_full_disk_events_go_on_over_mqtt_and_reach_the_disk_later(
    mosquitto: Mosquitto, small_disk: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    front = tmp_path / "front"
    daemon = Daemon(
        tmp_path / "node", port=mosquitto.port, devices={"front": front}, api=True, state=small_disk / "state"
    )
    async with subscribed(mosquitto.port) as seen, plugged(front) as (simulator, _), running(daemon):
        await daemon.until_device("front", "up")
        fill(small_disk / "filler")

        def show_until_it_is_noticed() -> bool:
            simulator.card(f"{len(shown):010X}")
            shown.append(f"{len(shown):010X}")
            return bool(seen.payloads("alert/bridge/journal"))

        shown: list[str] = []
        await until(show_until_it_is_noticed)
        assert seen.payloads("alert/bridge/journal")[0]["code"] == "E-JOURNAL"
        simulator.card("67003B51C6")
        shown.append("67003B51C6")
        await seen.until(lambda: [p["data"]["card_id"] for p in seen.payloads("evt/front/card")] == shown)
        (small_disk / "filler").unlink()
        await until(lambda: [p["data"]["card_id"] for p in daemon.committed("evt/front/card")] == shown)
        # The journal may find a little room by itself, and lose it again: what counts is that each alert has its end.
        await seen.until(lambda: faults(seen)[-1] == "cleared")
        assert faults(seen) == ["raised", "cleared"] * (len(faults(seen)) // 2)
        assert (await daemon.ask("/v1/status"))["alerts"] == []


def faults(seen: Subscriber) -> list[str]:
    return [payload["data"]["action"] for payload in seen.payloads("evt/bridge/fault")]


def fill(path: Path) -> None:
    """Leave no room on the disk."""
    with path.open("wb", buffering=0) as file:
        for size_bytes in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size_bytes))
            except OSError:
                continue


async def test_a_state_directory_that_is_removed_while_it_is_used_does_not_end_the_daemon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_module, "HEALTH_S", 0.01)
    monkeypatch.setenv("WATCHDOG_USEC", "10000")
    async with running_here(tmp_path / "node", free_port(), "enabled = false") as node:
        shutil.rmtree(tmp_path / "node" / "state")
        for _ in range(2):
            node.hub.set_state("bridge", Subject.HEALTH, {})
            await until(lambda: "journal" in node.hub.state_of("bridge")["health"])
        assert node.service.status()["alerts"] == []
        assert not node.task.done()


async def test_a_damaged_journal_is_put_aside_and_the_daemon_runs(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "node", api=True)
    async with running(daemon):
        epoch = (await daemon.ask("/v1/status"))["epoch"]
    journal = daemon.state / "journal.db"
    with journal.open("r+b") as file:
        file.write(b"\xa5" * 4096)
    async with running(daemon):
        status = await daemon.ask("/v1/status")
        assert status["epoch"] > epoch
        alerts = {alert["name"]: alert for alert in status["alerts"]}
        assert alerts["journal"]["code"] == "E-JOURNAL-DAMAGED"
        quarantine = Path(alerts["journal"]["data"]["quarantine"])
        assert quarantine.read_bytes()[:4096] == b"\xa5" * 4096


async def test_a_second_daemon_refuses_with_the_pid_of_the_first(daemon: Daemon) -> None:
    async with running(daemon):
        first = daemon.process
        assert first is not None
        second = Daemon(daemon.directory.parent / "second", state=daemon.state)
        text = await refused(second, 9)
        assert f"pid {first.pid}" in text
        assert f"ps -p {first.pid}" in text
        assert first.poll() is None


@needs_permissions
@pytest.mark.parametrize("mode", [0o000, 0o555])
async def test_a_state_directory_that_may_not_be_written_is_explained(tmp_path: Path, mode: int) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(mode)
    for state in (closed, closed / "state"):
        text = await refused(Daemon(tmp_path / "node", state=state, wrapper=UNPRIVILEGED), 9)
        assert str(state) in text
        assert "ermission denied" in text
    closed.chmod(0o755)


async def test_a_file_in_the_place_of_the_state_directory_is_explained(tmp_path: Path) -> None:
    (tmp_path / "state").touch()
    assert str(tmp_path / "state") in await refused(Daemon(tmp_path / "node", state=tmp_path / "state"), 9)


async def test_an_identifier_secret_that_was_cut_short_is_explained(tmp_path: Path) -> None:
    daemon = hashing(tmp_path)
    daemon.state.mkdir()
    (daemon.state / SECRET).touch(0o600)
    text = await refused(daemon, 13)
    assert "has 0 bytes" in text
    assert f"rm {daemon.state / SECRET}" in text
    (daemon.state / SECRET).unlink()
    async with running(daemon):
        assert (daemon.state / SECRET).stat().st_mode & 0o777 == 0o600


@needs_permissions
async def test_an_identifier_secret_that_may_not_be_read_is_explained(tmp_path: Path) -> None:
    daemon = hashing(tmp_path, UNPRIVILEGED)
    async with running(daemon):
        pass
    (daemon.state / SECRET).chmod(0)
    assert f"{daemon.state / SECRET} cannot be used: permission denied" in await refused(daemon, 13)


def hashing(directory: Path, wrapper: tuple[str, ...] = ()) -> Daemon:
    daemon = Daemon(directory / "node", wrapper=wrapper)
    file = daemon.directory / "config.toml"
    file.write_text(file.read_text().replace('"raw"', '"hashed"'))
    return daemon


async def refused(daemon: Daemon, status: int) -> str:
    """Start a daemon that must not run; returns what it says, with its line breaks."""
    daemon.launch()
    try:
        assert await daemon.ended() == status, daemon.log_file.read_text()
    finally:
        destroy(daemon)
    text = daemon.log_file.read_text()
    assert "Traceback" not in text
    assert "do next" in text
    return text

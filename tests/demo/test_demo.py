"""`bridge demo` as people run it: the real program, every broker, and nothing left behind."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from optima_bridge.demo.store import SimulatedStore
from tests.support import MOSQUITTO

DEMO = (sys.executable, "-m", "optima_bridge.cli", "demo")
needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="the Debian package mosquitto is not installed")
needs_amqtt = pytest.mark.skipif(
    importlib.util.find_spec("amqtt") is None, reason="the extra 'broker' is not installed"
)


def demo(tmp_path: Path, *arguments: str) -> list[dict[str, Any]]:
    """Run it with TMPDIR of its own; returns its NDJSON records."""
    done = subprocess.run(
        [*DEMO, "--json", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    assert list(tmp_path.iterdir()) == [], "the temporary directory is gone"
    return records


@pytest.mark.parametrize(
    "broker",
    [
        pytest.param("auto", marks=[needs_mosquitto, pytest.mark.broker]),
        pytest.param("embedded", marks=needs_amqtt),
        "none",
    ],
)
def test_every_act_becomes_one_event_with_every_broker(tmp_path: Path, broker: str) -> None:
    records = demo(tmp_path, "--seconds", "3", "--broker", broker)
    result = records[-1]
    assert result["type"] == "result"
    assert result["ok"] is True
    assert result["acts"] == result["events"] == 5
    assert result["gaps"] == 0
    assert result["decisions"] == {
        "front-card inserted": 1, "front-card removed": 1, "front-key inserted": 1, "keylock turned": 1, "seal opened": 1,
    }  # fmt: skip
    events = [record for record in records if record["type"] == "event"]
    assert all(record["topic"].startswith("optima/v1/demo-store/till-3/evt/") for record in events)
    assert [record["event"]["seq"] for record in events] == list(range(1, len(events) + 1))


def test_the_same_seed_tells_the_same_story_and_another_one_another(tmp_path: Path) -> None:
    async def nothing() -> None:
        pass

    def words(seed: int) -> list[tuple[float, str]]:
        return [(step.at_s, step.words) for step in SimulatedStore(tmp_path, seed, nothing).story(60)]

    assert words(7) == words(7)
    assert words(7) != words(8)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        [*DEMO, "--json", "--seconds", "600", "--broker", "none"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    for line in process.stdout:
        if '"type":"event"' in line:
            break
    process.send_signal(number)
    rest = process.stdout.read()
    assert process.wait(20) == 0
    process.stdout.close()
    assert json.loads(rest.splitlines()[-1])["interrupted"] is True
    assert list(tmp_path.iterdir()) == []
    assert programs_that_mention(str(tmp_path)) == []


def programs_that_mention(text: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue
            if text in command:
                found.append(command)
    return found


def test_a_broker_that_is_not_there_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        [*DEMO, "--broker", "carrier-pigeon"],
        capture_output=True,
        text=True,
        timeout=30,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert done.returncode == 2
    assert "carrier-pigeon is not one of auto, embedded, none, mqtt://HOST:PORT" in done.stderr
    assert "Traceback" not in done.stderr


def test_keep_keeps_configuration_and_journal(tmp_path: Path) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [*DEMO, "--seconds", "1", "--broker", "none", "--keep", "--plain"],
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    (directory,) = tmp_path.iterdir()
    assert (directory / "config.toml").exists()
    assert (directory / "state" / "journal.db").exists()
    assert "\x1b" not in done.stdout

"""kill -9 of the enrolling process in the middle of its job; another process settles it from the host's journal."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from optima_bridge.enroll.words import fingerprint
from optima_bridge.link.ptys import PtyServer
from optima_drivers.loopback.simulator import LoopbackSimulator

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 30.0
chance = random.Random(5)
OLD, NEW = chance.randbytes(600), chance.randbytes(858)
STAGED = 9 + 858 + 10  # pages erased, data, record


async def process(server: PtyServer, directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "drivers")])}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.enroll.one_job", server.path, str(directory), *arguments,
        cwd=REPOSITORY, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip


async def run(server: PtyServer, directory: Path, *arguments: str) -> Any:
    job = await process(server, directory, *arguments)
    async with asyncio.timeout(TIMEOUT_S):
        out, error = await job.communicate()
    assert job.returncode == 0, error.decode()
    return json.loads(out)


class Killer:
    """The device; the process that talks to it dies after so many writes of its memory, and never hears of the last one."""

    def __init__(self) -> None:
        self.simulator = LoopbackSimulator(serial="till-3")
        self.process: asyncio.subprocess.Process | None = None
        self.at_write = 0

    def receive(self, data: bytes) -> bytes:
        answer = self.simulator.receive(data)
        if self.process is None or self.simulator.flash.writes < self.at_write:
            return answer
        self.process.kill()
        self.process = None
        return b""


@pytest.mark.parametrize(
    ("writes", "settled", "active"),
    [
        pytest.param(1, "rolled-back", OLD, id="at the first page erased"),
        pytest.param(STAGED // 2, "rolled-back", OLD, id="while writing the spare slot"),
        pytest.param(STAGED, "rolled-back", OLD, id="when all is staged"),
        pytest.param(STAGED + 1, "verified", NEW, id="at the byte that activates"),
        pytest.param(STAGED + 2, "verified", NEW, id="at the byte that confirms"),
    ],
)
async def test_another_process_settles_the_job_of_a_killed_one(
    writes: int, settled: str, active: bytes, tmp_path: Path
) -> None:
    device = Killer()
    simulator = device.simulator
    async with PtyServer(device) as server:
        assert (await run(server, tmp_path, "enroll", OLD.hex(), "first"))["active"] == fingerprint(OLD)
        device.at_write = simulator.flash.writes + writes
        device.process = job = await process(server, tmp_path, "enroll", NEW.hex(), "killed")
        async with asyncio.timeout(TIMEOUT_S):
            await job.communicate()
        assert job.returncode == -signal.SIGKILL
        assert simulator.credential() in {OLD, NEW}
        assert await run(server, tmp_path, "recover") == {"outcome": settled, "active": fingerprint(active)}
        assert simulator.credential() == active

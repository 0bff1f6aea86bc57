"""kill -9 of the simulated SMP controller behind each of its writes; it comes back, and the host's journal settles the job."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Outcome, Request, Result, fingerprint
from optima_bridge.store import SecureStore
from tests.smp_device import SERIAL, TIMEOUT_S, DeviceProcess

chance = random.Random(5)
OLD, NEW = chance.randbytes(600), chance.randbytes(858)
CHUNKS = 3  # of NEW, with a buffer of 384 bytes


@asynccontextmanager
async def session(device: DeviceProcess) -> AsyncIterator[SecureStore]:
    async with asyncio.timeout(TIMEOUT_S), device.driver() as driver:
        yield driver.store


async def job(device: DeviceProcess, directory: Path, name: str, certificate: bytes) -> Result:
    request = Request(name, SERIAL, certificate, replace=True)
    with HostJournal(directory) as journal:
        async with session(device) as store:
            return await enroll(store, request, journal, lambda _: None)


@pytest.mark.parametrize(
    ("write", "settled", "active"),
    [
        pytest.param(2, Outcome.ROLLED_BACK, OLD, id="at a chunk in the middle"),
        pytest.param(CHUNKS + 1, Outcome.ROLLED_BACK, OLD, id="at its digest"),
        pytest.param(CHUNKS + 2, Outcome.VERIFIED, NEW, id="at the five bytes that activate"),
        pytest.param(CHUNKS + 3, Outcome.VERIFIED, NEW, id="at the four bytes that confirm"),
    ],
)
async def test_the_job_is_settled_when_a_killed_device_is_back(
    write: int, settled: Outcome, active: bytes, tmp_path: Path
) -> None:
    device = DeviceProcess(tmp_path)
    async with device.running():
        assert (await job(device, tmp_path, "first", OLD)).outcome is Outcome.VERIFIED
    async with device.running(write) as process:
        interrupted = await job(device, tmp_path, "killed", NEW)
        assert interrupted.outcome is not Outcome.VERIFIED
        assert await process.wait() == -signal.SIGKILL
    assert device.credential() in {OLD, NEW}
    async with device.running():
        with HostJournal(tmp_path) as journal:
            async with session(device) as store:
                result = await recover(store, journal)
        assert result is not None
        assert (result.outcome, result.active_sha256) == (settled, fingerprint(active))
        assert device.credential() == active
        assert (await job(device, tmp_path, "again", NEW)).outcome is Outcome.VERIFIED
        assert device.credential() == NEW

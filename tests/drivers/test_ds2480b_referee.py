"""Programs that others wrote find the simulator's keys: digitemp and owserver, from Debian."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from optima_bridge.wire.onewire import Rom
from optima_drivers.ds2480b.simulator import Ds2480bSimulator, simulator_on_pty

pytestmark = pytest.mark.referee

KEYS = ["017856341200004E", "0101EFCDAB00002C"]
LIMIT_S = 60.0  # only a hang takes as long
# owserver waits milliseconds for an answer. Where this busy PC takes longer, it gives up in the middle of a search and
# would reset the chip by a break, which a pty does not carry; so it gets a fresh adapter.
ATTEMPTS = 8
NEEDS_DIGITEMP = pytest.mark.skipif(shutil.which("digitemp_DS9097U") is None, reason="Debian package digitemp")
NEEDS_OWSERVER = pytest.mark.skipif(
    None in (shutil.which("owserver"), shutil.which("owdir"), shutil.which("owread")),
    reason="Debian packages owserver and ow-shell",
)


async def output_of(*command: str, cwd: Path) -> str:
    """What a program prints, its errors too; it is killed when the test is cancelled."""
    process = await asyncio.create_subprocess_exec(
        *command, cwd=cwd, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        return (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@NEEDS_DIGITEMP
@pytest.mark.parametrize("count", [0, 1, 2])
async def test_digitemp_lists_the_keys(count: int, tmp_path: Path) -> None:
    simulator = Ds2480bSimulator()
    for rom in KEYS[:count]:
        simulator.put(rom)
    async with asyncio.timeout(LIMIT_S), simulator_on_pty(simulator) as path:
        printed = await output_of("digitemp_DS9097U", "-w", "-s", path, cwd=tmp_path)
    listed = [line.split()[0] for line in printed.splitlines() if "DS1990" in line]
    assert sorted(listed) == sorted(KEYS[:count]), printed


@asynccontextmanager
async def owserver(pty: str, cwd: Path) -> AsyncIterator[str]:
    """owserver on this pty; gives its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    process = await asyncio.create_subprocess_exec(
        "owserver", "--foreground", "--nozero", "-p", address, "-d", pty,
        cwd=cwd, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        host, port = address.split(":")
        while True:
            assert process.returncode is None, "owserver ended"
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                await writer.wait_closed()
                break
        yield address
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@NEEDS_OWSERVER
@pytest.mark.parametrize("count", [1, 2])
async def test_owserver_lists_and_reads_the_keys(count: int, tmp_path: Path) -> None:
    wanted = sorted(KEYS[:count])
    for attempt in range(ATTEMPTS):
        simulator = Ds2480bSimulator()
        for rom in wanted:
            simulator.put(rom)
        async with asyncio.timeout(LIMIT_S), simulator_on_pty(simulator) as pty, owserver(pty, tmp_path) as address:
            printed = await output_of("owdir", "-s", address, "/uncached", cwd=tmp_path)
            paths = [
                line.removeprefix("/uncached/") for line in printed.splitlines() if line.startswith("/uncached/01.")
            ]
            found = sorted(str(Rom.from_text(path)) for path in paths)
            assert set(found) <= set(wanted), printed
            if found != wanted and attempt < ATTEMPTS - 1:
                continue
            assert found == wanted, printed
            for path in paths:
                address_read = await output_of("owread", "-s", address, f"/{path}/address", cwd=tmp_path)
                assert address_read == str(Rom.from_text(path))
                printed_on_can = await output_of("owread", "-s", address, f"/{path}/r_address", cwd=tmp_path)
                assert Rom.from_text(printed_on_can) == Rom.from_text(path)
            break

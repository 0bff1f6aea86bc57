"""Control panels that others wrote find our simulated reader, and PyPI's `osdp` and our panel find the same peripheral."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from optima_drivers.osdp.secure import _encrypt_block
from optima_drivers.osdp.simulator import CLIENT_UID, OsdpSimulator, simulator_on_pty
from tests.drivers.osdp_support import KEY, Wire, key_file, libosdp, running
from tests.support import until

pytestmark = pytest.mark.referee

PANEL = Path(__file__).with_name("osdp_panel.py")
MASTER_KEY = KEY
DERIVED = _encrypt_block(MASTER_KEY, CLIENT_UID + bytes(byte ^ 0xFF for byte in CLIENT_UID))
LIMIT_S = 30.0  # only a hang takes as long
INSTALL_TIMEOUT_S = 300
NEEDS_LIBOSDP = pytest.mark.skipif(
    importlib.util.find_spec("osdp_sys") is None, reason="PyPI package libosdp is not installed"
)


@pytest.fixture(scope="session")
def python_with_osdp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another environment with PyPI's `osdp`, which has libosdp's import name."""
    directory = tmp_path_factory.mktemp("osdp")
    python = directory / "bin" / "python"
    for command in (
        [sys.executable, "-m", "venv", str(directory)],
        [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "osdp==1.6"],
    ):
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=True)
        except subprocess.SubprocessError as error:
            pytest.skip(f"PyPI package osdp cannot be installed now: {error}")
    return python


class Heard:
    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def cards(self) -> list[str]:
        return [line["card"] for line in self.lines if "card" in line]

    async def read(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            if line.startswith(b"{"):
                self.lines.append(json.loads(line))


@asynccontextmanager
async def foreign_panel(python: Path | str, kind: str, path: str, key: bytes | None) -> AsyncIterator[Heard]:
    """Run one until it says that the reader is online."""
    process = await asyncio.create_subprocess_exec(
        python, PANEL, kind, path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    assert process.stdout is not None
    heard = Heard()
    reading = asyncio.create_task(heard.read(process.stdout))
    try:
        process.stdin.write((key.hex() if key else "").encode() + b"\n")
        await until(lambda: {"online": True} in heard.lines, LIMIT_S)
        yield heard
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading


@NEEDS_LIBOSDP
@pytest.mark.parametrize("key", [KEY, None], ids=["secure", "in the clear"])
async def test_libosdps_panel_reads_a_card_at_our_simulator(key: bytes | None) -> None:
    reader = OsdpSimulator(key=key)
    async with (
        simulator_on_pty(reader) as path,
        foreign_panel(sys.executable, "libosdp", path, key) as panel,
    ):
        reader.card("A0B0C0", bits=24)
        await until(lambda: panel.cards() == ["a0b0c0"], LIMIT_S)


@pytest.mark.slow
@pytest.mark.parametrize("secure", [True, False], ids=["secure", "in the clear"])
async def test_pypis_osdp_reads_a_card_at_our_simulator(secure: bool, python_with_osdp: Path) -> None:
    reader = OsdpSimulator(key=DERIVED if secure else None)
    async with (
        simulator_on_pty(reader) as path,
        foreign_panel(python_with_osdp, "osdp", path, MASTER_KEY if secure else None) as panel,
    ):
        reader.card("A0B0C0", bits=24)
        await until(lambda: panel.cards() == ["a0b0c0"], LIMIT_S)


@pytest.mark.slow
@NEEDS_LIBOSDP
async def test_the_same_peripheral_serves_pypis_panel_and_then_ours(python_with_osdp: Path, tmp_path: Path) -> None:
    async with Wire() as wire, libosdp(wire.peripheral_path, key=None) as reader:
        async with foreign_panel(python_with_osdp, "osdp", wire.panel_path, None) as foreign:
            await reader.card("a0b0c0", 24)
            await until(lambda: foreign.cards() == ["a0b0c0"], LIMIT_S)
        async with running(wire.panel_path, scbk=key_file(tmp_path), install=True) as panel:
            await reader.card("ff", 8)
            assert await panel.cards(1) == ["FF"]

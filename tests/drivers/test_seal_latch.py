"""A broken seal outlives the driver: the terminal server's connection is cut, the daemon's keeper begins anew, in real time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from optima_bridge.driver import Driver, DriverSettings
from optima_bridge.errors import DeviceError
from optima_bridge.hub import Hub
from optima_bridge.keeper import DeviceKeeper
from optima_bridge.keepsake import Keepsake
from optima_bridge.link import Line
from optima_bridge.link.portwatch import PortWatch
from optima_bridge.model import Subject
from optima_drivers.contacts import SealDriver, seal
from optima_drivers.contacts.seal import SealSettings
from optima_drivers.contacts.simulator import ScaleSimulator
from tests.support import until
from tests.terminal_server import TerminalServer

CTS = Line.CTS
LIMIT_S = 20.0
TYPED: dict[str, Any] = {
    "profile": "ohaus-defender",
    "baseline": {"calibration": 999, "configuration": 9},
    "found": {"calibration": 999, "configuration": 9},
    "contact": "cts",
    "mark": "26-0417",
}
INTACT, BROKEN = ("intact", False), ("broken", True)


@pytest.fixture
def hub(hub_and_payloads: tuple[Hub, list[dict[str, Any]]]) -> Hub:
    return hub_and_payloads[0]


class Configured(msgspec.Struct, frozen=True):
    """The scale as configured."""

    port: str
    settings: DriverSettings
    driver_class: type[Driver] = SealDriver
    label: str = ""


class Scale:
    """A sealed scale behind a terminal server, and its keeper."""

    def __init__(self, hub: Hub, server: TerminalServer, simulator: ScaleSimulator) -> None:
        self.server = server
        self.simulator = simulator
        self._hub = hub

    def seal(self) -> tuple[object, object]:
        state = self._hub.state_of("scale").get(Subject.SEAL, {})
        return state.get("seal"), state.get("latched")

    def fault(self) -> object:
        return self._hub.state_of("scale").get(Subject.FAULT, {}).get("code")

    async def until(self, expected: tuple[object, object]) -> None:
        await until(lambda: self.seal() == expected, LIMIT_S)

    async def open_and_close(self) -> None:
        self.simulator.open(CTS)
        await self.until(BROKEN)
        self.simulator.close(CTS)


@asynccontextmanager
async def scale(hub: Hub, keepsake: Path, **changes: object) -> AsyncIterator[Scale]:
    simulator, watch = ScaleSimulator({CTS}), PortWatch()
    async with TerminalServer(poll_s=0.005) as server:
        simulator.attach(server.set_lines)
        server.port.on_outputs = simulator.outputs
        settings = SealSettings.model_validate({**TYPED, **changes}, strict=False)
        keeper = DeviceKeeper("scale", Configured(server.url, settings), hub, watch, keepsake=Keepsake(keepsake))
        task = asyncio.create_task(keeper.run())
        try:
            yield Scale(hub, server, simulator)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait_for(task, LIMIT_S)
            watch.close()


async def test_a_cut_connection_does_not_mend_a_seal(hub: Hub, tmp_path: Path) -> None:
    async with scale(hub, tmp_path / "kept") as one:
        await one.until(INTACT)
        await one.open_and_close()
        one.server.hang_up()
        await until(lambda: one.seal()[0] == "unknown", LIMIT_S)
        await one.until(BROKEN)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, BROKEN),
        ({"debounce_ms": 40}, BROKEN),
        ({"mark": "26-0418"}, INTACT),
        ({"baseline": {"calibration": 0, "configuration": 9}, "found": {"calibration": 0, "configuration": 9}}, INTACT),
    ],
)
async def test_only_sealing_anew_mends_it_after_a_restart(
    changes: dict[str, object], expected: tuple[object, object], hub: Hub, tmp_path: Path
) -> None:
    async with scale(hub, tmp_path / "kept") as before:
        await before.until(INTACT)
        await before.open_and_close()
        await until((tmp_path / "kept").exists, LIMIT_S)
    async with scale(hub, tmp_path / "kept", **changes) as after:
        await after.until(expected)


async def test_where_it_cannot_be_known_whether_the_seal_was_broken_nothing_is_said_of_it(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(DeviceError, match="cannot be read"):
        await Keepsake(tmp_path / "kept").read()


async def test_a_disk_that_does_not_take_it_is_a_fault_until_it_does(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "KEEP_AGAIN_NS", 50_000_000)
    async with scale(hub, tmp_path / "not-there-yet" / "kept") as one:
        await one.until(INTACT)
        await one.open_and_close()
        await until(lambda: one.fault() == "latch-unkept", LIMIT_S)
        assert one.seal() == BROKEN
        (tmp_path / "not-there-yet").mkdir()
        await until(lambda: one.fault() != "latch-unkept", LIMIT_S)
    assert await Keepsake(tmp_path / "not-there-yet" / "kept").read()

"""Hardware that is missing, closed, taken or gone, and hardware that is nobody's business."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from asyncinotify import Inotify, Mask

from tests.daemon.store import UNPRIVILEGED, Daemon, needs_permissions, plugged, running
from tests.support import until


async def test_a_missing_device_is_named_and_comes_up_by_itself_when_it_is_plugged_in(tmp_path: Path) -> None:
    missing, there = tmp_path / "by-id" / "missing", tmp_path / "there"
    daemon = Daemon(tmp_path / "node", devices={"missing": missing, "there": there}, api=True)
    async with plugged(there) as (simulator, _), running(daemon):
        found = await daemon.until_device("missing", "down", "E-PORT-MISSING")
        assert str(missing) in found["problem"]["what"]
        assert found["state"]["key"]["presence"] == "unknown"
        status = await daemon.ask("/v1/status")
        assert [(alert["device"], alert["code"]) for alert in status["alerts"]] == [("missing", "E-PORT-MISSING")]
        await daemon.until_device("there", "up")
        missing.parent.mkdir()
        async with plugged(missing) as (late, _):
            await daemon.until_device("missing", "up")
            assert (await daemon.ask("/v1/status"))["alerts"] == []
            late.card("67003B51C6")
            await until(lambda: daemon.committed("evt/missing/card"))
        await daemon.until_device("missing", "down", "E-LINK-LOST")
        assert (await daemon.device("there"))["lost"] == 0
        simulator.card("67003B51C6")
        await until(lambda: daemon.committed("evt/there/card"))


@needs_permissions
async def test_a_port_that_may_not_be_opened_is_named_and_opened_once_it_may(tmp_path: Path) -> None:
    path = tmp_path / "front"
    daemon = Daemon(tmp_path / "node", devices={"front": path}, api=True, wrapper=UNPRIVILEGED)
    async with plugged(path):
        path.resolve().chmod(0)
        async with running(daemon):
            found = await daemon.until_device("front", "down", "E-PORT-PERMISSION")
            assert f"ls -lL {path}" in found["problem"]["next"]
            path.resolve().chmod(0o600)
            await daemon.until_device("front", "up")


async def test_a_port_that_another_program_holds_is_opened_once_it_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "front"
    daemon = Daemon(tmp_path / "node", devices={"front": path}, api=True)
    async with plugged(path):
        held = os.open(path, os.O_RDWR | os.O_NOCTTY)
        fcntl.flock(held, fcntl.LOCK_EX)
        async with running(daemon):
            found = await daemon.until_device("front", "down", "E-PORT-BUSY")
            program = Path("/proc/self/comm").read_text().strip()
            assert found["problem"]["data"]["holder"] == {"pid": os.getpid(), "program": program}
            assert f"pid {os.getpid()} ({program})" in found["problem"]["what"]
            os.close(held)
            await daemon.until_device("front", "up")


async def test_a_port_that_is_not_configured_is_never_opened(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "node", devices={"front": tmp_path / "front", "off": tmp_path / "gone"}, api=True)
    async with plugged(tmp_path / "front"), plugged(tmp_path / "other"):
        other = (tmp_path / "other").resolve()
        with Inotify(sync_timeout=0) as inotify:
            inotify.add_watch(other, Mask.OPEN)
            async with running(daemon):
                await daemon.until_device("front", "up")
                await daemon.until_device("off", "down", "E-PORT-MISSING")
                await daemon.ask("/v1/devices")
            assert inotify.sync_get() is None
            os.close(os.open(other, os.O_RDONLY | os.O_NOCTTY))
            assert inotify.sync_get() is not None, "the watch would have seen it"

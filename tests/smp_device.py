"""A simulated SMP controller on a pty, as a process of its own, and what tests do with it.

``python -m tests.smp_device LINK STATE [WRITE]`` serves it: LINK leads to the pty, STATE has what outlives the process, and
the process kills itself behind that write.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from optima_bridge.link import open_byte_link
from optima_bridge.link.ptys import PtyServer
from optima_drivers.smp import SmpDriver
from optima_drivers.smp.driver import SmpSettings
from optima_drivers.smp.memory import Image
from optima_drivers.smp.simulator import SmpSimulator

REPOSITORY = Path(__file__).parents[1]
SERIAL = "till-3"
TIMEOUT_S = 30.0


class DeviceProcess:
    """One controller; what it holds is in `directory`."""

    def __init__(self, directory: Path) -> None:
        self.port = str(directory / "port")
        self._state = directory / "state"

    @asynccontextmanager
    async def running(self, *dies_at_write: int) -> AsyncIterator[asyncio.subprocess.Process]:
        """Serve it while the block runs."""
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(REPOSITORY), str(REPOSITORY / "drivers")])}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.smp_device", self.port, str(self._state), *map(str, dies_at_write),
            cwd=REPOSITORY, env=environment, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            async with asyncio.timeout(TIMEOUT_S):
                assert await process.stdout.readline() == b"ready\n"
            yield process
        finally:
            if process.returncode is None:
                process.kill()
            await process.communicate()

    @asynccontextmanager
    async def driver(self) -> AsyncIterator[SmpDriver]:
        """Our driver on its port."""
        link = await open_byte_link(self.port, SmpDriver.info.serial_format)
        driver = SmpDriver(link, SmpSettings())
        try:
            yield driver
        finally:
            await driver.stop()
            link.close()

    def credential(self) -> bytes | None:
        """What the terminal takes when its power comes back."""
        return loaded(self._state).credential()


def loaded(state: Path) -> SmpSimulator:
    simulator = SmpSimulator(SERIAL)
    if state.exists():
        simulator.memory.image = msgspec.msgpack.decode(state.read_bytes(), type=Image)
        simulator.restart()
    return simulator


async def serve(port: str, state: str, dies_at_write: str = "0") -> None:
    simulator = loaded(Path(state))
    memory = simulator.memory

    def keep() -> None:
        Path(f"{state}.new").write_bytes(msgspec.msgpack.encode(memory.image))
        Path(f"{state}.new").replace(state)
        if memory.writes == int(dies_at_write):
            os.kill(os.getpid(), signal.SIGKILL)

    memory.on_write = keep
    async with PtyServer(simulator, symlink=Path(port)):
        print("ready", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))

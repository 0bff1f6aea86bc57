"""From a device that is plugged in to the keeper's attempt to open it, ms: python benchmarks/hotplug.py (as root)

The device has no path, so netlink tells of it; what is sent is what udev sends. The second figure is the kernel's own
message, from the write that causes it to the listener.
"""

from __future__ import annotations

import asyncio
import socket
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

from optima_bridge import keeper as keeper_module
from optima_bridge.clock import Clock
from optima_bridge.errors import LinkNotFound
from optima_bridge.hub import Hub
from optima_bridge.identifiers import IdentifierPolicy
from optima_bridge.journal import Journal
from optima_bridge.keeper import DeviceKeeper
from optima_bridge.link import Link, SerialFormat, uevents
from optima_bridge.link.base import OPENERS
from optima_bridge.link.portwatch import PortWatch
from optima_bridge.topics import Topics
from optima_bridge.wire.uevent import encode
from optima_drivers.ds2490 import Ds2490Driver

ROUNDS = 300
GOAL_MS = 50.0
PLUGGED = {"ACTION": "add", "DEVPATH": "/devices/benchmark/1-1", "SUBSYSTEM": "usb", "DEVTYPE": "usb_device"}
ANY_DEVICE = Path("/sys/class/tty/tty0/uevent")


async def main() -> None:
    report("uevent to open attempt", await to_attempt())
    report("kernel to listener", await from_kernel())


def report(what: str, taken_ms: list[float]) -> None:
    worst = max(taken_ms)
    p50, p99 = statistics.median(taken_ms), statistics.quantiles(taken_ms, n=100)[98]
    print(f"{what}: p50 {p50:.2f} ms, p99 {p99:.2f} ms, worst {worst:.2f} ms of {len(taken_ms)}, goal {GOAL_MS:.0f} ms")


async def to_attempt() -> list[float]:
    """A keeper whose device never answers, woken again and again."""
    attempts: asyncio.Queue[float] = asyncio.Queue()

    async def open_usb(port: str, _: SerialFormat) -> Link:
        attempts.put_nowait(time.perf_counter())
        raise LinkNotFound(f"{port} is not there")

    OPENERS["usb"] = open_usb
    uevents.UDEV_CONTROL = Path("/")  # listen as where udev runs
    keeper_module.FIRST_PAUSE_S = keeper_module.LONGEST_PAUSE_S = 3600.0  # nothing but the message wakes it
    with tempfile.TemporaryDirectory() as directory:
        journal = Journal.open(Path(directory))
        journal.attach(asyncio.get_running_loop(), lambda _: None, lambda _: None)
        hub = Hub(Topics("s1", "pc1"), journal, IdentifierPolicy(None), Clock())
        watch = PortWatch()
        settings = Ds2490Driver.Settings()
        config = SimpleNamespace(port="usb:04fa:2490", label="", driver_class=Ds2490Driver, settings=settings)
        running = asyncio.create_task(DeviceKeeper("front", config, hub, watch).run())
        await attempts.get()
        taken_ms = []
        with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, uevents.NETLINK_KOBJECT_UEVENT) as udev:
            for _ in range(ROUNDS):
                while not watch._pathless:  # noqa: ASYNC110 - that has no event of its own
                    await asyncio.sleep(0)
                sent_s = time.perf_counter()
                udev.sendto(encode(PLUGGED), (0, uevents.UDEV_GROUP))
                taken_ms.append((await attempts.get() - sent_s) * 1e3)
        running.cancel()
        await asyncio.wait({running})
        watch.close()
        await journal.close(5)
    return taken_ms


def ask_the_kernel() -> None:
    ANY_DEVICE.write_text("add", encoding="ascii")


async def from_kernel() -> list[float]:
    """Each write has the kernel say that a device was added."""
    uevents.UDEV_CONTROL = Path("/nowhere")
    heard: asyncio.Queue[float] = asyncio.Queue()
    listener = uevents.Uevents(lambda _: heard.put_nowait(time.perf_counter()))
    taken_ms = []
    for _ in range(ROUNDS):
        sent_s = time.perf_counter()
        ask_the_kernel()
        taken_ms.append((await heard.get() - sent_s) * 1e3)
    listener.close()
    return taken_ms


if __name__ == "__main__":
    asyncio.run(main())

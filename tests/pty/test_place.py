"""Two keepers and their place, with real ptys and simulators: what the daemon's own test of it does not reach."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from optima_bridge.demo.store import Attachable
from optima_bridge.driver import Driver
from optima_bridge.hub import Hub
from optima_bridge.keeper import DeviceKeeper
from optima_bridge.link.portwatch import PortWatch
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import Event, Observation, Subject
from optima_bridge.place import Place
from optima_drivers.ds2480b.driver import Ds2480bDriver
from optima_drivers.ds2480b.simulator import Ds2480bSimulator
from optima_drivers.loopback.driver import LoopbackDriver
from optima_drivers.loopback.simulator import LoopbackSimulator
from tests.pty.test_keeper import Configured
from tests.support import until

KEY = "01B7BA1000000075"
HubAndPayloads = tuple[Hub, list[dict[str, Any]]]


class Broken(LoopbackDriver):
    """Tells what is no JSON."""

    async def events(self) -> AsyncGenerator[Event | Observation, None]:
        yield Event(Subject.KEY, "inserted", self._link.clock_ns(), {"no json": object()})  # type: ignore[dict-item]


@asynccontextmanager
async def readers(
    hub: Hub, place: Place, directory: Path, devices: dict[str, tuple[type[Driver], Attachable]]
) -> AsyncIterator[dict[str, tuple[PtyServer, DeviceKeeper]]]:
    """Devices on ptys and the keepers that keep them for `place`."""
    watch = PortWatch()
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        tasks = []
        for name, (driver, simulator) in devices.items():
            pty = await stack.enter_async_context(PtyServer(simulator, symlink=directory / name))
            simulator.attach(pty.send)
            keeper = DeviceKeeper(name, Configured(pty.path, driver, driver.Settings()), hub, watch, voice=place)
            tasks.append(asyncio.create_task(keeper.run()))
            found[name] = pty, keeper
        try:
            yield found
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=10)
            place.close()


def told(payloads: list[dict[str, Any]], subject: str) -> list[tuple[str, str, str]]:
    """Device, action and reader of each event of one subject."""
    return [
        (payload["subject"], payload["data"]["action"], payload["data"].get("reader", ""))
        for payload in payloads
        if payload["type"].split(".")[2] == subject
    ]


async def test_two_polling_readers_on_one_probe_tell_each_key_once(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, payloads = hub_and_payloads
    place = Place("front", "spare", {Subject.KEY}, hub)
    one, other = Ds2480bSimulator(), Ds2480bSimulator()
    devices: dict[str, tuple[type[Driver], Attachable]] = {
        "front": (Ds2480bDriver, one),
        "spare": (Ds2480bDriver, other),
    }
    async with readers(hub, place, tmp_path, devices) as running:
        await until(lambda: hub.state_of("front").get("link", {}).get("readers") == {"key": "front"})
        await until(lambda: hub.state_of("front")["key"]["presence"] == "absent")
        one.put(KEY)
        other.put(KEY)
        await until(lambda: told(payloads, "key"))
        await until(lambda: running["spare"][1].status.events == 1)
        running["front"][0].unplug()
        await until(lambda: hub.state_of("front")["link"].get("readers") == {"key": "spare"})
        key = hub.state_of("front")["key"]
        assert key.items() >= {"presence": "present", "quality": "good"}.items()
        assert "key_ref" in key
        one.lift()
        other.lift()
        await until(lambda: hub.state_of("front")["key"]["presence"] == "absent")
        running["front"][0].replug()
        await until(lambda: hub.state_of("front")["link"].get("readers") == {"key": "front"})
    assert told(payloads, "key") == [
        ("front", "inserted", "front"),
        ("front", "suspect", "spare"),
        ("front", "removed", "spare"),
    ]
    assert {payload["subject"] for payload in payloads if payload["type"].split(".")[2] == "fault"} == {"front"}


async def test_what_only_one_of_the_two_can_see_stays_under_its_own_name(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, payloads = hub_and_payloads
    place = Place("front", "spare", {Subject.KEY}, hub)
    one, other = LoopbackSimulator(), LoopbackSimulator()
    devices: dict[str, tuple[type[Driver], Attachable]] = {
        "front": (LoopbackDriver, one),
        "spare": (LoopbackDriver, other),
    }
    async with readers(hub, place, tmp_path, devices) as running:
        await until(lambda: all(keeper.status.link == "up" for _, keeper in running.values()))
        one.lock(2)
        other.lock(3)
        await until(lambda: len(told(payloads, "keylock")) == 2)
        running["spare"][0].unplug()
        await until(lambda: hub.state_of("spare")["keylock"]["position"] == "unknown")
        assert hub.state_of("front")["keylock"]["position"] == "normal"
        assert hub.state_of("front")["link"].items() >= {"link": "up", "readers": {"key": "front"}}.items()
        assert "key" not in hub.state_of("spare")
    assert sorted(told(payloads, "keylock")) == [("front", "turned", ""), ("spare", "turned", "")]


async def test_a_standby_serves_the_place_alone_while_the_primary_is_out_of_service(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, payloads = hub_and_payloads
    place = Place("front", "spare", {Subject.KEY}, hub)
    simulator = LoopbackSimulator()
    async with readers(hub, place, tmp_path, {"spare": (LoopbackDriver, simulator)}) as running:
        await until(lambda: hub.state_of("front").get("key", {}).get("presence") == "absent")
        simulator.key_in(KEY)
        await until(lambda: told(payloads, "key") == [("front", "inserted", "spare")])
        running["spare"][0].unplug()
        await until(lambda: hub.state_of("front")["key"]["presence"] == "unknown")
        assert hub.state_of("front")["link"]["link"] == "down"


async def test_a_bug_of_one_driver_restarts_its_own_device_only(
    hub_and_payloads: HubAndPayloads, tmp_path: Path
) -> None:
    hub, payloads = hub_and_payloads
    place = Place("front", "spare", {Subject.KEY}, hub)
    simulator = LoopbackSimulator()
    devices: dict[str, tuple[type[Driver], Attachable]] = {
        "front": (LoopbackDriver, simulator),
        "spare": (Broken, LoopbackSimulator()),
    }
    async with readers(hub, place, tmp_path, devices) as running:
        await until(lambda: running["spare"][1].status.lost >= 2)
        simulator.key_in(KEY)
        await until(lambda: told(payloads, "key") == [("front", "inserted", "front")])
        assert running["front"][1].status.lost == 0

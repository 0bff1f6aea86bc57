"""One place with two readers and the real daemon: whichever is unplugged, nothing is lost, doubled or made up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import device_row
from optima_bridge.link.ptys import PtyServer
from optima_drivers.loopback.simulator import LoopbackSimulator
from tests.daemon.store import Daemon, destroy, plugged, running
from tests.support import TIMEOUT_S, Mosquitto, subscribed, until

KEY = "01B7BA1000000075"
KEYS_ONLY = 'abilities = ["key-reader"]\n'


class Hand:
    """Puts one key into what both readers are connected to."""

    def __init__(self, *readers: tuple[LoopbackSimulator, PtyServer]) -> None:
        self._simulators = [simulator for simulator, _ in readers]
        self.spare_device = self._simulators[1]
        self.front, self.spare = (pty for _, pty in readers)

    def put_in(self) -> None:
        for simulator in self._simulators:
            simulator.key_in(KEY)

    def take_out(self) -> None:
        for simulator in self._simulators:
            simulator.key_out()


@pytest.fixture
async def hand(tmp_path: Path) -> AsyncIterator[Hand]:
    async with plugged(tmp_path / "front") as front, plugged(tmp_path / "spare") as spare:
        yield Hand(front, spare)


def place(directory: Path, port: int = 0) -> Daemon:
    """A daemon with both readers."""
    return Daemon(
        directory / "node",
        port=port,
        api=True,
        devices={"front": directory / "front", "spare": directory / "spare"},
        keys={"front": KEYS_ONLY, "spare": KEYS_ONLY + 'standby_of = "front"\n'},
    )


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    daemon = place(tmp_path)
    yield daemon
    destroy(daemon)


def actions(daemon: Daemon, part: str = "evt/front/key") -> list[str]:
    return [payload["data"]["action"] for payload in daemon.committed(part)]


async def until_state(daemon: Daemon, presence: str, readers: dict[str, str]) -> None:
    """Wait for what is true of the place, and for who says so."""
    async with asyncio.timeout(TIMEOUT_S):
        while True:
            state = (await daemon.device("front"))["state"]
            if (state["key"]["presence"], state["link"].get("readers", {})) == (presence, readers):
                break
            await asyncio.sleep(0.02)
    assert state["key"]["quality"] == ("unknown" if presence == "unknown" else "good")
    assert state["link"]["link"] == ("up" if readers else "down")
    assert ("key_id" in state["key"]) == (presence == "present")


async def test_a_key_that_lies_there_while_readers_come_and_go_is_told_once(daemon: Daemon, hand: Hand) -> None:
    async with running(daemon):
        await until_state(daemon, "absent", {"key": "front"})
        hand.put_in()
        await until_state(daemon, "present", {"key": "front"})
        hand.front.unplug()
        await until_state(daemon, "present", {"key": "spare"})
        await until(lambda: actions(daemon, "evt/front/link")[-1] == "switched")
        shown = {name: device_row(Settings(), await daemon.device(name))[4] for name in ("front", "spare")}
        assert shown["front"] in [f"{code}, key present, spare leads" for code in ("E-LINK-LOST", "E-PORT-MISSING")]
        assert shown["spare"] == "standby of front"
        assert actions(daemon) == ["inserted"]
        hand.take_out()
        await until(lambda: actions(daemon) == ["inserted", "removed"])
        assert daemon.committed("evt/front/key")[-1]["data"]["reader"] == "spare"
        hand.front.replug()
        await until_state(daemon, "absent", {"key": "front"})
        hand.spare.unplug()
        await daemon.until_device("spare", "down", "E-LINK-LOST")
        hand.put_in()
        await until_state(daemon, "present", {"key": "front"})
        hand.front.unplug()
        await until_state(daemon, "unknown", {})
        hand.spare.replug()
        await until_state(daemon, "present", {"key": "spare"})
        hand.front.replug()
        await until_state(daemon, "present", {"key": "front"})
    assert actions(daemon) == ["inserted", "removed", "inserted", "inserted"], "the last one was found, as ever"
    assert actions(daemon, "evt/spare/") == [
        "up",
        "down",
        "raised",
        "up",
        "cleared",
    ]
    assert actions(daemon, "evt/front/link")[-7:] == [
        "down",
        "switched",
        "up",
        "switched",
        "down",
        "up",
        "switched",
    ]


async def test_what_the_primary_does_not_see_is_told_late_and_an_alert_names_it(daemon: Daemon, hand: Hand) -> None:
    async with running(daemon):
        await until_state(daemon, "absent", {"key": "front"})
        hand.spare_device.key_in(KEY)
        await until(lambda: actions(daemon) == ["inserted"])
        await until_state(daemon, "present", {"key": "spare"})
        [alert] = (await daemon.ask("/v1/status"))["alerts"]
        assert (alert["device"], alert["name"], alert["code"]) == ("front", "blind", "E-READER-BLIND")
        hand.spare_device.key_out()
        await until(lambda: actions(daemon) == ["inserted", "removed"])
        hand.put_in()
        await until_state(daemon, "present", {"key": "front"})
        assert (await daemon.ask("/v1/status"))["alerts"] == []
    assert actions(daemon) == ["inserted", "removed", "inserted"]


@pytest.mark.broker
async def test_kill_9_while_the_standby_leads_loses_nothing_and_doubles_nothing(
    mosquitto: Mosquitto, hand: Hand, tmp_path: Path
) -> None:
    mosquitto.start()
    daemon = place(tmp_path, mosquitto.port)
    async with subscribed(mosquitto.port) as seen:
        await daemon.start()
        hand.put_in()
        await until_state(daemon, "present", {"key": "front"})
        hand.front.unplug()
        await until_state(daemon, "present", {"key": "spare"})
        hand.take_out()
        await until(lambda: actions(daemon) == ["inserted", "removed"])
        await daemon.kill()
        hand.put_in()
        async with running(daemon):
            await until_state(daemon, "present", {"key": "spare"})
            hand.front.replug()
            await until_state(daemon, "present", {"key": "front"})
            hand.take_out()
            await until_state(daemon, "absent", {"key": "front"})
            await seen.until(lambda: len({p["id"] for p in seen.payloads("evt/front/key")}) == 4)
    told = {p["id"]: p["data"]["action"] for p in seen.payloads("evt/front/key")}
    assert list(told.values()) == ["inserted", "removed", "inserted", "removed"]
    assert seen.payloads("evt/spare/key") == seen.payloads("state/spare/key") == []

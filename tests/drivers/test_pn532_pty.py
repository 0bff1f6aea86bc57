"""The PN532 driver and its simulator over a real pty, in real time; the same simulator with nfcpy, which others wrote."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest

from optima_bridge.errors import LinkTimeout
from optima_bridge.link import open_byte_link
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import Event
from optima_drivers.pn532 import Pn532Driver
from optima_drivers.pn532.cards import Card
from optima_drivers.pn532.driver import Pn532Settings
from optima_drivers.pn532.simulator import CLASSIC, DESFIRE, NTAG, Pn532Simulator, simulator_on_pty
from tests.drivers.pty_bench import LIMIT_S, comes_and_goes, is_usable_again_after_unplugging

FORMAT = Pn532Driver.info.serial_format


@pytest.mark.parametrize("baud", [None, 115200])
async def test_a_card_comes_and_goes_over_a_pty(baud: int | None) -> None:
    simulator = Pn532Simulator()
    async with simulator_on_pty(simulator, baud=baud) as path:
        assert await comes_and_goes(path, Pn532Driver, lambda: simulator.put(NTAG), simulator.lift) == "04A1B2C3D4E5F6"


async def test_an_unplugged_adapter_ends_the_events_and_is_usable_again_under_its_path(tmp_path: Path) -> None:
    simulator = Pn532Simulator()
    adapter = PtyServer(simulator, symlink=tmp_path / "usb-adapter")
    await is_usable_again_after_unplugging(adapter, Pn532Driver, simulator.power_cycle)


async def test_a_dead_module_times_out() -> None:
    simulator = Pn532Simulator()
    simulator.faults.dead = True
    async with asyncio.timeout(LIMIT_S), simulator_on_pty(simulator) as path:
        link = await open_byte_link(path, FORMAT)
        with pytest.raises(LinkTimeout):
            await Pn532Driver(link, Pn532Settings()).start()
        link.close()


def read_by_nfcpy(path: str) -> tuple[str, str | None]:
    """What nfcpy's own driver says of the chip and the card at `path`; it blocks."""
    from nfc.clf import ContactlessFrontend, RemoteTarget, pn532, transport

    frontend = ContactlessFrontend()
    frontend.device = pn532.init(transport.TTY(path))
    try:
        target = frontend.sense(RemoteTarget("106A"))
        return frontend.device.chipset_name, target and target.sdd_res.hex().upper()
    finally:
        frontend.close()


@pytest.mark.referee
@pytest.mark.parametrize("card", [None, CLASSIC, NTAG, DESFIRE], ids=["none", "4 bytes", "7 bytes", "ISO 14443-4"])
async def test_nfcpy_reads_the_simulators_card_and_leaves_the_module_to_us(card: Card | None) -> None:
    pytest.importorskip("nfc", reason="nfcpy is not installed")
    simulator = Pn532Simulator()
    if card:
        simulator.put(card)
    async with asyncio.timeout(LIMIT_S), simulator_on_pty(simulator) as path:
        assert await asyncio.to_thread(read_by_nfcpy, path) == ("PN532v1.6", card and card.uid.hex().upper())
        assert not simulator.settings.awake
        link = await open_byte_link(path, FORMAT)
        driver = Pn532Driver(link, Pn532Settings())
        await driver.start()
        if card:
            async with aclosing(driver.events()) as events:
                event = await anext(events)
            assert isinstance(event, Event)
            assert event.identifier == card.uid.hex().upper()
        await driver.stop()
        link.close()

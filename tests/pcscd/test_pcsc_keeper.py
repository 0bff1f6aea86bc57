"""The daemon's keeper with a card reader: what subscribers see while cards come and pcscd goes."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import Any

from optima_bridge.driver import Driver, DriverSettings
from optima_bridge.hub import Hub
from optima_bridge.keeper import DeviceKeeper
from optima_bridge.link.portwatch import PortWatch
from optima_drivers.pcsc import PcscDriver
from optima_drivers.pcsc.virtual_card import VirtualPivCard
from tests.pcscd.daemon import Pcscd
from tests.support import until

SETTINGS = PcscDriver.Settings()


@dataclass
class Configured:
    port: str
    label: str = "lane 1"
    driver_class: type[Driver] = PcscDriver
    settings: DriverSettings = SETTINGS


async def test_a_restarted_pcscd_is_found_again_and_the_card_is_inserted_anew(
    pcscd: Pcscd, hub_and_payloads: tuple[Hub, list[dict[str, Any]]]
) -> None:
    hub, payloads = hub_and_payloads

    def said() -> list[str]:
        return [f"{it['type'].split('.')[2]} {it['data']['action']}" for it in payloads]

    watch = PortWatch()
    keeper = DeviceKeeper("lane", Configured(f"pcsc:{pcscd.reader}"), hub, watch)
    keeping = asyncio.create_task(keeper.run())
    try:
        await until(lambda: keeper.status.link == "up")
        pcscd.insert(VirtualPivCard(uid=b"\x04\x01\x02\x03"))
        await until(lambda: "card inserted" in said())
        pcscd.stop()
        await until(lambda: keeper.status.link == "down")
        await until(lambda: keeper.status.error is not None and "pcscd.socket" in keeper.status.error.next_step)
        pcscd.start()
        pcscd.insert(VirtualPivCard(uid=b"\x04\x01\x02\x03"))
        await until(lambda: said().count("card inserted") == 2)
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await keeping
        watch.close()
    assert [it for it in said() if not it.startswith("fault")] == [
        "link up", "card inserted", "link down", "link up", "card inserted"
    ]  # fmt: skip
    assert keeper.counters == {}

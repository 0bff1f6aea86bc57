"""The DS2480B driver and its simulator over a real pty, in real time; the pty server itself."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from optima_bridge.errors import LinkTimeout
from optima_bridge.link import open_byte_link
from optima_bridge.link.ptys import MAX_WAITING_BYTES, PtyServer
from optima_drivers.ds2480b import Ds2480bDriver
from optima_drivers.ds2480b.driver import Ds2480bSettings
from optima_drivers.ds2480b.simulator import Ds2480bSimulator, simulator_on_pty
from tests.drivers.pty_bench import LIMIT_S, comes_and_goes, is_usable_again_after_unplugging

A = "017856341200004E"
FORMAT = Ds2480bDriver.info.serial_format


@pytest.mark.parametrize("baud", [None, 9600])
async def test_a_key_comes_and_goes_over_a_pty(baud: int | None) -> None:
    simulator = Ds2480bSimulator()
    async with simulator_on_pty(simulator, baud=baud) as path:
        assert await comes_and_goes(path, Ds2480bDriver, lambda: simulator.put(A), simulator.lift) == A


async def test_an_unplugged_adapter_ends_the_events_and_is_usable_again_under_its_path(tmp_path: Path) -> None:
    simulator = Ds2480bSimulator()
    adapter = PtyServer(simulator, symlink=tmp_path / "usb-adapter")
    await is_usable_again_after_unplugging(adapter, Ds2480bDriver, simulator.break_)


async def test_a_dead_adapter_times_out() -> None:
    simulator = Ds2480bSimulator()
    simulator.faults.dead = True
    async with asyncio.timeout(LIMIT_S), simulator_on_pty(simulator) as path:
        link = await open_byte_link(path, FORMAT)
        with pytest.raises(LinkTimeout):
            await Ds2480bDriver(link, Ds2480bSettings()).start()
        link.close()


class Echo:
    def receive(self, data: bytes) -> bytes:
        return data


@pytest.mark.parametrize("baud", [None, 115200])
async def test_a_pty_server_carries_every_byte_both_ways(baud: int | None) -> None:
    sent = bytes(range(256)) * 2
    async with asyncio.timeout(LIMIT_S), PtyServer(Echo(), baud=baud) as server:
        link = await open_byte_link(server.path, FORMAT)
        await link.write(sent)
        received = b""
        while len(received) < len(sent):
            received += await link.read(LIMIT_S)
        assert received == sent
        link.close()


async def test_a_pty_server_keeps_what_a_slow_client_reads_late_and_counts_what_it_loses() -> None:
    surplus = 1000
    async with asyncio.timeout(LIMIT_S), PtyServer(Echo()) as server:
        link = await open_byte_link(server.path, FORMAT)
        server.send(b"x" * (MAX_WAITING_BYTES + surplus))
        received = 0
        while received < MAX_WAITING_BYTES:
            received += len(await link.read(LIMIT_S))
        assert (received, server.lost_bytes) == (MAX_WAITING_BYTES, surplus)
        link.close()


async def test_a_pty_server_is_safe_to_unplug_and_replug_twice() -> None:
    async with PtyServer(Echo()) as server:
        server.replug()
        server.unplug()
        server.unplug()
        server.send(b"nobody is there")
        assert not server.plugged
        server.replug()
        assert server.plugged
    assert not server.plugged

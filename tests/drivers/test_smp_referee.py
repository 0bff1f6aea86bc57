"""Clients that others wrote use the simulator, and our driver reads what they wrote: smpclient, mcumgr-toolkit."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from optima_drivers.smp import layout
from optima_drivers.smp.framing import encode
from optima_drivers.smp.layout import Pointer
from tests.smp_device import SERIAL, DeviceProcess

pytestmark = pytest.mark.referee

LIMIT_S = 60.0  # only a hang takes as long
CERTIFICATE = random.Random(7).randbytes(2048)
SHA256 = hashlib.sha256(CERTIFICATE).digest()
FILE = "/lfs1/optima_b"
PLACED = {layout.digest_key(1): SHA256, layout.ACTIVE: Pointer(1, 5).encode(), layout.CONFIRMED: layout.generation(5)}
"""The settings that make FILE the active, confirmed certificate."""


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[DeviceProcess]:
    device = DeviceProcess(tmp_path)
    async with asyncio.timeout(LIMIT_S), device.running():
        yield device


async def expect_placed(device: DeviceProcess) -> None:
    """Our driver finds what somebody else has put."""
    assert device.credential() == CERTIFICATE
    async with device.driver() as driver:
        assert (await driver.start()).serial == SERIAL
        [empty, active] = await driver.store.inspect()
        assert (empty.valid, active.valid, active.active, active.confirmed, active.generation) == (
            False,
            *[True] * 3,
            5,
        )
        assert (active.sha256, active.size_bytes) == (SHA256.hex(), len(CERTIFICATE))
        assert await driver.store.read(1) == CERTIFICATE


async def place(device: DeviceProcess) -> None:
    """Our driver puts the certificate into slot 1."""
    async with device.driver() as driver:
        await driver.start()
        await driver.store.stage(1, CERTIFICATE, lambda *_: None)
        await driver.store.activate(1)


async def test_smpclient_writes_and_our_driver_reads(device: DeviceProcess) -> None:
    smpclient = pytest.importorskip("smpclient")
    from smpclient.generics import success
    from smpclient.requests import settings_management
    from smpclient.requests.file_management import FileHashChecksum
    from smpclient.requests.os_management import EchoWrite
    from smpclient.transport.serial import SMPSerialTransport

    async with smpclient.SMPClient(SMPSerialTransport(), device.port) as client:
        assert (await client.request(EchoWrite(d="Grüße"))).r == "Grüße"
        offsets = [offset async for offset in client.upload_file(CERTIFICATE, FILE)]
        assert offsets[-1] == len(CERTIFICATE)
        hashed = await client.request(FileHashChecksum(name=FILE, type="sha256"))
        assert (hashed.output, hashed.len) == (SHA256, len(CERTIFICATE))
        for name, value in PLACED.items():
            assert success(await client.request(settings_management.WriteSetting(name=name, val=value)))
        assert success(await client.request(settings_management.SaveSettings()))
    await expect_placed(device)


async def test_our_driver_writes_and_smpclient_reads(device: DeviceProcess) -> None:
    smpclient = pytest.importorskip("smpclient")
    from smpclient.generics import error_v1, error_v2
    from smpclient.requests.file_management import FileStatus
    from smpclient.requests.os_management import OSApplicationInfoRead, TaskStatisticsRead
    from smpclient.requests.settings_management import LoadSettings, ReadSetting
    from smpclient.transport.serial import SMPSerialTransport

    await place(device)
    async with smpclient.SMPClient(SMPSerialTransport(), device.port) as client:
        assert await client.download_file(FILE) == CERTIFICATE
        await client.request(LoadSettings())
        assert (await client.request(ReadSetting(name=layout.ACTIVE))).val == Pointer(1, 1).encode()
        assert (await client.request(OSApplicationInfoRead(format="svi"))).output == "Zephyr 4.3.0 simulated_mcu"
        missing = await client.request(FileStatus(name="/lfs1/none"))
        assert error_v2(missing)
        assert (missing.err.group, missing.err.rc) == (8, 3)
        unknown = await client.request(TaskStatisticsRead())
        assert error_v1(unknown)
        assert unknown.rc == 8


def toolkit(device: DeviceProcess) -> Any:
    return pytest.importorskip("mcumgr_toolkit").MCUmgrClient.serial(device.port)


async def test_mcumgr_toolkit_writes_and_our_driver_reads(device: DeviceProcess) -> None:
    client = toolkit(device)
    assert client.os_echo("hello") == "hello"
    client.use_auto_frame_size()
    client.fs_file_upload(FILE, CERTIFICATE)
    assert client.fs_file_status(FILE).length == len(CERTIFICATE)
    assert client.fs_file_checksum(FILE, "sha256").output == SHA256
    assert sorted(client.fs_supported_checksum_types()) == ["crc32", "sha256"]
    for name, value in PLACED.items():
        client.settings_write(name, value)
    client.settings_commit()
    client.settings_save("optima")
    del client  # the port is exclusive
    await expect_placed(device)


async def test_our_driver_writes_and_mcumgr_toolkit_reads(device: DeviceProcess) -> None:
    await place(device)
    client = toolkit(device)
    assert client.fs_file_download(FILE) == CERTIFICATE
    assert client.settings_read(layout.ACTIVE) == Pointer(1, 1).encode()
    assert client.settings_read(layout.digest_key(1)) == SHA256
    assert client.os_application_info("vi") == "4.3.0 simulated_mcu"
    with pytest.raises(RuntimeError, match="FILE_NOT_FOUND"):
        client.fs_file_status("/lfs1/none")
    with pytest.raises(RuntimeError, match="KEY_NOT_FOUND"):
        client.settings_read("optima/none")
    client.settings_delete(layout.ACTIVE)
    assert device.credential() is None


@pytest.mark.parametrize("size_bytes", [0, 1, 87, 88, 89, 90, 91, 180, 512, 2044])
def test_our_lines_are_those_of_smp(size_bytes: int) -> None:
    packet = pytest.importorskip("smp.packet")
    message = random.Random(size_bytes).randbytes(size_bytes)
    assert b"".join(packet.encode(message, line_length=128)) == encode(message)

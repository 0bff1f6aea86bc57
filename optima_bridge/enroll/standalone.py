"""Enrolling with no daemon: opens one configured device as the keeper does, does one piece of work on it.

with HostJournal(directory) as journal:
    ending = asyncio.run(perform("till-3", device, journal, Settle()))
"""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

from optima_bridge.config.model import Device
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.work import Ending, Open, Stop, Work, carry_out
from optima_bridge.errors import AccessDenied, BridgeError, EnrollRefused, LinkTimeout
from optima_bridge.link import open_link
from optima_bridge.model import Capability, DeviceIdentity
from optima_bridge.store import HasSecureStore, LockedStore, SecureStore

START_TIMEOUT_S = 15.0
STOP_TIMEOUT_S = 1.0


async def perform(name: str, device: Device, journal: HostJournal, work: Work, secret: bytes = b"") -> Ending:
    """Do `work` on the device of that name. SIGINT and SIGTERM stop it up to the point of no return."""
    stop = Stop()
    task = asyncio.ensure_future(_perform(name, device, journal, work, stop, secret))
    stop.task = task
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        return await task
    except asyncio.CancelledError:
        if not stop.asked:
            raise
        return Ending(None, None, interrupted=True)  # while the device was opened


async def _perform(name: str, device: Device, journal: HostJournal, work: Work, stop: Stop, secret: bytes) -> Ending:
    try:
        async with opened(name, device) as (store, identity):
            if secret and store.traits.secret:
                cast("LockedStore", store).unlock(secret)
            return await carry_out(Open(store, identity, journal), work, stop)
    except BridgeError as error:
        return Ending(None, None, error=error)


@asynccontextmanager
async def opened(name: str, device: Device) -> AsyncIterator[tuple[SecureStore, DeviceIdentity]]:
    """The secure memory of a configured device, and who answers.

    Raises:
        EnrollRefused: it has none.
        LinkError, ProtocolError, DeviceError: it cannot be used now; LinkBusy names who has the port.
    """
    info = device.driver_class.info
    if Capability.SECURE_STORE not in device.settings.narrow(info.capabilities):
        raise EnrollRefused(
            f"{name} has no secure memory",
            cause=f"the driver {info.name}, or its settings, do not have the ability secure-store",
            next_step="name a device that has it: bridge drivers list",
        )
    link = await open_link(device.port, device.settings.serial_format(info.serial_format))
    try:
        driver = device.driver_class(link, device.settings)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                identity = await driver.start()
        except TimeoutError as error:
            if isinstance(error, BridgeError):
                raise
            raise LinkTimeout(f"{link.name}: the driver did not start within {START_TIMEOUT_S:.0f} s") from error
        try:
            yield cast("HasSecureStore", driver).store, identity
        finally:
            try:
                async with asyncio.timeout(STOP_TIMEOUT_S):
                    await driver.stop()
            except (BridgeError, TimeoutError):
                pass  # it is gone, or does not listen: what was done is done
    finally:
        link.close()


def check_directory(directory: Path) -> None:
    """Whether this user may keep the journal of enrolments there.

    Raises:
        AccessDenied: no; or it is root, whose files the service could not use afterwards.
    """
    if not directory.is_dir() or not os.access(directory, os.W_OK | os.X_OK):
        raise AccessDenied(
            f"the state directory {directory} cannot be written to",
            cause="it belongs to the service's user, or the service was never started",
            next_step="run it as that user: sudo -u optima-bridge bridge enroll --help",
        )
    owner = directory.stat().st_uid
    if os.geteuid() == 0 != owner:
        user = pwd.getpwuid(owner).pw_name
        raise AccessDenied(
            f"root would leave files in {directory} that {user} cannot use",
            cause="the command was run with sudo, but without -u",
            next_step=f"run it as that user: sudo -u {user} bridge enroll --help",
        )

"""One enrolment into a token in a process of its own, to be killed in the middle of it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.words import Report, Request, Result, silent
from optima_bridge.link import SerialFormat, open_link
from optima_drivers.pkcs11 import Pkcs11Driver
from optima_drivers.pkcs11.store import Pkcs11Store

DONE = "done"


@asynccontextmanager
async def opened(uri: str, pin_file: str) -> AsyncIterator[tuple[Pkcs11Store, str]]:
    """The store of a token, and its serial number."""
    link = await open_link(uri, SerialFormat())
    driver = Pkcs11Driver(link, Pkcs11Driver.Settings.model_validate({"pin": {"file": pin_file}}))  # type: ignore[arg-type]
    try:
        identity = await driver.start()
        yield driver.store, identity.serial
        await driver.stop()
    finally:
        link.close()


async def job(
    store: Pkcs11Store, serial: str, directory: str, name: str, certificate: bytes, report: Report = silent
) -> Result:
    with HostJournal(Path(directory)) as journal:
        request = Request(name, serial, certificate, replace=True)
        return await enroll(store, request, journal, lambda _: None, report=report)


def worker(
    say: Connection, environment: dict[str, str], where: tuple[str, str], directory: str, name: str, certificate: bytes
) -> None:
    """The body of the process: says each phase when it begins, and when it is done."""
    os.environ.update(environment)

    async def main() -> None:
        async with opened(*where) as (store, serial):
            # SoftHSM truncates and rewrites the token itself at each login: killed in there, it has no token any more.
            await store.authenticate()
            await job(store, serial, directory, name, certificate, lambda phase, *_: say.send(phase))
            say.send(DONE)

    asyncio.run(main())

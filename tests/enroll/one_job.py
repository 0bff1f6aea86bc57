"""One enrolment, or the recovery of one, as a process of its own: ``one_job.py PORT STATE_DIRECTORY recover|enroll [HEX JOB]``.

Prints the result as one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Request
from optima_bridge.link import open_byte_link
from optima_drivers.loopback import LoopbackDriver
from optima_drivers.loopback.driver import LoopbackSettings


async def main(port: str, directory: str, verb: str, certificate: str = "", job: str = "") -> None:
    link = await open_byte_link(port, LoopbackDriver.info.serial_format)
    driver = LoopbackDriver(link, LoopbackSettings())
    identity = await driver.start()
    with HostJournal(Path(directory)) as journal:
        if verb == "recover":
            result = await recover(driver.store, journal)
        else:
            request = Request(job, identity.serial, bytes.fromhex(certificate), replace=True)
            result = await enroll(driver.store, request, journal, lambda _: None)
    await driver.stop()
    link.close()
    print(json.dumps({"outcome": result.outcome, "active": result.active_sha256} if result else None))


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

"""A SoftHSM token of its own for one test, and what is done with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Request, Result
from optima_bridge.link import SerialFormat, open_link
from optima_drivers.pkcs11 import Pkcs11Driver
from optima_drivers.pkcs11.driver import Pkcs11Settings
from optima_drivers.pkcs11.store import Pkcs11Store
from tests.cryptoki_faults import faults
from tests.softhsm import SoftHsm, give_back, memory_folder

LABEL = "optima-ctl-1"


class Desk:
    """A token of its own, and what is done with it."""

    def __init__(self, path: Path) -> None:
        self.hsm = SoftHsm(path / "hsm")
        self.serial = self.hsm.make(LABEL)
        self.faults = faults()
        self.state = path / "state"
        self.state.mkdir()
        self.jobs = 0

    @asynccontextmanager
    async def driver(self, uri: str = "", **settings: Any) -> AsyncIterator[Pkcs11Driver]:
        """A driver on a fresh link; with the right PIN in its settings, unless they say otherwise."""
        settings.setdefault("pin", {"file": str(self.hsm.pin_file)})
        link = await open_link(uri or self.hsm.uri(LABEL), SerialFormat())
        try:
            driver = Pkcs11Driver(link, Pkcs11Settings.model_validate(settings))  # type: ignore[arg-type]
            await driver.start()
            yield driver
            await driver.stop()
        finally:
            link.close()

    async def enrol(self, store: Pkcs11Store, certificate: bytes) -> Result:
        self.jobs += 1
        request = Request(f"job-{self.jobs}", self.serial, certificate, replace=True)
        with HostJournal(self.state) as journal:
            return await enroll(store, request, journal, lambda _: None)

    async def recover(self, store: Pkcs11Store) -> Result | None:
        with HostJournal(self.state) as journal:
            return await recover(store, journal)


@contextmanager
def new_desk() -> Iterator[Desk]:
    """A token, and no fault left when it goes."""
    with memory_folder() as path:
        yield Desk(Path(path))
        faults()
        give_back()

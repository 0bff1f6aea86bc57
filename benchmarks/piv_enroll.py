"""A certificate into a PIV card over a real pcscd, one line: python benchmarks/piv_enroll.py (as root; Debian: pcscd, vsmartcard-vpcd).

Our own time is all that is not spent inside pcscd and the card: sessions, checks, the journal's disk, reading back, one use.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

sys.path.insert(0, str(Path(__file__).parents[1]))

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.pki import possession
from optima_bridge.enroll.words import Outcome, Request
from optima_bridge.link.pcsc import PcscLink
from optima_bridge.store import SecureStore
from optima_drivers.pcsc.piv import PivDriver, PivSettings
from optima_drivers.pcsc.store import PivStore
from tests.drivers.piv import key_file
from tests.enroll.pki_world import World, credential
from tests.pcscd.daemon import Pcscd, running, why_not

ENROLMENTS = 30
AWAITED = {"SCardConnect", "SCardBeginTransaction", "SCardTransmit"}  # giving the card back happens beside our work
GOAL_MS = 60.0


class Timed:
    """pyscard, with the time spent in the calls that we wait for."""

    def __init__(self, scard: Any) -> None:
        self._scard = scard
        self.spent_s = 0.0
        self.apdus = 0

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._scard, name)
        if name not in AWAITED:
            return value

        def call(*args: Any) -> Any:
            begin_s = time.perf_counter()
            try:
                return value(*args)
            finally:
                self.spent_s += time.perf_counter() - begin_s
                self.apdus += name == "SCardTransmit"

        return call


async def measure(pcscd: Pcscd, directory: Path) -> str:
    """Enrol a new certificate some times over."""
    pcscd.next_reader()
    program = pcscd.insert_process(directory / "card.json")  # else its work would count as ours
    try:
        return await enrolments(await PcscLink.open(f"pcsc:{pcscd.reader}"), directory)
    finally:
        program.kill()
        program.wait()


async def enrolments(link: PcscLink, directory: Path) -> str:
    """The same, with the card in the reader."""
    keys = {"management_key": {"file": str(key_file(directory))}, "management_algorithm": "3des"}
    store = PivDriver(link, PivSettings.model_validate(keys)).store
    assert isinstance(store, PivStore)
    while not (state := await link.wait()).atr:
        await link.wait(state)
    timed = link._reader.scard = Timed(link._reader.scard)
    serial = (await store.connect()).serial
    key = load_der_public_key(await store.make_key())
    assert isinstance(key, ec.EllipticCurvePublicKey)

    async def use(_: SecureStore) -> None:
        key.verify(await store.sign(b"challenge"), b"challenge", ec.ECDSA(SHA256()))

    world = World(directory / "ca", datetime.now(UTC))
    total_ms, own_ms, apdus = [], [], 0
    with HostJournal(directory) as journal:
        for number in range(ENROLMENTS):
            about = credential(number=number + 1)
            certificate = world.authority.issue(possession.unproven(key), about, world.now).public_bytes(Encoding.DER)
            request = Request(f"j{number}", serial, certificate, replace=True, accept_single_slot=True)
            timed.spent_s, timed.apdus, begin_s = 0.0, 0, time.perf_counter()
            result = await enroll(store, request, journal, lambda _: None, use=use)
            elapsed_s = time.perf_counter() - begin_s
            assert result.outcome is Outcome.VERIFIED, result
            total_ms.append(elapsed_s * 1000)
            own_ms.append((elapsed_s - timed.spent_s) * 1000)
            apdus = timed.apdus
    link.close()
    own = statistics.median(own_ms)
    return (
        f"piv enrolment, {len(certificate)} bytes: {statistics.median(total_ms):.1f} ms, of which our own {own:.1f} ms "
        f"(goal {GOAL_MS:.0f}, {'met' if own <= GOAL_MS else 'MISSED'}; best {min(own_ms):.1f}, worst {max(own_ms):.1f}); {apdus} commands"
    )


def main() -> None:
    if reason := why_not():
        sys.exit(f"cannot be measured here: {reason}")
    with running() as pcscd, tempfile.TemporaryDirectory() as directory:
        print(asyncio.run(measure(pcscd, Path(directory))))


if __name__ == "__main__":
    main()

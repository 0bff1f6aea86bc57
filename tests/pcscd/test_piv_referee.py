"""Programs and a card that others wrote agree with ours over a real pcscd: what one writes the other reads.

Programs: yubico-piv-tool, OpenSC's opensc-tool, piv-tool and pkcs11-tool, ykman. Card: jcecard.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_public_key,
)

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.pki import possession
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Outcome, Request, Result
from optima_bridge.errors import DeviceError, LinkLost, TokenAbsent
from optima_bridge.link import SerialFormat, open_link
from optima_bridge.link.memory_card import Card
from optima_bridge.link.pcsc import PcscLink
from optima_bridge.model import Event, Subject
from optima_drivers.pcsc import objects
from optima_drivers.pcsc.driver import PcscDriver, PcscSettings
from optima_drivers.pcsc.management import Algorithm
from optima_drivers.pcsc.piv import PivDriver, PivSettings
from optima_drivers.pcsc.store import MAIN, STAGE, PivStore
from optima_drivers.pcsc.virtual_card import MANAGEMENT_KEY, VirtualPivCard
from tests.drivers.piv import key_file, silent
from tests.enroll.pki_world import World, credential
from tests.pcscd.daemon import Pcscd
from tests.pcscd.jcecard_bridge import JceCard

pytestmark = pytest.mark.referee
LIMIT_S = 60.0
OPENSC_MODULE = Path("/usr/lib/x86_64-linux-gnu/opensc-pkcs11.so")
CARD_AUTHENTICATION_ID = "04"  # how OpenSC counts the slots


YKMAN = Path(sys.executable).parent / "ykman"


def needs(program: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


@asynccontextmanager
async def piv(pcscd: Pcscd, card: Card, directory: Path, **keys: object) -> AsyncIterator[PivStore]:
    """Our driver, with that card in the reader."""
    pcscd.insert(card)
    link = await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
    assert isinstance(link, PcscLink)
    usual = {"management_key": {"file": str(key_file(directory))}, "management_algorithm": "3des"}
    driver = PivDriver(link, PivSettings.model_validate({**usual, **keys}))
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (state := await link.wait()).atr:
                await link.wait(state)
            await driver.start()
            assert isinstance(driver.store, PivStore)
            yield driver.store
    finally:
        await driver.stop()
        link.close()


async def run(pcscd: Pcscd, *command: str, **environment: str) -> bytes:
    """What a program prints."""
    process = await asyncio.create_subprocess_exec(
        *command, env={**pcscd.environment, **environment}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        printed, errors = await asyncio.wait_for(process.communicate(), LIMIT_S)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0 or command[0] == "piv-tool", errors  # piv-tool ends with the number of bytes
    return printed


async def put(store: PivStore, certificate: bytes) -> None:
    await store.stage(STAGE, certificate, silent)
    assert await store.verify(STAGE)
    await store.activate(STAGE)
    await store.confirm()


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


@pytest.fixture
def issued(tmp_path: Path) -> tuple[World, bytes]:
    """A store's CA, and a certificate of it."""
    world = World(tmp_path / "ca", datetime.now(UTC))
    return world, world.issue().public_bytes(Encoding.DER)


def as_file(directory: Path, certificate: bytes) -> str:
    path = directory / "new.pem"
    path.write_bytes(x509.load_der_x509_certificate(certificate).public_bytes(Encoding.PEM))
    return str(path)


# -- the virtual card, and what our driver writes to it


@needs("opensc-tool")
async def test_opensc_takes_the_virtual_card_for_a_piv_card(pcscd: Pcscd, tmp_path: Path) -> None:
    async with piv(pcscd, VirtualPivCard(), tmp_path):
        number = pcscd.reader[-1]
        assert b"Personal Identity Verification Card" in await run(pcscd, "opensc-tool", "-r", number, "-n")


@needs("yubico-piv-tool")
async def test_yubico_piv_tool_reads_what_we_wrote(pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path) -> None:
    async with piv(pcscd, VirtualPivCard(), tmp_path) as store:
        await put(store, issued[1])
        read = await run(pcscd, "yubico-piv-tool", "-r", pcscd.reader, "-s", "9e", "-a", "read-certificate")
        assert der(read) == issued[1]


@needs(str(YKMAN))
async def test_ykman_reads_what_we_wrote_and_we_read_what_it_writes(
    pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path
) -> None:
    world, certificate = issued
    async with piv(pcscd, VirtualPivCard(serial=4711), tmp_path) as store:
        await put(store, certificate)
        ykman = [str(YKMAN), "--reader", pcscd.reader, "piv", "certificates"]
        assert der(await run(pcscd, *ykman, "export", "9e", "-")) == certificate
        other = world.issue(number=8).public_bytes(Encoding.DER)
        key = MANAGEMENT_KEY.hex()
        await run(pcscd, *ykman, "import", "--compress", "-m", key, "-P", "123456", "9e", as_file(tmp_path, other))
        assert await store.read(MAIN) == other
        await put(store, certificate)
        assert [state.valid for state in await store.inspect()] == [False, True, True]


@needs("yubico-piv-tool")
async def test_we_read_what_yubico_piv_tool_writes_and_find_the_key_that_it_made(
    pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path
) -> None:
    async with piv(pcscd, VirtualPivCard(guid=b""), tmp_path) as store:
        with pytest.raises(DeviceError, match="neither a serial number nor a CHUID"):
            await store.connect()
        public = tmp_path / "public.pem"
        tool = ["yubico-piv-tool", "-r", pcscd.reader, "-s", "9e"]
        await run(pcscd, *tool, "-a", "set-chuid", "-a", "generate", "-A", "ECCP256", "-o", str(public))
        await run(pcscd, *tool, "-a", "import-certificate", "-i", as_file(tmp_path, issued[1]))
        assert len((await store.connect()).serial) == 32
        assert await store.read(MAIN) == issued[1]
        key = load_pem_public_key(public.read_bytes())
        assert await store.public_key() == key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@needs("piv-tool")
@pytest.mark.parametrize(("algorithm", "number"), [(Algorithm.TDES, "03"), (Algorithm.AES_256, "0C")])
async def test_we_read_what_openscs_piv_tool_writes(
    algorithm: Algorithm, number: str, pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path
) -> None:
    key = bytes(range(1, 1 + algorithm.key_bytes))
    card = VirtualPivCard(algorithm=algorithm, management_key=key)
    async with piv(pcscd, card, tmp_path, management_algorithm=algorithm.value) as store:
        shown = tmp_path / "shown.key"
        shown.write_text(key.hex(":") + "\n")
        tool = ["piv-tool", "-r", pcscd.reader[-1], "-A", f"M:9B:{number}", "-C", "9E"]
        await run(pcscd, *tool, "-i", as_file(tmp_path, issued[1]), PIV_EXT_AUTH_KEY=str(shown))
        assert await store.read(MAIN) == issued[1]


@needs("pkcs11-tool")
@pytest.mark.skipif(not OPENSC_MODULE.exists(), reason="opensc-pkcs11 is not installed")
async def test_opensc_reads_our_certificate_and_signs_with_the_key_that_we_made(
    pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path
) -> None:
    world, _ = issued
    async with piv(pcscd, VirtualPivCard(), tmp_path) as store:
        key = load_der_public_key(await store.make_key())
        assert isinstance(key, ec.EllipticCurvePublicKey)
        certificate = world.authority.issue(possession.unproven(key), credential(), world.now)
        await put(store, certificate.public_bytes(Encoding.DER))
        tool = ["pkcs11-tool", "--module", str(OPENSC_MODULE)]
        read = tmp_path / "read.der"
        at = ["--id", CARD_AUTHENTICATION_ID]
        await run(pcscd, *tool, *at, "--read-object", "--type", "cert", "-o", str(read))
        assert read.read_bytes() == certificate.public_bytes(Encoding.DER)
        digest, signature = tmp_path / "digest", tmp_path / "signature"
        digest.write_bytes(bytes(range(32)))
        sign = ["--sign", "--mechanism", "ECDSA", "-i", str(digest), "-o", str(signature)]
        await run(pcscd, *tool, *at, *sign, "--login", "--pin", "env:PIN", PIN="123456")
        raw = signature.read_bytes()
        both = encode_dss_signature(int.from_bytes(raw[:32]), int.from_bytes(raw[32:]))
        key.verify(both, digest.read_bytes(), ec.ECDSA(Prehashed(SHA256())))


# -- a card that others wrote


@pytest.mark.skipif(importlib.util.find_spec("jcecard") is None, reason="jcecard is not installed")
@pytest.mark.filterwarnings("ignore:TripleDES has been moved")
async def test_our_driver_enrols_on_jcecard(pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path) -> None:
    world, first = issued
    (tmp_path / "jce").mkdir()
    async with piv(pcscd, JceCard(tmp_path / "jce"), tmp_path) as store:
        made = await store.make_key()
        assert await store.public_key() == made
        key = load_der_public_key(made)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(await store.sign(b"challenge"), b"challenge", ec.ECDSA(SHA256()))
        serial = (await store.connect()).serial
        for number, certificate in enumerate((first, world.issue(number=8).public_bytes(Encoding.DER))):
            result = await job(store, tmp_path, f"j{number}", serial, certificate)
            assert (result.outcome, result.changed) == (Outcome.VERIFIED, True)
        assert [state.valid for state in await store.inspect()] == [False, True, True]
        assert await store.read(MAIN) == certificate


async def job(store: PivStore, directory: Path, name: str, serial: str, certificate: bytes) -> Result:
    wanted = Request(name, serial, certificate, replace=True, accept_single_slot=True)
    with HostJournal(directory) as journal:
        return await enroll(store, wanted, journal, lambda _: None)


# -- the drivers over pcscd


async def test_events_and_the_store_are_used_side_by_side(
    pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path
) -> None:
    link = await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
    assert isinstance(link, PcscLink)
    keys = {"management_key": {"file": str(key_file(tmp_path))}, "management_algorithm": "3des"}
    driver = PivDriver(link, PivSettings.model_validate(keys))
    assert (await driver.start()).model == pcscd.reader
    said: asyncio.Queue[Event] = asyncio.Queue()

    async def listen() -> None:
        async for one in driver.events():
            if isinstance(one, Event) and one.subject is Subject.CARD:
                said.put_nowait(one)

    listening = asyncio.create_task(listen())
    async with asyncio.timeout(LIMIT_S):
        inserted = pcscd.insert(VirtualPivCard())
        came = await said.get()
        assert (came.action, came.identifier) == ("inserted", bytes(range(1, 17)).hex().upper())
        assert came.identifier is not None
        with HostJournal(tmp_path) as journal:
            assert await recover(driver.store, journal) is None  # what the daemon does now
        assert (await job(_piv(driver), tmp_path, "j1", came.identifier, issued[1])).outcome is Outcome.VERIFIED
        inserted.remove()
        went = await said.get()
        assert (went.action, went.identifier) == ("removed", came.identifier)
        with pytest.raises(TokenAbsent):
            await driver.store.connect()
        pcscd.stop()
        with pytest.raises(LinkLost):
            await listening
    link.close()


def _piv(driver: PivDriver) -> PivStore:
    assert isinstance(driver.store, PivStore)
    return driver.store


async def test_a_uid_comes_over_the_real_daemon(pcscd: Pcscd) -> None:
    pcscd.insert(VirtualPivCard(uid=b"\x04\xa2\x3b\x91"))
    link = await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
    assert isinstance(link, PcscLink)
    driver = PcscDriver(link, PcscSettings())
    async with asyncio.timeout(LIMIT_S):
        await driver.start()
        async for one in driver.events():
            if isinstance(one, Event) and one.action == "inserted":
                assert one.identifier == "04A23B91"
                break
    link.close()


def main_in(memory: Path) -> bytes:
    return bytes.fromhex(json.loads(memory.read_bytes())["objects"][f"{objects.MAIN:06X}"])


async def test_killing_the_card_while_it_is_written_leaves_the_old_or_the_new_certificate(
    pcscd: Pcscd, issued: tuple[World, bytes], tmp_path: Path
) -> None:
    world, old = issued
    new = world.issue(number=8).public_bytes(Encoding.DER)
    memory = tmp_path / "card.json"
    async with piv(pcscd, VirtualPivCard(memory), tmp_path) as store:
        serial = (await store.connect()).serial
        assert (await job(store, tmp_path, "old", serial, old)).outcome is Outcome.VERIFIED
    pcscd.take_out()
    pcscd.next_reader()
    program = pcscd.insert_process(memory, "--writes", "in-place")
    link = await open_link(f"pcsc:{pcscd.reader}", SerialFormat())
    assert isinstance(link, PcscLink)
    keys = {"management_key": {"file": str(key_file(tmp_path))}, "management_algorithm": "3des"}
    store = _piv(PivDriver(link, PivSettings.model_validate(keys)))
    try:
        async with asyncio.timeout(LIMIT_S):
            while not (state := await link.wait()).atr:
                await link.wait(state)
            enrolling = asyncio.create_task(job(store, tmp_path, "new", serial, new))
            while main_in(memory) == objects.container(old):  # noqa: ASYNC110 - the card is another process
                await asyncio.sleep(0)
            program.send_signal(signal.SIGKILL)
            result = await enrolling
    finally:
        program.kill()
        program.wait()
        link.close()
    assert result.outcome is Outcome.NEEDS_ATTENTION
    assert main_in(memory) not in (objects.container(old), objects.container(new))
    pcscd.next_reader()
    async with piv(pcscd, VirtualPivCard(memory), tmp_path) as store:
        with HostJournal(tmp_path) as journal:
            settled = await recover(store, journal)
        assert settled is not None
        assert settled.outcome is Outcome.VERIFIED
        assert await store.read(MAIN) == new

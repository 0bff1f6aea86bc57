"""Programs that others wrote see on the token what we wrote, and find theirs as they left it: OpenSC and GnuTLS."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_der_public_key
from cryptography.x509 import load_pem_x509_certificate

from optima_bridge.enroll.pki import possession
from optima_bridge.enroll.words import Outcome
from optima_bridge.errors import NotAuthorised
from tests.drivers.pkcs11_desk import LABEL, Desk, new_desk
from tests.enroll.pki_world import NOW, World, credential, der
from tests.softhsm import MODULE, PIN, needs_p11tool, needs_pkcs11_tool, needs_softhsm

pytestmark = [needs_softhsm, pytest.mark.referee]

NOT_UTF8 = "Gesch\udce4ft"  # one byte e4 on the command line


@pytest.fixture
def desk() -> Iterator[Desk]:
    with new_desk() as desk:
        yield desk


async def credentials(desk: Desk, folder: Path) -> list[bytes]:
    """Two real certificates for the key of the token; the second one is active."""
    world = World(folder / "ca")
    async with desk.driver() as driver:
        key = possession.unproven(load_der_public_key(await driver.store.make_key()))
        issued = [der(world.authority.issue(key, credential(number=number), NOW)) for number in (1, 2)]
        for certificate in issued:
            assert (await desk.enrol(driver.store, certificate)).outcome is Outcome.VERIFIED
    return issued


@needs_pkcs11_tool
async def test_pkcs11_tool_lists_and_reads_what_we_wrote(desk: Desk, tmp_path: Path) -> None:
    old, new = await credentials(desk, tmp_path)
    listed = desk.hsm.tool(LABEL, "--list-objects")
    assert {*re.findall(r"optima:[a-z]+(?::\d+)?", listed)} == {
        "optima:key", "optima:supervisor:2", "optima:supervisor:3", "optima:confirmed:2", "optima:confirmed:3",
    }  # fmt: skip
    identifiers = {*re.findall(r"ID: +([0-9a-f]{40})", listed)}
    assert len(identifiers) == 1, "key and certificates have the same one"
    for label, certificate in (("optima:supervisor:2", old), ("optima:supervisor:3", new)):
        file = tmp_path / "read.der"
        desk.hsm.tool(LABEL, "--read-object", "--type", "cert", "--label", label, "--output-file", str(file))
        assert file.read_bytes() == certificate
    private = desk.hsm.tool(LABEL, "--list-objects", "--type", "privkey", pin=True)
    assert "sensitive, always sensitive, never extractable" in private


@needs_p11tool
async def test_p11tool_exports_what_we_wrote(desk: Desk, tmp_path: Path) -> None:
    _, new = await credentials(desk, tmp_path)
    url = f"pkcs11:token={LABEL};object=optima%3Asupervisor%3A3;type=cert"
    exported = desk.hsm.ask("p11tool", "--provider", MODULE, "--export", url)
    assert der(load_pem_x509_certificate(exported.encode())) == new


@needs_pkcs11_tool
async def test_what_others_wrote_is_left_alone(desk: Desk, tmp_path: Path) -> None:
    world = World(tmp_path / "theirs")
    theirs = {"vpn": world.issue(number=11), "optima:supervisor:next": world.issue(number=12)}
    for number, (label, certificate) in enumerate(theirs.items()):
        file = tmp_path / "theirs.der"
        file.write_bytes(der(certificate))
        words = ("--write-object", str(file), "--type", "cert", "--label", label, "--id", f"0{number}")
        desk.hsm.tool(LABEL, *words, pin=True)
    (tmp_path / "data").write_bytes(b"their data")
    desk.hsm.tool(LABEL, "--write-object", str(tmp_path / "data"), "--type", "data", "--label", "optima", pin=True)
    desk.hsm.tool(LABEL, "--write-object", str(tmp_path / "data"), "--type", "data", "--label", NOT_UTF8, pin=True)
    desk.hsm.tool(LABEL, "--keypairgen", "--key-type", "EC:prime256v1", "--label", "theirs", "--id", "77", pin=True)

    await credentials(desk, tmp_path)
    async with desk.driver() as driver:
        await desk.recover(driver.store)
        for state in await driver.store.inspect():
            if not state.active:
                await driver.store.erase(state.slot)

    for label, certificate in theirs.items():
        file = tmp_path / "again.der"
        desk.hsm.tool(LABEL, "--read-object", "--type", "cert", "--label", label, "--output-file", str(file))
        assert file.read_bytes() == der(certificate)
    assert "label:          'optima'" in desk.hsm.tool(LABEL, "--list-objects", "--type", "data")
    assert re.search(r"label: +theirs", desk.hsm.tool(LABEL, "--list-objects", "--type", "privkey", pin=True))


@needs_pkcs11_tool
async def test_a_key_of_which_only_half_was_made_is_made_anew(desk: Desk) -> None:
    async with desk.driver() as driver:
        first = await driver.store.make_key()
        desk.hsm.tool(LABEL, "--delete-object", "--type", "privkey", "--label", "optima:key", pin=True)
        assert await driver.store.public_key() == first
        second = await driver.store.make_key()
        assert second != first
        assert await driver.store.public_key() == second
    assert len(re.findall("optima:key", desk.hsm.tool(LABEL, "--list-objects", "--type", "pubkey"))) == 1


@needs_pkcs11_tool
async def test_a_wrong_pin_that_another_program_gave_keeps_ours_back(desk: Desk) -> None:
    with pytest.raises(AssertionError, match="CKR_PIN_INCORRECT"):
        desk.hsm.ask(*("pkcs11-tool", "--module", MODULE, "--token-label", LABEL, "--login", "--pin", "1" + PIN, "-O"))
    async with desk.driver() as driver:
        with pytest.raises(NotAuthorised, match="the configured one is not tried"):
            await driver.store.authenticate()

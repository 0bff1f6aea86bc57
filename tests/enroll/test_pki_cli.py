"""``bridge ca``, and what the documents say about certificates."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.cli import app
from optima_bridge.enroll.pki import possession, profile
from optima_bridge.enroll.pki.csr import make_request, read_request
from tests.enroll.pki_world import NOW, World, credential, der, p256

PROFILE_PAGE = Path(__file__).parents[2] / "docs/reference/credential-profile.md"
INIT = ("--organization", "Example Retail", "--store", "s1042")
SIGNATURE_BYTES = 6  # by as much do sizes vary: two signatures, a serial number


def test_a_ca_is_made_and_shown_and_its_key_never_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--directory", str(tmp_path / "ca"))
    said = []
    for words in (["init", *INIT, "--years", "5"], ["show"], ["show", "--json"], ["show", "--pem"]):
        assert app.main(["ca", *words, *place]) == 0
        said.append(capsys.readouterr())
    made, shown, document, pem = (it.out for it in said)
    assert made == shown
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert certificate.fingerprint(SHA256()).hex() in made
    assert (certificate.not_valid_after_utc - certificate.not_valid_before_utc).days == 1826
    facts = json.loads(document)
    assert (facts["schema"], facts["pem"], facts["crl"]["number"]) == ("optima.ca/1", pem, 1)
    assert "back it up" in said[0].err
    secret = (tmp_path / "ca/key.pem").read_text().splitlines()[1:-1]
    assert not any(line in str(said) for line in secret)


def test_refusals_have_their_exit_status(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = ("--directory", str(tmp_path / "ca"))
    assert app.main(["ca", "show", *place]) == 3
    assert app.main(["ca", "init", *place, *INIT, "--years", "0"]) == 2
    assert app.main(["ca", "init", *place, "--store", "s1042"]) == 2
    assert app.main(["ca", "init", *place, "--organization", "", "--store", "s1042"]) == 2
    assert app.main(["--quiet", "ca", "init", *place, *INIT]) == 0
    assert app.main(["ca", "init", *place, *INIT]) == 5
    (tmp_path / "ca/key.pem").chmod(0o644)
    assert app.main(["ca", "show", *place]) == 5
    codes = re.findall(r"^error (E-[A-Z-]+)", capsys.readouterr().err, re.MULTILINE)
    assert codes == ["E-CA-MISSING", "E-USAGE", "E-USAGE", "E-USAGE", "E-CA-EXISTS", "E-CA"]


def test_the_sizes_in_the_reference_are_measured(tmp_path: Path) -> None:
    world = World(tmp_path / "ca")

    def certificate(public_key: object, **changes: object) -> bytes:
        return der(world.authority.issue(possession.unproven(public_key), credential(**changes), NOW))

    key, old = p256(), rsa.generate_private_key(65537, 2048)
    sizes = {
        "certificate, full profile": certificate(key.public_key()),
        "certificate, bound to no controller, for a card that does not sign": certificate(
            key.public_key(), device_serial="", signs=False
        ),
        "certificate, full profile, RSA-2048 key": certificate(old.public_key()),
        "certificate of the CA": der(world.ca),
        "request, full profile": read_request(make_request(credential(), key)).public_bytes(Encoding.DER),
        "revocation list, nothing revoked": world.authority.current_crl().public_bytes(Encoding.DER),
    }
    for _ in range(3):
        world.authority.revoke(world.issue().serial_number, NOW)
    sizes["revocation list, three revoked"] = world.authority.current_crl().public_bytes(Encoding.DER)
    section = PROFILE_PAGE.read_text(encoding="utf-8").partition("## Sizes")[2]
    stated = {what: int(number) for what, number in re.findall(r"^\| (.+?) \| (\d+) \|$", section, re.MULTILINE)}
    assert stated == {what: pytest.approx(len(content), abs=SIGNATURE_BYTES) for what, content in sizes.items()}


def test_the_reference_names_our_object_identifiers() -> None:
    named = re.findall(r"`(2\.25\.[\d.]+)`", PROFILE_PAGE.read_text(encoding="utf-8"))
    ours = (profile.SUPERVISOR, profile.KEY_PROVEN, profile.IDENTIFIER_ONLY)
    assert named == [oid.dotted_string for oid in ours]

"""Requests to a CA elsewhere, and what counts as proof that a key is held."""

from __future__ import annotations

import base64

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.enroll.pki import possession, profile
from optima_bridge.enroll.pki.csr import check_answer, make_request, read_request
from optima_bridge.errors import CertificateUnreadable, KeyMismatch, RequestMismatch, WeakKey
from tests.enroll.pki_world import MAX_SIZE_BYTES, World, credential, der, p256, weak_keys, without


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("store") / "ca")


def test_a_request_asks_for_the_profile_and_proves_its_key(world: World) -> None:
    about = credential()
    request = read_request(make_request(about, world.device_key))
    asked = [(it.value, it.critical) for it in request.extensions]
    assert asked == profile.requested_extensions(about)
    assert request.subject == profile.subject(about)
    assert possession.proven_by_request(request).proven
    assert read_request(request.public_bytes(Encoding.DER)) == request


def test_a_request_signed_with_another_key_proves_nothing(world: World) -> None:
    pem = make_request(credential(), world.device_key)
    content = bytearray(base64.b64decode(b"".join(pem.splitlines()[1:-1])))
    content[-1] ^= 1
    with pytest.raises(KeyMismatch):
        possession.proven_by_request(read_request(bytes(content)))


@pytest.mark.parametrize(("kind", "key"), weak_keys().items(), ids=lambda it: it if isinstance(it, str) else "")
def test_a_key_of_an_unaccepted_kind_is_never_certified(kind: str, key: object) -> None:
    with pytest.raises(WeakKey, match=kind):
        possession.unproven(key)
    with pytest.raises(WeakKey, match=kind):
        possession.proven_by_signature(key, b"", b"")


@pytest.mark.parametrize(
    "data", [b"", b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_what_is_no_request_is_refused(data: bytes, world: World) -> None:
    for content in (data, world.authority.certificate_pem().encode()):
        with pytest.raises(CertificateUnreadable):
            read_request(content)


def test_the_answer_must_be_what_was_asked_for(world: World) -> None:
    request = read_request(make_request(about := credential(), world.device_key))
    key = possession.proven_by_request(request)
    answer = der(world.authority.issue(key, about, world.now))
    check_answer(request, answer)
    assert world.check(answer)

    for other, differs in (
        (world.authority.issue(key, credential(), world.now), ["subjectAltName"]),  # another UUID
        (world.authority.issue(possession.unproven(p256().public_key()), about, world.now), ["key"]),
        (world.ca, ["key", "subjectAltName"]),
    ):
        with pytest.raises(RequestMismatch) as caught:
            check_answer(request, der(other))
        assert caught.value.data == {"differs": differs}
    with pytest.raises(RequestMismatch):
        check_answer(request, world.sign(without(x509.SubjectAlternativeName)))
    with pytest.raises(CertificateUnreadable):
        check_answer(request, answer[:-1])


def test_a_device_proves_its_key_by_signing_a_challenge_that_is_good_for_nothing_else() -> None:
    asked = possession.challenge()
    assert asked != possession.challenge()
    assert (len(asked), asked.startswith(b"optima-bridge key possession")) == (64, True)

    key = p256()
    signature = key.sign(asked, ec.ECDSA(SHA256()))
    assert possession.proven_by_signature(key.public_key(), asked, signature).proven
    old_card = rsa.generate_private_key(65537, 2048)
    assert possession.proven_by_signature(
        old_card.public_key(), asked, old_card.sign(asked, PKCS1v15(), SHA256())
    ).proven

    for public_key, said, answer in (
        (p256().public_key(), asked, signature),
        (key.public_key(), possession.challenge(), signature),
        (key.public_key(), asked, b""),
    ):
        with pytest.raises(KeyMismatch):
            possession.proven_by_signature(public_key, said, answer)


def test_the_profile_fits_a_tpm_index(world: World) -> None:
    assert len(der(world.issue())) < MAX_SIZE_BYTES

"""What people hand us as a certificate, and by which name it is refused."""

from __future__ import annotations

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    pkcs7,
    pkcs12,
)
from hypothesis import given
from hypothesis import strategies as st

from optima_bridge.enroll.pki.csr import make_request
from optima_bridge.enroll.pki.files import MAX_SIZE_BYTES, read_certificate, read_crl
from optima_bridge.errors import (
    CertificateError,
    CertificateUnreadable,
    PrivateKeyInFile,
    RevocationUnknown,
    SeveralCertificates,
)
from tests.enroll.pki_world import World, credential, der, p256, pem


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("store") / "ca")


@pytest.fixture(scope="module")
def certificate(world: World) -> x509.Certificate:
    return world.issue()


def test_pem_and_der_give_the_same_bytes(certificate: x509.Certificate) -> None:
    text = b"\xef\xbb\xbfsubject=CN = supervisor key 7\r\n" + pem(certificate).replace(b"\n", b"\r\n")
    for data in (der(certificate), pem(certificate), text):
        assert read_certificate(data) == der(certificate)


def test_of_a_chain_the_credential_is_taken(world: World, certificate: x509.Certificate) -> None:
    assert read_certificate(pem(certificate) + pem(world.ca)) == der(certificate)


def test_several_certificates_that_are_no_chain_are_refused(world: World, certificate: x509.Certificate) -> None:
    for second in (world.issue(number=8), certificate):
        with pytest.raises(SeveralCertificates):
            read_certificate(pem(certificate) + pem(second))
    with pytest.raises(SeveralCertificates):  # the chain stands on its head
        read_certificate(pem(world.ca) + pem(certificate))


def private_keys() -> dict[str, bytes]:
    key, card = p256(), rsa.generate_private_key(65537, 2048)
    lock = BestAvailableEncryption(b"1234")
    return {
        "PKCS#8 PEM": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        "PKCS#8 PEM encrypted": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, lock),
        "SEC 1 PEM": key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        "PKCS#1 PEM": card.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        "OpenSSH": key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()),
        "PKCS#8 DER": key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()),
        "PKCS#8 DER encrypted": key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, lock),
        "SEC 1 DER": key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        "PKCS#1 DER": card.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()),
        "PKCS#12": pkcs12.serialize_key_and_certificates(b"7", key, None, None, lock),
    }


@pytest.mark.parametrize(("kind", "key"), private_keys().items(), ids=lambda it: it if isinstance(it, str) else "")
def test_a_private_key_in_the_file_is_named_and_never_repeated(
    kind: str, key: bytes, certificate: x509.Certificate
) -> None:
    files = [key] if b"-----BEGIN" not in key else [key, key + pem(certificate), pem(certificate) + key]
    for data in files:
        with pytest.raises(PrivateKeyInFile) as caught:
            read_certificate(data)
        assert not any(word in repr(caught.value.document()).encode() for word in key.split() if len(word) > 20)


def others(world: World) -> dict[str, tuple[bytes, str]]:
    public = world.device_key.public_key()
    return {
        "request": (make_request(credential(), world.device_key), "a request, not the certificate"),
        "list": (world.authority.current_crl().public_bytes(Encoding.PEM), "a revocation list"),
        "bundle": (pkcs7.serialize_certificates([world.ca], Encoding.PEM), "a PKCS#7 bundle"),
        "key": (public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), "a public key alone"),
        "parameters": (b"-----BEGIN EC PARAMETERS-----\nBggq\n-----END EC PARAMETERS-----\n", "'EC PARAMETERS'"),
    }


def test_another_kind_of_file_is_called_by_its_name(world: World) -> None:
    for data, name in others(world).values():
        with pytest.raises(CertificateUnreadable, match=name):
            read_certificate(data)


def test_garbage_is_refused(certificate: x509.Certificate) -> None:
    text = pem(certificate)
    lines = text.splitlines(keepends=True)
    for garbage in (
        b"",
        b"\n",
        b"<html>404</html>",
        text[: len(text) // 2],
        text.replace(b"\n", b"").replace(b"-----BEGIN CERTIFICATE-----", b""),
        b"".join([*lines[:4], *lines[5:]]),
        text.decode().encode("utf-16"),
        der(certificate) + b"\n",
        bytes(MAX_SIZE_BYTES + 1),
    ):
        with pytest.raises(CertificateUnreadable):
            read_certificate(garbage)


@given(st.binary(max_size=400))
def test_nothing_but_our_errors_comes_out_of_noise(data: bytes) -> None:
    for framed in (data, b"-----BEGIN CERTIFICATE-----\n" + data + b"\n-----END CERTIFICATE-----\n"):
        with pytest.raises(CertificateError):
            read_certificate(framed)
        with pytest.raises(RevocationUnknown):
            read_crl(framed)


def test_a_list_is_read_as_pem_and_der(world: World) -> None:
    crl = world.authority.current_crl()
    for encoding in (Encoding.PEM, Encoding.DER):
        assert read_crl(crl.public_bytes(encoding)) == crl
    with pytest.raises(RevocationUnknown):
        read_crl(pem(world.ca))


def test_a_p256_key_is_what_we_think_it_is() -> None:
    assert isinstance(p256().curve, ec.SECP256R1)

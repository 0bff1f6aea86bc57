"""A CA elsewhere, by files: a request goes out, a certificate comes in and must be what was asked for (PKCS#10, RFC 2986)."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from optima_bridge.enroll.pki.files import LABEL, PARSE_ERRORS
from optima_bridge.enroll.pki.profile import Credential, requested_extensions, subject
from optima_bridge.errors import CertificateUnreadable, RequestMismatch


def make_request(credential: Credential, key: CertificateIssuerPrivateKeyTypes) -> bytes:
    """A request in PEM, signed with the device's key (or with an object that has the device sign)."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject(credential))
    for extension, critical in requested_extensions(credential):
        builder = builder.add_extension(extension, critical)
    return builder.sign(key, SHA256()).public_bytes(Encoding.PEM)


def read_request(data: bytes) -> x509.CertificateSigningRequest:
    """The request in a file, PEM or DER.

    Raises:
        CertificateUnreadable: there is none, or it is damaged.
    """
    load = x509.load_pem_x509_csr if LABEL.search(data) else x509.load_der_x509_csr
    try:
        request = load(data)
        _ = request.public_key(), request.subject, request.extensions  # the parser looks at these only when asked
    except PARSE_ERRORS as error:
        raise CertificateUnreadable("the file holds no readable certificate request") from error
    return request


def check_answer(request: x509.CertificateSigningRequest, der: bytes) -> None:
    """Whether a certificate answers `request`: same key, same subjectAltName; the subject is the CA's to write. `check.check` says whether it is good.

    Raises:
        CertificateUnreadable: it is no certificate.
        RequestMismatch: it differs; ``data['differs']`` says in what.
    """
    try:
        certificate = x509.load_der_x509_certificate(der)
        same = {
            "key": _key_bytes(certificate) == _key_bytes(request),
            "subjectAltName": _names(certificate) == _names(request),
        }
    except PARSE_ERRORS as error:
        raise CertificateUnreadable("the answer of the CA is no readable certificate") from error
    if differs := [part for part, is_same in same.items() if not is_same]:
        raise RequestMismatch(f"the certificate differs from the request in: {', '.join(differs)}", differs=differs)


def _key_bytes(holder: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    return holder.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _names(holder: x509.Certificate | x509.CertificateSigningRequest) -> set[x509.GeneralName]:
    try:
        return set(holder.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return set()

"""Reading certificates and revocation lists that people hand us, PEM or DER.

A PEM file may hold text around its blocks (RFC 7468 §5.2). It may hold a chain that begins with the credential's own
certificate, as CAs deliver it (RFC 8446 §4.4.2); the rest of the chain is not used, for trust comes from our own copy of
the CA. What is refused is named by its kind, and its content is never repeated.
"""

from __future__ import annotations

import re
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import Encoding

from optima_bridge.errors import CertificateUnreadable, PrivateKeyInFile, RevocationUnknown, SeveralCertificates

MAX_SIZE_BYTES = 1 << 20
LABEL = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----")
CERTIFICATE_LABELS = {b"CERTIFICATE", b"X509 CERTIFICATE"}
KINDS = {
    b"CERTIFICATE REQUEST": "a request, not the certificate that answers it",
    b"NEW CERTIFICATE REQUEST": "a request, not the certificate that answers it",
    b"PKCS7": "a PKCS#7 bundle; take the certificate out of it: openssl pkcs7 -print_certs -in FILE",
    b"CMS": "a CMS bundle; take the certificate out of it: openssl pkcs7 -print_certs -in FILE",
    b"X509 CRL": "a revocation list",
    b"PUBLIC KEY": "a public key alone",
}
PFX = re.compile(rb"\x30(?:\x80|[\x00-\x7f]|\x81.|\x82..|\x83...)\x02\x01\x03", re.DOTALL)  # RFC 7292 §4: version 3

# What the parser raises on bytes that are no certificate, some of it not before a field is looked at.
PARSE_ERRORS = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)


def read_certificate(data: bytes) -> bytes:
    """The DER of the one certificate in a file, or of the first in a chain.

    Raises:
        PrivateKeyInFile: a private key lies beside or instead of it.
        SeveralCertificates: they are no chain.
        CertificateUnreadable: none, or what is there is damaged.
    """
    if len(data) > MAX_SIZE_BYTES:
        raise CertificateUnreadable(f"the file is larger than {MAX_SIZE_BYTES} bytes")
    labels = LABEL.findall(data)
    if any(b"PRIVATE KEY" in label for label in labels) or (not labels and _is_private_key(data)):
        raise PrivateKeyInFile("the file holds a private key; the certificate must come without it")
    if labels and CERTIFICATE_LABELS.isdisjoint(labels):
        kind = KINDS.get(labels[0], f"a PEM block {labels[0].decode('ascii')!r}")
        raise CertificateUnreadable(f"the file holds no certificate but {kind}")
    try:
        chain = x509.load_pem_x509_certificates(data) if labels else [x509.load_der_x509_certificate(data)]
    except PARSE_ERRORS as error:
        raise CertificateUnreadable("the file holds no readable certificate") from error
    for certificate, issuer in pairwise(chain):
        try:
            certificate.verify_directly_issued_by(issuer)
        except (InvalidSignature, *PARSE_ERRORS) as error:
            raise SeveralCertificates("the file holds several certificates, and they are no chain") from error
    return chain[0].public_bytes(Encoding.DER)


def read_crl(data: bytes) -> x509.CertificateRevocationList:
    """The revocation list in a file.

    Raises:
        RevocationUnknown: there is none, or it is damaged.
    """
    load = x509.load_pem_x509_crl if LABEL.search(data) else x509.load_der_x509_crl
    try:
        return load(data)
    except PARSE_ERRORS as error:
        raise RevocationUnknown(
            "the file holds no readable revocation list", cause="another kind of file, or a damaged one"
        ) from error


def _is_private_key(der: bytes) -> bool:
    """Whether this is a key in DER (PKCS#8, PKCS#1, SEC 1), or a PKCS#12 file, which carries one."""
    if PFX.match(der):
        return True
    try:
        serialization.load_der_private_key(der, None)
    except TypeError:  # an encrypted one
        return True
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True

"""Our side of TLS: which authorities we trust, which certificate we show, how long it is valid."""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import msgspec

from optima_bridge.errors import BrokerUnavailable

PEM_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
SEQUENCE = 0x30
VERSION = 0xA0  # [0] EXPLICIT, absent in version 1
UTC_TIME = 0x17


class TlsFiles(msgspec.Struct, frozen=True):
    """Paths of PEM files; empty `ca`: the system's authorities; empty `cert` and `key`: no client certificate."""

    ca: str = ""
    cert: str = ""
    key: str = ""


class OwnCertificate(msgspec.Struct, frozen=True):
    """What the broker's owner needs to find our certificate in a list. `serial` is lower-case hex, `not_after` UTC."""

    serial: str
    not_after: datetime

    def __str__(self) -> str:
        return f"serial {self.serial}, valid until {self.not_after:%Y-%m-%d %H:%M}Z"


def tls_context(files: TlsFiles) -> tuple[ssl.SSLContext, OwnCertificate | None]:
    """A client context that verifies the broker, and the certificate that we show. Blocking.

    Raises:
        BrokerUnavailable: a file is unreadable, is not PEM, or certificate and key do not belong together.
    """
    system = ssl.get_default_verify_paths().cafile
    return _load(files, tuple(_stamp(path) for path in (files.ca or system, files.cert, files.key)))


@lru_cache(maxsize=1)
def _load(files: TlsFiles, _stamps: object) -> tuple[ssl.SSLContext, OwnCertificate | None]:
    """As tls_context; again only when a file changed, for the system's authorities take 40 ms to read."""
    for path in filter(None, (files.ca, files.cert, files.key)):
        try:
            Path(path).read_bytes()  # ssl does not say which file it could not read
        except OSError as error:
            raise _unreadable(path, error) from error
    try:
        context = ssl.create_default_context(cafile=files.ca or None)
    except ssl.SSLError as error:
        raise _unusable(files.ca, error, "it is not a PEM file of certificate authorities") from error
    if not files.cert:
        return context, None
    try:
        context.load_cert_chain(files.cert, files.key or None, password=_no_password)
    except ssl.SSLError as error:
        cause = "they do not belong together, are not PEM, or the key has a passphrase"
        raise _unusable(f"{files.cert} with {files.key or files.cert}", error, cause) from error
    return context, read_certificate(Path(files.cert).read_text(encoding="ascii", errors="replace"))


def _stamp(path: str | None) -> tuple[int, int, int] | None:
    if not path:
        return None
    try:
        found = Path(path).stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    return found.st_ino, found.st_size, found.st_mtime_ns


def _unreadable(path: str, error: OSError) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{path} cannot be read: {error.strerror or error}",
        cause="a wrong path in [mqtt.tls], or the service user may not read it",
        next_step=f"look at it: ls -l {path}",
    )


def _no_password() -> str:
    return ""  # without this OpenSSL asks on the terminal


def _unusable(what: str, error: ssl.SSLError, cause: str) -> BrokerUnavailable:
    return BrokerUnavailable(
        f"{what} cannot be used: {error.reason or error}", cause=cause, next_step="correct the files of [mqtt.tls]"
    )


def read_certificate(pem: str) -> OwnCertificate:
    """Serial number and end of validity of the first certificate in `pem` (RFC 5280 §4.1: Certificate, TBSCertificate).

    Raises:
        ValueError: there is none.
    """
    found = PEM_CERTIFICATE.search(pem)
    if found is None:
        raise ValueError("no certificate")
    ((_, certificate),) = _elements(ssl.PEM_cert_to_DER_cert(found[0]))
    _, to_be_signed = next(_elements(certificate))
    fields = [content for tag, content in _elements(to_be_signed) if tag != VERSION]
    serial, _, _, validity = fields[:4]
    _, (tag, text) = _elements(validity)
    pattern = "%y%m%d%H%M%SZ" if tag == UTC_TIME else "%Y%m%d%H%M%SZ"
    return OwnCertificate(serial.lstrip(b"\0").hex(), datetime.strptime(text.decode(), pattern).replace(tzinfo=UTC))


def _elements(der: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, content) of each DER element in `der` (X.690 §8.1)."""
    at = 0
    while at < len(der):
        tag, size_bytes, at = der[at], der[at + 1], at + 2
        if size_bytes & 0x80:
            length_end = at + (size_bytes & 0x7F)
            size_bytes, at = int.from_bytes(der[at:length_end], "big"), length_end
        yield tag, der[at : at + size_bytes]
        at += size_bytes

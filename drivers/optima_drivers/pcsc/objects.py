"""Data objects of a PIV card: the certificate's container, and who the card is. Sans-io; only FrameError comes out.

    70 82 03 5a …     certificate, DER
    71 01 00          plain; 01: gzip
    72 24 …           ours: "ob1 " and SHA-256 of the certificate, in the place of the MSCUID, which no one uses any more
    fe 00             error detection code, always empty

The digest tells a container that was written in full from one whose writing was cut off. Containers of other programs have
none and are valid where all of their elements are there.

    30 19 …           CHUID: FASC-N
    34 10 …           GUID
    35 08 …           expiry, YYYYMMDD
    3e 00 fe 00

Source: NIST SP 800-73-4 part 1, appendix A, tables 9, 19 and 42.
"""

from __future__ import annotations

import hashlib
import zlib

from optima_bridge.errors import ChecksumError, FrameError, FrameTooLong
from optima_drivers.pcsc import tlv

MAIN = 0x5FC101  # card authentication, the certificate of slot 9E: this one the terminal uses
STAGE, PREVIOUS = 0x5FC10D, 0x5FC10E  # the first two certificates of retired keys
CHUID = 0x5FC102

_CERTIFICATE, _INFO, _MSCUID, _CHECK = 0x70, 0x71, 0x72, 0xFE
_GUID = 0x34
_GZIP = 0x01
_OURS = b"ob1 "
MAX_CERTIFICATE_BYTES = 16 << 10  # no compressed one grows beyond it


def container(certificate: bytes) -> bytes:
    """The object that holds this certificate."""
    return (
        tlv.encode(_CERTIFICATE, certificate)
        + tlv.encode(_INFO, b"\x00")
        + tlv.encode(_MSCUID, _OURS + hashlib.sha256(certificate).digest())
        + tlv.encode(_CHECK, b"")
    )


def certificate(value: bytes) -> bytes:
    """The certificate in an object.

    Raises:
        FrameError: ``tag``, ``length``, ``gzip``, ``overrun``: it holds no complete one; ChecksumError: it was not written
            in full.
    """
    found = list(tlv.elements(value))
    tags = [tag for tag, _ in found]
    if tags[:2] != [_CERTIFICATE, _INFO] or tags[2:] not in ([], [_CHECK], [_MSCUID], [_MSCUID, _CHECK]):
        raise FrameError("an object that is no certificate's container", kind="tag")
    parts = dict(found)
    content, info = parts[_CERTIFICATE], parts[_INFO]
    if not content or len(info) != 1:
        raise FrameError("a container without a certificate", kind="length")
    if info[0] & _GZIP:
        content = _decompressed(content)
    if parts.get(_MSCUID, b"").startswith(_OURS) and value != container(content):
        raise ChecksumError("a certificate that was not written in full")
    return content


def guid(chuid: bytes) -> str:
    """The card's number from its CHUID, 32 upper-case hex digits; empty where it has none (all zeros).

    Raises:
        FrameError: ``tag``, ``length``: it is no CHUID.
    """
    number = dict(tlv.elements(chuid)).get(_GUID, b"")
    if len(number) != 16:
        raise FrameError("a CHUID without a GUID", kind="tag")
    return number.hex().upper() if any(number) else ""


def _decompressed(content: bytes) -> bytes:
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        plain = unpacking.decompress(content, MAX_CERTIFICATE_BYTES)
    except zlib.error as error:
        raise FrameError(f"a compressed certificate that cannot be unpacked: {error}", kind="gzip") from error
    if unpacking.unconsumed_tail:
        raise FrameTooLong(f"a certificate of more than {MAX_CERTIFICATE_BYTES} bytes")
    if not unpacking.eof or unpacking.unused_data:
        raise FrameError("a compressed certificate that is not whole", kind="gzip")
    return plain

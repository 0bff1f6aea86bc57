"""One line of the audit log: bytes <-> record. No I/O, no clock.

    {"n":2,"time":"…","action":"…","who":{…},…,"prev":"HASH OF LINE 1","hash":"HASH"}
    └──────────────────────────── hashed ────────────────────────────┘

``hash`` is SHA-256, lower-case hex, over the bytes of the line before ``,"hash":``, just as they stand in the file, so that
nobody needs to know how we write JSON. ``prev`` is the ``hash`` of the record before; of the first one, 64 zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Annotated

import msgspec

from optima_bridge.audit.actor import Actor
from optima_bridge.text import printable

ZERO = "0" * 64
MAX_TEXT = 300  # characters of one value
TAIL = b',"hash":"%b"}\n'
TAIL_BYTES = len(TAIL % ZERO.encode())

ACTIONS: Mapping[str, str] = {
    "access.denied": "a user asked for what the role does not allow; `count`: so many times within a minute, `asked` is the last",
    "api.requested": "a user who may asked for a change over the control socket",
    "audit.broken": "the log does not end as it was left: `kept` is what it should end with, by `audit.head` or the daemon, `found` is what was there",
    "audit.exported": "a user took a copy of this log",
    "audit.lost": "`count` records before this one could not be written: a full or failing disk",
    "audit.torn": "the bytes before this record are the beginning of one that a power cut left; they were never confirmed",
    "credential.revoked": "a certificate was revoked",
    "enroll.begun": "an enrolment began; on disk before the device's first byte is written",
    "enroll.ended": "an enrolment ended; `outcome` and `code` say how, `active` is the certificate in use now",
    "enroll.settled": "the daemon finished or undid an enrolment that was interrupted, or needed somebody",
    "service.started": "the daemon began",
    "service.stopped": "the daemon ended in order",
    "wire.heard": "a user began to record what goes over the wire of `device`: identifiers are in it as they are",
}
"""Every action and what it means; docs/explanation/audit.md shows it."""

Scalar = str | int | float | bool | None
Data = Mapping[str, Scalar]

NO_DATA: Data = {}
HASH = re.compile(r"[0-9a-f]{64}")


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A record before it is hashed; the order of the fields is that in the file.

    Attributes:
        n: from 1, without a gap.
        time: RFC 3339, UTC, milliseconds.
        action: of ACTIONS.
        device, job: of the configuration; of the journal of enrolments.
        data: further facts. No secret; of a certificate or key only its fingerprint.
        torn: SHA-256 of the lines before this one that are no records; empty: there are none.
        prev: hash of the record before.
    """

    n: int
    time: str
    action: str
    who: Actor
    device: str = ""
    job: str = ""
    data: Data = NO_DATA
    torn: str = ""
    prev: str


class Head(msgspec.Struct, frozen=True):
    """A record by which the log up to it is known: whoever keeps `n` and `hash` can tell later whether it still is the same."""

    n: Annotated[int, msgspec.Meta(ge=0)]
    hash: Annotated[str, msgspec.Meta(pattern=f"^{HASH.pattern}$")]
    time: str = ""

    def __str__(self) -> str:
        return f"{self.n}:{self.hash}"


class Link(msgspec.Struct, frozen=True, gc=False):
    """What of a record makes it part of the chain; `hash` was computed, and stands in the line."""

    n: Annotated[int, msgspec.Meta(ge=1)]
    time: str
    prev: str
    hash: str
    torn: str = ""


_encode = msgspec.json.Encoder().encode
_decode_link = msgspec.json.Decoder(Link).decode
_decode_entry = msgspec.json.Decoder(Entry).decode
_decode_head = msgspec.json.Decoder(Head).decode


def encode(entry: Entry) -> tuple[bytes, Head]:
    """The line of a record, and the head that it makes."""
    body = _encode(entry)[:-1]
    digest = sha256(body).hexdigest()
    return body + TAIL % digest.encode(), Head(entry.n, digest, entry.time)


def link(line: bytes) -> Link | None:
    """What chains this line; None where it is not, to the last byte, a record that we could have written."""
    body, tail = line[:-TAIL_BYTES], line[-TAIL_BYTES:]
    if tail != TAIL % sha256(body).hexdigest().encode():
        return None
    try:
        return _decode_link(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def entry(line: bytes) -> Entry | None:
    """The record in this line, for looking at it; None where there is none. Says nothing about the chain."""
    try:
        return _decode_entry(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def encode_head(head: Head) -> bytes:
    """The content of ``audit.head``."""
    return _encode(head) + b"\n"


def decode_head(content: bytes) -> Head | None:
    """What `encode_head` made; None where it is something else."""
    try:
        return _decode_head(content)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def parse_head(text: str) -> Head | None:
    """``N:HASH``, as people keep it; None where it is something else."""
    n, _, digest = text.partition(":")
    if not (n.isascii() and n.isdigit() and len(n) <= 15 and HASH.fullmatch(digest.lower())):
        return None
    return Head(int(n), digest.lower())


def clean(data: Data) -> Data:
    """`data` with texts that cannot forge anything where they are shown, and of bearable length."""
    return {key: printable(value)[:MAX_TEXT] if isinstance(value, str) else value for key, value in data.items()}

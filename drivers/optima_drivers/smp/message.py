"""SMP messages: header and CBOR body to a frozen message and back. Sans-io.

    byte   0              1      2 … 3    4 … 5    6         7        8 …
         ┌──────────────┬──────┬────────┬────────┬──────────┬─────────┬──────────────┐
         │ version │ op │ flags│ length │ group  │ sequence │ command │ body: a map  │    big-endian
         └──────────────┴──────┴────────┴────────┴──────────┴─────────┴──────────────┘
           bits 3-4  0-2          of the body

An answer repeats group, sequence and command; its op is one more. A refusal is ``{"err": {"group": 8, "rc": 3}}`` in
version 2, and ``{"rc": 8}`` in version 1 and for the errors that no group has of its own. ``{"rc": 0}`` is success.
Source: Zephyr, "SMP Protocol Specification"; RFC 8949 (CBOR).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from typing import Annotated, TypeVar

import cbor2
import msgspec

from optima_bridge.errors import FrameError

VERSION_2 = 1
HEADER_BYTES = 8
_HEADER = struct.Struct(">BBHHBB")
_MAX_DEPTH = 4  # of maps in maps; answers have two

T = TypeVar("T")
Number = Annotated[int, msgspec.Meta(ge=-(1 << 31), lt=1 << 32)]
"""A number in an answer; CBOR has longer ones, which Python would not even print."""


class Op(IntEnum):
    """What a message does."""

    READ = 0
    READ_REPLY = 1
    WRITE = 2
    WRITE_REPLY = 3


class Message(msgspec.Struct, frozen=True):
    """One request or answer; `body` as CBOR has it, unchecked."""

    op: Op
    group: int
    command: int
    sequence: int
    body: Mapping[str, object]
    version: int = VERSION_2


class Refusal(msgspec.Struct, frozen=True):
    """The device understood and did not do it.

    Attributes:
        rc: why, by the numbers of `group`.
        group: None: the numbers that all groups share (mcumgr_err_t).
    """

    rc: Number
    group: Number | None = None


class _Status(msgspec.Struct, frozen=True):
    rc: Number = 0
    err: Refusal | None = None


def encode(message: Message) -> bytes:
    """The bytes of one message."""
    body = cbor2.dumps(message.body)
    first = message.version << 3 | message.op
    return _HEADER.pack(first, 0, len(body), message.group, message.sequence, message.command) + body


def parse(data: bytes) -> Message:
    """The message in one frame.

    Raises:
        FrameError: it is none; kind ``header`` or ``body``.
    """
    if len(data) < HEADER_BYTES:
        raise FrameError(f"a message of {len(data)} bytes", kind="header")
    first, _, size_bytes, group, sequence, command = _HEADER.unpack_from(data)
    if first & 0b111 > max(Op) or size_bytes != len(data) - HEADER_BYTES:
        raise FrameError("a header that does not fit its message", kind="header")
    try:
        body = cbor2.loads(
            data[HEADER_BYTES:], max_depth=_MAX_DEPTH, allow_duplicate_keys=False, strict_hashable_types=True
        )
    except cbor2.CBORDecodeError as error:
        raise FrameError(f"a body that is no CBOR: {error}", kind="body") from error
    if not isinstance(body, dict):
        raise FrameError("a body that is no map", kind="body")
    return Message(Op(first & 0b111), group, command, sequence, body, first >> 3 & 0b11)


def read(body: Mapping[str, object], reply: type[T]) -> T | Refusal:
    """What an answer says: `reply`, or why not.

    Raises:
        FrameError: it is not what the command answers; kind ``body``.
    """
    status = _convert(body, _Status)
    if status.err is not None:
        return status.err
    return Refusal(status.rc) if status.rc else _convert(body, reply)


def _convert(body: Mapping[str, object], kind: type[T]) -> T:
    try:
        return msgspec.convert(body, kind, builtin_types=(bytes,))
    except msgspec.ValidationError as error:
        raise FrameError(f"an answer with other fields than it should have: {error}", kind="body") from error

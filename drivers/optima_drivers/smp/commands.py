"""The SMP commands that are used, what each answers, and the numbers of their refusals.

Source: Zephyr, "SMP Groups" 0 (OS), 3 (settings), 8 (files); include/zephyr/mgmt/mcumgr/grp/…_mgmt.h for the numbers.
"""

from __future__ import annotations

from typing import Generic, TypeVar

import msgspec

from optima_drivers.smp.message import Number, Op, Refusal

T = TypeVar("T")

OS, SETTINGS, FILES = 0, 3, 8


class Command(msgspec.Struct, Generic[T], frozen=True):
    """One command; `reply` is the kind of answer where it was done."""

    op: Op
    group: int
    number: int
    reply: type[T]


class Done(msgspec.Struct, frozen=True):
    """Nothing but that it was done."""


class Echoed(msgspec.Struct, frozen=True):
    """The text `r` that was sent as ``d``."""

    r: str


class Parameters(msgspec.Struct, frozen=True):
    """`buf_size`: bytes of the device's buffer for one decoded frame; `buf_count`: how many it has."""

    buf_size: Number
    buf_count: Number


class Info(msgspec.Struct, frozen=True):
    """`output`: what the letters of ``format`` stand for, in the order of the document, with spaces between them."""

    output: str


class Setting(msgspec.Struct, frozen=True):
    """The value `val`; cut, without a word, at what the device's firmware is configured for (32 bytes if not)."""

    val: bytes


class Uploaded(msgspec.Struct, frozen=True):
    """`off`: where the next chunk goes."""

    off: Number


class Downloaded(msgspec.Struct, frozen=True):
    """The bytes `data` at `off`; `len` is the file's size, with the first chunk only."""

    off: Number
    data: bytes
    len: Number | None = None


class Hashed(msgspec.Struct, frozen=True):
    """The digest `output` over `len` bytes."""

    len: Number
    output: bytes


ECHO = Command(Op.WRITE, OS, 0, Echoed)
PARAMETERS = Command(Op.READ, OS, 6, Parameters)
INFO = Command(Op.READ, OS, 7, Info)
READ_SETTING = Command(Op.READ, SETTINGS, 0, Setting)
WRITE_SETTING = Command(Op.WRITE, SETTINGS, 0, Done)  # in RAM, until they are saved
LOAD_SETTINGS = Command(Op.READ, SETTINGS, 3, Done)
SAVE_SETTINGS = Command(Op.WRITE, SETTINGS, 3, Done)
DOWNLOAD = Command(Op.READ, FILES, 0, Downloaded)
UPLOAD = Command(Op.WRITE, FILES, 0, Uploaded)
HASH = Command(Op.READ, FILES, 2, Hashed)
CLOSE = Command(Op.WRITE, FILES, 4, Done)

UNKNOWN_COMMAND = frozenset({Refusal(8)})
NO_SUCH_FILE = frozenset({Refusal(3, FILES), Refusal(5)})
NO_SUCH_SETTING = frozenset({Refusal(3, SETTINGS), Refusal(5)})
EMPTY_FILE = frozenset({Refusal(16, FILES)})
NO_SUCH_HASH = frozenset({Refusal(13, FILES), Refusal(3), *UNKNOWN_COMMAND})  # 3: invalid value, from version 1
WRONG_OFFSET = frozenset({Refusal(11, FILES)})

MEANINGS = {
    Refusal(2): "it has no memory left",
    Refusal(7): "its answer does not fit into its buffer",
    Refusal(8): "its firmware does not have this command",
    Refusal(10): "it is busy",
    Refusal(11): "its firmware does not allow it",
    Refusal(2, SETTINGS): "the name is too long for its firmware",
    Refusal(5, SETTINGS): "its firmware has no settings of this kind",
    Refusal(2, FILES): "the file's name is not valid",
    Refusal(8, FILES): "the file cannot be emptied",
    Refusal(10, FILES): "the file cannot be written",
    Refusal(14, FILES): "no file system is mounted there",
    Refusal(15, FILES): "the file system can only be read",
}
"""Refusals in words; the others say their numbers."""

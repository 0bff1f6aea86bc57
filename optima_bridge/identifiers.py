"""How identifiers leave the daemon, and how events are named.

A ROM id or card number is copyable, so it is a user name and not a secret; it is personal data all the same. It leaves as
a keyed hash unless the store opts in to raw.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from functools import lru_cache
from pathlib import Path

from optima_bridge.errors import ConfigError
from optima_bridge.model import JsonValue, Subject

HASH_BYTES = 16
SECRET_BYTES = 32


class Uuid7:
    """UUID version 7 (RFC 9562 §5.7) as text: milliseconds first, so that ids sort by time."""

    def __init__(self) -> None:
        self._tails: list[str] = []
        self._millisecond = -1
        self._head = ""

    def new(self, wall_ns: int) -> str:
        """A new id for something that happened at `wall_ns`."""
        millisecond = wall_ns // 1_000_000
        if millisecond != self._millisecond:
            self._millisecond = millisecond
            digits = f"{millisecond & 0xFFFFFFFFFFFF:012x}"
            self._head = f"{digits[:8]}-{digits[8:]}-7"
        if not self._tails:
            self._tails = _random_tails(256)  # one system call for many ids
        return self._head + self._tails.pop()


def _random_tails(count: int) -> list[str]:
    """What follows the version digit: 12 random bits, the variant, 62 random bits."""
    digits = os.urandom(count * 10).hex()
    return [
        f"{digits[at : at + 3]}-{'89ab'[int(digits[at + 3], 16) & 3]}{digits[at + 4 : at + 7]}-{digits[at + 7 : at + 19]}"
        for at in range(0, len(digits), 20)
    ]


class IdentifierPolicy:
    """Names an identifier in payloads.

    Args:
        secret: key of the hash; None publishes identifiers raw.
    """

    def __init__(self, secret: bytes | None) -> None:
        self._secret = secret
        self._reference = lru_cache(maxsize=1024)(self._hash)

    @property
    def raw(self) -> bool:
        """Whether identifiers are published as they are."""
        return self._secret is None

    def fields(self, subject: Subject, identifier: str) -> dict[str, JsonValue]:
        """``{"key_ref": "hmac:…"}``, or ``{"key_id": "01B7…"}`` where the store opted in to raw."""
        if self._secret is None:
            return {f"{subject.value}_id": identifier}
        return {f"{subject.value}_ref": self._reference(identifier)}

    def _hash(self, identifier: str) -> str:
        assert self._secret is not None
        digest = hmac.new(self._secret, identifier.encode(), hashlib.sha256).digest()
        return f"hmac:{digest[:HASH_BYTES].hex()}"


def load_or_make_secret(path: Path) -> bytes:
    """The secret kept at `path` (0600); made at the first start. Losing it changes every reference, nothing else.

    Raises:
        ConfigError: it cannot be read or made, or it is too short to hide anything.
    """
    try:
        secret = path.read_bytes() if path.exists() else _make_secret(path)
    except OSError as error:
        raise ConfigError(
            f"the identifier secret {path} cannot be used: {(error.strerror or str(error)).lower()}",
            cause="its owner or mode was changed, or the disk is full",
            next_step=f"see who owns it: ls -l {path}",
            file=str(path),
        ) from error
    if len(secret) < SECRET_BYTES:
        raise ConfigError(
            f"the identifier secret {path} has {len(secret)} bytes, not {SECRET_BYTES}",
            cause="it was cut short or edited",
            next_step=f"restore it from a backup, or remove it and every key_ref and card_ref changes: rm {path}",
            file=str(path),
        )
    return secret


def _make_secret(path: Path) -> bytes:
    """Write it beside and rename it: a power cut leaves the whole secret or none."""
    secret = secrets.token_bytes(SECRET_BYTES)
    beside = path.with_name(f"{path.name}.new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(fd, secret)
        os.fsync(fd)
    finally:
        os.close(fd)
    beside.rename(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
    return secret

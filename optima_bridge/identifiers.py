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
        self._pool = b""
        self._at = 0

    def new(self, wall_ns: int) -> str:
        """A new id for something that happened at `wall_ns`."""
        at = self._at
        if at >= len(self._pool):  # one system call for many ids
            self._pool = os.urandom(2560)
            at = 0
        self._at = at + 10
        number = int.from_bytes(self._pool[at : at + 10], "big")
        high = (wall_ns // 1_000_000 & 0xFFFFFFFFFFFF) << 16 | 0x7000 | number >> 68
        low = 0x8000000000000000 | number & 0x3FFFFFFFFFFFFFFF
        text = f"{high:016x}{low:016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


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

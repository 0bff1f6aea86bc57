"""Secrets are referred to, never written down: ``{ file = "/…" }`` or ``{ credential = "name" }``."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from optima_bridge.errors import ConfigError

MAX_SIZE_BYTES = 64 << 10
REFERENCE_KEYS = frozenset({"file", "credential"})

HOW_TO = 'write { file = "/path" } or { credential = "name" }'


class Secret(BaseModel):
    """A reference to a secret; the secret itself is read when it is needed and never kept.

    A file must not be readable by group or others. A credential is one of systemd's (``LoadCredential=`` in the unit), a
    file in ``$CREDENTIALS_DIRECTORY`` that systemd protects by itself; outside the service it cannot be looked at.
    """

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        hide_input_in_errors=True,
        json_schema_extra={"writeOnly": True},  # its values are never shown in messages
    )

    file: str | None = Field(default=None, pattern="^/", description="Absolute path of a file with mode 0600 or 0400.")
    credential: str | None = Field(
        default=None,
        pattern="^[A-Za-z0-9_@][A-Za-z0-9_@.-]*$",
        description="Name of a systemd credential of the service.",
    )

    @model_validator(mode="before")
    @classmethod
    def _refuse_literal(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            raise ValueError(f"a secret must not stand in the configuration, which many can read; {HOW_TO}")  # noqa: TRY004 (pydantic's way)
        return value

    @model_validator(mode="after")
    def _check(self) -> Secret:
        if (self.file is None) == (self.credential is None):
            raise ValueError(f"needs exactly one of file and credential; {HOW_TO}")
        if self.file is not None:
            try:
                reason = _unfit(self.file, os.stat(self.file))  # noqa: PTH116 (one spelling for path and descriptor)
            except PermissionError:
                reason = ""  # this user may not look; the service will when it reads
            except OSError as error:
                reason = f"{self.file} cannot be read: {_reason(error)}"
            if reason:
                raise ValueError(reason)
        return self

    def read(self, env: Mapping[str, str] = os.environ) -> bytes:
        """The secret, without the line end that editors put after it.

        Raises:
            ConfigError: the file is absent, empty, too large or open to others; the credential was not handed over.
        """
        path = self._path(env)
        try:
            with open(path, "rb", opener=_open_without_waiting) as file:
                reason = "" if self.file is None else _unfit(path, os.fstat(file.fileno()))
                content = b"" if reason else file.read(MAX_SIZE_BYTES + 1)
        except OSError as error:
            raise ConfigError(
                f"the secret {path} cannot be read: {_reason(error)}", next_step=f"ls -l {path}", file=path
            ) from error
        secret = content.removesuffix(b"\n").removesuffix(b"\r")
        if not reason and len(content) > MAX_SIZE_BYTES:
            reason = f"{path} is larger than {MAX_SIZE_BYTES} bytes"
        elif not reason and not secret:
            reason = f"{path} is empty"
        if reason:
            raise ConfigError(f"the secret cannot be used: {reason}", next_step=f"ls -l {path}", file=path)
        return secret

    def _path(self, env: Mapping[str, str]) -> str:
        if self.file is not None:
            return self.file
        directory = env.get("CREDENTIALS_DIRECTORY")
        if not directory:
            raise ConfigError(
                f"the credential {self.credential!r} was not handed over: CREDENTIALS_DIRECTORY is not set",
                cause="not started by systemd, or the unit has no LoadCredential= for it",
                next_step=f"add to the unit: LoadCredential={self.credential}:/path",
            )
        return f"{directory}/{self.credential}"

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__


def is_reference(value: object) -> bool:
    """Whether this table refers to a secret. Such a table is one value: layers replace it whole."""
    return isinstance(value, dict) and bool(value) and value.keys() <= REFERENCE_KEYS


def _unfit(path: str, status: os.stat_result) -> str:
    """Why this file is no place for a secret; empty if it is one."""
    if not stat.S_ISREG(status.st_mode):
        return f"{path} is not a file"
    if status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return f"{path} can be read by group or others; run: chmod 600 {path}"
    return ""


def _open_without_waiting(path: str, flags: int) -> int:
    """Open even a pipe at once: nothing may hold up the start."""
    return os.open(path, flags | os.O_NONBLOCK)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()

"""The options that hand over the PIN of a token: --pin-file, --pin-stdin, --pin-credential; or a question on the terminal.

Never an argument and never the environment: other users of the PC can read both.

    @pin_options
    def init(settings: Settings, pin: PinSource) -> None:
        secret = pin.read(settings, ask="PIN of the token optima-ca")
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from optima_bridge.cli.options import Settings
from optima_bridge.errors import UsageError

MAX_PIN_BYTES = 1024


@dataclass(frozen=True)
class PinSource:
    """Where the PIN is to come from; nowhere, unless it is said."""

    file: Path | None = None
    stdin: bool = False
    credential: str | None = None

    def read(self, settings: Settings, ask: str = "") -> bytes | None:
        """The PIN; None: nobody has given one.

        Args:
            ask: what is needed, where it is: it is asked for, unseen, on a terminal.

        Raises:
            UsageError: several sources were named, or what is there cannot be used.
        """
        if sum((self.file is not None, self.stdin, self.credential is not None)) > 1:
            raise UsageError("--pin-file, --pin-stdin and --pin-credential exclude each other")
        if self.stdin:
            return _from_stdin()
        if self.file is not None or self.credential is not None:
            return self._referred()
        if ask and not settings.no_input and sys.stdin.isatty():
            answer: str = click.prompt(ask, hide_input=True, err=True)
            return answer.encode()
        return None

    def _referred(self) -> bytes:
        from pydantic import ValidationError

        from optima_bridge.errors import ConfigError
        from optima_bridge.secrets import Secret

        file = str(self.file.absolute()) if self.file is not None else None
        try:
            return Secret(file=file, credential=self.credential).read()
        except ValidationError as error:
            why = error.errors()[0]["msg"].removeprefix("Value error, ")
        except ConfigError as error:
            why = error.what
        raise UsageError(
            f"the PIN cannot be read: {why}",
            cause="the file is absent, empty or open to others, or the service has no such credential",
            next_step="keep it in a file that only its user can read: chmod 600 FILE",
        )


def pin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the three options; the command gets them as `pin`."""

    @wraps(command)
    def with_pin(*args: Any, pin_file: Path | None, pin_stdin: bool, pin_credential: str | None, **options: Any) -> Any:
        return command(*args, pin=PinSource(pin_file, pin_stdin, pin_credential), **options)

    for option in (
        click.option("--pin-credential", metavar="NAME", help="PIN: a systemd credential of the service."),
        click.option("--pin-stdin", is_flag=True, help="PIN: the first line of standard input."),
        click.option(
            "--pin-file", type=click.Path(path_type=Path), metavar="FILE", help="PIN: a file that only you can read."
        ),
    ):
        with_pin = option(with_pin)
    return with_pin


def _from_stdin() -> bytes:
    if sys.stdin.isatty():
        raise UsageError(
            "standard input is a terminal, which would show the PIN", next_step="leave --pin-stdin out: it is asked for"
        )
    pin = sys.stdin.buffer.readline(MAX_PIN_BYTES).removesuffix(b"\n").removesuffix(b"\r")
    if not pin:
        raise UsageError(
            "there is no PIN on standard input", next_step="its first line is the PIN: … --pin-stdin < FILE"
        )
    return pin

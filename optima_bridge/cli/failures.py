"""How errors look: what, likely cause, next step on standard error; the same as a document with --json."""

from __future__ import annotations

import os
import sys

import click

from optima_bridge.cli.options import Settings
from optima_bridge.errors import BridgeError, Interrupted, UsageError
from optima_bridge.text import printable

HEADLINE_CHARACTERS = 100


def report(error: BridgeError, settings: Settings, **facts: object) -> int:
    """Print `error`; returns its exit status. The result record of a stream also has the `facts`."""
    if settings.json:
        document = error.document()
        settings.print_json(
            {"type": "result", "ok": False, "rc": error.exit_status, "error": document, **facts}
            if settings.stream
            else {"schema": "optima.error/1", **document}
        )
    if isinstance(error, Interrupted):
        return error.exit_status
    if settings.json:
        click.echo(f"error {error.code}: {_headline(error)}", err=True)
    else:
        click.echo(text(error, settings), err=True)
    return error.exit_status


def text(error: BridgeError, settings: Settings) -> str:
    """`error` for people."""
    first = settings.paint(f"error {error.code}", "red", sys.stderr) + f": {_headline(error)}"
    what = [printable(line) for line in error.what.splitlines()]
    if len(what) <= 1:  # several are places in files: they begin in the first column, editors jump to them
        what = [f"  what happened : {line}" for line in what if line != _headline(error)]
    cause, next_step = printable(error.cause), printable(error.next_step)
    return "\n".join([first, *what, f"  likely cause  : {cause}", f"  do next       : {next_step}"])


def _headline(error: BridgeError) -> str:
    """At most 100 characters with the code before it."""
    lines = error.what.splitlines() or [""]
    line = printable(lines[0]) if len(lines) == 1 else f"{len(lines)} mistakes"
    room = HEADLINE_CHARACTERS - len(f"error {error.code}: ")
    return line if len(line) <= room else line[: room - 1] + "…"


def usage_error(error: click.ClickException) -> UsageError:
    """What click found wrong with the arguments."""
    ctx = getattr(error, "ctx", None)
    command = ctx.command_path if ctx is not None else "bridge"
    return UsageError(
        error.format_message(), cause="the command does not have the expected form", next_step=f"{command} --help"
    )


def report_bug(error: Exception, arguments: list[str], settings: Settings) -> int:
    """Put what is needed to find the bug into a file, and say where it is."""
    import tempfile
    import traceback

    from optima_bridge import __version__

    descriptor, path = tempfile.mkstemp(prefix="optima-bridge-report-", suffix=".txt")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(f"optima-bridge {__version__}, Python {sys.version}\nbridge {' '.join(map(ascii, arguments))}\n\n")
        file.write("".join(traceback.format_exception(error)))
    what = f"unexpected {type(error).__name__}: {error}"
    return report(BridgeError(what, next_step=f"report it together with the file {path}", report=path), settings)

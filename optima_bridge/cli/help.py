"""``bridge help``: the help of a command, and the exit codes."""

from __future__ import annotations

import click

from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import table

EXIT_CODES = (
    (0, "ok", "done, or nothing to do; an empty list"),
    (1, "internal", "a bug; says where the report file is"),
    (2, "usage", "wrong arguments"),
    (3, "not-found", "no device or driver of that name"),
    (4, "denied", "the Unix groups of the user do not give the role"),
    (5, "refused", "a precondition is not met"),
    (6, "busy", "a port or the daemon's places are taken by others"),
    (7, "timeout", "no answer or no event in time; the broker is away"),
    (8, "no-daemon", "no daemon answers on the socket"),
    (9, "io", "a link or device failed"),
    (10, "verify-failed", "what was read back, or is replayed, differs"),
    (11, "needs-attention", "the outcome is not known; a person must look"),
    (12, "unhealthy", "a check found a fault"),
    (13, "config", "the configuration or a driver is not valid"),
    (130, "interrupted", "Ctrl-C, or a job was stopped before anything became active"),
    (141, "pipe", "the reader of the output has gone"),
)


@click.command("help")
@click.argument("words", nargs=-1, metavar="[COMMAND... | exit-codes]")
@click.pass_context
def help_(ctx: click.Context, words: tuple[str, ...]) -> None:
    """Help on a command, or on exit codes.

    \b
      bridge help exit-codes
      bridge help devices wait
    """
    if words == ("exit-codes",):
        _show_exit_codes(ctx.find_object(Settings) or Settings())
        return
    ctx = ctx.find_root()
    for word in words:
        command = ctx.command
        inner = command.get_command(ctx, word) if isinstance(command, click.Group) else None
        if inner is None:
            raise click.UsageError(f"No such command {word!r}.", ctx)
        ctx = click.Context(inner, parent=ctx, info_name=word)
    click.echo(ctx.get_help())


def _show_exit_codes(settings: Settings) -> None:
    if settings.json:
        entries = [{"rc": number, "name": name, "when": when} for number, name, when in EXIT_CODES]
        settings.print_json({"schema": "optima.exit-codes/1", "exit_codes": entries})
    else:
        table(settings, ("RC", "NAME", "WHEN"), [(str(number), name, when) for number, name, when in EXIT_CODES])

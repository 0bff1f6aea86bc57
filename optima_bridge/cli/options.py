"""The global options: they may stand before or behind the verb, and every command finds them in one place."""

from __future__ import annotations

import json
import os
import sys
from copy import copy
from dataclasses import dataclass, field
from typing import Any, TextIO

import click
from click.core import ParameterSource


@dataclass
class Settings:
    """What the global options say; a command gets it by ``@click.pass_obj``.

    Attributes:
        socket: path of the daemon's socket; None: the usual places.
        json: print JSON documents.
        stream: output is NDJSON that ends in a result record; a streaming command sets it.
        timeout: for one request, seconds.
        given: names of those that stand on the command line, which the environment does not change.
    """

    socket: str | None = None
    json: bool = False
    stream: bool = False
    color: str = "auto"
    no_input: bool = False
    quiet: bool = False
    verbose: int = 0
    timeout: float = 10.0
    given: set[str] = field(default_factory=set)

    @property
    def for_people(self) -> bool:
        """Whether a person reads the output: relative times, headings."""
        return not self.json and sys.stdout.isatty()

    def paint(self, text: str, color: str, stream: TextIO | None = None) -> str:
        """`text` in a colour where colour is wanted."""
        on = self.color == "always" or (
            self.color == "auto"
            and (stream or sys.stdout).isatty()
            and not os.environ.get("NO_COLOR")
            and os.environ.get("TERM") != "dumb"
        )
        return click.style(text, fg=color) if on else text

    def print_json(self, document: object) -> None:
        """One JSON document, or one line of a stream. Control characters come out escaped."""
        click.echo(json.dumps(document, indent=None if self.stream else 2))


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Put what was given into the Settings; where nothing was given here, take what is there.

    The environment is asked again behind the verb, where it must not undo what stands before it.
    """
    settings = ctx.ensure_object(Settings)
    name = _long_name(param)
    assert param.name is not None
    source = ctx.get_parameter_source(param.name)
    if source is ParameterSource.COMMANDLINE:
        settings.given.add(name)
    if source is ParameterSource.COMMANDLINE or (source is ParameterSource.ENVIRONMENT and name not in settings.given):
        setattr(settings, name, value)
    return getattr(settings, name)


def _option(*names: str, help: str, **settings: Any) -> click.Option:  # noqa: A002 (click's word)
    return click.Option(names, help=help, expose_value=False, callback=_remember, **settings)


GLOBAL_OPTIONS = [
    _option("--socket", envvar="OPTIMA_BRIDGE_SOCKET", metavar="PATH", help="The daemon's socket."),
    _option("--json", is_flag=True, help="Print one JSON document; a stream of them, one a line, where it goes on."),
    _option("--timeout", type=click.FloatRange(0.1, 3600), metavar="SECONDS", help="For one request; default 10."),
    _option("--color", type=click.Choice(["auto", "always", "never"]), help="Also obeyed: NO_COLOR, TERM=dumb."),
    _option("--no-input", is_flag=True, envvar="OPTIMA_BRIDGE_NO_INPUT", help="Never ask anything."),
    _option("-q", "--quiet", is_flag=True, help="Print results and errors only."),
    _option("-v", "--verbose", count=True, help="Say more; in the daemon: log level debug."),
]


def share_global_options(command: click.Command) -> None:
    """Let `command`, and those in it, take the global options too. Where it has a flag of that name, both mean the same."""
    own = {_long_name(param): param for param in command.params if isinstance(param, click.Option)}
    for option in GLOBAL_OPTIONS:
        same = own.get(_long_name(option))
        if same is None:
            command.params.append(_behind(option))
        elif same.callback is None:
            same.callback = _remember
    for inner in command.commands.values() if isinstance(command, click.Group) else ():
        share_global_options(inner)


def _long_name(param: click.Parameter) -> str:
    return max(param.opts, key=len).lstrip("-").replace("-", "_")


def _behind(option: click.Option) -> click.Option:
    """The same option for a command; its help shows only --json, `bridge --help` has the others."""
    twin = copy(option)
    twin.hidden = "--json" not in option.opts
    return twin

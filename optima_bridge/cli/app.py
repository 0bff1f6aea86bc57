"""The program `bridge`: its verbs, and how every way to end becomes an exit status and a text that helps."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

import click

from optima_bridge.cli.failures import report, report_bug, usage_error
from optima_bridge.cli.options import GLOBAL_OPTIONS, Settings, share_global_options
from optima_bridge.errors import BridgeError, Interrupted

SIGPIPE_STATUS = 141


class Verb(NamedTuple):
    """Where a command is, and what it is for."""

    place: str
    help: str
    hidden: bool = False


VERBS = {
    "run": Verb("optima_bridge.cli.run:run", "Run the daemon; systemd does it."),
    "demo": Verb("optima_bridge.cli.demo:demo", "Run the daemon on a simulated store; no hardware needed."),
    "status": Verb("optima_bridge.cli.status:status", "Show daemon, broker, devices and open problems."),
    "monitor": Verb("optima_bridge.cli.monitor:monitor", "Show what is, then what happens (alias: watch)."),
    "watch": Verb("optima_bridge.cli.monitor:monitor", "Alias of monitor.", hidden=True),
    "devices": Verb("optima_bridge.cli.devices:devices", "List, show and wait for devices."),
    "events": Verb("optima_bridge.cli.events:events", "Send past events once more."),
    "record": Verb("optima_bridge.cli.wire:record", "Record what goes over a device's wire."),
    "replay": Verb("optima_bridge.cli.wire:replay", "Play a recording through the driver."),
    "enroll": Verb("optima_bridge.cli.enroll:enroll", "Bring a certificate into a device's secure memory."),
    "credentials": Verb(
        "optima_bridge.cli.credentials:credentials", "Certificates in secure memory: list, verify, revoke."
    ),
    "jobs": Verb("optima_bridge.cli.jobs:jobs", "List, watch and stop enrolments."),
    "ca": Verb("optima_bridge.cli.ca:ca", "Make and show the store's certificate authority."),
    "audit": Verb("optima_bridge.cli.audit:audit", "Show, check and copy the log of who did what."),
    "drivers": Verb("optima_bridge.cli.drivers:drivers", "List and describe the installed drivers; begin your own."),
    "service": Verb("optima_bridge.cli.service:service", "Prepare this PC for the service: udev rules."),
    "config": Verb("optima_bridge.cli.config:config", "Check and show the configuration."),
    "help": Verb("optima_bridge.cli.help:help_", "Help on a command, or on exit codes."),
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports one when it is used."""

    def __init__(self, *, verbs: dict[str, Verb], **settings: object) -> None:
        placeholders = {name: click.Command(name) for name in verbs}  # click suggests near names from these
        super().__init__(commands=placeholders, **settings)  # type: ignore[arg-type]
        self._verbs = verbs

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._verbs:
            return None
        module, _, attribute = self._verbs[cmd_name].place.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        share_global_options(command)
        return command

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, verb in self._verbs.items() if not verb.hidden]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, self._verbs[name].help) for name in self.list_commands(ctx)])


def _begin(version: bool) -> None:
    """Supervisor keys, cards, keylocks and seal switches of this store PC.

    \b
      bridge demo                       see it work, no hardware needed
      bridge status                     is everything well?
      bridge monitor front --type key   show what happens at one device
    """
    ctx = click.get_current_context()
    if version:
        _print_version(ctx.find_object(Settings) or Settings())
    elif ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


def _print_version(settings: Settings) -> None:
    import platform

    from optima_bridge import __version__

    if settings.json:
        settings.print_json({"schema": "optima.version/1", "version": __version__, "python": platform.python_version()})
    else:
        click.echo(f"optima-bridge {__version__}")


bridge = LazyGroup(
    verbs=VERBS,
    name="bridge",
    callback=_begin,
    help=_begin.__doc__,
    invoke_without_command=True,
    params=[*GLOBAL_OPTIONS, click.Option(["--version"], is_flag=True, help="Print the version.")],
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Global options may also stand behind the command. Exit codes: bridge help exit-codes",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if "_BRIDGE_COMPLETE" in os.environ:
        bridge.main(given, prog_name="bridge")  # click answers the shell's question and exits
    settings = Settings(json="--json" in given)  # for errors in the arguments themselves
    try:
        status = _run(given, settings)
        sys.stdout.flush()
    except BridgeError as error:
        status = report(error, settings)
    except click.ClickException as error:
        status = report(usage_error(error), settings)
    except (KeyboardInterrupt, click.Abort):
        status = report(Interrupted("interrupted"), settings)
    except BrokenPipeError:
        status = SIGPIPE_STATUS
    except Exception as error:  # noqa: BLE001 - the program's boundary: a bug becomes a report file
        status = report_bug(error, given, settings)
    if status == SIGPIPE_STATUS:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nobody reads; exit must not notice again
    return status


def _run(arguments: list[str], settings: Settings) -> int:
    try:
        with bridge.make_context("bridge", arguments, obj=settings) as ctx:
            bridge.invoke(ctx)
    except click.exceptions.Exit as end:
        return end.exit_code
    except click.exceptions.NoArgsIsHelpError as help_:
        help_.show()
        return help_.exit_code
    return 0

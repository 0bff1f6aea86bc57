"""``bridge events``: send past events once more."""

from __future__ import annotations

import click

from optima_bridge.cli.client import Daemon
from optima_bridge.cli.options import Settings

NUMBER = click.IntRange(1)


@click.group()
def events() -> None:
    """Send past events once more.

    \b
      bridge events replay --from 120 --to 180
    """


@events.command()
@click.option("--from", "first", type=NUMBER, required=True, help="First sequence number.")
@click.option("--to", "last", type=NUMBER, required=True, help="Last sequence number, included.")
@click.option("--epoch", type=NUMBER, help="Of which start of the daemon; default: the present one.")
@click.pass_obj
def replay(settings: Settings, first: int, last: int, epoch: int | None) -> None:
    """Publish events again over MQTT, marked as replay. Consumers know them by their id."""
    if last < first:
        raise click.BadParameter(f"ends before it begins: from {first} to {last}", param_hint="--to")
    request = {"from": first, "to": last} | ({} if epoch is None else {"epoch": epoch})
    document = Daemon(settings).post("/v1/replay", request)
    if settings.json:
        settings.print_json(document)
    elif not settings.quiet:
        begin, end = (":".join(map(str, document[key])) for key in ("from", "to"))
        click.echo(f"replay of {begin} to {end} has begun")

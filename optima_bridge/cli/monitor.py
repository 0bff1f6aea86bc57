"""``bridge monitor``: what is, then what happens."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import click

from optima_bridge.api.words import EVENT_TYPES, SINCE, SINCE_FORMS
from optima_bridge.cli.client import Daemon, Document
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import flat, state_words
from optima_bridge.errors import BridgeError, TimedOut
from optima_bridge.text import printable

SECONDS = click.FloatRange(0, 86400 * 365)


def _check_types(_: click.Context, __: click.Parameter, value: str | None) -> str:
    names = [name for name in (value or "").split(",") if name]
    if unknown := [name for name in names if name not in EVENT_TYPES]:
        raise click.BadParameter(f"no event type {unknown[0]!r}; there are: {', '.join(EVENT_TYPES)}")
    return ",".join(names)


def _check_since(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    if value is not None and SINCE.fullmatch(value) is None:
        raise click.BadParameter(f"{value!r} is neither {SINCE_FORMS}")
    return value


@click.command()
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@click.option("--type", "types", callback=_check_types, metavar="A,B", help=f"Only these: {', '.join(EVENT_TYPES)}.")
@click.option(
    "--since",
    callback=_check_since,
    metavar="WHEN",
    help="Past events, too: behind EPOCH:SEQ or SEQ, or of the last 10m.",
)
@click.option("--count", type=click.IntRange(1), help="End after so many events.")
@click.option("--for", "for_s", type=SECONDS, metavar="SECONDS", help="End after so long.")
@click.option("--no-snapshot", is_flag=True, help="Leave out what is, show only what happens.")
@click.pass_obj
def monitor(
    settings: Settings,
    devices: tuple[str, ...],
    types: str,
    since: str | None,
    count: int | None,
    for_s: float | None,
    no_snapshot: bool,
) -> None:
    """Show the state of the devices, then each event as it happens.

    \b
      bridge monitor
      bridge monitor front --type key --count 1 --for 30
      bridge monitor --json --since 10m

    With --count and --for together, too few events in that time are an error (exit status 7).
    """
    settings.stream = True
    parameters = {"snapshot": str(int(not no_snapshot)), "types": types, "devices": ",".join(devices)}
    if since is not None:
        parameters["since"] = since
    until = None if for_s is None else time.monotonic() + for_s
    seen, last = 0, ""
    try:
        for record in Daemon(settings).live(f"/v1/events?{urlencode(parameters)}", until):
            _show(settings, record, devices)
            if record["type"] == "event":
                seen, last = seen + 1, f"{record['event']['epoch']}:{record['event']['seq']}"
                if seen == count:
                    break
    except BridgeError as error:
        if last:
            error.next_step = f"{error.next_step}; then go on: bridge monitor --since {last}"
        raise
    if count is not None and seen < count:
        raise TimedOut(f"{seen} of {count} events came within {for_s:g} s", cause="nothing else happened")
    if settings.json:
        settings.print_json({"type": "result", "ok": True, "rc": 0, "error": None, "events": seen})


def _show(settings: Settings, record: Document, devices: tuple[str, ...]) -> None:
    if settings.json:
        settings.print_json(record)
    elif record["type"] == "event":
        click.echo(_event_line(settings, record["event"]))
    elif record["type"] == "snapshot":
        for device in record["devices"]:
            if not devices or device["name"] in devices:
                click.echo(printable(f"now  {device['name']}  link {device['link']}, {state_words(device['state'])}"))


def _event_line(settings: Settings, event: dict[str, Any]) -> str:
    """``14:02:11.482  front  key inserted  key_ref=…``; in a pipe with full time and position."""
    subject, action = event["type"].split(".")[2:4]
    facts = " ".join(f"{key}={value}" for key, value in flat(event["data"]) if key != "action")
    if settings.for_people:
        when = datetime.fromisoformat(event["time"]).astimezone().strftime("%H:%M:%S.%f")[:-3]
    else:
        when = f"{event['time']}  {event['epoch']}:{event['seq']}"
    return printable(f"{when}  {event['subject']}  {subject} {action}  {facts}".rstrip())

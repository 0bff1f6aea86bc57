"""``bridge status``: everything on one screen, or wait until all is well."""

from __future__ import annotations

from typing import Any

import click

from optima_bridge.cli.client import Daemon, Document
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import DEVICE_HEADINGS, device_row, since, size, table
from optima_bridge.cli.waiting import wait_for
from optima_bridge.text import printable


@click.command()
@click.option(
    "--wait", type=click.Choice(["ready", "online"]), help="Until every device is up; online: and the broker connected."
)
@click.option(
    "--for", "for_s", type=click.FloatRange(0, 86400), default=30, show_default=True, help="How long, seconds."
)
@click.pass_obj
def status(settings: Settings, wait: str | None, for_s: float) -> None:
    """Show daemon, broker, devices and open problems.

    \b
      bridge status
      bridge status --wait ready --for 60
    """
    daemon = Daemon(settings)
    if wait:
        document = wait_for(lambda: daemon.get("/v1/status"), lambda now: missing(now, wait), for_s)
    else:
        document = daemon.get("/v1/status")
    if settings.json:
        settings.print_json(document)
    else:
        _show(settings, document)


def missing(document: Document, wanted: str) -> str:
    """What is not as wanted yet; empty: all is."""
    down = [device["name"] for device in document["devices"] if device["link"] != "up"]
    if down:
        return f"not up: {', '.join(down)}"
    if wanted == "online" and document["mqtt"]["state"] != "connected":
        return f"the broker is {document['mqtt']['state']}"
    return "" if document["ready"] else "the daemon is starting"


def _show(settings: Settings, document: Document) -> None:
    mqtt, journal = document["mqtt"], document["journal"]
    broker = f"{mqtt['broker']}, {mqtt['queued']} queued, {mqtt['in_flight']} in flight" if "broker" in mqtt else ""
    oldest = "" if journal["oldest_age_s"] is None else f", oldest {since(settings, journal['oldest_age_s'])}"
    alive = f"{document['site']}/{document['node']}, version {document['version']}, pid {document['pid']}"
    room = f"{size(journal['size_bytes'])}{oldest}, {size(journal['free_bytes'])} free"
    kept = f"at {document['epoch']}:{document['seq']}, {journal['records']} events, {room}"
    rows = [
        ["daemon", "ready" if document["ready"] else "not ready", since(settings, document["uptime_s"]), alive],
        ["broker", mqtt["state"], "", broker],
        ["journal", "failing" if journal["problem"] else "good", "", kept],
        ["clock", document["clock"], "", ""],
    ]
    table(settings, ("PART", "STATE", "SINCE", ""), rows)
    if settings.for_people and document["devices"]:
        click.echo()
    table(settings, DEVICE_HEADINGS, [device_row(settings, device) for device in document["devices"]])
    for alert in document["alerts"]:
        _show_problem(settings, alert)


def _show_problem(settings: Settings, alert: dict[str, Any]) -> None:
    headline = f"problem {alert['code']} {alert['device']}: {alert['what']}"
    if not settings.for_people:
        click.echo(printable(f"{headline} (since {alert['since']})"))
        return
    click.echo("\n" + settings.paint(printable(headline), "red"))
    click.echo(f"  since         : {alert['since']}")
    click.echo(f"  likely cause  : {printable(alert['cause'])}")
    click.echo(f"  do next       : {printable(alert['next'])}")

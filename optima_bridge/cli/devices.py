"""``bridge devices``: list, show, wait."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import click

from optima_bridge.cli.client import Daemon, Document
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import DEVICE_HEADINGS, device_row, flat, table
from optima_bridge.cli.waiting import wait_for

BY_ID = Path("/dev/serial/by-id")


@click.group()
def devices() -> None:
    """List, show and wait for devices.

    \b
      bridge devices list --all
      bridge devices show front
      bridge devices wait front --for 30
    """


@devices.command("list")
@click.option("--all", "with_ports", is_flag=True, help="Also serial ports that are not configured; none is opened.")
@click.pass_obj
def list_(settings: Settings, with_ports: bool) -> None:
    """List the configured devices."""
    document = Daemon(settings).get("/v1/devices")
    if with_ports:
        document["ports"] = free_ports({device["port"] for device in document["devices"]})
    if settings.json:
        settings.print_json(document)
        return
    table(settings, DEVICE_HEADINGS, [device_row(settings, device) for device in document["devices"]])
    if not document["devices"] and not settings.quiet:
        click.echo("no device is configured; see the ports: bridge devices list --all", err=True)
    table(
        settings, ("PORT", "DESCRIPTION"), [(port["path"], port["description"]) for port in document.get("ports", ())]
    )


@devices.command()
@click.argument("name")
@click.pass_obj
def show(settings: Settings, name: str) -> None:
    """Show everything about one device."""
    document = Daemon(settings).get(_path(name))
    if settings.json:
        settings.print_json(document)
    else:
        table(settings, ("FACT", "VALUE"), flat(document))


@devices.command()
@click.argument("name")
@click.option("--state", type=click.Choice(["up", "down"]), default="up", show_default=True)
@click.option(
    "--for", "for_s", type=click.FloatRange(0, 86400), default=30, show_default=True, help="How long, seconds."
)
@click.pass_obj
def wait(settings: Settings, name: str, state: str, for_s: float) -> None:
    """Wait until a device is up, or down."""

    def missing(document: Document) -> str:
        if document["link"] == state:
            return ""
        problem = f" ({document['problem']['what']})" if document["problem"] else ""
        return f"{name} is {document['link']}{problem}"

    daemon = Daemon(settings)
    document = wait_for(lambda: daemon.get(_path(name)), missing, for_s)
    if settings.json:
        settings.print_json(document)
    else:
        table(settings, DEVICE_HEADINGS, [device_row(settings, document)])


def free_ports(configured: set[str]) -> list[dict[str, str]]:
    """Serial ports of this PC that no device uses, under their by-id name where they have one. Opens none."""
    from serial.tools.list_ports import comports

    taken = {Path(port).resolve() for port in configured}
    lasting = {link.resolve(): link for link in BY_ID.iterdir()} if BY_ID.is_dir() else {}
    return [
        {"path": str(lasting.get(path, path)), "description": "" if port.description == "n/a" else port.description}
        for port in sorted(comports())
        if (path := Path(port.device).resolve()) not in taken
    ]


def _path(name: str) -> str:
    return f"/v1/devices/{quote(name, safe='')}"

"""``bridge devices``: list, show, wait."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from optima_bridge.cli.client import Daemon, Document
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import DEVICE_HEADINGS, device_row, flat, table
from optima_bridge.cli.waiting import wait_for

if TYPE_CHECKING:
    from optima_bridge.link.serialnames import PortNames

SHARED_NAME = "another adapter has the same by-id name"


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
    table(settings, ("PORT", "DESCRIPTION", "NOTE"), [row(port) for port in document.get("ports", ())])


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


def free_ports(configured: set[str]) -> list[dict[str, str | bool]]:
    """Serial ports of this PC that no device uses, under the name that lasts where they have one. Opens none."""
    from serial.tools.list_ports import comports

    from optima_bridge.link.serialnames import port_names

    taken = {Path(port).resolve() for port in configured}
    names = port_names()
    nodes = [(port, Path(port.device).resolve()) for port in sorted(comports())]
    return [describe(node, port.description, names.get(node.name)) for port, node in nodes if node not in taken]


def describe(node: Path, description: str, names: PortNames | None) -> dict[str, str | bool]:
    """One serial port, with the `names` that udev gave it."""
    return {
        "path": (names and names.lasting) or str(node),
        "description": "" if description == "n/a" else description,
        "by_id": names.by_id if names else "",
        "by_path": names.by_path if names else "",
        "shared": names.shared if names else False,
    }


def row(port: dict[str, str | bool]) -> tuple[str, str, str]:
    """The port for people."""
    return str(port["path"]), str(port["description"]), SHARED_NAME if port["shared"] else ""


def _path(name: str) -> str:
    return f"/v1/devices/{quote(name, safe='')}"

"""``bridge drivers``: what is installed, and a package for one more. Needs no daemon, opens nothing."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from optima_bridge import registry
from optima_bridge.cli import new_driver
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import flat, table
from optima_bridge.errors import DriverError, NotFound, UsageError

NEW_STEPS = ("python -m pip install -e . pytest", "python -m pytest")


@click.group()
def drivers() -> None:
    """List and describe the installed drivers; begin one of your own.

    \b
      bridge drivers list
      bridge drivers show ds2480b
      bridge drivers new door-seal
    """


@drivers.command("list")
@click.pass_obj
def list_(settings: Settings) -> None:
    """List the installed drivers."""
    found = []
    for name in registry.installed():
        try:
            found.append(describe(name))
        except DriverError as error:  # one broken package must not hide the others
            found.append({"name": name, "maturity": "broken", "capabilities": [], "summary": error.what})
    if settings.json:
        settings.print_json({"schema": "optima.drivers/1", "drivers": found})
    else:
        rows = [[it["name"], it["maturity"], ",".join(it["capabilities"]), it["summary"]] for it in found]
        table(settings, ("DRIVER", "MATURITY", "CAPABILITIES", "SUMMARY"), rows)


@drivers.command()
@click.argument("name")
@click.pass_obj
def show(settings: Settings, name: str) -> None:
    """Show one driver and the configuration keys that it takes."""
    if name not in (known := registry.installed()):
        raise NotFound(
            f"no driver {name!r} is installed; there are: {', '.join(known)}", next_step="bridge drivers list"
        )
    document = describe(name)
    keys = registry.load(name).Settings.model_json_schema().get("properties", {})
    document["settings"] = {
        key: {"default": schema.get("default"), "description": schema.get("description", "")}
        for key, schema in keys.items()
    }
    if settings.json:
        settings.print_json({"schema": "optima.driver/1", **document})
    else:
        table(settings, ("FACT", "VALUE"), flat(document))


@drivers.command()
@click.argument("name")
@click.option(
    "--directory",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="DIR",
    help="Where its folder is made; default: here.",
)
@click.pass_obj
def new(settings: Settings, name: str, directory: Path) -> None:
    """Make a package for a driver of your own. It is complete, with simulator and tests; nothing is overwritten."""
    if name in registry.installed():
        raise UsageError(
            f"a driver {name!r} is installed already, and two of one name stop the daemon's start",
            next_step=f"see it: bridge drivers show {name}; choose another name",
        )
    folder = new_driver.make(name, directory)
    steps = [f"cd {shlex.quote(str(folder))}", *NEW_STEPS, f"bridge drivers show {name}"]
    if settings.json:
        settings.print_json({"schema": "optima.new-driver/1", "name": name, "folder": str(folder), "next": steps})
        return
    click.echo(f"{folder} is a complete driver of a seal switch. Make it your device's:")
    for step in steps:
        click.echo(f"  {step}")


def describe(name: str) -> dict[str, Any]:
    """What a driver says about itself.

    Raises:
        DriverError: it is not installed, cannot be imported, or was made for another version.
    """
    info = registry.load(name).info
    return {
        "name": info.name,
        "summary": info.summary,
        "maturity": str(info.maturity),
        "capabilities": sorted(map(str, info.capabilities)),
        "schemes": sorted(info.schemes),
        "integrity": info.integrity,
        "spec": info.spec,
        "reports_removal": info.reports_removal,
        "usb_ids": [f"{vendor:04x}:{product:04x}" for vendor, product in info.usb_ids],
    }

"""``bridge service``: what the service needs of this PC. Needs no daemon, opens no device."""

from __future__ import annotations

from pathlib import Path

import click

from optima_bridge import registry, udev
from optima_bridge.cli.options import Settings
from optima_bridge.driver import DriverInfo
from optima_bridge.errors import AccessDenied, DriverError, NotFound

RELOAD = "udevadm control --reload && udevadm trigger"


@click.group()
def service() -> None:
    """Prepare this PC for the service.

    \b
      bridge service udev
      sudo bridge service udev ds2480b --install
    """


@service.command("udev")
@click.argument("drivers", nargs=-1)
@click.option("--install", is_flag=True, help="Write the rules into the directory instead of printing them.")
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("/etc/udev/rules.d"),
    show_default=True,
    help="Where --install writes.",
)
@click.pass_obj
def udev_(settings: Settings, drivers: tuple[str, ...], install: bool, directory: Path) -> None:
    """Make udev rules for USB devices of the installed drivers.

    With DRIVERS of those only. They give the devices to the service and keep ModemManager and brltty away. An id of a
    common bridge chip is that of every adapter with this chip: name the drivers of this store where other programs use
    such adapters.
    """
    text = udev.rules(_infos(drivers))
    path = directory / udev.FILE_NAME if install else None
    if path is not None:
        _write(path, text)
    if settings.json:
        settings.print_json({"schema": "optima.udev/1", "path": path and str(path), "rules": text})
        return
    click.echo(path or text, nl=path is not None)
    if path is not None and not settings.quiet:
        click.echo(f"now have udev read them, for devices that are plugged in too: {RELOAD}", err=True)


def _infos(names: tuple[str, ...]) -> list[DriverInfo]:
    """Of the drivers named, or of all that can be loaded."""
    known = registry.installed()
    if unknown := sorted(set(names) - known.keys()):
        what = f"no driver {unknown[0]!r} is installed; there are: {', '.join(known)}"
        raise NotFound(what, next_step="bridge drivers list")
    infos = []
    for name in names or known:
        try:
            infos.append(registry.load(name, known.values()).info)
        except DriverError as error:
            if names:
                raise
            click.echo(f"left out: {error.what}", err=True)  # one broken package must not hide the others
    return infos


def _write(path: Path, text: str) -> None:
    """Replace the file as a whole: udev may read it at any time."""
    new = path.with_suffix(".new")
    try:
        new.write_text(text, encoding="ascii")
        new.chmod(0o644)
        new.replace(path)
    except FileNotFoundError as error:
        what = f"{path.parent} does not exist"
        raise NotFound(what, cause="udev is not installed here", next_step="apt install udev") from error
    except OSError as error:
        what = f"{path} cannot be written: {error.strerror}"
        raise AccessDenied(what, cause="only root may", next_step="sudo bridge service udev --install") from error

"""``bridge service``: what the service needs of this PC. Needs no daemon, opens no device."""

from __future__ import annotations

from pathlib import Path

import click

from optima_bridge import registry, udev
from optima_bridge.cli.options import Settings
from optima_bridge.driver import DriverInfo
from optima_bridge.errors import AccessDenied, DriverError, NotFound, UsageError

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
    such adapters; a file of before is replaced, and the ids that it had more are told.
    """
    infos = _infos(drivers)
    if drivers:
        _refuse_without_ids(infos)
    text = udev.rules(infos)
    path = directory / udev.FILE_NAME if install else None
    dropped: list[str] = []
    if path is not None:
        dropped = _missing(path, text)
        _write(path, text)
    if settings.json:
        settings.print_json({"schema": "optima.udev/1", "path": path and str(path), "rules": text, "dropped": dropped})
        return
    click.echo(path or text, nl=path is not None)
    if path is not None and not settings.quiet:
        for rule in dropped:
            click.echo(f"no longer in the file: {rule}", err=True)
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


def _refuse_without_ids(infos: list[DriverInfo]) -> None:
    """Raises UsageError: the file would have no rule."""
    without = ", ".join(info.name for info in infos if not info.usb_ids)
    if not without:
        return
    if any(info.usb_ids for info in infos):
        click.echo(f"without a rule: {without}, as no USB ids are declared", err=True)
        return
    raise UsageError(
        f"no USB ids are declared by {without}, so there is no rule to make",
        cause="its devices have the ids of many makers, or are not on USB",
        next_step="write a rule with the ids of yours, which lsusb shows: docs/howto/install.md#udev-rules",
    )


def _missing(path: Path, text: str) -> list[str]:
    """Ids, and their drivers, that the file has and `text` has not."""
    try:
        before = udev.ids(path.read_text(encoding="ascii", errors="replace"))
    except OSError:
        return []  # there is none; or writing will say why not
    return [f"{ids} ({names})" for ids, names in before.items() if ids not in udev.ids(text)]


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

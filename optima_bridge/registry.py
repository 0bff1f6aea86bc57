"""Finding drivers: every installed package may offer some under the entry-point group ``optima_bridge.drivers``."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import EntryPoint, entry_points

from optima_bridge.driver import CONTRACT, ENTRY_POINT_GROUP, Driver, DriverInfo, DriverSettings
from optima_bridge.errors import ContractMismatch, DriverError, DriverNotFound, DuplicateDriver


def installed(points: Iterable[EntryPoint] | None = None) -> dict[str, EntryPoint]:
    """Names of all installed drivers, sorted, without importing any.

    Raises:
        DuplicateDriver: two packages offer the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=ENTRY_POINT_GROUP) if points is None else points:
        other = found.get(point.name)
        if other is not None and other.value != point.value:
            raise DuplicateDriver(
                f"two installed packages offer a driver {point.name!r}: {_origin(other)} and {_origin(point)}",
                next_step="uninstall one of the two packages",
            )
        found[point.name] = point
    return dict(sorted(found.items()))


def load(name: str, points: Iterable[EntryPoint] | None = None) -> type[Driver]:
    """The driver class of this name.

    Raises:
        DriverNotFound: not installed; the message names what is.
        ContractMismatch: it was written for another contract; the message names both numbers.
        DriverError: its package cannot be imported, whatever goes wrong in there, or what it offers is no driver.
    """
    known = installed(points)
    if name not in known:
        raise DriverNotFound(f"no driver {name!r} is installed; there are: {', '.join(known) or 'none'}")
    who = f"driver {name!r} ({_origin(known[name])})"
    try:
        driver: type[Driver] = known[name].load()
        info, settings = driver.info, getattr(driver, "Settings", None)
    except (Exception, SystemExit) as error:  # the boundary to foreign code, which runs as it is imported
        raise DriverError(f"{who} cannot be imported: {type(error).__name__}: {error}") from error
    if not isinstance(info, DriverInfo):
        raise DriverError(f"{who} is no driver: its info is {info!r}, not a DriverInfo")
    if info.contract != CONTRACT:
        raise ContractMismatch(
            f"driver {name!r} was written for contract {info.contract}, this daemon has {CONTRACT}",
            next_step="install the version of the driver that fits, or update optima-bridge",
        )
    if not (isinstance(settings, type) and issubclass(settings, DriverSettings)):
        raise DriverError(f"{who} is no driver: its Settings are {settings!r}, not a class of DriverSettings")
    return driver


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value

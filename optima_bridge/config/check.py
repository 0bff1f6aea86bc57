"""Merged layers against the models: the core's own, and those of the drivers that the devices name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path as FilePath
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from optima_bridge import registry
from optima_bridge.config.layers import Layer, Merged, Tree
from optima_bridge.config.locate import Path
from optima_bridge.config.model import DEVICE_KEYS, Config
from optima_bridge.config.problems import Problem, dotted, nearest, shortened
from optima_bridge.driver import Driver
from optima_bridge.errors import DriverError, DriverNotFound
from optima_bridge.link.base import OPENERS, SHARED, scheme_of
from optima_bridge.redundancy import MERGED, shared

ModelT = TypeVar("ModelT", bound=BaseModel)


def check(merged: Merged) -> tuple[Config | None, list[Problem]]:
    """The configuration, None if there is any problem, and all problems."""
    merged.tree.setdefault("store", {})  # so that its missing keys are named one by one
    config, problems = _validate(Config, _core(merged.tree), (), merged)
    tables = _device_tables(merged.tree)
    for name, table in tables.items():
        driver_class, found = _find_driver(name, table, merged)
        problems += found
        if driver_class is None:
            continue
        own_keys = {key: value for key, value in table.items() if key not in DEVICE_KEYS}
        settings, found = _validate(driver_class.Settings, own_keys, ("devices", name), merged, more_keys=DEVICE_KEYS)
        problems += found
        if config is not None and settings is not None:
            config.devices[name].bind(driver_class, settings)
    problems += _shared_ports(tables, merged)
    problems += _unfit_standbys(tables, None if problems else config, merged)
    return (None if problems else config), problems


def check_settings(driver: type[Driver], settings: Tree, source: str) -> list[Problem]:
    """What is wrong with settings that stand elsewhere than in a configuration, in the same words."""
    merged = Merged(FilePath(source))
    merged.add(Layer(source, settings))
    return _validate(driver.Settings, merged.tree, (), merged)[1]


def _validate(
    model: type[ModelT], table: Tree, at: Path, merged: Merged, more_keys: Iterable[str] = ()
) -> tuple[ModelT | None, list[Problem]]:
    try:
        return model.model_validate_json(json.dumps(table, default=str)), []  # TOML's dates become text
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    from optima_bridge.config.explain import explain, is_text

    schema = model.model_json_schema()
    reread = False
    for error in errors:
        layer = merged.owners.get((*at, *error["loc"]))
        if layer and layer.raw is not None and not isinstance(error["input"], str) and is_text(schema, error["loc"]):
            _set(table, error["loc"], layer.raw)  # OPTIMA_BRIDGE__STORE__SITE=1042 is a name, not a number
            reread = True
    if reread:
        return _validate(model, table, at, merged, more_keys)
    return None, [explain(error, schema, at, merged, more_keys) for error in errors]


def _core(tree: Tree) -> Tree:
    """A copy of the tree without the drivers' keys."""
    core_tables = {
        name: {key: table[key] for key in DEVICE_KEYS if key in table} for name, table in _device_tables(tree).items()
    }
    return {**tree, "devices": tree["devices"] | core_tables} if core_tables else tree


def _device_tables(tree: Tree) -> dict[str, Tree]:
    devices = tree.get("devices")
    if not isinstance(devices, dict):
        return {}
    return {name: table for name, table in devices.items() if isinstance(table, dict)}


def _find_driver(name: str, table: Tree, merged: Merged) -> tuple[type[Driver] | None, list[Problem]]:
    wanted = table.get("driver")
    if not isinstance(wanted, str) or not wanted:
        return None, []  # the core's model says what is wrong with it
    installed = registry.installed()
    suggestion = ""
    try:
        driver_class = registry.load(wanted, installed.values())
    except DriverNotFound:
        what, suggestion = f"not one of {', '.join(installed)}", nearest(wanted, list(installed))
    except DriverError as error:
        what = str(error)
    else:
        return driver_class, _unfit_port(name, table, driver_class, merged)
    return None, [_problem(("devices", name, "driver"), wanted, what, merged, suggestion)]


def _unfit_port(name: str, table: Tree, driver_class: type[Driver], merged: Merged) -> list[Problem]:
    """A port of a kind that the driver does not work on."""
    port = table.get("port")
    schemes = driver_class.info.schemes
    if not isinstance(port, str) or scheme_of(port) not in OPENERS or scheme_of(port) in schemes:
        return []
    what = f"driver {driver_class.info.name} works on {' and '.join(sorted(schemes))} ports only"
    return [_problem(("devices", name, "port"), port, what, merged)]


def _shared_ports(tables: dict[str, Tree], merged: Merged) -> Iterator[Problem]:
    """One port, one device, where it opens one; a device that is switched off may wait on the port of its replacement."""
    first: dict[Any, str] = {}
    for name, table in tables.items():
        port = table.get("port")
        if not isinstance(port, str) or table.get("enabled") is False or scheme_of(port) in SHARED:
            continue
        other = first.setdefault(port, name)
        if other != name:
            where = merged.place(("devices", other, "port"))
            what = f"is already the port of devices.{other} ({where})"
            yield _problem(("devices", name, "port"), port, what, merged)


def _unfit_standbys(tables: dict[str, Tree], config: Config | None, merged: Merged) -> Iterator[Problem]:
    """A standby needs a primary that is none itself, has no other one, and can see something that it can see."""
    first: dict[str, str] = {}
    for name, table in tables.items():
        primary = table.get("standby_of")
        if not isinstance(primary, str):
            continue
        suggestion = ""
        if primary == name:
            what = "is this device itself"
        elif primary not in tables:
            what, suggestion = "no device of that name", nearest(primary, [other for other in tables if other != name])
        elif "standby_of" in tables[primary]:
            what = f"is itself a standby, of {tables[primary]['standby_of']}"
        elif first.setdefault(primary, name) != name:
            what = f"has a standby already: devices.{first[primary]}"
        elif config is not None and not shared(config.devices[name].abilities, config.devices[primary].abilities):
            what = f"can see nothing that this device can see, too: {', '.join(MERGED)}"
        else:
            continue
        yield _problem(("devices", name, "standby_of"), primary, what, merged, suggestion)


def _problem(path: Path, value: str, what: str, merged: Merged, suggestion: str = "") -> Problem:
    origin = merged.place(path)
    return Problem(origin=origin, path=dotted(path), value=shortened(value), what=what, suggestion=suggestion)


def _set(table: Tree, path: Path, value: str) -> None:
    here: Any = table
    for step in path[:-1]:
        here = here[step]
    here[path[-1]] = value

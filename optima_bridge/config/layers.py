"""The layers of the configuration, later wins: vendor files, main file, drop-ins, environment, command line.

Layers are merged value by value, so a drop-in can change one key of one device. Nothing is checked here but the syntax;
each value remembers the layer that set it.
"""

from __future__ import annotations

import re
import stat
import tomllib
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path as FilePath
from typing import Any, NamedTuple

from optima_bridge.config.locate import Path, Place, locate
from optima_bridge.config.problems import DEFAULT, Origin, Problem
from optima_bridge.secrets import is_reference

ENV_PREFIX = "OPTIMA_BRIDGE__"
_SYNTAX_ERROR = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)

Tree = dict[str, Any]


class ConfigPaths(NamedTuple):
    """Where the configuration files are.

    Attributes:
        vendor, dropins: directories; their ``*.toml`` are read in the order of their names.
        required: the main file was named by a person, so it has to exist.
    """

    vendor: FilePath = FilePath("/usr/lib/optima-bridge/config.d")
    main: FilePath = FilePath("/etc/optima-bridge/config.toml")
    dropins: FilePath = FilePath("/etc/optima-bridge/conf.d")
    required: bool = False

    @classmethod
    def of(cls, file: FilePath | str | None) -> ConfigPaths:
        """The usual places, or `file` and the ``conf.d`` beside it."""
        if file is None:
            return cls()
        return cls(main=FilePath(file), dropins=FilePath(file).parent / "conf.d", required=True)

    def files(self) -> list[FilePath]:
        """The files to read, in order; what exists and may not be looked at is among them, to be complained about."""
        main = [self.main] if self.required or _may_exist(self.main) else []
        return [*_toml_files(self.vendor), *main, *_toml_files(self.dropins)]


class Layer:
    """Values from one source: a file, one environment variable, one command line option.

    Attributes:
        raw: the text of an environment variable; what looks like a number may have been meant as text.
    """

    def __init__(self, source: str, tree: Tree, *, document: str = "", raw: str | None = None) -> None:
        self.source = source
        self.tree = tree
        self.raw = raw
        self._document = document

    @cached_property
    def _places(self) -> dict[Path, Place]:
        return locate(self._document)

    def origin(self, path: Path, *, of_key: bool = False) -> Origin:
        """Where this layer has the value, or the key; for what it does not have, the table around it."""
        for end in range(len(path), 0, -1):
            if (place := self._places.get(path[:end])) is not None:
                return Origin(self.source, *(place[:2] if of_key else place[2:]))
        return Origin(self.source)


class Merged:
    """All layers in one tree.

    Attributes:
        tree: as tomllib gives it.
        owners: the layer that set each value, and the first one that has each table.
    """

    def __init__(self, main: FilePath) -> None:
        self.tree: Tree = {}
        self.owners: dict[Path, Layer] = {}
        self._main = Origin(str(main))

    def add(self, layer: Layer) -> None:
        """Put a layer over what is there."""
        self._merge(self.tree, layer.tree, (), layer)

    def _merge(self, below: Tree, above: Tree, at: Path, layer: Layer) -> None:
        for key, value in above.items():
            path = (*at, key)
            old = below.get(key)
            if not (is_table(old) and is_table(value)):
                if isinstance(old, dict):
                    self._forget(path)
                self.owners[path] = layer
                below[key] = {} if is_table(value) else value
            if is_table(value):
                self._merge(below[key], value, path, layer)

    def _forget(self, table: Path) -> None:
        self.owners = {path: owner for path, owner in self.owners.items() if path[: len(table)] != table}

    def owner(self, path: Path) -> Layer | None:
        """The layer that set the value, or the nearest thing around it."""
        for end in range(len(path), 0, -1):
            if (layer := self.owners.get(path[:end])) is not None:
                return layer
        return None

    def place(self, path: Path, *, of_key: bool = False) -> Origin:
        """Where a person has to look: the value, its key, or the nearest table; else the main file."""
        layer = self.owner(path)
        return self._main if layer is None else layer.origin(path, of_key=of_key)

    def origin(self, path: Path) -> Origin:
        """Where exactly this value was set; DEFAULT where it was not."""
        layer = self.owners.get(path)
        return DEFAULT if layer is None else layer.origin(path)


def is_table(value: object) -> bool:
    """Whether layers merge this value key by key. A reference to a secret is one value."""
    return isinstance(value, dict) and not is_reference(value)


def leaves(tree: Tree, at: Path = ()) -> Iterator[tuple[Path, Any]]:
    """The values of a tree with their paths; empty tables count as values."""
    for key, value in tree.items():
        if value and is_table(value):
            yield from leaves(value, (*at, key))
        else:
            yield (*at, key), value


def read_layers(
    files: list[FilePath], env: Mapping[str, str], overrides: Mapping[str, object]
) -> tuple[list[Layer], list[Problem]]:
    """All layers, lowest first, and what is wrong with files as such.

    Args:
        overrides: values by dotted path, from the command line; those that are None were not given.
    """
    layers: list[Layer] = []
    problems: list[Problem] = []
    for file in files:
        layer, found = _read_file(file)
        layers += [layer] if layer else []
        problems += found
    layers += [_env_layer(name, env[name]) for name in sorted(env) if name.startswith(ENV_PREFIX)]
    layers += [
        Layer("command line", _nested(path.split("."), value)) for path, value in overrides.items() if value is not None
    ]
    return layers, problems


def _read_file(file: FilePath) -> tuple[Layer | None, list[Problem]]:
    problems: list[Problem] = []
    here = Origin(str(file))
    try:
        with file.open("rb") as opened:
            mode = file.stat().st_mode
            content = opened.read()
    except OSError as error:
        return None, [Problem(origin=here, what=f"cannot be read: {(error.strerror or str(error)).lower()}")]
    if mode & stat.S_IWOTH:
        what = f"everybody can change this file; run: chmod o-w {file}"
        problems.append(Problem(origin=here, what=what, warning=True))
    try:
        document = content.decode("utf-8-sig")  # editors on Windows put a mark in front
        return Layer(str(file), tomllib.loads(document), document=document), problems
    except UnicodeDecodeError as error:
        before = content[: error.start]
        line, column = before.count(b"\n") + 1, len(before.rpartition(b"\n")[2].decode("utf-8-sig")) + 1
        what = f"not TOML: byte {content[error.start]:02x} is not UTF-8; save the file with UTF-8 encoding"
        problems.append(Problem(origin=Origin(str(file), line, column), what=what))
    except tomllib.TOMLDecodeError as error:
        problems.append(_syntax_problem(str(file), document, str(error)))
    return None, problems


def _syntax_problem(source: str, document: str, message: str) -> Problem:
    """tomllib tells the place in its message: ``… (at line 3, column 7)`` or ``… (at end of document)``."""
    what, line, column = message, None, None
    if match := _SYNTAX_ERROR.fullmatch(message):
        what = match[1]
        lines = document.split("\n")
        line, column = (int(match[2]), int(match[3])) if match[2] else (len(lines), len(lines[-1]) + 1)
    return Problem(origin=Origin(source, line, column), what=f"not TOML: {what[:1].lower()}{what[1:]}")


def _env_layer(name: str, raw: str) -> Layer:
    """``OPTIMA_BRIDGE__MQTT__PORT=1884``: a TOML value, or plain text. ``_`` in a device's name stands for ``-``."""
    raw = raw.encode("utf-8", "replace").decode()
    steps = name.removeprefix(ENV_PREFIX).lower().split("__")
    if steps[0] == "devices" and len(steps) > 1:
        steps[1] = steps[1].replace("_", "-")
    return Layer(f"env {name}", _nested(steps, _toml_or_text(raw)), raw=raw)


def _toml_or_text(raw: str) -> object:
    try:
        document = tomllib.loads(f"value = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    return document["value"] if len(document) == 1 else raw


def _nested(steps: list[str], value: object) -> Tree:
    for step in reversed(steps):
        value = {step: value}
    assert isinstance(value, dict)
    return value


def _toml_files(directory: FilePath) -> list[FilePath]:
    try:
        return sorted(file for file in directory.iterdir() if file.suffix == ".toml" and not file.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except PermissionError:
        return [directory]


def _may_exist(file: FilePath) -> bool:
    try:
        return file.exists()
    except PermissionError:
        return True

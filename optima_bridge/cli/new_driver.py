"""A driver package of one's own, made from the template that is shipped: copied, with the names changed."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from optima_bridge.errors import UsageError
from optima_bridge.topics import is_segment

TEMPLATE_PACKAGE = "optima_drivers"
TEMPLATE = "_template"
NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
LEFT_OUT = "        registered=False,"


def make(name: str, directory: Path) -> Path:
    """Make the package ``optima-driver-NAME`` in `directory`; returns its folder.

    Raises:
        UsageError: the name is no driver's name, or something has the folder's name already; nothing was written.
    """
    if not (is_segment(name) and NAME.fullmatch(name)):
        raise UsageError(
            f"{name!r} cannot be a driver's name",
            cause="it is part of topics and of a Python package: 1 to 32 of a-z, 0-9 and single hyphens, a letter first",
            next_step="choose another name, such as: bridge drivers new door-seal",
        )
    package = f"optima_driver_{name.replace('-', '_')}"
    folder = directory / f"optima-driver-{name}"
    try:
        folder.mkdir(parents=True)
        for path, text in _files(resources.files(TEMPLATE_PACKAGE) / TEMPLATE, PurePosixPath()):
            target = folder / (package if _is_of_the_package(path) else "") / path
            target.parent.mkdir(exist_ok=True)
            target.write_text(_renamed(text, name, package), encoding="utf-8")
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror or error}",
            cause="what is there is never overwritten" if isinstance(error, FileExistsError) else "see the message",
            next_step="give another folder: bridge drivers new NAME --directory DIR",
        ) from error
    return folder


def _files(folder: Traversable, below: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for entry in folder.iterdir():
        path = below / entry.name
        if entry.is_dir():
            if entry.name != "__pycache__":
                yield from _files(entry, path)
        else:
            yield path, entry.read_text(encoding="utf-8")


def _is_of_the_package(path: PurePosixPath) -> bool:
    return len(path.parts) == 1 and path.suffix in (".py", ".typed")


def _renamed(text: str, name: str, package: str) -> str:
    """`text` with the names changed, all at once: the new name may have an old one in it."""
    names = {
        f"{TEMPLATE_PACKAGE}.{TEMPLATE}": package,
        "optima_driver_template": package,
        "Template": name.title().replace("-", ""),
        "template": name,
    }
    lines = [line for line in text.splitlines(keepends=True) if not line.startswith(LEFT_OUT)]
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], "".join(lines))

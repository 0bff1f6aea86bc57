"""``bridge config``: check, show, explain where values come from. Works on files alone; no daemon is needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from pathlib import Path

FILE = click.argument("file", required=False, type=click.Path())
JSON = click.option("--json", "as_json", is_flag=True, help="One JSON document.")


@click.group()
def config() -> None:
    """Check and show the configuration.

    \b
      bridge config check
      bridge config show --origin
    """


@config.command()
@FILE
@JSON
def check(file: str | None, as_json: bool) -> None:
    """Name every mistake in FILE, or in this PC's configuration. Exit status 13 if there is one."""
    import os

    from optima_bridge.config import load
    from optima_bridge.errors import ConfigError

    errors: Any = []
    try:
        warnings: Any = [finding.document() for finding in load(file, os.environ).findings]
    except ConfigError as error:
        errors, warnings = error.data["problems"], error.data["warnings"]
    if as_json:
        _print_json({"schema": "optima.config-check/1", "ok": not errors, "errors": errors, "warnings": warnings})
    else:
        for problem in (*errors, *warnings):
            click.echo(problem["text"])
        click.echo(f"{_counted(len(errors), 'error')}, {_counted(len(warnings), 'warning')}")
    if errors:
        raise SystemExit(ConfigError.exit_status)


@config.command()
@FILE
@click.option("--origin", is_flag=True, help="Say where each value was set.")
@JSON
def show(file: str | None, origin: bool, as_json: bool) -> None:
    """Print every value in force, defaults too, as TOML. Secrets appear as references only."""
    import os

    from optima_bridge.config import load
    from optima_bridge.config.model import effective
    from optima_bridge.config.problems import toml

    loaded = load(file, os.environ)
    if as_json:
        document = {"schema": "optima.config/1", "config": effective(loaded.config)}
        if origin:
            document["origins"] = {path: str(place) for path, place in loaded.origins.items()}
        _print_json(document)
        return
    lines = {path: f"{path} = {toml(value)}" for path, value in loaded.values.items()}
    width = max(map(len, lines.values()))
    for path, line in lines.items():
        click.echo(f"{line:<{width}}  # {loaded.origins[path]}" if origin else line)


@config.command()
def schema() -> None:
    """Print the JSON schema, for editors. It has the keys of every installed driver."""
    from optima_bridge.config.schema import json_schema

    _print_json(json_schema())


@config.command()
@FILE
@JSON
def paths(file: str | None, as_json: bool) -> None:
    """List the sources in the order they are read; later ones win."""
    import os

    from optima_bridge.config import ConfigPaths
    from optima_bridge.config.layers import ENV_PREFIX

    places = ConfigPaths.of(file)
    found = places.files()
    rows: list[tuple[str, str, bool]] = []
    for layer, place in (("vendor", places.vendor), ("main", places.main), ("drop-in", places.dropins)):
        files = [path for path in found if place in (path, path.parent)]
        rows += [(layer, str(path), path.exists()) for path in files]
        rows += [] if files else [(layer, str(place if layer == "main" else place / "*.toml"), False)]
    rows += [("environment", name, True) for name in sorted(os.environ) if name.startswith(ENV_PREFIX)]
    if as_json:
        entries = [{"layer": layer, "name": name, "found": exists} for layer, name, exists in rows]
        _print_json({"schema": "optima.config-paths/1", "sources": entries})
        return
    for layer, name, exists in rows:
        click.echo(f"{layer:<12} {'found ' if exists else 'absent'} {name}")


@config.command()
@click.option("--minimal", is_flag=True, help="Only what has to be written.")
def init(minimal: bool) -> None:
    """Print a commented example.

    \b
      bridge config init > /etc/optima-bridge/config.toml
    """
    text = _example().read_text(encoding="utf-8")
    click.echo(_without_comments(text) if minimal else text, nl=False)


def _without_comments(document: str) -> str:
    """The lines that set something, and the tables that they stand in."""
    lines = [line for line in document.splitlines() if line.startswith("#:") or line[:1] not in ("", "#")]
    following = [*lines[1:], "["]
    kept = [line for line, after in zip(lines, following, strict=True) if not (line[0] == after[0] == "[")]
    return "\n".join(kept) + "\n"


def _example() -> Path:
    """The shipped example: in the source tree, under the prefix of a wheel, or where Debian puts it."""
    import sys
    from pathlib import Path

    from optima_bridge.errors import ConfigError

    name = "optima-bridge.toml"
    share = [Path(root) / "share/optima-bridge" / name for root in (sys.prefix, "/usr")]
    for path in (Path(__file__).parents[2] / "config" / name, *share):
        if path.is_file():
            return path
    raise ConfigError(f"the example {name} is not installed", cause="an incomplete installation", next_step="reinstall")


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _print_json(document: object) -> None:
    import json

    click.echo(json.dumps(document, indent=2, ensure_ascii=False))

"""Writes the tables in docs/reference that are made from the source: ``python docs/tables.py``, or `--check` them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from optima_bridge import errors, log

REFERENCE = Path(__file__).parent / "reference"
END = "<!-- end -->"


def error_types() -> list[type[errors.BridgeError]]:
    """All error classes in the order of the source."""
    found = [value for value in vars(errors).values() if isinstance(value, type)]
    return [value for value in found if issubclass(value, errors.BridgeError)]


def error_table() -> str:
    """One row per code; what it means is the first paragraph of the docstring."""
    rows = ["| code | means | likely cause | next step | rc | again |", "|---|---|---|---|---|---|"]
    for error in error_types():
        means = " ".join((error.__doc__ or "").split("\n\n")[0].split()).replace("``", "`")
        again = "yes" if error.retryable else "no"
        cells = f"`{error.code}`", means, error.default_cause, error.default_next_step, str(error.exit_status), again
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def event_table() -> str:
    """One row per name."""
    return "\n".join(
        ["| event | means |", "|---|---|", *(f"| `{name}` | {text} |" for name, text in log.EVENTS.items())]
    )


TABLES: dict[str, Callable[[], str]] = {"errors.md": error_table, "logging.md": event_table}


def main(check: bool) -> str | None:
    """Write the tables, or return what is wrong with them."""
    for name, table in TABLES.items():
        path = REFERENCE / name
        text = path.read_text(encoding="utf-8")
        begin = f"<!-- generated: {path.stem} -->\n"
        before, rest = text.split(begin)
        content = f"{before}{begin}{table()}\n{END}{rest.split(END)[1]}"
        if check and content != text:
            return f"{path} is not what the source says; run: make docs"
        if not check:
            path.write_text(content, encoding="utf-8")
    return None


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))

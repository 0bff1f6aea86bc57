"""Where a configured value comes from, and what is wrong with it: ``file:line:column: path = value: what``."""

from __future__ import annotations

import json
import re
from typing import NamedTuple

import msgspec

from optima_bridge.config.locate import Path

LONGEST_VALUE = 60
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class Origin(NamedTuple):
    """Where a value was set: a file and place, ``env NAME``, ``command line`` or ``default``.

    Attributes:
        line, column: from 1; None where the source has no lines, or where something is missing from the whole file.
    """

    source: str
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}:{self.column}"


DEFAULT = Origin("default")


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing to correct, or (`warning`) one thing that is legal but unwise.

    Attributes:
        path: dotted; empty where it is about the whole file.
        value: as TOML; empty where there is none, or it may be a secret.
    """

    origin: Origin
    what: str
    path: str = ""
    value: str = ""
    suggestion: str = ""
    warning: bool = False

    def __str__(self) -> str:
        parts = [str(self.origin), "warning" if self.warning else "", self.path, self.what]
        if self.value:
            parts[2] += f" = {self.value}"
        hint = f' (did you mean "{self.suggestion}"?)' if self.suggestion else ""
        return ": ".join(part for part in parts if part) + hint

    def document(self) -> dict[str, object]:
        """The JSON form; ``text`` is the line as printed."""
        return {
            "file": self.origin.source,
            "line": self.origin.line,
            "column": self.origin.column,
            "path": self.path,
            "what": self.what,
            "suggestion": self.suggestion,
            "text": str(self),
        }

    @property
    def sort_key(self) -> tuple[bool, str, int, int, str]:
        """Files by name and place, then the environment, then the command line."""
        source, line, column = self.origin
        return source.startswith(("env ", "command line")), source, line or 0, column or 0, self.path


_PIN = re.compile(r"(?<=pin-value=)[^&;\"]+")


def dotted(path: Path) -> str:
    """A path as it is written in TOML: ``devices.front.port``; array elements as ``[0]``."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        else:
            text += ("." if text else "") + (step if _BARE_KEY.fullmatch(step) else toml(step))
    return text


def toml(value: object) -> str:
    """A value as it is written in TOML, tables inline. Dates and times come out as their ISO text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, list):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, dict):
        pairs = ", ".join(f"{dotted((key,))} = {toml(item)}" for key, item in value.items())
        return f"{{ {pairs} }}" if pairs else "{}"
    return str(value)


def shortened(value: object) -> str:
    """A scalar for a message, cut where it is long, without the PIN of a PKCS#11 URI; empty for tables and arrays."""
    if isinstance(value, dict | list):
        return ""
    text = _PIN.sub("…", toml(value))
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def nearest(word: object, known: list[str]) -> str:
    """The known word that was probably meant, or an empty string."""
    import difflib

    return next(iter(difflib.get_close_matches(str(word), known, n=1)), "")

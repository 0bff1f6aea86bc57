"""Where each key and value of a TOML document stands: tomllib says what, this says where.

    locate('[mqtt]\\nport = 1883')["mqtt", "port"] == Place(line=2, column=1, value_line=2, value_column=8)

A path has a name per table level and an index per array level. Only for text that tomllib has accepted: nothing is
checked twice. Source: TOML 1.0.0.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

Path = tuple[str | int, ...]

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_SPACE = re.compile(r"[ \t]*")
_KEY_PART = re.compile(r"""[A-Za-z0-9_-]+|"(?:\\.|[^"\\])*"|'[^']*'""")
_DOT = re.compile(r"[ \t]*\.[ \t]*")
# Up to two quotes may stand directly before the three that close a multi-line string.
_STRING = re.compile(
    r'''"""(?:\\.|[^\\])*?""""{0,2}|"(?:\\.|[^"\\])*"'''
    r"""|'''.*?''''{0,2}|'[^']*'""",
    re.DOTALL,
)
_SCALAR = re.compile(r"[^,\]}#\r\n]+")


class Place(NamedTuple):
    """Line and column, both from 1 and in characters, of a key and of its value.

    A table's value stands where its name does; an array element has no key, so its key stands where its value does.
    """

    line: int
    column: int
    value_line: int
    value_column: int


def locate(text: str) -> dict[Path, Place]:
    """The place of every table, key, value and array element; a table opened twice counts where it is first named."""
    lines = [0, *(match.end() for match in re.finditer("\n", text))]

    def line_and_column(offset: int) -> tuple[int, int]:
        line = bisect_right(lines, offset)
        return line, offset - lines[line - 1] + 1

    return {
        path: Place(*line_and_column(key_at), *line_and_column(value_at))
        for path, (key_at, value_at) in _Scanner(text).document().items()
    }


class _Scanner:
    """One pass over the text; `_at` is the offset of the next character, `_found` the offsets of key and value."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._found: dict[Path, tuple[int, int]] = {}
        self._elements: dict[Path, int] = {}  # of each array of tables: how many so far

    def document(self) -> dict[Path, tuple[int, int]]:
        table: Path = ()
        self._take(_BLANK)
        while self._at < len(self._text):
            if self._text[self._at] == "[":
                table = self._header()
            else:
                self._pair(table)
            self._take(_BLANK)
        return self._found

    def _header(self) -> Path:
        """``[a.b]`` or ``[[a.b]]``: the path of the table that it opens."""
        is_element = self._text.startswith("[[", self._at)
        brackets = 2 if is_element else 1
        self._at += brackets
        path: Path = ()
        names = self._key()
        for depth, (name, offset) in enumerate(names, 1):
            path = (*path, name)
            self._mark(path, offset)
            if is_element and depth == len(names):
                self._elements[path] = self._elements.get(path, 0) + 1
            if path in self._elements:
                path = (*path, self._elements[path] - 1)
                self._mark(path, offset)
        self._at += brackets
        return path

    def _pair(self, table: Path) -> None:
        """``a.b = value``."""
        path = table
        names = self._key()
        self._at += 1  # =
        self._take(_SPACE)
        for name, offset in names[:-1]:
            path = (*path, name)
            self._mark(path, offset)
        name, offset = names[-1]
        path = (*path, name)
        self._mark(path, offset, self._at)
        self._value(path)

    def _key(self) -> list[tuple[str, int]]:
        """The parts of a dotted key with their offsets, and the space around it."""
        self._take(_SPACE)
        parts = []
        while True:
            offset = self._at
            parts.append((_unquoted(self._take(_KEY_PART)), offset))
            if "." not in self._take(_DOT):
                self._take(_SPACE)
                return parts

    def _value(self, path: Path) -> None:
        opening = self._text[self._at]
        if opening in "\"'":
            self._take(_STRING)
        elif opening == "[":
            self._array(path)
        elif opening == "{":
            self._inline_table(path)
        else:
            self._take(_SCALAR)

    def _array(self, path: Path) -> None:
        index = 0
        while self._next_item("]"):
            self._mark((*path, index), self._at)
            self._value((*path, index))
            index += 1

    def _inline_table(self, path: Path) -> None:
        while self._next_item("}"):
            self._pair(path)

    def _next_item(self, closing: str) -> bool:
        """Step over the opening bracket or the comma; False once the closing bracket is behind us."""
        self._take(_BLANK)
        if self._text[self._at] in "[{,":
            self._at += 1
            self._take(_BLANK)
        if self._text[self._at] != closing:
            return True
        self._at += 1
        return False

    def _mark(self, path: Path, key_at: int, value_at: int | None = None) -> None:
        self._found.setdefault(path, (key_at, key_at if value_at is None else value_at))

    def _take(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        if match is None:
            return ""
        self._at = match.end()
        return match[0]


def _unquoted(part: str) -> str:
    if "\\" in part and part.startswith('"'):
        import tomllib

        return next(iter(tomllib.loads(f"{part} = 0")))
    return part[1:-1] if part[0] in "\"'" else part

"""The locator against tomllib: it finds every path that tomllib finds, at the place where it was written."""

from __future__ import annotations

import json
import random
import re
import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optima_bridge.config.locate import Path, Place, locate

WRITTEN_SCALARS = (
    "1", "-17", "1_000", "0xff", "6.5e-3", "inf", "true", "false", "1979-05-27 07:32:00", "1979-05-27T07:32:00Z", "07:32:00",
    '""', "''", '"# = ] } , \' \\" \\\\"', "'# = ] } , \" \\'", '"a.b"', '""""""', "''''''",
    '"""one\n[two]\nthree = 3 \\""" # """', '"""""quoted""" ', '"""quoted"""""', "'''one\n# two'''", "''''quoted'''''",
    '"""line \\\n   continued"""',
)  # fmt: skip
BARE = re.compile(r"[A-Za-z0-9_-]+")

names = st.one_of(
    st.sampled_from(["a", "b", "port", "-", "1", "front-reader"]),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x7f"), max_size=4),
)
scalars = st.sampled_from(WRITTEN_SCALARS).map(str.strip)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)


class Writer:
    """Writes a tree in a random style and remembers where everything went."""

    def __init__(self, style: random.Random) -> None:
        self.style = style
        self.text = ""
        self.places: dict[Path, tuple[int, int]] = {}

    def document(self, tree: dict[str, Any]) -> None:
        self.blank(newline=True)
        self.body(tree, ())

    def body(self, table: dict[str, Any], at: Path, header: tuple[str, ...] = ()) -> None:
        sections = {
            key: value for key, value in table.items() if self.can_be_section(value) and self.style.random() < 0.6
        }
        for key, value in table.items():
            if key not in sections:
                self.pair((key,), value, at)
        for key, value in sections.items():
            for index, element in enumerate(value if isinstance(value, list) else [value]):
                is_element = isinstance(value, list)
                self.text += "[[" if is_element else "["
                path = self.key((*header, key), self.base(at, header), last_index=index if is_element else None)
                self.text += "]]" if is_element else "]"
                self.blank(newline=True)
                # below an array of tables only pairs: a nested header would need the index in its path
                if is_element:
                    for inner_key, inner in element.items():
                        self.pair((inner_key,), inner, path)
                else:
                    self.body(element, path, (*header, key))

    def base(self, at: Path, header: tuple[str, ...]) -> Path:
        return at[: len(at) - len(header)]

    def can_be_section(self, value: Any) -> bool:
        return isinstance(value, dict) or (
            isinstance(value, list) and value != [] and all(isinstance(element, dict) for element in value)
        )

    def pair(self, keys: tuple[str, ...], value: Any, at: Path, *, inline: bool = False) -> None:
        if isinstance(value, dict) and value and self.style.random() < 0.4:
            for position, (key, inner) in enumerate(value.items()):
                if inline and position:
                    self.text += ", "
                self.pair((*keys, key), inner, at, inline=inline)
            return
        path = self.key(keys, at)
        self.text += "=" + self.style.choice(["", " ", "\t"])
        self.places[path] = (self.places[path][0], len(self.text))
        self.value(value, path, inline=inline)
        if not inline:
            self.blank(newline=True)

    def key(self, keys: tuple[str, ...], at: Path, last_index: int | None = None) -> Path:
        path = at
        self.text += self.style.choice(["", " "])
        for position, key in enumerate(keys):
            self.text += self.style.choice([".", " . "]) if position else ""
            path = (*path, key)
            self.places.setdefault(path, (len(self.text), len(self.text)))
            if last_index is not None and position == len(keys) - 1:
                path = (*path, last_index)
                self.places[path] = (len(self.text), len(self.text))
            self.text += self.quoted(key)
        self.text += self.style.choice(["", " "])
        return path

    def quoted(self, key: str) -> str:
        forms = [json.dumps(key, ensure_ascii=self.style.random() < 0.5 and key.isascii())]
        if BARE.fullmatch(key):
            forms += [key] * 3
        if key.isprintable() and "'" not in key:
            forms.append(f"'{key}'")
        return self.style.choice(forms)

    def value(self, value: Any, path: Path, *, inline: bool) -> None:
        if isinstance(value, str):
            self.text += value
        elif isinstance(value, list):
            self.text += "["
            self.blank(newline=False)
            for index, element in enumerate(value):
                self.places[*path, index] = (len(self.text), len(self.text))
                self.value(element, (*path, index), inline=True)
                self.blank(newline=False)
                self.text += "," if index < len(value) - 1 else self.style.choice(["", ","])
                self.blank(newline=False)
            self.text += "]"
        else:
            self.text += "{ "
            for position, (key, inner) in enumerate(value.items()):
                self.text += ", " if position else ""
                self.pair((key,), inner, path, inline=True)
            self.text += " }"

    def blank(self, *, newline: bool) -> None:
        if newline or self.style.random() < 0.3:
            self.text += self.style.choice(["\n", '  # it\'s "a" [comment] = {\n', "\r\n", "\n\n\t"])


def place_in(text: str, key_at: int, value_at: int) -> Place:
    def place(offset: int) -> tuple[int, int]:
        before = text[:offset].split("\n")
        return len(before), len(before[-1]) + 1

    return Place(*place(key_at), *place(value_at))


def every_path(value: Any, at: Path = ()) -> set[Path]:
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return {found for step, inner in steps for found in ({(*at, step)} | every_path(inner, (*at, step)))}


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(names, values, max_size=4), st.randoms(use_true_random=False))
def test_every_key_and_value_of_any_document_is_found_where_it_was_written(
    tree: dict[str, Any], style: random.Random
) -> None:
    writer = Writer(style)
    writer.document(tree)

    located = locate(writer.text)

    assert located.keys() == every_path(tomllib.loads(writer.text))
    assert located == {path: place_in(writer.text, *offsets) for path, offsets in writer.places.items()}


@pytest.mark.parametrize("scalar", WRITTEN_SCALARS)
def test_what_follows_a_value_is_found_whatever_the_value_looks_like(scalar: str) -> None:
    text = f"a = {scalar} # c\nb = [{scalar} , {scalar}]\nc = {{ d = {scalar}, e = 1 }}\nf = 1\n"

    located = locate(text)

    assert located.keys() == every_path(tomllib.loads(text))
    assert located["f",].line == text.count("\n")
    assert located["c", "e"].value_column == text.splitlines()[-2].index("e = 1") + 5


def test_headers_below_an_array_of_tables_belong_to_its_last_element() -> None:
    text = "[[a]]\nx = 1\n[a.b]\ny = 2\n[[a]]\n[a.b]\ny = 3\n[[a.c]]\n[[a.c]]\nz = 4\n"

    located = locate(text)

    assert located.keys() == every_path(tomllib.loads(text))
    assert located["a", 0, "b", "y"] == Place(4, 1, 4, 5)
    assert located["a", 1, "b", "y"] == Place(7, 1, 7, 5)
    assert located["a", 1, "c", 1, "z"] == Place(10, 1, 10, 5)


def test_a_table_that_is_named_twice_counts_where_it_is_first_named() -> None:
    assert locate("[a.b]\n[a]\nc = 1\n")["a",] == Place(1, 2, 1, 2)


def test_columns_count_characters_not_bytes() -> None:
    assert locate('"ä" = { "→" = 1 }')["ä", "→"] == Place(1, 9, 1, 15)

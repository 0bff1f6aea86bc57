"""What the documents say of the audit log is so: the recipe without our program, the actions, the record."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from optima_bridge.audit.check import Kind
from optima_bridge.audit.record import ACTIONS
from tests.audit.logs import ME, SOMEBODY, judged, write

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    text = (DOCS / "howto/check-the-audit-log.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    path = tmp_path / "check.py"
    path.write_text(code, encoding="utf-8")
    return path


def run(recipe: Path, *arguments: str) -> tuple[int, str]:
    """With nothing on its path but Python's own library."""
    done = subprocess.run([sys.executable, "-I", "-S", recipe, *arguments], capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout or done.stderr


def test_the_recipe_needs_nothing_of_ours_and_agrees_with_us(recipe: Path, tmp_path: Path) -> None:
    log = tmp_path / "audit.ndjson"
    write(tmp_path, 3)
    with log.open("ab") as file:
        file.write(b'{"n":4,"ti')
    assert run(recipe, str(log))[0] == 1
    write(tmp_path, 3)
    head = str(judged(tmp_path).head)
    assert judged(tmp_path).findings == ()
    assert run(recipe, str(log)) == (0, f"whole: 7 records, head {head}\n")
    assert run(recipe, str(log), head)[0] == 0
    write(tmp_path, 1)
    assert run(recipe, str(log), head)[0] == 0
    assert run(recipe, str(log), f"9:{head[2:]}") == (1, "the end is torn, or the log never had that head\n")


def test_the_recipe_notices_what_we_notice(recipe: Path, tmp_path: Path) -> None:
    write(tmp_path, 5)
    log = tmp_path / "audit.ndjson"
    lines = log.read_bytes().splitlines(keepends=True)
    head = str(judged(tmp_path).head)
    edited = lines[1].replace(b"ann", b"bob").replace(b"POST", b"PUT")
    for changed in (
        [lines[0], edited, *lines[2:]],
        [*lines[:2], *lines[3:]],
        [*lines[:2], lines[0], *lines[2:]],
        [lines[1], lines[0], *lines[2:]],
        lines[:4],
        [*lines[:4], lines[4][:-1]],
        [*lines, b"\n"],
    ):
        log.write_bytes(b"".join(changed))
        assert judged(tmp_path).findings
        assert run(recipe, str(log), head)[0] == 1


def test_the_documented_actions_and_kinds_are_those_of_the_source() -> None:
    text = (DOCS / "explanation/audit.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `([a-z]+\.[a-z]+)` \| (.+) \|$", text, re.MULTILINE)) == dict(ACTIONS)
    for kind in Kind:
        assert f"`{kind}`" in text


def test_a_record_is_as_long_as_the_documents_say(tmp_path: Path) -> None:
    write(tmp_path, 9)
    assert all(300 <= len(line) <= 450 for line in (tmp_path / "audit.ndjson").read_bytes().splitlines())
    assert (ME.via, SOMEBODY.via) == ("standalone", "socket")

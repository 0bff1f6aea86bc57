"""The documents are true: their commands run, their links lead somewhere, their tables are those of the source.

In a document, ``<!-- run -->`` before a ``console`` block has its commands run in one shell in an empty folder (units and
configuration of the repository at hand), with status 0 or the one named: ``<!-- run: 13 -->``. ``<!-- run: PROGRAM -->``
skips where PROGRAM is absent. What follows a command is what it prints; ``…`` stands for anything.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from optima_bridge import errors
from optima_bridge.commands import ReplayArguments, Request
from optima_bridge.hub import EventDocument, StateDocument

REPOSITORY = Path(__file__).parents[2]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md"), *REPOSITORY.glob("drivers/*.md")])
BLOCK = re.compile(r"(?:<!-- run(?:: (?P<how>[\w-]+))? -->\n(?P<marked>))?```console\n(?P<text>.*?)```", re.DOTALL)
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("OPTIMA_", "COV_", "PYTEST_"))},
    "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}",
    "NO_COLOR": "1",
}
RUN_TIMEOUT_S = 60


def _name(path: Path) -> str:
    return str(path.relative_to(REPOSITORY))


def _runs() -> Iterator[tuple[str, str, str]]:
    for path in DOCUMENTS:
        for block in BLOCK.finditer(path.read_text(encoding="utf-8")):
            if block["marked"] is not None:
                yield _name(path), block["how"] or "0", block["text"]


def _bridge_commands() -> Iterator[tuple[str, str]]:
    """Every ``bridge …`` command that a document or an error tells somebody to type."""
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        lines = [line for block in BLOCK.finditer(text) for line in block["text"].splitlines()]
        told = [line[2:] for line in lines if re.match(r"[$#] (sudo )?bridge ", line)]
        told += re.findall(r"`(bridge [^`…]+)`", _not_yet(text))
        for command in told:
            yield _name(path), command.removeprefix("sudo ")
    for error in vars(errors).values():
        if match := re.search(r": (bridge [a-z][a-z -]+)", getattr(error, "default_next_step", "")):
            yield error.code, match[1]


def _not_yet(text: str) -> str:
    """`text` without its section of what is still to come."""
    return re.sub(r"\n## Not yet\n.*?(?=\n## )", "", text, flags=re.DOTALL)


@pytest.mark.parametrize(
    ("how", "text"), [pytest.param(how, text, id=f"{name}-{i}") for i, (name, how, text) in enumerate(_runs())]
)
def test_a_marked_block_prints_what_the_document_says(how: str, text: str, tmp_path: Path) -> None:
    if not how.isdigit() and shutil.which(how) is None:
        pytest.skip(f"{how} is not installed")
    for folder in ("systemd", "config"):
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    commands = [line[2:] for line in text.splitlines() if line.startswith("$ ")]
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
    )
    assert done.returncode == (int(how) if how.isdigit() else 0), done.stdout + done.stderr
    shown = "\n".join(line for line in text.splitlines() if not line.startswith("$ "))
    pattern = re.escape(shown).replace("…", ".*")
    assert re.fullmatch(pattern, done.stdout.rstrip("\n"), re.DOTALL), f"expected\n{shown}\ngot\n{done.stdout}"


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_what_make_is_told_to_do_it_does(path: Path) -> None:
    targets = {*re.findall(r"^([a-z]+):", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)}
    told = re.findall(r"(?:`|^\$ )make\b ?([a-z]*)", path.read_text(encoding="utf-8"), re.MULTILINE)
    assert {*told} <= targets  # alone it prints its help


def test_there_are_marked_blocks_at_all() -> None:
    assert len(list(_runs())) >= 3


@pytest.mark.parametrize("command", sorted({command for _, command in _bridge_commands()}))
def test_a_bridge_command_that_somebody_is_told_to_type_exists(command: str) -> None:
    words = shlex.split(command.partition(" > ")[0])
    done = subprocess.run([*words, "--help"], env=ENVIRONMENT, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    assert done.returncode == 0, done.stderr
    assert "Usage: bridge" in done.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=_name)
def test_every_link_leads_to_a_file_and_a_heading(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, heading = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), target
        if heading:
            titles = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert heading in {_anchor(title) for title in titles}, target


def _anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def test_every_document_is_in_the_list() -> None:
    index = (REPOSITORY / "docs/README.md").read_text(encoding="utf-8")
    listed = {(REPOSITORY / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index)}
    assert {_name(path) for path in DOCUMENTS if path.parts[-2] != REPOSITORY.name and "docs" in path.parts} == {
        _name(path) for path in listed
    } | {"docs/README.md"}


@pytest.mark.parametrize("path", ["README.md", "drivers/README.md"])
def test_every_driver_is_in_the_tables(path: str) -> None:
    text = (REPOSITORY / path).read_text(encoding="utf-8")
    listed = re.findall(r"/devices/([\w-]+)\.md\)", text)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(listed) == sorted(project["entry-points"]["optima_bridge.drivers"])


def test_the_payloads_of_the_reference_are_those_of_the_source() -> None:
    text = (REPOSITORY / "docs/reference/mqtt.md").read_text(encoding="utf-8")
    event, state, alert, request, answer = map(json.loads, re.findall(r"```json\n(.*?)```", text, re.DOTALL))
    assert tuple(event) == EventDocument.__struct_fields__
    assert tuple(state) == StateDocument.__struct_fields__
    assert {*alert} == {"since", "device", "name"} | ({*errors.LinkLost("x").document()} - {"rc"})
    assert (alert["code"], alert["cause"], alert["next"]) == (
        errors.LinkLost.code, errors.LinkLost.default_cause, errors.LinkLost.default_next_step
    )  # fmt: skip
    taken = msgspec.convert(request, Request)
    assert (taken.req, taken.by) == (request["req"], request["by"])
    assert taken.args == ReplayArguments(first=120, last=180, epoch=event["epoch"])
    assert answer["req"] == taken.req


def test_the_reference_explains_every_key_of_an_event() -> None:
    text = (REPOSITORY / "docs/reference/mqtt.md").read_text(encoding="utf-8")
    missing = [key for key in EventDocument.__struct_fields__ if f"`{key}`" not in text]
    assert missing == ["specversion"]  # CloudEvents explains that one


def test_the_loop_that_subscribers_are_given_drops_doubles_and_finds_gaps() -> None:
    text = (REPOSITORY / "docs/howto/subscribe.md").read_text(encoding="utf-8")
    [code] = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    printed: list[int] = []
    names: dict[str, object] = {"print": lambda *facts: printed.append(facts[3]["n"])}
    exec(code, names)
    take = names["take"]
    assert callable(take)

    def event(seq: int) -> bytes:
        return json.dumps(
            {"source": "s", "epoch": 7, "seq": seq, "time": "", "subject": "", "type": "", "data": {"n": seq}}
        ).encode()

    gaps = [take(event(seq)) for seq in (1, 2, 2, 5, 3, 4, 5, 1)]
    assert [gap for gap in gaps if gap] == [("s", 7, 3, 4)]
    assert printed == [1, 2, 3, 4, 5]


def test_the_generated_tables_are_those_of_the_source() -> None:
    program = [sys.executable, str(REPOSITORY / "docs/tables.py"), "--check"]
    done = subprocess.run(program, env=ENVIRONMENT, capture_output=True, text=True, timeout=RUN_TIMEOUT_S)
    assert (done.returncode, done.stderr) == (0, "")


def test_no_two_errors_share_a_code() -> None:
    codes = [error.code for error in vars(errors).values() if isinstance(error, type) and hasattr(error, "code")]
    assert len(codes) == len({*codes})

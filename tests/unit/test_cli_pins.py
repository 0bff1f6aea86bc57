"""Where commands take the PIN of a token from: a file, standard input, a credential, a question; never an argument."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import click
import pytest

from optima_bridge.cli.options import Settings
from optima_bridge.cli.pins import PinSource, pin_options
from optima_bridge.errors import UsageError

ASKING = """
from optima_bridge.cli.options import Settings
from optima_bridge.cli.pins import PinSource
print("got", PinSource().read(Settings(), ask="PIN of the token store-ca"))
"""


def typed(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text)))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / "pin"
    file.write_bytes(b"123456\n")
    file.chmod(0o600)
    return file


def test_the_options_become_one_source() -> None:
    @click.command()
    @pin_options
    @click.option("--other")
    def command(pin: PinSource, other: str) -> None:
        seen.append((pin, other))

    seen: list[tuple[PinSource, str]] = []
    command.main([], standalone_mode=False)
    command.main(["--pin-file", "f", "--pin-stdin", "--pin-credential", "c", "--other", "o"], standalone_mode=False)
    assert seen == [(PinSource(), None), (PinSource(Path("f"), stdin=True, credential="c"), "o")]


def test_a_file_that_only_its_user_can_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(file.parent)
    assert PinSource(Path("pin")).read(Settings()) == b"123456"
    file.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by group or others; run: chmod 600"):
        PinSource(file).read(Settings())


def test_files_that_hold_no_pin(file: Path) -> None:
    file.write_bytes(b"\n")
    with pytest.raises(UsageError, match="is empty"):
        PinSource(file).read(Settings())
    with pytest.raises(UsageError, match="no such file"):
        PinSource(file.with_name("absent")).read(Settings())


def test_the_first_line_of_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(b"12 34\r\nmore", monkeypatch)
    assert PinSource(stdin=True).read(Settings()) == b"12 34"
    typed(b"", monkeypatch)
    with pytest.raises(UsageError, match="there is no PIN on standard input"):
        PinSource(stdin=True).read(Settings())


def test_a_credential_of_the_service(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="CREDENTIALS_DIRECTORY is not set"):
        PinSource(credential="pin").read(Settings())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(file.parent))
    assert PinSource(credential="pin").read(Settings()) == b"123456"
    with pytest.raises(UsageError, match="the PIN cannot be read"):
        PinSource(credential="../pin").read(Settings())


def test_sources_exclude_each_other(file: Path) -> None:
    with pytest.raises(UsageError, match="exclude each other"):
        PinSource(file, stdin=True).read(Settings())


def test_nothing_is_asked_where_nobody_can_answer_or_nothing_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    typed(b"123456\n", monkeypatch)
    assert PinSource().read(Settings(), ask="PIN") is None
    assert PinSource().read(Settings()) is None


def on_a_terminal(program: str, answer: bytes) -> bytes:
    """Everything that stands on the terminal of a program whose question is answered."""
    ours, theirs = pty.openpty()
    program_on_it = ["setsid", "--ctty", sys.executable, "-c", program]
    process = subprocess.Popen(program_on_it, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while b": " not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, answer)
        while chunk := os.read(ours, 1024):
            shown += chunk
    except OSError:
        pass  # the end of the program is the end of the terminal
    finally:
        process.wait(20)
        os.close(ours)
    return shown


def test_on_a_terminal_it_is_asked_for_and_not_shown() -> None:
    shown = on_a_terminal(ASKING, b"4711\n")
    assert b"PIN of the token store-ca: " in shown
    assert shown.count(b"4711") == 1
    assert b"got b'4711'" in shown
    assert b"None" in on_a_terminal(f"print('PIN: ')\n{ASKING.replace('Settings()', 'Settings(no_input=True)')}", b"")


def test_a_terminal_is_no_standard_input_for_a_pin() -> None:
    program = "from optima_bridge.cli.pins import *\nprint('PIN: ')\nPinSource(stdin=True).read(Settings())"
    assert b"standard input is a terminal" in on_a_terminal(program, b"")

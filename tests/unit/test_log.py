"""Logging: the list of event names is true, device text cannot forge lines, every format is what it says."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
import pty
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from optima_bridge import log

SOURCE = Path(log.__file__).parents[1]
METHODS = {"debug", "info", "warning", "error", "exception", "critical"}
FORGED = "front\n<3>link.lost device=till\x1b[31m\x00"


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    handlers = logging.getLogger().handlers[:]
    yield
    logging.getLogger().handlers[:] = handlers
    structlog.reset_defaults()


def logged(log_format: log.LogFormat, level: str = "info", **facts: object) -> str:
    """What a line looks like in a file."""
    stream = io.StringIO()
    log.configure(level, log_format, stream)
    log.get_logger("optima_bridge.keeper").warning("link.lost", **facts)
    return stream.getvalue()


def names_in_source() -> dict[str, str]:
    """Every event name that is logged anywhere in the packages, and one place of it."""
    found: dict[str, str] = {}
    for path in [*SOURCE.glob("optima_bridge/**/*.py"), *SOURCE.glob("drivers/optima_drivers/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and _is_log_method(node.func):
                for text in ast.walk(node.args[0]):  # both ends of `"mqtt.lost" if … else "mqtt.refused"`
                    if isinstance(text, ast.Constant) and isinstance(text.value, str):
                        found[text.value] = f"{path.name}:{node.lineno}"
    return found


def _is_log_method(called: ast.expr) -> bool:
    if isinstance(called, ast.IfExp):
        return _is_log_method(called.body)
    if not isinstance(called, ast.Attribute) or called.attr not in METHODS:
        return False
    logger = ast.unparse(called.value)
    return logger in {"log", "logger"} or logger.startswith(("get_logger(", "log.get_logger("))


def test_the_list_of_events_is_exactly_what_the_source_logs() -> None:
    assert names_in_source().keys() == log.EVENTS.keys(), names_in_source()


@pytest.mark.parametrize("name", sorted(log.EVENTS))
def test_an_event_is_a_noun_and_what_happened_to_it(name: str) -> None:
    assert re.fullmatch(r"[a-z]+\.[a-z]+", name)


@pytest.mark.parametrize("log_format", ["console", "json", "journal"])
def test_text_from_a_device_can_neither_begin_a_line_nor_colour_it(log_format: log.LogFormat) -> None:
    written = logged(log_format, text=FORGED)
    assert written.count("\n") == 1
    assert written.endswith("\n")
    assert not {"\x1b", "\x00"} & set(written)


def test_cleaned_text_keeps_what_can_be_printed_and_says_where_it_was_cut() -> None:
    assert log.clean("Tür 3 µ") == "Tür 3 µ"
    assert log.clean("a\r\nb\x1b") == "a\\r\\nb\\x1b"
    cut = log.clean("x" * 1000)
    assert (len(cut), cut[-1]) == (log.MAX_TEXT, "…")


def test_bytes_are_printed_as_hexadecimal_pairs() -> None:
    assert json.loads(logged("json", frame=b"\x02K1"))["frame"] == "02 4b 31"


def test_json_is_one_document_a_line_with_a_utc_time() -> None:
    document = json.loads(logged("json", device="front", attempts=3))
    time = document.pop("timestamp")
    assert document == {
        "event": "link.lost", "level": "warning", "module": "keeper", "device": "front", "attempts": 3
    }  # fmt: skip
    assert time.endswith("Z")


def test_the_journal_gets_a_priority_and_no_time() -> None:
    assert (
        logged("journal", device="front", why="not there")
        == '<4>link.lost module=keeper device=front why="not there"\n'
    )


def test_a_line_below_the_level_is_not_written() -> None:
    assert logged("json", level="error") == ""


@pytest.mark.parametrize(("log_format", "lines"), [("json", 1), ("journal", 4), ("console", 4)])
def test_a_traceback_is_written_whole_and_without_colour(log_format: log.LogFormat, lines: int) -> None:
    stream = io.StringIO()
    log.configure("info", log_format, stream)
    try:
        int("of a driver")
    except ValueError:
        log.get_logger("keeper").error("device.failed", exc_info=True)
    written = stream.getvalue()
    assert "ValueError: invalid literal" in written
    assert "test_log.py" in written
    assert "\x1b" not in written
    assert written.count("\n") >= lines
    if log_format == "journal":
        assert all(line.startswith("<3>") for line in written.splitlines())
    if log_format == "json":
        assert len(written.splitlines()) == 1


def test_a_warning_of_a_library_becomes_a_line_of_ours() -> None:
    stream = io.StringIO()
    log.configure("info", "json", stream)
    logging.getLogger("aiohttp.server").warning("bad %s", "request")
    logging.getLogger("aiohttp.server").info("not for us")
    [line] = stream.getvalue().splitlines()
    document = json.loads(line)
    assert (document["event"], document["module"], document["text"]) == (
        "library.said",
        "aiohttp.server",
        "bad request",
    )


def test_left_to_itself_a_file_gets_json(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as stream:
        log.configure("info", "auto", stream)
        log.get_logger("x").info("service.ready")
    assert json.loads((tmp_path / "log").read_text())["event"] == "service.ready"


def test_left_to_itself_the_journal_gets_its_own_format_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (tmp_path / "log").open("w") as stream:
        status = os.fstat(stream.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        log.configure("info", "auto", stream)
        log.get_logger("x").info("service.ready")
    assert (tmp_path / "log").read_text() == "<6>service.ready module=x\n"
    with (tmp_path / "other").open("w") as other:  # inherited from a shell that the journal reads: not ours
        log.configure("info", "auto", other)
        log.get_logger("x").info("service.ready")
    assert (tmp_path / "other").read_text().startswith("{")


@pytest.mark.parametrize(("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_a_terminal_gets_colour_unless_it_asks_not_to(
    env: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    master, slave = pty.openpty()
    try:
        with os.fdopen(slave, "w") as terminal:
            log.configure("info", "auto", terminal)
            log.get_logger("x").info("service.ready")
            terminal.flush()
            written = os.read(master, 4096)
    finally:
        os.close(master)
    assert b"service.ready" in written
    assert (b"\x1b[" in written) is coloured

"""The program `bridge` where no daemon runs: arguments, errors, speed."""

from __future__ import annotations

import asyncio
import json
import shlex
import socket
import sys
from pathlib import Path
from typing import Any

import click
import pytest

from optima_bridge import errors
from optima_bridge.cli import app, failures, help, options, render  # noqa: A004 (the module's name is the command's)
from optima_bridge.errors import BridgeError, ConfigError, Interrupted
from tests.unit.api_store import bridge

FORBIDDEN = (
    "asyncio",
    "aiohttp",
    "pydantic",
    "structlog",
    "msgspec",
    "rich",
    "optima_bridge.driver",
    "optima_bridge.model",
)


@pytest.mark.parametrize("verb", ["status", "monitor", "devices list", "events replay --from 1 --to 2"])
async def test_what_asks_the_daemon_imports_nothing_heavy(verb: str, tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-X", "importtime", "-m", "optima_bridge.cli", *verb.split()),
        *("--socket", str(tmp_path / "none.sock")),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    imported = {
        line.split("|")[-1].strip() for line in (await process.communicate())[1].decode().splitlines() if "|" in line
    }
    assert "optima_bridge.cli.client" in imported
    assert process.returncode == 8
    assert sorted(imported.intersection(FORBIDDEN)) == []


VERBS = [
    "status",
    "status --wait ready --for 0",
    "monitor",
    "watch front",
    "devices list",
    "devices list --all",
    "devices show front",
    "devices wait front --for 0",
    "events replay --from 1 --to 2",
]


async def test_without_a_daemon_every_verb_says_how_to_start_it(tmp_path: Path) -> None:
    asked = [bridge(*verb.split(), "--socket", str(tmp_path / "none.sock")) for verb in VERBS]
    answers = dict(zip(VERBS, await asyncio.gather(*asked), strict=True))
    for verb, (status, out, err) in answers.items():
        assert status == (7 if "--for" in verb else 8), (verb, err)
        assert out == ""
        assert "no daemon answers on" in err
        if status == 8:
            assert err.startswith("error E-NO-DAEMON: ")
            assert err.endswith("  do next       : sudo systemctl start optima-bridge\n")


@pytest.mark.parametrize(
    "arguments",
    [
        "stauts",
        "status now",
        "status --wait forever",
        "status --timeout 0",
        "monitor --type kee",
        "monitor --since yesterday",
        "monitor --count 0",
        "devices show",
        "devices wait front --state sideways",
        "events replay --from 1",
        "events replay --from 9 --to 2",
        "run --log-level loud",
        "help stauts",
    ],
)
def test_arguments_are_checked_before_the_socket_is_touched(
    arguments: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "api.sock"))
        server.listen()
        server.setblocking(False)
        assert app.main(["--socket", str(tmp_path / "api.sock"), *shlex.split(arguments)]) == 2
        with pytest.raises(BlockingIOError):
            server.accept()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error E-USAGE: ")
    assert "\n  do next       : bridge " in err


def test_a_typing_mistake_gets_a_suggestion(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["stauts"]) == 2
    assert "Did you mean 'status'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"active": False}, "keylock locked"),
        ({"active": False, "code": "probe-short"}, "keylock locked"),
        ({"active": False, "faults": []}, "keylock locked"),
        ({"active": True, "code": "probe-short"}, "keylock locked, fault probe-short"),
        ({"active": True, "code": "line-stuck", "lines": ["cts", "dcd"]}, "keylock locked, fault line-stuck cts dcd"),
        (
            {"active": True, "faults": [{"address": 1, "code": "tamper"}, {"address": 2, "code": "power"}]},
            "keylock locked, fault tamper 1, fault power 2",
        ),
        ({"active": True}, "keylock locked, fault"),
        ({"quality": "unknown", "active": "unknown"}, "keylock locked, 1 unknown"),
    ],
)
def test_a_state_in_words_says_what_each_fault_is_and_nothing_where_there_is_none(
    fault: dict[str, Any], words: str
) -> None:
    about = {"quality": "good", "since": "2026-01-01T00:00:00Z"}
    states: dict[str, dict[str, Any]] = {
        "link": {**about, "link": "up"},
        "keylock": {**about, "position": "locked", "position_code": 1},
        "fault": {**about, **fault},
    }
    assert render.state_words(states) == words


def test_an_option_on_the_command_line_beats_the_environment_wherever_it_stands(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    environment, option = f"{tmp_path}/environment", f"{tmp_path}/option"
    monkeypatch.setenv("OPTIMA_BRIDGE_SOCKET", environment)
    for arguments, asked in (
        (["status"], environment),
        (["--socket", option, "status"], option),
        (["status", "--socket", option], option),
        (["--socket", option, "devices", "list"], option),
        (["devices", "--socket", option, "list"], option),
        (["--socket", environment, "status", "--socket", option], option),
    ):
        assert app.main(arguments) == 8
        assert f"no daemon answers on {asked}\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "asks"), [("show", True), ("--no-input show", False), ("show --no-input", False)]
)
def test_never_asking_may_be_said_before_the_verb_where_the_environment_says_no(
    arguments: str, asks: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPTIMA_BRIDGE_NO_INPUT", "0")
    seen = []

    @click.group()
    def program() -> None: ...

    @program.command()
    @click.pass_obj
    def show(settings: options.Settings) -> None:
        seen.append(settings.no_input)

    program.params += options.GLOBAL_OPTIONS
    options.share_global_options(program)
    program(shlex.split(arguments), standalone_mode=False)
    assert seen == [not asks]


@pytest.mark.parametrize("arguments", ["--json status", "status --json"])
def test_global_options_stand_before_or_behind_the_verb(
    arguments: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert app.main([*shlex.split(arguments), f"--socket={tmp_path}/none"]) == 8
    assert app.main([f"--socket={tmp_path}/none", *shlex.split(arguments)]) == 8
    for document in capsys.readouterr().out.split("\n}\n")[:2]:
        assert json.loads(document + "}") == {
            "schema": "optima.error/1",
            "code": "E-NO-DAEMON",
            "what": f"no daemon answers on {tmp_path}/none",
            "cause": "the service is not running",
            "next": "sudo systemctl start optima-bridge",
            "rc": 8,
            "data": {},
        }


def test_a_global_flag_before_the_verb_reaches_a_command_with_that_flag_of_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert app.main(["--json", "config", "paths"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert app.main(["config", "paths", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == before


def test_a_stream_ends_in_a_result_even_when_it_never_began(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert app.main(["monitor", "--json", "--socket", str(tmp_path / "none")]) == 8
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["type"], result["ok"], result["rc"], result["error"]["code"]) == ("result", False, 8, "E-NO-DAEMON")


async def test_a_socket_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "api.sock"))
        server.listen()
        status, _, err = await bridge("status", "--timeout", "0.2", "--socket", str(tmp_path / "api.sock"))
    assert (status, "does not answer within 0.2 s" in err) == (8, True)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot json!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{",
        b"HTTP/1.1 500 Bad\r\nContent-Length: 2\r\n\r\n{}",
    ],
)
async def test_another_program_on_the_socket_is_not_the_daemon(answer: bytes, tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "api.sock"):
        status, _, err = await bridge("status", "--socket", str(tmp_path / "api.sock"))
    assert (status, "does not answer as the daemon does" in err) == (8, True)


def test_help_begins_with_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([]) == 0
    bare = capsys.readouterr().out
    assert app.main(["--help"]) == 0
    assert capsys.readouterr().out == bare
    assert bare.index("bridge demo") < bare.index("Options:") < bare.index("Commands:")


@pytest.mark.parametrize("verb", [name for name in app.VERBS if name != "help"])
def test_every_verb_has_help(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main([verb, "--help"]) == 0
    by_option = capsys.readouterr().out
    assert app.main(["help", verb]) == 0
    assert capsys.readouterr().out == by_option
    assert f"Usage: bridge {verb}" in by_option
    assert "..." not in by_option.partition("Commands:")[2], "the line of a command is cut off"


def test_every_error_has_its_exit_code_in_the_list() -> None:
    known = {number for number, _, _ in help.EXIT_CODES}
    raised = {
        kind.exit_status for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, BridgeError)
    }
    assert raised | {Interrupted.exit_status, app.SIGPIPE_STATUS} <= known


def test_the_version_is_short_and_machine_readable(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("optima-bridge ")
    assert app.main(["--version", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == "optima.version/1"


def test_drivers_are_listed_without_a_daemon(capsys: pytest.CaptureFixture[str]) -> None:
    assert app.main(["drivers", "list", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert {"ds2480b", "loopback", "rdm6300"} <= {driver["name"] for driver in document["drivers"]}
    assert app.main(["drivers", "show", "loopback"]) == 0
    assert "answer_timeout_ms" in capsys.readouterr().out
    assert app.main(["drivers", "show", "loopbak"]) == 3


def test_an_error_for_people_has_a_short_headline_and_two_lines_of_help() -> None:
    settings = options.Settings(color="never")
    assert failures.text(BridgeError("a", cause="b", next_step="c"), settings) == (
        "error E-INTERNAL: a\n  likely cause  : b\n  do next       : c"
    )
    long = failures.text(BridgeError("x" * 200, cause="b", next_step="c"), settings).splitlines()
    assert len(long[0]) == failures.HEADLINE_CHARACTERS
    assert long[1] == f"  what happened : {'x' * 200}"
    lines = failures.text(ConfigError("a.toml:1:1: x\na.toml:2:1: y"), settings).splitlines()
    assert lines[:3] == ["error E-CONFIG: 2 mistakes", "a.toml:1:1: x", "a.toml:2:1: y"]


def test_text_from_a_device_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    render.table(options.Settings(), ("A",), [["\x1b[2Jgone\r\n\u202eevil"]])
    failures.report(BridgeError("\x1b]0;title\x07", cause="\x9b1m", next_step="\x00"), options.Settings())
    out, err = capsys.readouterr()
    assert out == "\\x1b[2Jgone\\r\\n\\u202eevil\n"
    assert {character for character in out + err if not character.isprintable()} == {"\n"}


@click.command()
def broken() -> None:
    raise ZeroDivisionError("oops")


def test_a_bug_becomes_a_report_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setitem(app.VERBS, "status", app.Verb(f"{__name__}:broken", ""))
    assert app.main(["status", "--json"]) == 1
    out, err = capsys.readouterr()
    report = Path(json.loads(out)["data"]["report"])
    assert report.parent == tmp_path
    assert "ZeroDivisionError: oops" in report.read_text()
    assert "Traceback" not in err


def test_times_are_relative_for_people() -> None:
    assert [render.ago(seconds) for seconds in (0, 89, 91, 5399, 7200, 200_000)] == [
        "0 s", "89 s", "2 min", "90 min", "2 h", "2 d",
    ]  # fmt: skip


def test_the_documented_exit_codes_are_those_of_the_program() -> None:
    text = (Path(__file__).parents[2] / "docs/reference/exit-codes.md").read_text(encoding="utf-8")
    assert [f"| {number} | {name} | {when} |" for number, name, when in help.EXIT_CODES] == text.splitlines()[6:-2]

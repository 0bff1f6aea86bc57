"""``bridge config``, as it is typed."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from optima_bridge.cli.config import config
from optima_bridge.config import load
from optima_bridge.errors import ConfigError

GOOD = """\
[store]
site = "s1042"
node = "pc1"
[mqtt]
password = { credential = "mqtt-password" }
[devices.front]
driver = "rdm6300"
port = "/dev/ttyUSB0"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(GOOD)
    return path


def bridge_config(*args: object, env: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(config, [str(arg) for arg in args], env=env)


def document_of(result: Result) -> Any:
    return json.loads(result.stdout)


def test_check_of_a_good_file_counts_its_warnings_and_succeeds(file: Path) -> None:
    result = bridge_config("check", file)

    warning, summary = result.stdout.splitlines()
    assert warning.startswith(f'{file}:8:8: warning: devices.front.port = "/dev/ttyUSB0": ')
    assert summary == "0 errors, 1 warning"
    assert result.exit_code == 0


def test_check_of_a_bad_file_prints_every_error_and_returns_13(file: Path) -> None:
    file.write_text(GOOD.replace("node", "nod") + "[mqtt.tls]\ncerd = 1\n")
    file.chmod(0o666)

    result = bridge_config("check", file, env={"OPTIMA_BRIDGE__MQTT__PORT": "99999"})

    assert result.stdout.splitlines() == [
        f'{file}:3:1: store.nod: unknown key (did you mean "node"?)',
        f'{file}:10:1: mqtt.tls.cerd: unknown key (did you mean "cert"?)',
        "env OPTIMA_BRIDGE__MQTT__PORT: mqtt.port = 99999: must be a whole number, 1–65535",
        f"{file}: warning: everybody can change this file; run: chmod o-w {file}",
        "3 errors, 1 warning",
    ]
    assert result.exit_code == 13


def test_a_relative_file_is_named_as_it_was_typed_and_before_the_environment(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.rename(file.parent / "x.toml")
    (file.parent / "x.toml").write_text("[store]\n")
    monkeypatch.chdir(file.parent)

    result = bridge_config("check", "x.toml", env={"OPTIMA_BRIDGE__MQTT__PORT": "99999"})

    assert [line.split(": ")[0] for line in result.stdout.splitlines()[:2]] == [
        "x.toml:1:2",
        "env OPTIMA_BRIDGE__MQTT__PORT",
    ]


def test_check_speaks_json(file: Path) -> None:
    good = bridge_config("check", "--json", file)
    file.write_text("[store]\n")
    bad = bridge_config("check", "--json", file)

    assert (good.exit_code, bad.exit_code) == (0, 13)
    assert document_of(good)["ok"] is True
    assert [warning["line"] for warning in document_of(good)["warnings"]] == [8]
    assert document_of(bad)["ok"] is False
    assert [error["path"] for error in document_of(bad)["errors"]] == ["store.site"]


def test_show_prints_toml_that_loads_to_the_same_configuration(file: Path, tmp_path: Path) -> None:
    shown = tmp_path / "shown.toml"
    shown.write_text(bridge_config("show", "--origin", file).stdout)

    assert load(shown, {}).config == load(file, {}).config


def test_show_names_the_origin_of_each_value(file: Path) -> None:
    lines = bridge_config("show", "--origin", file, env={"OPTIMA_BRIDGE__MQTT__PORT": "1884"}).stdout.splitlines()

    origins = {line.split(" = ")[0]: line.rsplit("  # ", 1)[1] for line in lines}
    assert origins["store.site"] == f"{file}:2:8"
    assert origins["mqtt.port"] == "env OPTIMA_BRIDGE__MQTT__PORT"
    assert origins["mqtt.password"] == f"{file}:5:12"
    assert origins["devices.front.hold_ms"] == "default"


def test_show_speaks_json(file: Path) -> None:
    plain = document_of(bridge_config("show", "--json", file))
    with_origins = document_of(bridge_config("show", "--json", "--origin", file))

    assert plain["config"] == with_origins["config"]
    assert plain["config"]["mqtt"]["password"] == {"credential": "mqtt-password"}
    assert plain["config"]["devices"]["front"]["hold_ms"] == 500
    assert with_origins["origins"]["store.site"] == f"{file}:2:8"


def test_show_of_a_bad_configuration_is_the_error_itself(file: Path) -> None:
    file.write_text("[store]\n")

    assert isinstance(bridge_config("show", file).exception, ConfigError)


def test_paths_lists_the_sources_in_reading_order(file: Path) -> None:
    (file.parent / "conf.d").mkdir()
    (file.parent / "conf.d" / "10-a.toml").touch()
    env = {"OPTIMA_BRIDGE__LOG__LEVEL": "debug"}

    sources = document_of(bridge_config("paths", "--json", file, env=env))["sources"]

    assert [source for source in sources if source["layer"] != "vendor"] == [
        {"layer": "main", "name": str(file), "found": True},
        {"layer": "drop-in", "name": f"{file.parent}/conf.d/10-a.toml", "found": True},
        {"layer": "environment", "name": "OPTIMA_BRIDGE__LOG__LEVEL", "found": True},
    ]
    assert f"main         absent {file}x" in bridge_config("paths", f"{file}x").stdout.splitlines()


def test_init_prints_an_example_and_its_minimum_that_are_the_same_configuration(tmp_path: Path) -> None:
    full, minimal = tmp_path / "full.toml", tmp_path / "minimal.toml"
    full.write_text(bridge_config("init").stdout)
    minimal.write_text(bridge_config("init", "--minimal").stdout)

    assert load(full, {}).config == load(minimal, {}).config
    assert len(minimal.read_text().splitlines()) < 10
    assert tomllib.loads(minimal.read_text()).keys() == {"schema_version", "store", "devices"}


def test_schema_prints_one_json_document() -> None:
    assert document_of(bridge_config("schema"))["title"] == "optima-bridge configuration"

"""Every mistake is named, at once, at its place, with what was probably meant."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from optima_bridge import registry
from optima_bridge.config import ConfigPaths, load
from optima_bridge.errors import ConfigError

DRIVERS = ", ".join(registry.installed())
GOOD = '[store]\nsite = "s1042"\n'


def lines_of(file: Path, env: dict[str, str] | None = None) -> list[str]:
    """The error lines of a file, the file's directory taken away."""
    with pytest.raises(ConfigError) as caught:
        load(file, env or {})
    assert caught.value.exit_status == 13
    return str(caught.value).replace(f"{file.parent}/", "").splitlines()


def test_one_bad_file_with_five_mistakes_gives_exactly_five_lines(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("""\
[store]
site = "s1042"

[mqtt]
port = 99999
tls = "yes"

[devices.front]
driver = "loopbak"
port = "/dev/serial/by-id/front"

[devices]
back = { driver = "rdm6300", port = "/dev/serial/by-id/back", hold_ms = "500", suspekt_ms = 150 }
""")

    assert lines_of(file) == [
        "config.toml:5:8: mqtt.port = 99999: must be a whole number, 1–65535",
        'config.toml:6:7: mqtt.tls = "yes": must be a table',
        f'config.toml:9:10: devices.front.driver = "loopbak": not one of {DRIVERS} (did you mean "loopback"?)',
        'config.toml:13:73: devices.back.hold_ms = "500": must be a whole number, 100–5000, without quotes',
        'config.toml:13:80: devices.back.suspekt_ms: unknown key (did you mean "suspect_ms"?)',
    ]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[store]\nsite = "S1042"', "2:8: store.site = \"S1042\": must be text of the form [a-z0-9-]{1,32}"),
        ("[store]\nsite = 1042", "2:8: store.site = 1042: must be text of the form [a-z0-9-]{1,32}, in quotes"),
        ("[store]\n", "1:2: store.site: missing, must be text of the form [a-z0-9-]{1,32}"),
        ('store = "s1042"', '1:9: store = "s1042": must be a table'),
        (GOOD + "[stoer]", '3:2: stoer: unknown key (did you mean "store"?)'),
        (GOOD + '"a b" = 1', '3:1: store."a b": unknown key'),
        (GOOD + "[mqtt]\nenabled = 1", "4:11: mqtt.enabled = 1: must be true or false"),
        (GOOD + "[mqtt]\nkeepalive_s = 30.5", "4:15: mqtt.keepalive_s = 30.5: must be a whole number, 5–3600"),
        (GOOD + '[mqtt]\nhost = ""', '4:8: mqtt.host = "": must be text, not empty'),
        (GOOD + "[mqtt]\nprotocol = 5", '4:12: mqtt.protocol = 5: must be one of "5", "3.1.1", in quotes'),
        (GOOD + '[log]\nlevel = "inof"', '4:9: log.level = "inof": not one of debug, info, warning, error (did you mean "info"?)'),
        (GOOD + '[mqtt]\ntls = {cert="/c"}', "4:7: mqtt.tls: cert and key need each other: give both or none"),
        (GOOD + '[journal]\ndirectory = "var"', '4:13: journal.directory = "var": must be an absolute path'),
        ("schema_version = 2\n" + GOOD, "1:18: schema_version = 2: must be 1"),
        (GOOD + "devices = 3", "3:1: store.devices: unknown key"),
        (GOOD + "[devices]\nfront = 3", "4:9: devices.front = 3: must be a table"),
        (GOOD + '[devices.front]\ndriver = "rdm6300"', "3:10: devices.front.port: missing, must be text"),
        (GOOD + '[devices.front]\nport = "/dev/x"', "3:10: devices.front.driver: missing, must be text, not empty"),
        (GOOD + '[devices.front]\ndriver = "rdm6300"\nport = "COM3"', '5:8: devices.front.port = "COM3": must be an absolute path such as /dev/serial/by-id/…, rfc2217://HOST:PORT, evdev:PATH, hidraw:PATH, usb:VENDOR:PRODUCT, sysfs:PATH, pkcs11:token=…?module-path=PATH or pcsc:READER'),
        (GOOD + '[devices.Front]\ndriver = "rdm6300"\nport = "/dev/x"', "3:10: devices.Front: a name here must be text of the form [a-z0-9-]{1,32}"),
        (GOOD + '[devices.bridge]\ndriver = "rdm6300"\nport = "/dev/x"', "3:10: devices.bridge: 'bridge' is the daemon's own name in the topics, choose another"),
        (GOOD + '[devices.front]\ndriver = "rdm6300"\nport = "/dev/x"\nlable = ""', '6:1: devices.front.lable: unknown key (did you mean "label"?)'),
        (GOOD + '[devices.a]\ndriver = "rdm6300"\nport = "/dev/a"\nstandby_of = "a"', '6:14: devices.a.standby_of = "a": is this device itself'),
        (GOOD + '[devices.a]\ndriver = "rdm6300"\nport = "/dev/a"\nstandby_of = "fornt"\n[devices.front]\ndriver = "rdm6300"\nport = "/dev/front"\n', '6:14: devices.a.standby_of = "fornt": no device of that name (did you mean "front"?)'),
        (GOOD + '[devices.a]\ndriver = "rdm6300"\nport = "/dev/a"\n[devices.b]\ndriver = "rdm6300"\nport = "/dev/b"\nstandby_of = "a"\n[devices.c]\ndriver = "rdm6300"\nport = "/dev/c"\nstandby_of = "b"', '13:14: devices.c.standby_of = "b": is itself a standby, of a'),
        (GOOD + '[devices.a]\ndriver = "rdm6300"\nport = "/dev/a"\n[devices.b]\ndriver = "rdm6300"\nport = "/dev/b"\nstandby_of = "a"\n[devices.c]\ndriver = "rdm6300"\nport = "/dev/c"\nstandby_of = "a"', '13:14: devices.c.standby_of = "a": has a standby already: devices.b'),
        (GOOD + '[devices.a]\ndriver = "ds2480b"\nport = "/dev/a"\n[devices.b]\ndriver = "rdm6300"\nport = "/dev/b"\nstandby_of = "a"', '9:14: devices.b.standby_of = "a": can see nothing that this device can see, too: key-reader, card-reader, keylock, seal-switch'),
        (GOOD + '[devices.a]\ndriver = "rdm6300"\nport = "/dev/a"\nstandby_of = 3', '6:14: devices.a.standby_of = 3: must be text of the form [a-z0-9-]{1,32}, in quotes'),
        (GOOD + '[devices.a]\ndriver = "rdm6300"\nport = "/dev/x"\n[devices.b]\ndriver = "id12la"\nport = "/dev/x"', '8:8: devices.b.port = "/dev/x": is already the port of devices.a (config.toml:5:8)'),
        ("[store\n", "1:7: not TOML: expected ']' at the end of a table declaration"),
        ('site = "', "1:9: not TOML: unterminated string"),
        (GOOD + 'site = "again"', "3:15: not TOML: cannot overwrite a value"),
    ],
)  # fmt: skip
def test_each_mistake_is_explained_at_its_place(tmp_path: Path, text: str, line: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text)

    assert lines_of(file) == [f"config.toml:{line}"]


def test_all_files_and_variables_are_checked_although_one_has_no_toml_in_it(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("site: s1042\n")
    dropins = tmp_path / "conf.d"
    dropins.mkdir()
    (dropins / "10-log.toml").write_text("[log]\nlevel = 3\n")
    (dropins / "20-latin.toml").write_bytes(b'[mqtt]\nhost = "\xe4"\n')

    # store.site is not called missing: it may stand in the file that cannot be read
    assert lines_of(file, {"OPTIMA_BRIDGE__MQTT__PORT": "99999", "OPTIMA_BRIDGE__MQTT__HOTS": "x"}) == [
        'conf.d/10-log.toml:2:9: log.level = 3: must be one of "debug", "info", "warning", "error", in quotes',
        "conf.d/20-latin.toml:2:9: not TOML: byte e4 is not UTF-8; save the file with UTF-8 encoding",
        "config.toml:1:5: not TOML: expected '=' after a key in a key/value pair",
        'env OPTIMA_BRIDGE__MQTT__HOTS: mqtt.hots: unknown key (did you mean "host"?)',
        "env OPTIMA_BRIDGE__MQTT__PORT: mqtt.port = 99999: must be a whole number, 1–65535",
    ]


def test_a_file_that_was_asked_for_has_to_exist(tmp_path: Path) -> None:
    assert lines_of(tmp_path / "absent.toml") == ["absent.toml: cannot be read: no such file or directory"]


def test_files_that_may_not_be_read_are_errors_and_not_just_absent(tmp_path: Path) -> None:
    (tmp_path / "etc" / "conf.d").mkdir(parents=True)
    (tmp_path / "etc" / "config.toml").write_text(GOOD)
    paths = ConfigPaths(tmp_path / "vendor", tmp_path / "etc" / "config.toml", tmp_path / "etc" / "conf.d")
    load(paths, {})  # imports what it needs while everything can be read
    (tmp_path / "etc").chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may read everything
    try:
        with pytest.raises(ConfigError) as caught:
            load(paths, {})
    finally:
        os.seteuid(user)
        (tmp_path / "etc").chmod(0o700)

    denied = [line for line in str(caught.value).splitlines() if line.endswith(": cannot be read: permission denied")]
    assert f"{paths.main}: cannot be read: permission denied" in denied
    assert f"{paths.dropins}: cannot be read: permission denied" in denied


def test_without_any_file_the_main_one_is_where_to_write_the_missing_key(tmp_path: Path) -> None:
    paths = ConfigPaths(tmp_path / "vendor", tmp_path / "config.toml", tmp_path / "conf.d")

    with pytest.raises(ConfigError, match=r"config\.toml: store\.site: missing"):
        load(paths, {})


def test_the_problems_are_data_too(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(GOOD + '[mqtt]\nprt = 1\n[log]\nlevel = "nifo"\n')

    with pytest.raises(ConfigError) as caught:
        load(file, {})

    choices = "debug, info, warning, error"
    assert caught.value.data["problems"] == [
        {
            "file": str(file), "line": 4, "column": 1, "path": "mqtt.prt", "what": "unknown key", "suggestion": "port",
            "text": f'{file}:4:1: mqtt.prt: unknown key (did you mean "port"?)',
        },
        {
            "file": str(file), "line": 6, "column": 9, "path": "log.level", "what": f"not one of {choices}", "suggestion": "info",
            "text": f'{file}:6:9: log.level = "nifo": not one of {choices} (did you mean "info"?)',
        },
    ]  # fmt: skip


def test_long_values_are_cut(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(f'[store]\nsite = "{"x" * 500}"\n')

    assert all(len(line) < 200 for line in lines_of(file))


BROKEN_DRIVERS = """
from typing import Annotated, Any, Literal
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError
from optima_bridge.driver import DriverInfo, DriverSettings
from optima_bridge.model import Maturity

def refuse(value: int) -> int:
    raise PydanticCustomError("door", "the door is stuck")

class Settings(DriverSettings):
    pin: str = Field("", max_length=4, json_schema_extra={"writeOnly": True})
    either: int | bool = 1
    ratio: float = Field(0.5, gt=0)
    names: tuple[str, ...] = ()
    door: Annotated[int, AfterValidator(refuse)] = 1
    wings: dict[Literal["left", "right"], int] = {}
    floors: dict[int, str] = {}

class Door:
    info = DriverInfo("door", "", 1, Maturity.EXPERIMENTAL, frozenset(), frozenset({"memory"}), "none", "")
    Settings = Settings

class Old(Door):
    info = DriverInfo("old", "", 0, Maturity.EXPERIMENTAL, frozenset(), frozenset({"memory"}), "none", "")
"""


@pytest.fixture
def other_peoples_drivers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed distribution with drivers of its own, some of them unusable."""
    site = tmp_path / "site"
    metadata = site / "doors-1.0.dist-info"
    metadata.mkdir(parents=True)
    (site / "doors.py").write_text(BROKEN_DRIVERS)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: doors\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[optima_bridge.drivers]\ndoor = doors:Door\nold = doors:Old\ngone = doors:Gone\n"
    )
    monkeypatch.syspath_prepend(str(site))


@pytest.mark.usefixtures("other_peoples_drivers")
def test_a_driver_that_cannot_be_used_is_an_error_at_its_name(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        GOOD + '[devices.a]\ndriver = "old"\nport = "memory:a"\n[devices.b]\ndriver = "gone"\nport = "memory:b"\n'
        '[devices.c]\ndriver = "door"\nport = "/dev/ttyS0"\n'
    )

    old, gone, port = lines_of(file)

    assert old.startswith("config.toml:4:10: devices.a.driver = \"old\": driver 'old' was written for contract 0")
    assert gone.startswith(
        "config.toml:7:10: devices.b.driver = \"gone\": driver 'gone' (doors 1.0) cannot be imported"
    )
    assert port == 'config.toml:11:8: devices.c.port = "/dev/ttyS0": driver door works on memory ports only'


@pytest.mark.usefixtures("other_peoples_drivers")
def test_a_drivers_own_rules_speak_for_themselves(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        GOOD + '[devices.a]\ndriver = "door"\nport = "memory:a"\n'
        'pin = "12345"\neither = "x"\nratio = 0\nnames = ["a", 1]\ndoor = 5\n'
        'wings = { rihgt = 1 }\nfloors = { first = "a" }\n'
    )

    assert lines_of(file) == [
        "config.toml:6:7: devices.a.pin: must be text, 0–4 characters",  # may be a secret: not repeated
        'config.toml:7:10: devices.a.either = "x": must be a whole number or true or false, without quotes',
        "config.toml:8:9: devices.a.ratio = 0: must be a number, more than 0",
        "config.toml:9:15: devices.a.names[1] = 1: must be text, in quotes",
        "config.toml:10:8: devices.a.door = 5: the door is stuck",
        'config.toml:11:11: devices.a.wings.rihgt: a name here must be one of "left", "right" (did you mean "right"?)',
        "config.toml:12:12: devices.a.floors.first: Input should be a valid integer, unable to parse string as an integer",
    ]

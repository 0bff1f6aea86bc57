"""Later layers win, value by value, and every value knows where it came from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from optima_bridge.config import ConfigPaths, load
from optima_bridge.config.model import local_node
from optima_bridge.topics import is_segment

SITE = '[store]\nsite = "s1042"\n'
FRONT = '[devices.front]\ndriver = "rdm6300"\nport = "/dev/serial/by-id/front"\n'
NO_TLS = "another machine without TLS: everybody on the way can read and forge events; add [mqtt.tls]"
COUNTED_PORT = "may be another adapter after replugging; use its path under /dev/serial/by-id/ or by-path/"


@pytest.fixture
def paths(tmp_path: Path) -> ConfigPaths:
    """Vendor files, a main file and drop-ins that all set the same keys."""
    vendor, dropins = tmp_path / "config.d", tmp_path / "conf.d"
    vendor.mkdir()
    dropins.mkdir()
    (vendor / "vendor.toml").write_text('[mqtt]\nhost = "vendor"\nport = 1\nkeepalive_s = 10\n')
    (tmp_path / "config.toml").write_text(SITE + '[mqtt]\nhost = "main"\nport = 2\nusername = "main"\n' + FRONT)
    (dropins / "20.toml").write_text('mqtt.host = "late"\ndevices.front.hold_ms = 800\n')
    (dropins / "10.toml").write_text('mqtt = { host = "early", client_id = "early" }\n')
    (dropins / "30.toml.orig").write_text("not read")
    (dropins / ".#40.toml").write_text("an editor's lock file, not read")
    return ConfigPaths(vendor, tmp_path / "config.toml", dropins)


def test_later_layers_win_value_by_value_and_each_value_knows_its_origin(paths: ConfigPaths) -> None:
    loaded = load(
        paths,
        {"OPTIMA_BRIDGE__MQTT__PROTOCOL": "3.1.1", "OPTIMA_BRIDGE__LOG__LEVEL": "debug", "OPTIMA_BRIDGE_SOCKET": "/x"},
        {"log.level": "error", "log.format": None},
    )

    base = paths.main.parent
    assert {
        path: (loaded.values[path], str(loaded.origins[path]).replace(f"{base}/", ""))
        for path in loaded.values
        if path.startswith(("mqtt.", "log.", "devices."))
    } == {
        "mqtt.enabled": (True, "default"),
        "mqtt.host": ("late", "conf.d/20.toml:1:13"),
        "mqtt.port": (2, "config.toml:5:8"),
        "mqtt.username": ("main", "config.toml:6:12"),
        "mqtt.protocol": ("3.1.1", "env OPTIMA_BRIDGE__MQTT__PROTOCOL"),
        "mqtt.keepalive_s": (10, "config.d/vendor.toml:4:15"),
        "mqtt.client_id": ("early", "conf.d/10.toml:1:38"),
        "log.level": ("error", "command line"),
        "log.format": ("auto", "default"),
        "devices.front.driver": ("rdm6300", "config.toml:8:10"),
        "devices.front.port": ("/dev/serial/by-id/front", "config.toml:9:8"),
        "devices.front.label": ("", "default"),
        "devices.front.enabled": (True, "default"),
        "devices.front.hold_ms": (800, "conf.d/20.toml:2:25"),
        "devices.front.suspect_ms": (150, "default"),
        "devices.front.reads_to_grant": (2, "default"),
    }
    assert [file.name for file in loaded.files] == ["vendor.toml", "config.toml", "10.toml", "20.toml"]


def test_a_device_carries_its_driver_and_the_drivers_settings(paths: ConfigPaths) -> None:
    front = load(paths, {}).config.devices["front"]

    assert front.driver_class.info.name == "rdm6300"
    assert isinstance(front.settings, front.driver_class.Settings)
    assert front.settings.model_dump()["hold_ms"] == 800


def test_two_loads_of_the_same_files_are_equal_and_a_changed_driver_key_is_not(paths: ConfigPaths) -> None:
    changed = {"OPTIMA_BRIDGE__DEVICES__FRONT__HOLD_MS": "900"}

    assert load(paths, {}).config == load(paths, {}).config
    assert load(paths, {}).config != load(paths, changed).config


def test_a_named_file_has_its_drop_ins_beside_it(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(SITE)
    assert load(tmp_path / "mine.toml", {}).config.log.level == "info"

    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "log.toml").write_text('[log]\nlevel = "debug"\n')
    assert load(tmp_path / "mine.toml", {}).config.log.level == "debug"


@pytest.mark.parametrize(
    ("name", "raw", "path", "value"),
    [
        ("MQTT__PORT", "1884", "mqtt.port", 1884),
        ("MQTT__ENABLED", "false", "mqtt.enabled", False),
        ("MQTT__HOST", "broker.example", "mqtt.host", "broker.example"),
        ("MQTT__HOST", '"broker.example"', "mqtt.host", "broker.example"),
        ("MQTT__HOST", "a\nport = 1", "mqtt.host", "a\nport = 1"),
        ("STORE__SITE", "1042", "store.site", "1042"),
        ("MQTT__PROTOCOL", "5", "mqtt.protocol", "5"),
        ("MQTT__TLS", "{}", "mqtt.tls", {}),
        ("MQTT__PASSWORD", '{ credential = "x" }', "mqtt.password", {"credential": "x"}),
        ("DEVICES__TILL_3__LABEL", "7", "devices.till-3.label", "7"),
        ("DEVICES__TILL_3__HOLD_MS", "700", "devices.till-3.hold_ms", 700),
        ("DEVICES__TILL_3__LABEL", "caf\udce9", "devices.till-3.label", "caf?"),
    ],
)
def test_a_variable_is_a_toml_value_or_plain_text(
    tmp_path: Path, name: str, raw: str, path: str, value: object
) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SITE + FRONT.replace("front", "till-3"))

    loaded = load(file, {f"OPTIMA_BRIDGE__{name}": raw})

    assert loaded.values[path] == value
    assert str(loaded.origins[path]) == f"env OPTIMA_BRIDGE__{name}"


def test_a_table_that_becomes_a_value_and_a_table_again_forgets_what_it_had(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SITE + '[mqtt.tls]\nca = "/a"\n')
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "1.toml").write_text("mqtt.tls = false\n")
    (tmp_path / "conf.d" / "2.toml").write_text("[mqtt.tls]\n")

    loaded = load(tmp_path / "config.toml", {})

    assert loaded.values["mqtt.tls"] == {}
    assert str(loaded.origins["mqtt.tls"]) == f"{tmp_path}/conf.d/2.toml:1:7"


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_bytes(b'\xef\xbb\xbf[store]\r\nsite = "s1042"\r\n')

    assert str(load(file, {}).origins["store.site"]) == f"{file}:2:8"


def test_the_node_is_the_host_name_made_to_fit(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(SITE)

    assert load(tmp_path / "config.toml", {}).config.store.node == local_node()
    assert is_segment(local_node())


def test_what_is_legal_but_unwise_is_a_warning(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(
        SITE + '[mqtt]\nhost = "broker.example"\n' + FRONT.replace("/dev/serial/by-id/front", "/dev/ttyUSB0")
    )
    file.chmod(0o666)

    assert [line.replace(f"{file}:", "", 1) for line in load(file, {}).warnings] == [
        f" warning: everybody can change this file; run: chmod o-w {file}",
        f'4:8: warning: mqtt.host = "broker.example": {NO_TLS}',
        f'7:8: warning: devices.front.port = "/dev/ttyUSB0": {COUNTED_PORT}',
    ]


@pytest.mark.parametrize("more", ["", FRONT + "enabled = false\n"])
def test_a_configuration_without_a_device_in_use_is_a_warning(tmp_path: Path, more: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SITE + more)

    (warning,) = load(file, {}).warnings
    assert warning.endswith("warning: devices: no device is configured and enabled, so nothing is mirrored")


@pytest.mark.parametrize(
    "mqtt",
    ['host = "localhost"', 'host = "127.0.0.2"', 'host = "::1"', 'host = "x"\ntls = {}', 'host = "x"\nenabled = false'],
)
def test_a_broker_that_nobody_can_listen_to_is_no_warning(tmp_path: Path, mqtt: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SITE + FRONT + f"[mqtt]\n{mqtt}\n")

    assert load(file, {}).warnings == []


def test_several_devices_may_share_a_port_that_opens_no_device(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    keys = 'driver = "usb-presence"\nport = "sysfs:/sys/bus/usb/devices"\nvendor_id = "0529"\n'
    file.write_text(SITE + "".join(f'[devices.{name}]\n{keys}product_id = "{name}"\n' for name in ("0001", "0002")))

    assert load(file, {}).warnings == []


def test_two_devices_may_name_one_port_while_one_of_them_is_off(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(SITE + FRONT + "enabled = false\n" + FRONT.replace("[devices.front]", "[devices.spare]"))

    assert load(file, {}).config.devices.keys() == {"front", "spare"}


def test_loading_imports_neither_drivers_that_are_not_configured_nor_what_only_errors_need(paths: ConfigPaths) -> None:
    program = (
        "import sys; from optima_bridge.config import load; load(sys.argv[1], {});"
        "print(*sorted(m for m in sys.modules if m.startswith('optima_drivers.') or m in"
        " ('difflib', 'optima_bridge.config.explain', 'optima_bridge.config.schema', 'click')))"
    )

    run = subprocess.run([sys.executable, "-c", program, paths.main], capture_output=True, text=True, timeout=60)

    assert run.stderr == ""
    assert {module.split(".")[1] for module in run.stdout.split()} == {"rfid125"}

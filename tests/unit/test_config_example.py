"""The example, the reference page and the JSON schema name the same keys as the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from optima_bridge import registry
from optima_bridge.config import Config, load
from optima_bridge.config.layers import leaves
from optima_bridge.config.locate import locate
from optima_bridge.config.model import DEVICE_KEYS, Device
from optima_bridge.config.problems import dotted
from optima_bridge.config.schema import json_schema

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "optima-bridge.toml"
PAGE = ROOT / "docs" / "reference" / "configuration.md"


def tables_of(model: Any, at: str = "") -> dict[str, Any]:
    """Every table of the configuration by its dotted name."""
    found = {at: model}
    for name, field in model.model_fields.items():
        inner = [
            one
            for one in (field.annotation, *getattr(field.annotation, "__args__", ()))
            if hasattr(one, "model_fields")
        ]
        for table in inner:
            if table is Device:
                found["devices.NAME"] = Device
            elif table.__name__ != "Secret":
                found |= tables_of(table, f"{at}.{name}".strip("."))
    return found


TABLES = tables_of(Config)


def without_comment_signs(text: str) -> str:
    """The example with every commented key switched on."""
    return re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE)


def test_the_walk_over_the_models_finds_all_tables() -> None:
    assert TABLES.keys() == {
        "", "store", "mqtt", "mqtt.tls", "identifiers", "journal", "api", "enroll", "log", "devices.NAME",
    }  # fmt: skip


@pytest.mark.parametrize("change", [str, without_comment_signs], ids=["as shipped", "every key switched on"])
def test_the_example_is_valid_and_without_warnings(tmp_path: Path, change: Any) -> None:
    file = tmp_path / "config.toml"
    file.write_text(change(EXAMPLE.read_text()))

    loaded = load(file, {})

    assert [line for line in loaded.warnings if "without TLS" not in line] == []


def test_the_example_has_every_key_of_the_core() -> None:
    example = tomllib.loads(without_comment_signs(EXAMPLE.read_text()))
    written = {re.sub(r"^devices\.[^.]+", "devices.front", dotted(path)) for path, _ in leaves(example)}

    missing = {
        f"{table}.{key}".strip(".").replace("NAME", "front")
        for table, model in TABLES.items()
        for key in model.model_fields
        if f"{table}.{key}".strip(".") not in (*TABLES, "devices")
    } - written
    assert missing == set()


def test_what_the_example_shows_as_a_default_is_the_default(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text(EXAMPLE.read_text())
    in_force = load(file, {}).values
    shown = dict(leaves(tomllib.loads(without_comment_signs(EXAMPLE.read_text()))))

    different = {dotted(path) for path, value in shown.items() if in_force.get(dotted(path)) != value}

    assert different == {  # examples: their default is empty, absent or the host's own
        "store.node", "mqtt.username", "mqtt.password", "mqtt.client_id", "mqtt.tls.ca", "mqtt.tls.cert", "mqtt.tls.key",
        "identifiers.secret", "devices.front.label", "enroll.ca", "enroll.crl", "enroll.ca_pin",
        "devices.front-b.driver", "devices.front-b.port", "devices.front-b.standby_of",
    }  # fmt: skip


def test_every_key_of_the_example_has_a_reason_above_it() -> None:
    lines = EXAMPLE.read_text().splitlines()

    for path, place in locate(without_comment_signs(EXAMPLE.read_text())).items():
        is_key = place.line == place.value_line and place.column != place.value_column
        if is_key:
            assert lines[place.line - 2].startswith("# "), f"{dotted(path)} has no comment"


@pytest.mark.parametrize("table", sorted(TABLES.keys() - {""}))
def test_the_reference_page_has_every_key_with_its_default(table: str) -> None:
    section = PAGE.read_text().partition(f"### [{table}]\n")[2].partition("\n#")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*?\| ([^|]*) \|[^|]*\|$", section, re.MULTILINE))

    assert rows.keys() == TABLES[table].model_fields.keys()
    for key, field in TABLES[table].model_fields.items():
        if field.is_required():
            assert rows[key] == "required"
        elif field.default is not None and field.default_factory is None:
            shown = field.default if not isinstance(field.default, Path) else str(field.default)
            assert tomllib.loads(f"value = {rows[key].strip('`')}")["value"] == shown


def test_the_schema_has_the_keys_of_every_installed_driver() -> None:
    schema = json_schema()

    for name in registry.installed():
        table = schema["$defs"][f"device.{name}"]
        assert table["properties"].keys() == {*DEVICE_KEYS, *registry.load(name).Settings.model_fields}
        assert table["additionalProperties"] is False
    device = schema["$defs"]["Device"]
    assert device["properties"]["driver"]["enum"] == list(registry.installed())
    assert [branch["if"]["properties"]["driver"]["const"] for branch in device["allOf"]] == list(registry.installed())


def test_every_reference_in_the_schema_leads_somewhere() -> None:
    schema = json_schema()

    targets = set(re.findall(r"'\$ref': '#/\$defs/([^']+)'", str(schema)))

    assert targets
    assert targets <= schema["$defs"].keys()


def test_every_key_of_the_schema_is_described() -> None:
    bare = [
        f"{name}.{key}"
        for name, table in json_schema()["$defs"].items()
        for key, schema in table.get("properties", {}).items()
        if not schema.get("description")
    ]
    assert bare == []

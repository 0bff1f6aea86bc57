"""The JSON schema of the configuration, for editors: the core's keys and, by driver, those of every installed driver."""

from __future__ import annotations

from typing import Any

from optima_bridge import registry
from optima_bridge.config.model import Config
from optima_bridge.driver import Driver

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """The schema of a complete configuration; a drop-in alone lacks what other files have.

    Raises:
        DriverError: an installed driver cannot be used.
    """
    installed = registry.installed()
    schema = Config.model_json_schema()
    definitions = schema["$defs"]
    device = definitions["Device"]
    for name in installed:
        definitions |= _driver_definitions(name, registry.load(name, installed.values()), device)
    device |= {
        "properties": {**device["properties"], "driver": {**device["properties"]["driver"], "enum": list(installed)}},
        "additionalProperties": True,  # each driver's own schema below is closed
        "allOf": [
            {
                "if": {"properties": {"driver": {"const": name}}, "required": ["driver"]},
                "then": {"$ref": f"#/$defs/device.{name}"},
            }
            for name in installed
        ],
    }
    schema["properties"]["devices"]["additionalProperties"] = False  # names that are no segments
    return {"$schema": DIALECT, **schema, "title": "optima-bridge configuration"}


def _driver_definitions(name: str, driver: type[Driver], device: dict[str, Any]) -> dict[str, Any]:
    """The device table of one driver, ``device.NAME``, and the types that its settings use."""
    settings = driver.Settings.model_json_schema(ref_template=f"#/$defs/{name}.{{model}}")
    types = {f"{name}.{key}": value for key, value in settings.pop("$defs", {}).items()}
    table = {
        "title": name,
        "description": driver.info.summary,
        "type": "object",
        "properties": device["properties"] | settings.get("properties", {}),
        "required": [*device["required"], *settings.get("required", ())],
        "additionalProperties": False,
    }
    return {f"device.{name}": table, **types}

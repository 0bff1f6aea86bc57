"""Configuration: layered TOML files, every key checked, every value with its origin."""

from optima_bridge.config.layers import ConfigPaths
from optima_bridge.config.loader import LoadedConfig, load
from optima_bridge.config.model import Config, Device
from optima_bridge.config.problems import Origin
from optima_bridge.secrets import Secret

__all__ = ["Config", "ConfigPaths", "Device", "LoadedConfig", "Origin", "Secret", "load"]

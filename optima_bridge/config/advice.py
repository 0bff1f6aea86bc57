"""What is legal but unwise in a valid configuration."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path as FilePath

from optima_bridge.config.layers import Merged
from optima_bridge.config.locate import Path
from optima_bridge.config.model import Config
from optima_bridge.config.problems import Problem, dotted, shortened
from optima_bridge.link.serialnames import port_names

_COUNTED_PORTS = {
    re.compile(
        r"/dev/tty(?:USB|ACM)\d+"
    ): "adapter after replugging; use its path under /dev/serial/by-id/ or by-path/",
    re.compile(
        r"evdev:/dev/input/event\d+"
    ): "device after replugging; use its path under /dev/input/by-id/ or by-path/",
    re.compile(
        r"hidraw:/dev/hidraw\d+"
    ): "device after replugging; have a udev rule give it a name of its own (SYMLINK)",
}


def advise(config: Config, merged: Merged, root: FilePath = FilePath("/")) -> Iterator[Problem]:
    """One warning per thing to think over; `root` has the ``dev`` and ``sys`` of the PC that it is for."""

    def warning(path: Path, what: str, value: object = None) -> Problem:
        text = "" if value is None else shortened(value)
        return Problem(origin=merged.place(path), path=dotted(path), value=text, what=what, warning=True)

    if config.mqtt.enabled and config.mqtt.tls is None and not _is_loopback(config.mqtt.host):
        what = "another machine without TLS: everybody on the way can read and forge events; add [mqtt.tls]"
        yield warning(("mqtt", "host"), what, config.mqtt.host)
    for name, device in config.devices.items():
        for counted, what in _COUNTED_PORTS.items():
            if counted.fullmatch(device.port):
                yield warning(("devices", name, "port"), f"may be another {what}", device.port)
        if alike := _sharing(device.port, root):
            what = f"{len(alike)} adapters that are plugged in have this name; use the one of the socket: {' or '.join(alike)}"
            yield warning(("devices", name, "port"), what, device.port)
    if not any(device.enabled for device in config.devices.values()):
        yield warning(("devices",), "no device is configured and enabled, so nothing is mirrored")


def _sharing(port: str, root: FilePath) -> list[str]:
    """The by-path names of the adapters that share this by-id name; empty: it is one adapter's alone, or no such name."""
    if not port.startswith("/dev/serial/by-id/"):
        return []
    by_id = str(root / port.removeprefix("/"))
    return [names.by_path for names in port_names(root).values() if names.shared and names.by_id == by_id]


def _is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None

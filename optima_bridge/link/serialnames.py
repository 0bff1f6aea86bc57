"""Names of serial ports that last: by-id, and by-path where adapters cannot be told apart.

udev makes /dev/serial/by-id/ of what an adapter says of itself and /dev/serial/by-path/ of the socket it is in
(60-serial.rules). Adapters that say the same, because they have no serial number or a copied one, share one by-id name,
which leads to either of them. Nothing is opened here but directories and attribute files of sysfs.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from pathlib import Path

import msgspec

SAID_BY_DEVICE = ("idVendor", "idProduct", "manufacturer", "product", "serial")


class PortNames(msgspec.Struct, frozen=True):
    """The names of one port; empty where udev gave none.

    Attributes:
        by_id: after the adapter.
        by_path: after the socket.
        shared: whether another adapter that is plugged in has the same `by_id`.
    """

    by_id: str = ""
    by_path: str = ""
    shared: bool = False

    @property
    def lasting(self) -> str:
        """The one for the configuration; empty: there is none."""
        return (self.by_path if self.shared else self.by_id) or self.by_path


def port_names(root: Path = Path("/")) -> dict[str, PortNames]:
    """The names of all USB serial ports, by node: ``ttyUSB0``. `root` has ``dev`` and ``sys``."""
    by_id, by_path = _links(root / "dev/serial/by-id"), _links(root / "dev/serial/by-path")
    alike: defaultdict[tuple[str, ...], list[str]] = defaultdict(list)
    for tty in sorted((root / "sys/class/tty").glob("tty*")):
        if said := _said(tty):
            alike[said].append(tty.name)
    names = {}
    for nodes in alike.values():
        common = next((by_id[node] for node in nodes if node in by_id), "")
        for node in nodes:
            names[node] = PortNames(common, by_path.get(node, ""), shared=len(nodes) > 1)
    return names


def _links(directory: Path) -> dict[str, str]:
    """The first link in a directory that leads to each node."""
    links: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for link in sorted(directory.iterdir()):
            links.setdefault(link.resolve().name, str(link))
    return links


def _said(tty: Path) -> tuple[str, ...]:
    """What a USB serial port says of itself: device, interface, port of several; empty where it is no USB port."""
    place = (tty / "device").resolve()
    device = next((up for up in place.parents if (up / "idVendor").exists()), None)
    if device is None:
        return ()
    interface = _text(place / "bInterfaceNumber") or _text(place.parent / "bInterfaceNumber")
    return (*(_text(device / name) for name in SAID_BY_DEVICE), interface, _text(place / "port_number"))


def _text(attribute: Path) -> str:
    try:
        return attribute.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""

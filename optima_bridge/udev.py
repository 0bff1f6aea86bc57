"""udev rules of the ids that drivers declare: whose the devices are, and who keeps away from them.

Sources: udev(7); ModemManager's documentation, "Common udev tags"; brltty's usb-template.rules. brltty claims an adapter in
rules numbered 85 or 90 and has systemd start it, so these rules come later and take both back.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable

from optima_bridge.driver import DriverInfo

FILE_NAME = "95-optima-bridge.rules"
GROUP = "optima-bridge"  # the service's own; people in the group optima may look, not write to devices

RULE = re.compile(r'^# (.+)\nATTRS\{idVendor\}=="(\w{4})", ATTRS\{idProduct\}=="(\w{4})"', re.MULTILINE)

_BEGIN = """\
# Made by "bridge service udev" of the ids that drivers declare; change nothing here, make it anew after an update.
ACTION=="remove", GOTO="optima_bridge_end"
SUBSYSTEM!="usb|tty|hidraw|input", GOTO="optima_bridge_end"

# Both ids are those of one device: the node's own, or one that it hangs on.
"""
_END = f"""\
ENV{{.OPTIMA_BRIDGE}}!="1", GOTO="optima_bridge_end"

# The service may open it, nobody else; ModemManager and brltty leave it alone.
GROUP="{GROUP}", MODE="0660"
ENV{{ID_MM_DEVICE_IGNORE}}="1", ENV{{ID_MM_PORT_IGNORE}}="1"
ENV{{BRLTTY_BRAILLE_DRIVER}}=="?*", ENV{{BRLTTY_BRAILLE_DRIVER}}="", ENV{{SYSTEMD_WANTS}}=""

LABEL="optima_bridge_end"
"""


def rules(drivers: Iterable[DriverInfo]) -> str:
    """The text of the rules file; the same for the same drivers, in whatever order they come."""
    names: defaultdict[tuple[int, int], set[str]] = defaultdict(set)
    for info in drivers:
        for ids in info.usb_ids:
            names[ids].add(info.name)
    return "\n".join([_BEGIN.rstrip("\n"), *(_rule(*ids, sorted(names[ids])) for ids in sorted(names)), _END])


def ids(text: str) -> dict[str, str]:
    """The ids in a text of `rules`, as ``10c4:ea60``, with the names of their drivers."""
    return {f"{vendor}:{product}": names for names, vendor, product in RULE.findall(text)}


def _rule(vendor_id: int, product_id: int, drivers: list[str]) -> str:
    ids = f'ATTRS{{idVendor}}=="{vendor_id:04x}", ATTRS{{idProduct}}=="{product_id:04x}"'
    return f'# {", ".join(drivers)}\n{ids}, ENV{{.OPTIMA_BRIDGE}}="1"'

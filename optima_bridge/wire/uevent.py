"""Messages about devices that come and go, as the Linux kernel and udev send them over netlink.

    kernel   ACTION@DEVPATH 0 KEY=VALUE 0 KEY=VALUE 0 …
    udev     "libudev" 0 | FE ED CA FE | header size | at | length | three filter words | KEY=VALUE 0 KEY=VALUE 0 …

Numbers are 32 bits: the magic and the filters big-endian, header size, place and length of the properties in the order of
this machine. Sources: Linux lib/kobject_uevent.c; systemd src/libsystemd/sd-device/device-monitor.c, monitor_netlink_header.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

import msgspec

from optima_bridge.errors import FrameError

_PREFIX = b"libudev\0"
_MAGIC = 0xFEEDCAFE
_HEADER = struct.Struct("=8s4s3I16x")


class Uevent(msgspec.Struct, frozen=True):
    """One message; `properties` has everything, the three that each message has are fields too.

    Attributes:
        action: ``add``, ``remove``, ``change``, ``bind``, …
        devpath: place in sysfs, from ``/devices`` on.
        subsystem: ``usb``, ``tty``, ``hidraw``, …
    """

    action: str
    devpath: str
    subsystem: str
    properties: Mapping[str, str]


def decode(datagram: bytes) -> Uevent:
    """Take one datagram of either form.

    Raises:
        FrameError: it is neither.
    """
    properties = _properties(datagram[_body(datagram) :])
    try:
        event = Uevent(properties["ACTION"], properties["DEVPATH"], properties["SUBSYSTEM"], properties)
    except KeyError as missing:
        raise FrameError(f"a uevent without {missing}", kind="characters") from missing
    if not datagram.startswith((_PREFIX, f"{event.action}@{event.devpath}\0".encode())):
        raise FrameError("the head of a uevent does not fit its properties", kind="characters")
    return event


def encode(properties: Mapping[str, str]) -> bytes:
    """The message that udev would send."""
    body = "".join(f"{key}={value}\0" for key, value in properties.items()).encode()
    return _HEADER.pack(_PREFIX, _MAGIC.to_bytes(4, "big"), _HEADER.size, _HEADER.size, len(body)) + body


def _body(datagram: bytes) -> int:
    """Where the properties begin."""
    if not datagram.startswith(_PREFIX):
        return datagram.find(b"\0") + 1
    if len(datagram) < _HEADER.size:
        raise FrameError("half a header of udev", kind="length")
    _, magic, _, begin, length = _HEADER.unpack_from(datagram)
    if magic != _MAGIC.to_bytes(4, "big"):
        raise FrameError("another magic than udev's", kind="characters")
    if begin < _HEADER.size or begin + length != len(datagram):
        raise FrameError("a message of udev of another length than it says", kind="length")
    return int(begin)


def _properties(body: bytes) -> dict[str, str]:
    if not body.endswith(b"\0"):
        raise FrameError("a uevent that does not end", kind="length")
    pairs = [entry.partition("=") for entry in body.decode("utf-8", "replace")[:-1].split("\0")]
    if not all(key and sign for key, sign, _ in pairs):
        raise FrameError("a uevent with something else than KEY=VALUE", kind="characters")
    return {key: value for key, _, value in pairs}

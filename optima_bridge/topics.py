"""MQTT names: ``optima/v1/{site}/{node}/{class}/{device}/{name}``, seven levels, segments ``[a-z0-9-]{1,32}``.

The version comes first, then site and node so that access lists and broker bridges are prefix rules; the class is a
level of its own so that retain and QoS rules are by class. The bridge itself is the device ``bridge``.
"""

from __future__ import annotations

import re

ROOT = "optima/v1"
BRIDGE = "bridge"
SEGMENT = re.compile(r"[a-z0-9-]{1,32}")


def is_segment(text: str) -> bool:
    """Whether `text` can be a topic level here: other characters break or change meaning on common brokers."""
    return SEGMENT.fullmatch(text) is not None


class Topics:
    """The topics of one node.

    Args:
        site, node: segments, checked.

    Raises:
        ValueError: a segment has characters outside ``[a-z0-9-]`` or is longer than 32.
    """

    def __init__(self, site: str, node: str) -> None:
        for segment in (site, node):
            if not is_segment(segment):
                raise ValueError(f"{segment!r} is not of the form [a-z0-9-]{{1,32}}")
        self.site = site
        self.node = node
        self.prefix = f"{ROOT}/{site}/{node}"

    def event(self, device: str, name: str) -> str:
        """A thing that happened; never retained."""
        return f"{self.prefix}/evt/{device}/{name}"

    def state(self, device: str, name: str) -> str:
        """What is true now; retained."""
        return f"{self.prefix}/state/{device}/{name}"

    def alert(self, device: str, name: str) -> str:
        """An open problem; retained while open, emptied when solved."""
        return f"{self.prefix}/alert/{device}/{name}"

    def meta(self, device: str, name: str) -> str:
        """What the device or bridge is; retained."""
        return f"{self.prefix}/meta/{device}/{name}"

    def command(self, device: str, verb: str) -> str:
        """A request to this node; rejected when retained."""
        return f"{self.prefix}/cmd/{device}/{verb}"

    def response(self, requester: str, request_id: str) -> str:
        """The answer to a request."""
        return f"{self.prefix}/res/{requester}/{request_id}"

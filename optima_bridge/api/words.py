"""What both ends of the control API know; imports nothing, for the command line must start fast."""

from __future__ import annotations

import re

SINCE = re.compile(r"(?:(?P<epoch>\d{1,12}):)?(?P<seq>\d{1,15})|(?P<age>\d{1,9})(?P<unit>[smhd])", re.ASCII)
SINCE_FORMS = "EPOCH:SEQ nor SEQ nor an age such as 90s, 10m, 2h, 7d"

EVENT_TYPES = (
    "key",
    "card",
    "keylock",
    "seal",
    "controller",
    "fault",
    "link",
    "status",
    "health",
    "loss",
    "job",
    "credential",
)
"""The values of model.Subject; a test compares."""

"""Waiting for the daemon to be in some state, with a bound."""

from __future__ import annotations

import time
from collections.abc import Callable

from optima_bridge.cli.client import Document
from optima_bridge.errors import DaemonUnavailable, TimedOut

POLL_S = 0.2


def wait_for(ask: Callable[[], Document], missing: Callable[[Document], str], for_s: float) -> Document:
    """Ask until nothing is missing any more; a daemon that is not there yet is waited for, too.

    Raises:
        TimedOut: it took longer than `for_s` seconds; says what is missing still.
    """
    until = time.monotonic() + for_s
    while True:
        try:
            document = ask()
            reason = missing(document)
            if not reason:
                return document
        except DaemonUnavailable as error:
            reason = error.what
        if time.monotonic() >= until:
            raise TimedOut(f"after {for_s:g} s: {reason}")
        time.sleep(POLL_S)

"""Who acts: what the kernel tells of a process, and the names that belong to its numbers."""

from __future__ import annotations

import os
import pwd
from pathlib import Path
from typing import Literal, Self

import msgspec

from optima_bridge.text import printable

UNSET = 0xFFFFFFFF  # the kernel's login uid of what no login started
MAX_NAME = 64


class Actor(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Who did it.

    Attributes:
        via: the way: the control socket, a request over MQTT, a command that works without the daemon, the daemon by itself.
        uid, user: whose rights the process has.
        login_uid, login: who logged in; stays the same through sudo and su. None: nobody did, or it cannot be seen.
        pid, program: the process.
        client: the name that a requester over MQTT gives itself.
    """

    via: Literal["socket", "mqtt", "standalone", "daemon"]
    uid: int | None = None
    user: str = ""
    login_uid: int | None = None
    login: str = ""
    pid: int | None = None
    program: str = ""
    client: str = ""

    @classmethod
    def process(cls, via: Literal["socket", "standalone", "daemon"], pid: int, uid: int) -> Self:
        """A process of this machine; call it while the process is there."""
        login_uid, program = _seen(pid, uid)
        return cls(via=via, uid=uid, login_uid=login_uid, pid=pid, program=program)

    @classmethod
    def this(cls, via: Literal["standalone", "daemon"]) -> Self:
        """The process that runs this."""
        return cls.process(via, os.getpid(), os.geteuid())

    def named(self) -> Self:
        """With the names of the users. May ask a directory service over the network: not for the event loop."""
        return msgspec.structs.replace(self, user=_user(self.uid), login=_user(self.login_uid))


def _seen(pid: int, uid: int) -> tuple[int | None, str]:
    """Login uid and program of a process, as far as the kernel shows them and it still is that user's."""
    process = Path("/proc") / str(pid)
    try:
        login_uid = int((process / "loginuid").read_text(encoding="ascii"))
        program = (process / "comm").read_text(encoding="utf-8", errors="replace").removesuffix("\n")
        if process.stat().st_uid not in (uid, 0):  # root's: a program that may not be looked into
            return None, ""
    except (OSError, ValueError):  # it has ended, or is hidden from us
        return None, ""
    return None if login_uid == UNSET else login_uid, printable(program)[:MAX_NAME]


def _user(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid).pw_name if uid is not None else ""
    except (KeyError, OverflowError):
        return ""

"""What PC/SC answers, in our words: return codes, readers that are not found, and who else uses the reader.

Codes: pcsclite.h, as unsigned numbers; pyscard gives them signed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from optima_bridge.errors import (
    BridgeError,
    DeviceError,
    LinkBusy,
    LinkError,
    LinkLost,
    LinkNotFound,
    LinkPermission,
    TokenAbsent,
)
from optima_bridge.text import printable

SUCCESS = 0x00000000
TIMED_OUT = 0x8010000A
BUSY = 0x8010000B
NOT_TRANSACTED = 0x80100016
STOPPED = 0x8010001E
NO_READERS = 0x8010002E
CLIENT_LIBRARY = "libpcsclite"

START_PCSCD = "sudo systemctl start pcscd.socket"
_ABSENT = {
    0x8010000C: "no card is in it",
    NOT_TRANSACTED: "the card went away in the middle of a command",
    0x8010002F: "the card went away in the middle of a command",
    0x80100067: "the card lost its power",
    0x80100069: "the card was taken out",
}
_MUTE = {0x80100066: "the card gives no answer", 0x8010000F: "the card's answer to reset makes no sense"}
_GONE = {0x80100009, 0x80100017}
_STOPPED = {0x80100003, 0x80100013, 0x8010001D, STOPPED}
_FORBIDDEN = {0x80100027, 0x8010006A}


def failure(code: int, reader: str, text: str = "") -> BridgeError:
    """The error that a return code stands for.

    Args:
        reader: its name, for messages.
        text: pcsclite's own words, for codes that we have none for.
    """
    name = printable(reader)
    if code in _ABSENT:
        return TokenAbsent(f"{name}: {_ABSENT[code]}")
    if code in _MUTE:
        return DeviceError(
            f"{name}: {_MUTE[code]}",
            cause="it was put in the wrong way round, or its contacts are dirty",
            next_step="take the card out, look at its chip, put it in again",
        )
    if code in _GONE:
        return LinkLost(f"the reader {name} is gone")
    if code in _STOPPED:
        return LinkLost(
            f"{name}: the PC/SC daemon is gone",
            cause="pcscd was stopped or restarted",
            next_step=f"nothing, if it was restarted; otherwise: {START_PCSCD}",
        )
    if code in _FORBIDDEN:
        return LinkPermission(
            f"{name}: the PC/SC daemon does not allow this user to use cards",
            cause="pcscd asks polkit, which lets only users with a screen in",
            next_step="allow the service's user org.debian.pcsc-lite.access_pcsc and .access_card by a polkit rule",
        )
    if code == BUSY:
        return LinkBusy(f"{name} is in use by another program")
    return LinkError(f"{name}: PC/SC reports {code:08X} {text}".rstrip())


def not_running() -> LinkNotFound:
    """No PC/SC daemon answers."""
    return LinkNotFound(
        "the PC/SC daemon does not answer",
        cause="pcscd is not installed, or its socket was stopped",
        next_step=f"{START_PCSCD} (Debian package pcscd)",
    )


def choose_reader(wanted: str, names: Sequence[str]) -> str:
    """The reader that is meant: by its whole name, else the only one that begins with `wanted`, else that contains it.

    Raises:
        LinkNotFound: none fits, or several do; it names them.
    """
    for fitting in (
        [name for name in names if name == wanted],
        [name for name in names if name.startswith(wanted)],
        [name for name in names if wanted in name],
    ):
        if len(fitting) == 1:
            return fitting[0]
        if fitting:
            raise LinkNotFound(
                f"{wanted!r} fits several readers: {_listed(fitting)}",
                cause="the port in the configuration is only a part of their names",
                next_step="write the whole name of the one that is meant",
                readers=list(fitting),
            )
    there = f"connected are: {_listed(names)}" if names else "no reader is connected"
    raise LinkNotFound(
        f"there is no reader {wanted!r}; {there}",
        cause="it is unplugged, its driver (Debian package libccid) is absent, or its name is another one",
        next_step="plug it in, or correct the port: pcsc:READER NAME",
        readers=list(names),
    )


def name_users(reader: str) -> LinkBusy:
    """Who may have the reader. Walks /proc: call it in a thread.

    PC/SC itself does not tell. What can be seen are programs that have its client library loaded; those of other users only
    by root (proc(5), /proc/pid/maps).
    """
    users = find_users()
    what = f"{printable(reader)} is in use by another program"
    if not users:
        return LinkBusy(
            what,
            cause="a program of another user; which one, only root can see",
            next_step="sudo grep -l libpcsclite /proc/[0-9]*/maps",
        )
    listed = ", ".join(f"{program} (pid {pid})" for pid, program in users)
    facts: dict[str, object] = {"users": [{"pid": pid, "program": program} for pid, program in users]}
    if len(users) == 1:
        [(pid, program)] = users
        facts["holder"] = {"pid": pid, "program": program}
    return LinkBusy(
        f"{what}; these use PC/SC now: {listed}",
        cause="PC/SC does not tell which one; it is among these, or is another user's",
        next_step="stop it, or have it give the card back between its uses",
        **facts,
    )


def find_users() -> list[tuple[int, str]]:
    """Pid and name of the other programs that have PC/SC's client library loaded, as far as they can be seen."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            if CLIENT_LIBRARY in (process / "maps").read_text(encoding="utf-8", errors="replace"):
                program = (process / "comm").read_text(encoding="utf-8", errors="replace")
                found.append((int(process.name), printable(program.strip())))
        except OSError:
            continue  # it ended meanwhile, or is another user's
    return found


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f'"{printable(name)}"' for name in names)

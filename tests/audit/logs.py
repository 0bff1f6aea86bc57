"""Audit logs for tests: real ones in a directory, and their lines."""

from __future__ import annotations

import io
from pathlib import Path

from optima_bridge.audit import Actor, AuditLog, Head
from optima_bridge.audit.check import Verdict, check, lines
from optima_bridge.audit.log import judge, read_head
from optima_bridge.audit.record import ZERO, Entry, encode

ME = Actor.this("standalone")
SOMEBODY = Actor(via="socket", uid=54321, user="ann", pid=7, program="bridge")


def entry(n: int, prev: str, note: str = "") -> Entry:
    data = {"asked": note} if note else {}
    return Entry(
        n=n, time=f"2026-11-22T13:35:{n % 60:02}.000Z", action="api.requested", who=SOMEBODY, data=data, prev=prev
    )


def chain(count: int, prev: str = ZERO, first: int = 1) -> list[bytes]:
    """`count` lines as the log would write them."""
    made = []
    for n in range(first, first + count):
        line, head = encode(entry(n, prev))
        made.append(line)
        prev = head.hash
    return made


def head_of(made: list[bytes], n: int = 0) -> Head:
    """The head after line `n`, by default the last one."""
    line = made[n - 1]
    return Head(n or len(made), line[-67:-3].decode())


def verdict_of(made: list[bytes], kept: Head | None = None) -> Verdict:
    content = b"".join(made)
    return check(lines(io.BytesIO(content), len(content)), kept)


def named(made: list[bytes], kept: Head | None = None) -> tuple[int, str] | None:
    """Line and kind of the first finding."""
    findings = verdict_of(made, kept).findings
    return (findings[0].line, str(findings[0].kind)) if findings else None


def judged(directory: Path) -> Verdict:
    """The verdict on the log in `directory`, its own head known."""
    path = directory / "audit.ndjson"
    return judge(path, path.stat().st_size, read_head(directory / "audit.head"))


def write(directory: Path, count: int) -> None:
    with AuditLog(directory, ME) as log:
        for n in range(count):
            log.append("api.requested", SOMEBODY, asked=f"POST /v1/{n}")

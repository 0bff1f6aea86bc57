"""The audit log over the control API: its records by filter, its check, an exact copy."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from aiohttp import web

from optima_bridge.api.answers import answer
from optima_bridge.api.keys import SERVICE, asking
from optima_bridge.api.since import UNIT_NS
from optima_bridge.api.trail import actor_of
from optima_bridge.audit.check import lines
from optima_bridge.audit.record import Entry, entry, parse_head
from optima_bridge.errors import AuditError, UsageError

FILTERS = ("since", "actor", "action", "device")
AGE = re.compile(r"(?P<age>\d{1,9})(?P<unit>[smhd])", re.ASCII)
BLOCK_BYTES = 64 << 10
WRITE_TIMEOUT_S = 10.0


async def records(request: web.Request) -> web.StreamResponse:
    """The records that the parameters let through, as they stand in the file."""
    wanted = _filter(request)
    audit = request.app[SERVICE].audit
    size_bytes, _ = await audit.snapshot()
    return await _send(request, _matching(audit.path, size_bytes, wanted))


async def verify(request: web.Request) -> web.Response:
    """Whether the log is whole; AuditBroken where it is not."""
    kept = None
    if text := _parameters(request, ("head",)).get("head"):
        kept = parse_head(text)
        if kept is None:
            raise UsageError(f"head={text[:100]!r} is not of the form N:HASH", next_step="see: bridge status --json")
    verdict = await request.app[SERVICE].audit.verify(kept)
    if error := verdict.error(str(request.app[SERVICE].audit.path)):
        raise error
    return answer(verdict.document("given" if kept else "known"))


async def export(request: web.Request) -> web.StreamResponse:
    """Every byte of the log. That somebody took it is the last record in it."""
    audit = request.app[SERVICE].audit
    await audit.note("audit.exported", actor_of(asking(request)))
    size_bytes, _ = await audit.snapshot()
    return await _send(request, _blocks(audit.path, size_bytes))


Wanted = Callable[[Entry], bool]


def _filter(request: web.Request) -> Wanted:
    """What the parameters ask for; an absent one lets everything through."""
    asked = _parameters(request, FILTERS)
    since = _since(asked["since"]) if "since" in asked else ""
    actor, action, device = (asked.get(name, "") for name in FILTERS[1:])

    def wanted(it: Entry) -> bool:
        who = it.who
        return (
            it.time >= since
            and (not actor or actor in (who.user, who.login, who.client, str(who.uid)))
            and (not action or action in (it.action, it.action.partition(".")[0]))
            and (not device or device == it.device)
        )

    return wanted


def _since(text: str) -> str:
    """The beginning of an age such as ``7d``, or a time, as times stand in the log."""
    try:
        if found := AGE.fullmatch(text):
            ago_s = int(found["age"]) * UNIT_NS[found["unit"]] / 1e9
            moment = datetime.fromtimestamp(max(0.0, time.time() - ago_s), UTC)
        else:
            moment = datetime.fromisoformat(text)
            moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        what = f"since={text[:40]!r} is neither an age such as 90s, 10m, 2h, 7d nor a time such as 2026-11-22T13:00:00Z"
        raise UsageError(what) from error
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _parameters(request: web.Request, known: tuple[str, ...]) -> Mapping[str, str]:
    if unknown := [name for name in request.query if name not in known]:
        raise UsageError(f"no parameter {unknown[0][:40]!r}; there are: {', '.join(known) or 'none'}")
    return request.query


def _matching(path: Path, size_bytes: int, wanted: Wanted) -> Iterator[bytes]:
    """The lines of the wanted records, in blocks."""
    block = bytearray()
    with path.open("rb") as file:
        for _, line in lines(file, size_bytes):
            found = entry(line)
            if found is not None and wanted(found):
                block += line
            if len(block) >= BLOCK_BYTES:
                yield bytes(block)
                block.clear()
    yield bytes(block)


def _blocks(path: Path, size_bytes: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        while size_bytes > 0 and (block := file.read(min(BLOCK_BYTES, size_bytes))):
            size_bytes -= len(block)
            yield block


async def _send(request: web.Request, blocks: Iterator[bytes]) -> web.StreamResponse:
    """Stream `blocks`, read on a thread. What goes wrong on the way breaks the stream off, so that nobody takes it for whole."""
    try:
        block = await asyncio.to_thread(next, blocks, b"")
    except OSError as error:
        raise AuditError(f"the audit log cannot be read: {error.strerror or error}") from error
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    try:
        await response.prepare(request)
        while block:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                await response.write(block)
            block = await asyncio.to_thread(next, blocks, b"")
    except ConnectionError:
        pass  # the client has gone, as clients do
    except OSError:  # TimeoutError among them: the client takes nothing, or the disk gives nothing more
        if request.transport is not None:
            request.transport.abort()
    return response

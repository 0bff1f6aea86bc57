"""``bridge audit``: who did what, and whether the log of it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlencode

import click

from optima_bridge.cli.client import Daemon, Document
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import flat
from optima_bridge.errors import BridgeError, UsageError
from optima_bridge.text import printable

if TYPE_CHECKING:
    from optima_bridge.audit.check import Verdict
    from optima_bridge.audit.record import Head

SHOWN_OTHERWISE = ("n", "time", "action", "who", "prev", "hash", "torn")


@click.group()
def audit() -> None:
    """Show, check and copy the log of who did what.

    \b
      bridge audit list --since 7d --actor ann
      bridge audit verify
      bridge audit export audit-2026-11.ndjson
    """


@audit.command("list")
@click.option("--since", metavar="AGE|TIME", help="Of the last 90s, 10m, 2h, 7d; or from 2026-11-22T13:00:00Z on.")
@click.option("--actor", metavar="USER", help="Done by this user: name or number, also of who logged in.")
@click.option("--action", metavar="ACTION", help="Only this, such as enroll.ended; enroll: all that begin so.")
@click.option("--device", metavar="DEVICE", help="Done to this device.")
@click.pass_obj
def list_(settings: Settings, /, **filters: str | None) -> None:
    """Show who did what, the oldest first."""
    import json

    settings.stream = True
    given = {name: value for name, value in filters.items() if value is not None}
    count = 0
    for line in _lines(Daemon(settings).blocks(f"/v1/audit?{urlencode(given)}")):
        record: Document = json.loads(line)
        count += 1
        if settings.json:
            settings.print_json({"type": "record", "record": record})
        else:
            click.echo(_shown(settings, record))
    if settings.json:
        settings.print_json({"type": "result", "ok": True, "rc": 0, "error": None, "records": count})


@audit.command()
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--head", metavar="N:HASH", help="The log must have this record; somebody kept its hash.")
@click.pass_obj
def verify(settings: Settings, file: Path | None, head: str | None) -> None:
    """Check the daemon's log, or FILE without the daemon.

    Exit status 10 where it was changed.

    \b
      bridge audit verify
      bridge audit verify audit-2026-11.ndjson --head 118:5f0c…

    Without --head a cut end shows by what the daemon knows, or by the file audit.head beside FILE.
    """
    if file is None:
        document = Daemon(settings).get("/v1/audit/verify" + (f"?{urlencode({'head': head})}" if head else ""))
    else:
        document = _verify_file(file, head)
    if settings.json:
        settings.print_json(document)
    elif not settings.quiet:
        click.echo(_verdict(document))


@audit.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.pass_obj
def export(settings: Settings, file: Path) -> None:
    """Copy the log, to the byte, into FILE, which must not exist yet."""
    with _new_file(file) as out:
        out.writelines(Daemon(settings).blocks("/v1/audit/export"))
    verdict = _judge(file, None)
    if broken := verdict.error(str(file)):
        click.echo(f"warning {broken.code}: {printable(broken.what)}", err=True)
    if settings.json:
        facts = {"file": str(file), "records": verdict.records, "head": str(verdict.head)}
        settings.print_json({"schema": "optima.audit-export/1", **facts})
    elif not settings.quiet:
        click.echo(f"{verdict.records} records in {file}; keep the head elsewhere: {verdict.head}")


def _lines(blocks: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        yield from whole


@contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that only its owner can read, on disk when the block ends well; else there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        path.unlink(missing_ok=True)  # half a copy would look like a cut log
        if isinstance(error, OSError) and not isinstance(error, BridgeError):
            raise _unwritable(path, error) from error
        raise


def _unwritable(path: Path, error: OSError) -> UsageError:
    cause = (
        "it is there already, and is never overwritten"
        if isinstance(error, FileExistsError)
        else "the disk or its rights"
    )
    what = f"{path} cannot be written: {(error.strerror or str(error)).lower()}"
    return UsageError(what, cause=cause, next_step="name another file")


def _shown(settings: Settings, record: Document) -> str:
    """``2026-11-22T13:35:06.917Z  12  ann  enroll.begun  device=till-3 …``"""
    who = record["who"]
    user = who.get("user") or who.get("client") or str(who.get("uid", "")) or who["via"]
    if (login := who.get("login")) and login != user:
        user = f"{login} as {user}"
    when = record["time"]
    if settings.for_people:
        when = datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    by = {key: who[key] for key in ("program", "pid") if key in who}
    facts: dict[str, Any] = {key: value for key, value in record.items() if key not in SHOWN_OTHERWISE}
    data = facts.pop("data", {})
    words = " ".join(f"{key}={value}" for key, value in flat({**facts, **data, **by}))
    return printable(f"{when}  {record['n']}  {user}  {record['action']}  {words}".rstrip())


def _verify_file(file: Path, text: str | None) -> Document:
    """Raises AuditBroken where the file is no whole log."""
    from optima_bridge.audit.log import HEAD_NAME, read_head
    from optima_bridge.audit.record import parse_head

    kept = parse_head(text) if text else None
    if text and kept is None:
        raise click.BadParameter(f"{text!r} is not of the form N:HASH", param_hint="--head")
    compared = "given" if kept else "none"
    if kept is None:
        kept = read_head(file.with_name(HEAD_NAME)) if file.name == "audit.ndjson" else None
        compared = "kept" if kept else "none"
    verdict = _judge(file, kept)
    if error := verdict.error(str(file)):
        raise error
    return verdict.document(compared)


def _judge(file: Path, kept: Head | None) -> Verdict:
    from optima_bridge.audit.log import judge

    return judge(file, file.stat().st_size, kept)


def _verdict(document: Document) -> str:
    head = document["head"]
    compared = {
        "known": "ends as the daemon knows",
        "kept": "has the record that audit.head names",
        "given": "has the record that was given",
        "none": "whether its end was cut off cannot be told without --head",
    }[document["compared"]]
    torn = f", {document['torn_marked']} torn lines that are accounted for" if document["torn_marked"] else ""
    return f"whole: {document['records']} records{torn}, {compared}\nhead {head['n']}:{head['hash']}"

"""``bridge record`` and ``bridge replay``: what goes over a device's wire, into a file and from there through the driver."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from optima_bridge.cli.client import Daemon, Document
from optima_bridge.cli.options import Settings
from optima_bridge.errors import RecordingCut, ReplayDiffers, UsageError

if TYPE_CHECKING:
    from optima_bridge.model import Event

PRIVATE = 0o600
FILE = click.Path(dir_okay=False, path_type=Path)


@click.command()
@click.argument("device")
@click.option("-o", "--output", type=FILE, required=True, metavar="FILE", help="Where to; never overwritten.")
@click.option(
    "--for", "for_s", type=click.FloatRange(0, 86400, min_open=True), metavar="SECONDS", help="End after so long."
)
@click.pass_obj
def record(settings: Settings, device: str, output: Path, for_s: float | None) -> None:
    """Record what goes over the wire of DEVICE, and the events that its driver makes of it, until Ctrl-C.

    \b
      bridge record front -o front.jsonl --for 60
      bridge replay front.jsonl --assert

    Begin and end with an empty reader, for only then the replay makes the same events.

    IDENTIFIERS OF KEYS AND CARDS ARE IN THE FILE, as the device sends them; only its owner can read it. Secrets are not: where
    some may go over the wire, only the number of bytes is recorded.
    """
    until = None if for_s is None else time.monotonic() + for_s
    stream = Daemon(settings).live(f"/v1/devices/{quote(device, safe='')}/wire", until)
    header = next(stream, None)
    if header is None:
        raise UsageError(
            f"the {for_s:g} s were over before the daemon answered; nothing was recorded",
            cause="the time is too short, or this PC is busy",
            next_step=f"record for longer: bridge record {device} -o {output} --for 60",
        )
    pieces = events = 0
    try:
        output.touch(PRIVATE, exist_ok=False)
    except OSError as error:
        raise UsageError(f"{output} cannot be written: {(error.strerror or str(error)).lower()}") from error
    with output.open("wb", buffering=0) as file:
        _append(file, header, "nothing is kept")
        if not settings.json and not settings.quiet:
            click.echo(f"recording {device}; {header['notice']}", err=True)
        try:
            for piece in stream:
                _append(file, piece, f"the {pieces} lines and {events} events before are kept")
                pieces += 1
                events += "subject" in piece
        except KeyboardInterrupt:
            pass  # that is how it ends
    if settings.json:
        document = {"schema": "optima.recording/1", "file": str(output), "pieces": pieces, "events": events}
        settings.print_json({**document, "masked": header["masked"]})
    elif not settings.quiet:
        click.echo(f"{output}: {pieces} lines, {events} events")


def _append(file: FileIO, record: Document, kept: str) -> None:
    """Write a whole line, or none of it."""
    line, size_bytes = json.dumps(record).encode("ascii") + b"\n", file.tell()
    try:
        while line:
            line = line[file.write(line) :]
    except OSError as error:
        with suppress(OSError):
            file.truncate(size_bytes)
        raise RecordingCut(
            f"{file.name} cannot be written: {(error.strerror or str(error)).lower()}; {kept}"
        ) from error


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--speed", type=click.FloatRange(0.01, 1000), help="So many times faster; default: without waiting.")
@click.option("--assert", "must_agree", is_flag=True, help="Other events than recorded are an error (exit status 10).")
@click.pass_obj
def replay(settings: Settings, file: Path, speed: float | None, must_agree: bool) -> None:
    """Play a recording through the driver, without device or daemon, and show the events.

    \b
      bridge replay front.jsonl
      bridge replay front.jsonl --assert

    IDENTIFIERS OF KEYS AND CARDS ARE IN THE FILE; they are not shown.
    """
    from optima_bridge import playback, registry
    from optima_bridge.config.check import check_settings

    settings.stream = True
    recording = playback.read(file)
    if must_agree and not any(piece.dir for piece in recording.pieces):
        raise UsageError(
            f"{file} has no bytes in it, so there is nothing that could differ",
            cause="nothing went over the wire while it was recorded, or what was recorded was cut off",
            next_step=f"record it once more: bridge record {recording.header.device} -o FILE",
        )
    driver = registry.load(recording.header.driver)
    if problems := check_settings(driver, dict(recording.header.settings), f"{file}, line 1, settings"):
        raise UsageError(
            "\n".join(map(str, problems)),
            cause=f"it was recorded with another version of the driver {driver.info.name}, or was changed since",
            next_step=f"see the settings of today: bridge drivers show {driver.info.name}",
        )

    def show(t_ms: float, event: Event) -> None:
        if settings.json:
            told = {"subject": event.subject, "action": event.action, "state": event.state}
            settings.print_json({"type": "event", "t_ms": round(t_ms, 3), **told})
        else:
            click.echo(f"{t_ms / 1000:9.3f}  {event.subject} {event.action}")

    made = playback.play(driver, recording, show, speed or 0)
    if must_agree and made != recording.events:
        raise _differs(file, recording.events, made)
    if settings.json:
        settings.print_json({"type": "result", "ok": True, "rc": 0, "error": None, "events": len(made)})
    elif must_agree and not settings.quiet:
        click.echo(f"{file}: {len(made)} events, all as recorded")


def _differs(file: Path, recorded: list[tuple[str, str]], made: list[tuple[str, str]]) -> ReplayDiffers:
    place = next((n for n, pair in enumerate(zip(recorded, made, strict=False)) if pair[0] != pair[1]), None)
    if place is None:
        what = f"{len(made)} events, {len(recorded)} were recorded"
    else:
        what = f"event {place + 1} is {' '.join(made[place])}, recorded was {' '.join(recorded[place])}"
    return ReplayDiffers(f"{file}: {what}", recorded=recorded, made=made)

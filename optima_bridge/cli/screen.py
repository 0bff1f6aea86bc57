"""What is shown of a job: a line per phase, a bar where somebody watches; with ``--json`` the records as they are."""

from __future__ import annotations

import sys
from typing import Any

import click

from optima_bridge.cli.failures import report
from optima_bridge.cli.options import Settings
from optima_bridge.errors import BridgeError, restored
from optima_bridge.text import printable

BAR_CHARACTERS = 30
Record = dict[str, Any]


class Screen:
    """Takes the records of one job (`optima_bridge.enroll.records`).

    Args:
        progress: ``auto`` a bar on a terminal, ``plain`` lines, ``none``.
    """

    def __init__(self, settings: Settings, progress: str = "auto") -> None:
        self._settings = settings
        self._silent = (settings.quiet or progress == "none") and not settings.json
        self._bar = progress == "auto" and sys.stdout.isatty() and not settings.json
        self._in_bar = False
        self.requested = ""

    def take(self, record: Record) -> None:
        """Show one record, but for the result, which `end` shows."""
        kind = record["type"]
        if kind == "request":
            self.requested = record["pem"]
        if self._settings.json:
            if kind != "result":
                self._settings.print_json(record)
        elif kind == "warning":
            click.echo(f"warning: {printable(record['what'])}", err=True)
        elif not self._silent:
            self._show(kind, record)

    def _show(self, kind: str, record: Record) -> None:
        if kind == "phase":
            self.leave_bar()
            click.echo(f"{record['phase']:<8} {record['what']}")
        elif kind == "progress" and self._bar:
            done, size = record["done_bytes"], record["size_bytes"]
            full = BAR_CHARACTERS * done // size
            drawn = "#" * full + "-" * (BAR_CHARACTERS - full)
            click.echo(f"\r{record['phase']:<8} [{drawn}] {done} of {size} bytes", nl=False)
            self._in_bar = True
        elif kind == "plan":
            device = record["device"]
            click.echo(f"device   {printable(device['model'] + ' ' + device['serial'])}")
            click.echo(f"new      {record['certificate']} {printable(record['subject'])}")
            for it in record["slots"]:
                held = it["sha256"] or "holds no certificate"
                click.echo(f"slot {it['slot']}   {'active' if it['active'] else 'spare'} {held}")
            for step in record["would"]:
                click.echo(f"would    {step}")

    def end(self, result: Record) -> int:
        """The last words; returns the exit status."""
        from optima_bridge.enroll.records import last_line

        self.leave_bar()
        if result["error"] is not None:
            facts = {key: value for key, value in result.items() if key not in ("type", "error", "seq")}
            report(restored(result["error"]), self._settings, **facts)
        elif self._settings.json:
            self._settings.print_json({key: value for key, value in result.items() if key != "seq"})
        if not self._settings.json:
            click.echo(last_line(result))
        status: int = result["rc"]
        return status

    def say(self, text: str) -> None:
        """Something besides the job, for people."""
        if not self._settings.json:
            self.leave_bar()
            click.echo(text, err=True)

    def leave_bar(self) -> None:
        """End the line that the bar is on."""
        if self._in_bar:
            click.echo()
            self._in_bar = False


def refused(error: BridgeError) -> Record:
    """The result of a job that did not begin."""
    return {
        "type": "result",
        "ok": False,
        "rc": error.exit_status,
        "error": error.document(),
        "outcome": "not changed",
        "active": None,
        "changed": False,
    }

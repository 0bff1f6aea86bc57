"""``bridge credentials``: which certificates the devices hold, what became of them, and revoking one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from optima_bridge.cli.client import Daemon
from optima_bridge.cli.follow import follow
from optima_bridge.cli.options import Settings
from optima_bridge.cli.render import flat, table
from optima_bridge.cli.screen import Screen
from optima_bridge.errors import BridgeError, Interrupted, NotFound, UsageError

ID_CHARACTERS = 16
STATES = ["active", "previous", "pending", "revoked"]


@click.group()
def credentials() -> None:
    """List, show, check and revoke the certificates in secure memory.

    \b
      bridge credentials list --expiring 30
      bridge credentials verify --all
      bridge credentials revoke 5c0f3a91
    """


@credentials.command(name="list")
@click.argument("device", required=False)
@click.option(
    "--expiring", type=click.IntRange(0, 3650), metavar="DAYS", help="Only those that end within so many days."
)
@click.option("--state", type=click.Choice(STATES), help="Only those in this state.")
@click.pass_obj
def list_(settings: Settings, device: str | None, expiring: int | None, state: str | None) -> None:
    """What each device holds: active, previous, pending.

    The previous one is what `bridge enroll --rollback` goes back to.
    """
    daemon = Daemon(settings)
    if device is not None:
        daemon.get(f"/v1/devices/{device}")  # raises NotFound
    document = daemon.get("/v1/credentials")
    ends = None if expiring is None else f"{datetime.now(UTC) + timedelta(days=expiring):%FT%TZ}"
    found = [
        it
        for it in document["credentials"]
        if device in (None, it["device"])
        and (ends is None or (it["not_after"] or "") <= ends)
        and (state is None or _has_state(it, state))
    ]
    if settings.json:
        settings.print_json({**document, "credentials": found})
        return
    rows = [
        [it["id"][:ID_CHARACTERS], it["device"], _state(it), it["not_after"] or "", _level(it), it["subject"]]
        for it in found
    ]
    table(settings, ("ID", "DEVICE", "STATE", "UNTIL", "PROOF", "SUBJECT"), rows)


def _has_state(it: dict[str, Any], state: str) -> bool:
    return it["revoked"] is not None if state == "revoked" else it["state"] == state


def _state(it: dict[str, Any]) -> str:
    return f"{it['state']}, revoked" if it["revoked"] else str(it["state"])


def _level(it: dict[str, Any]) -> str:
    return "identifier only" if it["identifier_only"] else "key proven"


@credentials.command()
@click.argument("id_", metavar="ID")
@click.option("--pem", is_flag=True, help="Print the certificate.")
@click.option("--fingerprint", is_flag=True, help="Print its SHA-256 only.")
@click.pass_obj
def show(settings: Settings, id_: str, pem: bool, fingerprint: bool) -> None:
    """Everything about one certificate; never anything private."""
    document = Daemon(settings).get(f"/v1/credentials/{id_.lower()}")
    if settings.json:
        settings.print_json(document)
    elif fingerprint:
        click.echo(document["sha256"])
    elif pem:
        if document["pem"] is None:
            raise NotFound(f"the certificate {document['sha256']} itself is not known to this PC")
        click.echo(document["pem"], nl=False)
    else:
        table(settings, ("FACT", "VALUE"), flat({key: value for key, value in document.items() if key != "pem"}))


@credentials.command()
@click.argument("id_", metavar="ID")
@click.pass_obj
def history(settings: Settings, id_: str) -> None:
    """What happened to one certificate on this PC, the oldest first."""
    document = Daemon(settings).get(f"/v1/credentials/{id_.lower()}/history")
    if settings.json:
        settings.print_json(document)
        return
    rows = [[it["time"], it["job"], it["device"], it["what"], it["code"]] for it in document["history"]]
    table(settings, ("TIME", "JOB", "DEVICE", "WHAT", "CODE"), rows)


@credentials.command()
@click.argument("id_", metavar="[ID]", required=False)
@click.option("--all", "all_", is_flag=True, help="Of every device.")
@click.pass_context
def verify(ctx: click.Context, id_: str | None, all_: bool) -> None:
    """Compare what devices hold with what was enrolled. Changes nothing; exit status 10 where one differs."""
    settings = ctx.ensure_object(Settings)
    settings.stream = True
    if all_ == (id_ is not None):
        raise UsageError("name one credential, or --all", next_step="bridge credentials list")
    daemon = Daemon(settings)
    active = [it for it in daemon.get("/v1/credentials")["credentials"] if it["state"] == "active"]
    chosen = [it for it in active if all_ or it["id"].startswith((id_ or "").lower())]
    if id_ is not None and not chosen:
        raise NotFound(f"no device holds {id_!r} as active", next_step="bridge credentials list")
    worst = 0
    for it in chosen:
        order = {"reader": it["device"], "kind": "verify", "sha256": it["enrolled"] or it["id"]}
        job = daemon.post("/v1/enrollments", {"order": order})["job"]
        screen = Screen(settings, "none")
        if not settings.json:
            click.echo(f"{it['device']}: ", nl=False)
        worst = max(worst, screen.end(follow(daemon, job["id"], screen, may_stop=True)))
    ctx.exit(worst)


@credentials.command()
@click.argument("id_", metavar="ID")
@click.option("--label", default="", metavar="TEXT", help="What it says of the key; needed for the store's last one.")
@click.option("--reason", default="", metavar="TEXT", help="For the audit log.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def revoke(settings: Settings, id_: str, label: str, reason: str, yes: bool) -> None:
    """Revoke a certificate for ever. The device goes on using it until another one is enrolled."""
    import sys

    daemon = Daemon(settings)
    may_ask = sys.stdin.isatty() and not (settings.no_input or settings.json or yes)
    shown = daemon.get(f"/v1/credentials/{id_.lower()}")
    if not yes:
        if not may_ask:
            raise UsageError("revoking cannot be undone, so it is asked for", next_step="say so with --yes")
        if not click.confirm(f"Revoke {shown['subject']} for ever?", err=True):
            raise Interrupted("nothing was revoked", cause="the answer was no")
    path, body = f"/v1/credentials/{shown['sha256']}/revoke", {"label": label, "reason": reason}
    try:
        document = daemon.post(path, body)
    except BridgeError as error:
        if error.code != "E-CREDENTIAL-LAST" or not may_ask or label:
            raise
        click.echo(f"{error.what}.", err=True)
        label = click.prompt("Type what it says of the key, such as 'supervisor key 7'", err=True)
        document = daemon.post(path, {**body, "label": label})
    if settings.json:
        settings.print_json(document)
    else:
        click.echo("revoked" if document["changed"] else "not changed: it was revoked before")
        click.echo("where it is active it works until another one is enrolled there: bridge credentials list", err=True)

"""``bridge enroll``: a certificate into a device's secure memory, through the daemon or, with the daemon stopped, without it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optima_bridge.cli.client import Daemon
from optima_bridge.cli.follow import follow
from optima_bridge.cli.options import Settings
from optima_bridge.cli.pins import PinSource, pin_options
from optima_bridge.cli.screen import Record, Screen
from optima_bridge.errors import AuditError, NotFound, SecretMissing, UsageError
from optima_bridge.text import printable

if TYPE_CHECKING:
    from optima_bridge.config.model import Config, Device
    from optima_bridge.enroll.work import Enrol, Work

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FINGERPRINT_CHARACTERS = 64
LAST = "last"
MODES = ("dry_run", "verify_only", "rollback", "resume", "csr")


def fingerprint(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """As openssl and others print it, to lower-case hex."""
    if value is None:
        return None
    digits = value.replace(":", "").lower()
    if len(digits) != FINGERPRINT_CHARACTERS or not set(digits) <= set("0123456789abcdef"):
        raise click.BadParameter("a fingerprint is the SHA-256 of a certificate, 64 hex digits", ctx, param)
    return digits


@click.command()
@click.argument("reader")
@click.option("--controller", metavar="DEVICE", help="The device with the secure memory, if READER is only the reader.")
@click.option("--cert", type=FILE, help="The certificate, PEM or DER; without it the CA of this store issues one.")
@click.option("--replace", is_flag=True, help="Another certificate may be there.")
@click.option("--if-fingerprint", metavar="SHA256", callback=fingerprint, help="Replace exactly this certificate.")
@click.option("--dry-run", is_flag=True, help="Check everything, show what would be done, write nothing.")
@click.option("--verify-only", is_flag=True, help="Compare what is active with --cert; write nothing.")
@click.option("--rollback", is_flag=True, help="Bring back the certificate that was active before the last one.")
@click.option(
    "--resume",
    is_flag=False,
    flag_value=LAST,
    metavar="[JOB]",
    help="Go on with an interrupted job; default: the last.",
)
@click.option("--wait-key", type=click.FloatRange(1, 600), metavar="SECONDS", help="Wait until the key is put in.")
@click.option("--number", type=click.IntRange(1, 999_999), help="Of the supervisor key, in an issued certificate.")
@click.option("--accept-single-slot", is_flag=True, help="A power cut while writing may leave no certificate.")
@click.option("--erase-old", is_flag=True, help="Do not keep the old certificate for going back: its key is revoked.")
@click.option("--reason", default="", metavar="TEXT", help="For the audit log.")
@click.option("--csr", type=click.Path(dir_okay=False, path_type=Path), help="Write a request to a CA elsewhere here.")
@click.option("--organization", default="", metavar="NAME", help="With --csr: the retailer.")
@click.option("--store", default="", metavar="ID", help="With --csr: the store.")
@click.option("--detach", is_flag=True, help="Print the id of the job and return; it goes on.")
@click.option("--progress", type=click.Choice(["auto", "plain", "none"]), default="auto", show_default=True)
@pin_options
@click.option("--standalone", is_flag=True, help="Open the device without the daemon, which must be stopped.")
@click.option("--ca", type=FILE, help="With --standalone: certificate of another CA.")
@click.option("--crl", type=FILE, help="With --ca: its revocation list.")
@click.option("--config", "config_file", type=click.Path(), help="With --standalone: the main configuration file.")
@click.pass_context
def enroll(ctx: click.Context, /, reader: str, standalone: bool, pin: PinSource, **asked: Any) -> None:
    """Bring a certificate into a device's secure memory. A power cut never leaves it without one.

    \b
      bridge enroll front --controller till-3 --wait-key 60
      bridge enroll till-3 --cert key7.pem --replace --dry-run
      bridge enroll till-3 --resume
    """
    settings = ctx.ensure_object(Settings)
    settings.stream = True  # with --json the last record is a result, also of a refusal
    _check_options(asked, standalone)
    secret = pin.read(settings)
    attempt = partial(_without_daemon if standalone else _with_daemon, settings, reader, asked)
    result = attempt(secret)
    if secret is None and _lacks_secret(result):
        secret = pin.read(settings, ask=f"PIN or management key of {asked['controller'] or reader}")
        result = attempt(secret) if secret is not None else result
    if result is not None:
        ctx.exit(Screen(settings).end(result))


def _lacks_secret(result: Record | None) -> bool:
    return result is not None and (result["error"] or {}).get("code") == SecretMissing.code


def _with_daemon(settings: Settings, reader: str, asked: dict[str, Any], secret: bytes | None) -> Record | None:
    """The job's result; None: it goes on without us."""
    daemon = Daemon(settings)
    body = {"order": _order(reader, asked), "secret": base64.b64encode(secret or b"").decode("ascii")}
    job = daemon.post("/v1/enrollments", body)["job"]
    if asked["detach"]:
        if settings.json:
            settings.print_json({"type": "job", **job})
        else:
            click.echo(job["id"])
        return None
    screen = Screen(settings, asked["progress"])
    if not settings.quiet:
        screen.say(f"job {job['id']} on {job['device']}")
    result = follow(daemon, job["id"], screen, may_stop=True)
    _keep_request(asked["csr"], screen)
    return result


def _check_options(asked: dict[str, Any], standalone: bool) -> None:
    """Raises UsageError: options that exclude or need each other."""
    modes = [f"--{mode.replace('_', '-')}" for mode in MODES if asked[mode]]
    if len(modes) > 1:
        raise UsageError(f"{' and '.join(modes)} exclude each other", next_step="bridge enroll --help")
    if asked["cert"] and (asked["resume"] or asked["rollback"] or asked["csr"]):
        raise UsageError(
            f"{modes[0]} takes no --cert: which certificate it is about is known already",
            next_step="enroll with --cert: what was interrupted is settled first",
        )
    if asked["verify_only"] and not asked["cert"]:
        raise UsageError("--verify-only compares with --cert", next_step="or compare with what was enrolled: "
                         "bridge credentials verify")  # fmt: skip
    if asked["csr"] and not (asked["organization"] and asked["store"]):
        raise UsageError("--csr needs --organization and --store: what the certificate is to say")
    if asked["crl"] and not asked["ca"]:
        raise UsageError("--crl belongs to --ca", cause="the CA of `bridge ca` has its own list and takes no other")
    if standalone:
        useless = [name for name in ("controller", "wait_key", "csr", "detach") if asked[name]]
        if useless:
            raise UsageError(
                f"--{useless[0].replace('_', '-')} needs the daemon, which has the reader",
                next_step="sudo systemctl start optima-bridge; then without --standalone",
            )
        if not (asked["cert"] or asked["resume"] or asked["rollback"]):
            raise UsageError("--standalone needs --cert", cause="no key can be read without the daemon")
    elif asked["ca"] or asked["config_file"]:
        raise UsageError(
            "--ca and --config belong to --standalone",
            cause="the daemon trusts whom its configuration names",
            next_step="see [enroll] ca: bridge config show",
        )


def _order(reader: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What the daemon is asked for."""
    kinds = {
        "dry_run": "dry-run",
        "verify_only": "verify",
        "rollback": "rollback",
        "resume": "resume",
        "csr": "request",
    }
    order = {
        "reader": reader,
        "kind": next((kind for mode, kind in kinds.items() if asked[mode]), "enroll"),
        "controller": asked["controller"] or "",
        "certificate": base64.b64encode(asked["cert"].read_bytes()).decode("ascii") if asked["cert"] else "",
        "resume": "" if asked["resume"] in (None, LAST) else asked["resume"],
        "number": asked["number"] or 0,
        "wait_key_s": asked["wait_key"] or 0,
    }
    same = ("replace", "if_fingerprint", "accept_single_slot", "erase_old", "reason", "organization", "store")
    return order | {name: asked[name] for name in same}


def _keep_request(file: Path | None, screen: Screen) -> None:
    if file is None or not screen.requested:
        return
    try:
        with file.open("x", encoding="ascii") as new:
            new.write(screen.requested)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {(error.strerror or str(error)).lower()}") from error
    screen.say(f"{file} holds the request; bring the answer with: --cert FILE")


def _without_daemon(settings: Settings, name: str, asked: dict[str, Any], secret: bytes | None) -> Record:
    import asyncio
    import os
    import secrets

    from optima_bridge.config import load
    from optima_bridge.enroll.journal import HostJournal
    from optima_bridge.enroll.records import Teller, result_record
    from optima_bridge.enroll.standalone import check_directory, perform

    config = load(asked["config_file"], os.environ).config
    configured = _device(config, name)
    screen = Screen(settings, asked["progress"])
    job = secrets.token_hex(6) if asked["resume"] in (None, LAST) else asked["resume"]
    work = _work(asked, config, Teller(screen.take), job)
    check_directory(config.journal.directory)
    with HostJournal(config.journal.directory) as journal:

        def done() -> Record:
            return result_record(asyncio.run(perform(name, configured, journal, work, secret or b"")))

        if asked["dry_run"] or asked["verify_only"]:
            result = done()
        else:
            kind = next((mode for mode in ("resume", "rollback") if asked[mode]), "enroll")
            result = _recorded(config.journal.directory, name, job, kind, asked["reason"], done)
    screen.leave_bar()
    return result


def _recorded(directory: Path, device: str, job: str, kind: str, reason: str, done: Callable[[], Record]) -> Record:
    """Have it done, with a record in the audit log before and after; without the first one nothing is done."""
    from optima_bridge.audit import Actor, AuditLog
    from optima_bridge.enroll.records import audited

    me = Actor.this("standalone")
    with AuditLog(directory, me) as audit:
        audit.append("enroll.begun", me, device=device, job=job, kind=kind, reason=reason)
        result = done()
        try:
            audit.append("enroll.ended", me, device=device, job=job, kind=kind, **audited(result))
        except AuditError as error:  # it has happened
            click.echo(f"warning {error.code}: {printable(error.what)}", err=True)
    return result


def _device(config: Config, name: str) -> Device:
    if name not in config.devices:
        known = ", ".join(config.devices) or "none"
        raise NotFound(
            f"no device {name!r} is configured; there are: {known}", next_step="see what there is: bridge config show"
        )
    return config.devices[name]


def _work(asked: dict[str, Any], config: Config, teller: Any, job: str) -> Work:
    """What is to be done without the daemon; reads the files that were named."""
    import msgspec

    from optima_bridge.enroll.pki.files import read_certificate
    from optima_bridge.enroll.words import fingerprint as fingerprint_of
    from optima_bridge.enroll.work import Compare, DryRun, Enrol, GoBack, GoOn
    from optima_bridge.enrolling import trust_of

    certificate = read_certificate(asked["cert"].read_bytes()) if asked["cert"] else b""
    if asked["verify_only"]:
        return Compare(fingerprint_of(certificate))
    trust = trust_of(config)
    if asked["ca"]:
        trust = msgspec.structs.replace(trust, ca=asked["ca"], crl=asked["crl"])
    check = trust.check_for()

    def enrol(der: bytes) -> Enrol:
        return Enrol(
            job=job,
            certificate=der,
            check=check,
            passed=teller.passed,
            report=teller.phase,
            replace=asked["replace"] or not asked["cert"],
            if_fingerprint=asked["if_fingerprint"],
            accept_single_slot=asked["accept_single_slot"],
            erase_old=asked["erase_old"],
        )

    if asked["rollback"]:
        return GoBack(enrol)
    if asked["resume"]:
        return GoOn(enrol, "" if asked["resume"] == LAST else asked["resume"], teller.phase)
    return DryRun(enrol(certificate), teller.plan) if asked["dry_run"] else enrol(certificate)

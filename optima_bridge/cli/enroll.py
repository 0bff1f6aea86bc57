"""``bridge enroll``: a certificate into a device's secure memory. So far only with the daemon stopped (``--standalone``)."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optima_bridge.cli.failures import Interrupted, report
from optima_bridge.cli.options import Settings
from optima_bridge.errors import EnrollRefused, NotFound, UsageError
from optima_bridge.text import printable

if TYPE_CHECKING:
    from optima_bridge.config.model import Config, Device
    from optima_bridge.enroll.pki.check import CheckedCertificate
    from optima_bridge.enroll.standalone import Certificate, CheckFor, Ending, Job, Plan
    from optima_bridge.enroll.words import Phase

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
FINGERPRINT_CHARACTERS = 64
BAR_CHARACTERS = 30
PHASES = {
    "check": "certificate, device, what it holds",
    "backup": "the present certificate, into the journal of this PC",
    "write": "the new certificate",
    "verify": "reading it back",
    "commit": "switching, do not remove the power",
    "confirm": "used once",
}


def _fingerprint(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """As openssl and others print it, to lower-case hex."""
    if value is None:
        return None
    digits = value.replace(":", "").lower()
    if len(digits) != FINGERPRINT_CHARACTERS or not set(digits) <= set("0123456789abcdef"):
        raise click.BadParameter("a fingerprint is the SHA-256 of a certificate, 64 hex digits", ctx, param)
    return digits


@click.command()
@click.argument("device")
@click.option("--cert", type=FILE, help="The certificate, PEM or DER.")
@click.option("--ca", type=FILE, help="Certificate of the CA; default: the one of `bridge ca` in the state directory.")
@click.option("--crl", type=FILE, help="Revocation list of that CA; `bridge ca` has its own.")
@click.option("--replace", is_flag=True, help="Another certificate may be there.")
@click.option("--if-fingerprint", metavar="SHA256", callback=_fingerprint, help="Replace exactly this certificate.")
@click.option("--accept-single-slot", is_flag=True, help="A power cut while writing may leave no certificate.")
@click.option("--dry-run", is_flag=True, help="Check everything, show what would be done, write nothing.")
@click.option("--verify-only", is_flag=True, help="Compare what is active with --cert; write nothing.")
@click.option("--resume", is_flag=True, help="Settle what an interrupted enrolment left; without --cert.")
@click.option("--standalone", is_flag=True, help="Open the device without the daemon, which must be stopped.")
@click.option("--config", "config_file", type=click.Path(), help="Main file; default /etc/optima-bridge/config.toml.")
@click.pass_context
def enroll(ctx: click.Context, /, device: str, standalone: bool, config_file: str | None, **asked: Any) -> None:
    """Bring a certificate into a device's secure memory. A power cut never leaves it without one.

    \b
      bridge enroll till-3 --cert key7.pem --standalone --dry-run
      bridge enroll till-3 --cert key7.pem --standalone --replace
      bridge enroll till-3 --resume --standalone
    """
    settings = ctx.ensure_object(Settings)
    settings.stream = True  # with --json the last record is a result, also of a refusal
    _check_options(asked)
    if not standalone:
        again = shlex.join(["bridge", *sys.argv[1:], "--standalone"])
        raise EnrollRefused(
            "enrolling through the daemon is not possible yet",
            cause="the daemon has the port, and takes no enrolments so far",
            next_step=f"sudo systemctl stop optima-bridge; then: {again}",
        )
    import asyncio
    import os

    from optima_bridge.config import load
    from optima_bridge.enroll.journal import HostJournal
    from optima_bridge.enroll.standalone import check_directory, perform

    config = load(config_file, os.environ).config
    configured = _device(config, device)
    screen = Screen(settings)
    job = _job(asked, config.journal.directory, screen)
    check_directory(config.journal.directory)
    with HostJournal(config.journal.directory) as journal:
        ending = asyncio.run(perform(device, configured, journal, job))
    ctx.exit(screen.end(ending, compared=asked["verify_only"]))


def _check_options(asked: dict[str, Any]) -> None:
    """Raises UsageError: options that exclude or need each other."""
    if sum(asked[mode] for mode in ("dry_run", "verify_only", "resume")) > 1:
        raise UsageError("--dry-run, --verify-only and --resume exclude each other", next_step="bridge enroll --help")
    if asked["resume"] == (asked["cert"] is not None):
        raise UsageError(
            "--cert is what is to be enrolled; --resume enrolls nothing, so it goes without",
            next_step="enroll with --cert: what was interrupted is settled first",
        )
    if asked["crl"] and not asked["ca"]:
        raise UsageError("--crl belongs to --ca", cause="the CA of `bridge ca` has its own list and takes no other")


def _device(config: Config, name: str) -> Device:
    if name not in config.devices:
        known = ", ".join(config.devices) or "none"
        raise NotFound(
            f"no device {name!r} is configured; there are: {known}", next_step="see what there is: bridge config show"
        )
    return config.devices[name]


def _job(asked: dict[str, Any], state_directory: Path, screen: Screen) -> Job:
    """What is to be done; reads the files that were named."""
    import secrets

    from optima_bridge.enroll.pki.files import read_certificate
    from optima_bridge.enroll.standalone import Compare, DryRun, Enrol, Resume

    if asked["resume"]:
        return Resume(screen.phase)
    certificate = read_certificate(asked["cert"].read_bytes())
    if asked["verify_only"]:
        return Compare(certificate)
    enrol = Enrol(
        job=secrets.token_hex(6),
        certificate=certificate,
        check=_check_for(asked["ca"], asked["crl"], state_directory),
        passed=screen.passed,
        report=screen.phase,
        replace=asked["replace"],
        if_fingerprint=asked["if_fingerprint"],
        accept_single_slot=asked["accept_single_slot"],
    )
    return DryRun(enrol, screen.plan) if asked["dry_run"] else enrol


def _check_for(ca_file: Path | None, crl_file: Path | None, state_directory: Path) -> CheckFor:
    """The checks, with the CA that this store trusts."""
    from datetime import UTC, datetime

    from cryptography import x509

    from optima_bridge.enroll.pki.ca import CertificateAuthority
    from optima_bridge.enroll.pki.check import check
    from optima_bridge.enroll.pki.files import read_certificate, read_crl

    now = datetime.now(UTC)
    newest, crl = None, None
    if ca_file is not None:
        ca = x509.load_der_x509_certificate(read_certificate(ca_file.read_bytes()))
        crl = read_crl(crl_file.read_bytes()) if crl_file else None
    else:
        authority = CertificateAuthority.open(state_directory / "ca")
        ca, crl, newest = authority.certificate, authority.crl(now), authority.newest()
    return lambda der, traits, identity: check(
        der,
        ca=ca,
        crl=crl,
        now=now,
        max_size_bytes=traits.max_size_bytes,
        device_serial=identity.serial or None,
        newest_seen=newest,
    )


class Screen:
    """What is said of a job: one line per phase, a bar where somebody watches, records with ``--json``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._silent = settings.quiet and not settings.json
        self._bar = sys.stdout.isatty() and not settings.json
        self._phase: Phase | None = None
        self._in_bar = False

    def phase(self, phase: Phase, done_bytes: int, size_bytes: int) -> None:
        """How far the job is."""
        if self._silent:
            return
        begins, self._phase = phase is not self._phase, phase
        if self._settings.json:
            if begins:
                self._settings.print_json({"type": "phase", "phase": phase, "what": PHASES[phase]})
            if size_bytes:
                facts = {"phase": phase, "done_bytes": done_bytes, "size_bytes": size_bytes}
                self._settings.print_json({"type": "progress", **facts})
        elif self._bar and size_bytes:
            full = BAR_CHARACTERS * done_bytes // size_bytes
            drawn = "#" * full + "-" * (BAR_CHARACTERS - full)
            click.echo(f"\r{phase:<8} [{drawn}] {done_bytes} of {size_bytes} bytes", nl=False)
            self._in_bar = True
        elif begins:
            self._leave_bar()
            click.echo(f"{phase:<8} {PHASES[phase]}")

    def passed(self, certificate: CheckedCertificate) -> None:
        """What the checks found, where it is no reason to refuse."""
        for warning in certificate.warnings:
            if self._settings.json:
                self._settings.print_json({"type": "warning", "what": warning})
            click.echo(f"warning: {printable(warning)}", err=True)

    def plan(self, plan: Plan) -> None:
        """What would be done."""
        spare = next((state.slot for state in plan.slots if not state.active), plan.slots[0].slot)
        steps = [f"settle the interrupted job {plan.unsettled}"] if plan.unsettled else []
        if not plan.needed:
            steps.append("nothing: the certificate is active")
        elif len(plan.slots) == 1:
            steps.append(f"write {len(plan.certificate.der)} bytes over slot {spare}: single slot, no spare copy")
        else:
            steps.append(f"write {len(plan.certificate.der)} bytes to slot {spare}, read them back, switch to it")
        slots = [
            {"slot": it.slot, "active": it.active, "sha256": it.sha256, "size_bytes": it.size_bytes}
            for it in plan.slots
        ]
        if self._settings.json:
            checked = plan.certificate
            facts = {"certificate": checked.fingerprint, "subject": checked.subject, "slots": slots, "would": steps}
            self._settings.print_json({"type": "plan", **facts})
            return
        click.echo(f"device   {printable(f'{plan.identity.model} {plan.identity.serial}')}")
        click.echo(f"new      {plan.certificate.fingerprint} {printable(plan.certificate.subject)}")
        for it in plan.slots:
            click.echo(f"slot {it.slot}   {'active' if it.active else 'spare'} {it.sha256 or 'holds no certificate'}")
        for step in steps:
            click.echo(f"would    {step}")

    def end(self, ending: Ending, *, compared: bool) -> int:
        """The last words; returns the exit status."""
        self._leave_bar()
        error = Interrupted("interrupted") if ending.interrupted else ending.error
        status = error.exit_status if error else 0
        if ending.outcome is not None and not ending.interrupted:
            status = ending.outcome.exit_status
        words = _words(ending, status, compared)
        facts = {"outcome": words, "active": _facts(ending.active), "changed": ending.changed}
        if error is not None:
            report(error, self._settings, **{"ok": status == 0, "rc": status, **facts})
        elif self._settings.json:
            self._settings.print_json({"type": "result", "ok": status == 0, "rc": status, "error": None, **facts})
        if not self._settings.json:
            click.echo(f"{words}: {_said(ending.active, _lead(words, ending.interrupted))}")
        return status

    def _leave_bar(self) -> None:
        if self._in_bar:
            click.echo()
            self._in_bar = False


def _words(ending: Ending, status: int, compared: bool) -> str:
    if status == 11:
        return "needs attention"
    if ending.outcome == "rolled-back" and not ending.interrupted:
        return "rolled back"
    if status == 0 and (ending.changed or (compared and ending.outcome is not None)):
        return "verified, active"
    return "not changed"


def _facts(active: Certificate | None) -> dict[str, object] | None:
    if active is None:
        return None
    return {
        "sha256": active.sha256,
        "subject": active.subject,
        "not_after": f"{active.not_after:%FT%TZ}" if active.not_after else None,
        "identifier_only": active.identifier_only,
    }


def _lead(words: str, interrupted: bool) -> str:
    if interrupted or words == "rolled back":
        return "the old certificate is active: "
    return "" if words == "verified, active" else "active is "


def _said(active: Certificate | None, lead: str) -> str:
    """Which certificate is active, for people."""
    if active is None:
        return "the device was not asked, or does not answer, which certificate is active"
    if not active.sha256:
        return "the device holds no certificate"
    until = f" until {active.not_after:%FT%TZ}" if active.not_after else ""
    label = " (identifier only)" if active.identifier_only else ""
    return f"{lead}{active.sha256} {printable(active.subject)}{until}{label}"

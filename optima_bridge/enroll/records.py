"""What is told of a job while it runs, as documents: the same on the terminal, over the control API and in the job's history.

{"type": "phase", "phase": "write", "what": …}                      a phase begins
{"type": "progress", "phase": …, "done_bytes": …, "size_bytes": …}
{"type": "warning", "what": …}                                      of the checks, where it is no reason to refuse
{"type": "plan", "certificate": …, "slots": […], "would": […]}      of a dry run
{"type": "request", "pem": …}                                       a certificate request, for a CA elsewhere
{"type": "result", "ok": …, "rc": …, "error": …, "outcome": …, "active": …, "changed": …}      always the last one
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from optima_bridge.enroll.words import Outcome, Phase
from optima_bridge.errors import Interrupted
from optima_bridge.text import printable

if TYPE_CHECKING:
    from optima_bridge.enroll.pki.check import CheckedCertificate
    from optima_bridge.enroll.work import Certificate, Ending, Plan

Document = dict[str, Any]
Tell = Callable[[Document], None]

PHASES = {
    Phase.WAIT: "for the supervisor key: put it in",
    Phase.CHECK: "certificate, device, what it holds",
    Phase.BACKUP: "the present certificate, into the journal of this PC",
    Phase.WRITE: "the new certificate",
    Phase.VERIFY: "reading it back",
    Phase.COMMIT: "switching, do not remove the power",
    Phase.CONFIRM: "used once",
}


class Teller:
    """Makes documents of what a job reports, and hands them to `tell`."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell
        self._phase: Phase | None = None

    def phase(self, phase: Phase, done_bytes: int = 0, size_bytes: int = 0) -> None:
        """How far the job is; it has the signature of `words.Report`."""
        if phase is not self._phase:
            self._phase = phase
            self._tell({"type": "phase", "phase": phase.value, "what": PHASES[phase]})
        if size_bytes:
            facts = {"phase": phase.value, "done_bytes": done_bytes, "size_bytes": size_bytes}
            self._tell({"type": "progress", **facts})

    def passed(self, certificate: CheckedCertificate) -> None:
        """What the checks found, where it is no reason to refuse."""
        for warning in certificate.warnings:
            self._tell({"type": "warning", "what": warning})

    def plan(self, plan: Plan) -> None:
        """What would be done."""
        spare = next((state.slot for state in plan.slots if not state.active), plan.slots[0].slot)
        size_bytes = len(plan.certificate.der)
        steps = [f"settle the interrupted job {plan.unsettled}"] if plan.unsettled else []
        if not plan.needed:
            steps.append("nothing: the certificate is active")
        elif len(plan.slots) == 1:
            steps.append(f"write {size_bytes} bytes over slot {spare}: single slot, no spare copy")
        else:
            steps.append(f"write {size_bytes} bytes to slot {spare}, read them back, switch to it")
        slots = [
            {"slot": it.slot, "active": it.active, "sha256": it.sha256, "size_bytes": it.size_bytes}
            for it in plan.slots
        ]
        device = {"model": plan.identity.model, "serial": plan.identity.serial}
        facts = {"certificate": plan.certificate.fingerprint, "subject": plan.certificate.subject}
        self._tell({"type": "plan", "device": device, **facts, "slots": slots, "would": steps})

    def request(self, pem: str) -> None:
        """A request to a CA elsewhere."""
        self._tell({"type": "request", "pem": pem})

    def result(self, ending: Ending) -> None:
        """The last word."""
        self._tell(result_record(ending))


def result_record(ending: Ending) -> Document:
    """How a job ended, and which certificate is active now."""
    error = Interrupted("stopped before anything was switched") if ending.interrupted else ending.error
    status = error.exit_status if error else 0
    if ending.outcome is not None and not ending.interrupted:
        status = ending.outcome.exit_status
    return {
        "type": "result",
        "ok": status == 0,
        "rc": status,
        "error": error.document() if error else None,
        "outcome": _outcome(ending, status),
        "active": facts(ending.active),
        "changed": ending.changed,
    }


def facts(active: Certificate | None) -> Document | None:
    """A certificate that a device holds; None: it is not known which."""
    if active is None:
        return None
    return {
        "sha256": active.sha256,
        "subject": active.subject,
        "not_after": f"{active.not_after:%FT%TZ}" if active.not_after else None,
        "identifier_only": active.identifier_only,
    }


def audited(result: Document) -> dict[str, str | bool]:
    """A result for the audit log: of certificates only the fingerprint."""
    active, error = result["active"], result["error"]
    said = {"active": active["sha256"] if active else "unknown", "code": error["code"] if error else ""}
    return {"outcome": result["outcome"], "changed": result["changed"], **said}


def last_line(result: Document) -> str:
    """The result for people: which certificate is active now."""
    outcome, active = result["outcome"], result["active"]
    if active is None:
        return f"{outcome}: the device was not asked, or does not answer, which certificate is active"
    if not active["sha256"]:
        return f"{outcome}: the device holds no certificate"
    lead = "" if outcome == "verified, active" else "active is "
    if outcome == "rolled back" or result["rc"] == Interrupted.exit_status:
        lead = "the old certificate is active: "
    return f"{outcome}: {lead}{described(active)}"


def described(active: Document) -> str:
    """One certificate on one line."""
    until = f" until {active['not_after']}" if active["not_after"] else ""
    label = " (identifier only)" if active["identifier_only"] else ""
    return f"{active['sha256']} {printable(active['subject'])}{until}{label}"


def _outcome(ending: Ending, status: int) -> str:
    if status == Outcome.NEEDS_ATTENTION.exit_status:
        return "needs attention"
    if ending.outcome is Outcome.ROLLED_BACK and not ending.interrupted:
        return "rolled back"
    if status == 0 and (ending.changed or (ending.compared and ending.outcome is not None)):
        return "verified, active"
    return "not changed"

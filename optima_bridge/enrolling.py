"""Enrolments as a part of the daemon: made of its configuration and devices, mirrored to MQTT by its hub.

Imported when a device has secure memory, on a thread: certificates take longer to import than the rest of the daemon.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from optima_bridge.audit import Actor, Audit
from optima_bridge.audit.record import Scalar
from optima_bridge.config import Config
from optima_bridge.enroll.enrollments import Enrollments
from optima_bridge.enroll.records import audited
from optima_bridge.enroll.stations import Station
from optima_bridge.enroll.trust import Trust
from optima_bridge.enroll.words import fingerprint
from optima_bridge.errors import BridgeError
from optima_bridge.hub import Hub
from optima_bridge.log import get_logger
from optima_bridge.model import JsonValue, Subject

if TYPE_CHECKING:
    from optima_bridge.enroll.jobs import Job
    from optima_bridge.enroll.records import Document

log = get_logger(__name__)


class HubNotices:
    """What becomes of jobs and credentials, as events, states and alerts of their device."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def job(self, action: str, job: Job) -> None:
        result = job.result or {}
        active, error = result.get("active"), result.get("error")
        state: dict[str, JsonValue] = {
            "job": job.id,
            "kind": job.order.kind.value,
            "state": job.state.value,
            "phase": job.phase,
            "outcome": result.get("outcome"),
            "active_sha256": active["sha256"] if active else None,
            "changed": bool(result.get("changed")),
            "code": error["code"] if error else None,
        }
        log.info(
            "job.changed", action=action, device=job.device, job=job.id, kind=job.order.kind.value, phase=job.phase
        )
        self._hub.happened(job.device, Subject.JOB, action, state, state)

    def credential(self, device: str, active: Document | None) -> None:
        if active is None:
            self._hub.set_state(device, Subject.CREDENTIAL, {"credential": "unknown"}, "unknown")
        else:
            self._hub.set_state(
                device, Subject.CREDENTIAL, {"credential": "held" if active["sha256"] else "none", **active}
            )

    def attention(self, device: str, error: BridgeError | None) -> None:
        if error is None:
            self._hub.clear_alert(device, "credential")
        else:
            self._hub.raise_alert(device, "credential", error)


class JobRecords:
    """What becomes of jobs, as records of the audit log."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit

    async def begun(self, job: Job) -> None:
        order = job.order
        certificate = fingerprint(order.certificate) if order.certificate else ""
        await self._take_down("begun", job, reader=order.reader, reason=order.reason, certificate=certificate)

    async def ended(self, job: Job, result: Document) -> None:
        await self._take_down("ended", job, **audited(result))

    async def settled(self, device: str, job_id: str, result: Document) -> None:
        await self._audit.append("enroll.settled", Actor.this("daemon"), device=device, job=job_id, **audited(result))

    async def _take_down(self, action: str, job: Job, **facts: Scalar) -> None:
        by = job.by
        who = Actor(via="socket", uid=by.uid, login_uid=by.login_uid, pid=by.pid, program=by.program)
        kind = job.order.kind.value
        await self._audit.append(f"enroll.{action}", who, device=job.device, job=job.id, kind=kind, **facts)


def make(config: Config, stations: Mapping[str, Station], hub: Hub, audit: Audit) -> Enrollments:
    """The enrolments of this daemon, not yet running."""
    return Enrollments(
        config.journal.directory,
        trust_of(config),
        stations,
        HubNotices(hub),
        JobRecords(audit),
        lambda: hub.clock.rfc3339(hub.clock.now()[0]),
    )


def trust_of(config: Config) -> Trust:
    """Whose certificates this store accepts."""
    table = config.enroll
    return Trust(config.journal.directory, table.ca, table.crl, table.ca_pin, table.crl_grace_days)

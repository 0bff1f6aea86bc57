"""The credentials of this store: what its devices hold, what they held before, what is revoked; and revoking one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import msgspec

from optima_bridge.enroll.enrollments import Enrollments, Held
from optima_bridge.enroll.journal import Job as DeviceJob
from optima_bridge.enroll.journal import JobState
from optima_bridge.enroll.pki.ca import CertificateAuthority
from optima_bridge.enroll.switch import on_disk
from optima_bridge.enroll.words import Outcome
from optima_bridge.enroll.work import Certificate, described
from optima_bridge.errors import EnrollRefused, LastCredential, NotFound

SHORTEST_ID = 6


class Credential(msgspec.Struct, frozen=True):
    """One certificate in one device.

    Attributes:
        id: SHA-256 of its DER, lower-case hex.
        device: its name; of one that does not answer now its serial number.
        state: ``active``; ``previous`` can be gone back to; ``pending`` an unsettled job brings it in.
        revoked: since when, RFC 3339; None: it is not.
        enrolled: what this PC enrolled last into that device; differs from `id` where somebody else wrote to it.
    """

    id: str
    device: str
    state: str
    subject: str
    serial: str
    not_after: str | None
    identifier_only: bool
    revoked: str | None
    enrolled: str


class Credentials:
    """Looks at what the enrolments know."""

    def __init__(self, enrollments: Enrollments) -> None:
        self._enrollments = enrollments
        self._trust = enrollments.trust

    async def all(self) -> list[Credential]:
        """Of every device with secure memory."""
        jobs = await on_disk(self._enrollments.journal.jobs)
        revoked = await asyncio.to_thread(self._revoked)
        found = []
        for held in self._enrollments.held:
            last = next((job for job in jobs if _is_of(job, held)), None)
            settled = next((job for job in jobs if _is_of(job, held) and job.state is JobState.CLOSED), None)
            enrolled = _active_after(settled) if settled else ""
            shown = [(held.active, "active")] if held.active and held.active.sha256 else []
            if last is not None and last.state is not JobState.CLOSED:
                shown.append((described(last.new_sha256, last.new_der), "pending"))
            elif held.active and (before := await self._before(held, held.active.sha256)):
                shown.append((await self._certificate(before), "previous"))
            found += [_credential(it, held.device, state, revoked, enrolled) for it, state in shown]
        return found

    async def certificate(self, prefix: str) -> Certificate:
        """The certificate whose id begins so.

        Raises:
            NotFound: no such one is known to this PC, or several are.
        """
        if len(prefix) < SHORTEST_ID or not set(prefix) <= set("0123456789abcdef"):
            raise NotFound(
                f"{prefix[:70]!r} is no credential; its id is {SHORTEST_ID} or more hex digits of its fingerprint",
                next_step="bridge credentials list",
            )
        known = {held.active.sha256: held.active for held in self._enrollments.held if held.active}
        for job in await on_disk(self._enrollments.journal.jobs):
            known.setdefault(job.new_sha256, described(job.new_sha256, job.new_der))
            if job.old_der is not None:
                known.setdefault(job.old_sha256, described(job.old_sha256, job.old_der))
        fitting = [it for sha256, it in known.items() if sha256.startswith(prefix)]
        if len(fitting) != 1:
            raise NotFound(
                f"{'several credentials begin' if fitting else 'no credential begins'} with {prefix[:70]}",
                next_step="bridge credentials list",
            )
        return fitting[0]

    async def history(self, sha256: str) -> list[dict[str, object]]:
        """What happened to a certificate on this PC, the oldest first."""
        entries: list[dict[str, object]] = []
        for job in reversed(await on_disk(self._enrollments.journal.jobs)):
            if sha256 not in (job.new_sha256, job.old_sha256):
                continue
            came = sha256 == job.new_sha256
            outcome = job.outcome.value if job.outcome else "not settled"
            what = f"enrolled: {outcome}" if came else f"to be replaced by {job.new_sha256}: {outcome}"
            facts = {"device": f"{job.model} {job.serial}", "job": job.id, "what": what, "code": job.code}
            entries.append({"time": _text(datetime.fromtimestamp(job.changed_ns / 1e9, UTC)), **facts})
        since = (await asyncio.to_thread(self._revoked)).get((await self.certificate(sha256)).serial)
        if since is not None:
            entries.append({"time": _text(since), "device": "", "job": "", "what": "revoked", "code": ""})
        return entries

    async def revoke(self, prefix: str, label: str) -> tuple[Certificate, bool]:
        """Revoke for ever; the devices go on using it until another one is enrolled. False: it was revoked before.

        Args:
            label: what the subject says of it, where it is the last one: ``supervisor key 7``.

        Raises:
            NotFound: it is not known, or the CA of this store did not issue it.
            LastCredential: no other is left, and `label` does not name it.
            EnrollRefused, CaMissing, CaUnfit, AccessDenied: this store has no CA that could.
        """
        certificate = await self.certificate(prefix)
        if not certificate.serial:
            raise EnrollRefused(f"{certificate.sha256} is no certificate that could be revoked")
        now = datetime.now(UTC)
        others = [
            it
            for it in await self.all()
            if it.state == "active" and it.id != certificate.sha256 and it.revoked is None and not _over(it, now)
        ]
        if not others and f"CN={label}," not in f"{certificate.subject},":
            raise LastCredential(f"{certificate.subject} is the last credential of this store")
        authority: CertificateAuthority = await asyncio.to_thread(self._trust.authority)
        changed = await on_disk(authority.revoke, int(certificate.serial, 16), now)
        return certificate, changed

    async def _before(self, held: Held, sha256: str) -> str:
        """What `bridge enroll --rollback` would go back to; empty: nothing."""
        journal, identity = self._enrollments.journal, held.identity
        job = await on_disk(journal.brought, identity.model, identity.serial, sha256)
        return job.old_sha256 if job and not job.erase_old else ""

    async def _certificate(self, sha256: str) -> Certificate:
        return described(sha256, await on_disk(self._enrollments.journal.certificate, sha256))

    def _revoked(self) -> dict[str, datetime]:
        try:
            return self._trust.revoked()
        except NotFound:  # no CA yet, so none of its list
            return {}


def _credential(shown: Certificate, device: str, state: str, revoked: dict[str, datetime], enrolled: str) -> Credential:
    since = revoked.get(shown.serial)
    return Credential(
        id=shown.sha256,
        device=device,
        state=state,
        subject=shown.subject,
        serial=shown.serial,
        not_after=_text(shown.not_after) if shown.not_after else None,
        identifier_only=shown.identifier_only,
        revoked=_text(since) if since else None,
        enrolled=enrolled,
    )


def _is_of(job: DeviceJob, held: Held) -> bool:
    return (job.model, job.serial) == (held.identity.model, held.identity.serial)


def _active_after(job: DeviceJob) -> str:
    """What a closed job left as active."""
    return job.old_sha256 if job.outcome is Outcome.ROLLED_BACK else job.new_sha256


def _over(credential: Credential, now: datetime) -> bool:
    return credential.not_after is not None and credential.not_after < _text(now)


def _text(time: datetime) -> str:
    return f"{time:%FT%TZ}"

"""Credentials over the control API; see docs/reference/control-api.md."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from aiohttp import web

from optima_bridge.api.answers import answer
from optima_bridge.api.keys import SERVICE, asking
from optima_bridge.api.trail import actor_of
from optima_bridge.errors import UsageError

if TYPE_CHECKING:
    from optima_bridge.enroll.credentials import Credentials


async def _credentials(request: web.Request) -> Credentials:
    enrollments = request.app[SERVICE].enrollments

    def imported() -> Credentials:
        from optima_bridge.enroll.credentials import Credentials

        return Credentials(enrollments)

    return await asyncio.to_thread(imported)


async def listed(request: web.Request) -> web.Response:
    found = await (await _credentials(request)).all()
    return answer({"schema": "optima.credentials/1", "credentials": msgspec.to_builtins(found)})


async def shown(request: web.Request) -> web.Response:
    from optima_bridge.enroll.records import facts

    found = await (await _credentials(request)).certificate(request.match_info["id"])
    certificate: dict[str, Any] = {**(facts(found) or {}), "serial": found.serial, "pem": _pem(found.der)}
    return answer({"schema": "optima.credential/1", **certificate})


async def history(request: web.Request) -> web.Response:
    credentials = await _credentials(request)
    found = await credentials.certificate(request.match_info["id"])
    entries = await credentials.history(found.sha256)
    return answer({"schema": "optima.history/1", "id": found.sha256, "history": entries})


class Revocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a revocation; `label` is needed for the last credential of the store."""

    label: Annotated[str, msgspec.Meta(max_length=64)] = ""
    reason: Annotated[str, msgspec.Meta(max_length=200)] = ""


async def revoke(request: web.Request) -> web.Response:
    try:
        wanted = msgspec.json.decode(await request.read() or b"{}", type=Revocation)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the body is not a revocation: {error}") from error
    found, changed = await (await _credentials(request)).revoke(request.match_info["id"], wanted.label)
    if changed:
        audit, who = request.app[SERVICE].audit, actor_of(asking(request))
        await audit.note("credential.revoked", who, certificate=found.sha256, reason=wanted.reason)
    facts = {"id": found.sha256, "subject": found.subject, "serial": found.serial}
    return answer({"schema": "optima.revocation/1", **facts, "changed": changed})


def _pem(der: bytes) -> str | None:
    if not der:
        return None
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode("ascii")
    except ValueError:
        return None

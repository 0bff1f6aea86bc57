"""Enrolments and jobs over the control API; see docs/reference/control-api.md."""

from __future__ import annotations

import pwd
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import msgspec
from aiohttp import web

from optima_bridge.api.answers import answer
from optima_bridge.api.keys import ROLES, SERVICE, asking
from optima_bridge.api.ndjson import line, stream
from optima_bridge.api.peers import Role
from optima_bridge.api.trail import actor_of
from optima_bridge.enroll.jobs import By, Job
from optima_bridge.enroll.orders import Order
from optima_bridge.errors import UsageError

JOBS = 100
LEFT_OUT = frozenset({"certificate"})  # bytes of what was brought; its fingerprint is in the result


class Enrollment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request for a job; `secret` is forgotten when the job ends, and is kept nowhere."""

    order: Order
    secret: bytes = b""


async def begin(request: web.Request) -> web.Response:
    try:
        wanted = msgspec.json.decode(await request.read(), type=Enrollment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the body is not an order for an enrolment: {error}") from error
    job = await request.app[SERVICE].enrollments.begin(wanted.order, by(request), wanted.secret)
    return answer({"schema": "optima.job/1", "job": document(job)}, 202)


async def jobs(request: web.Request) -> web.Response:
    found = await request.app[SERVICE].enrollments.jobs(JOBS)
    return answer({"schema": "optima.jobs/1", "jobs": [document(job) for job in found]})


async def job(request: web.Request) -> web.Response:
    found = await request.app[SERVICE].enrollments.job(request.match_info["job"])
    return answer({"schema": "optima.job/1", "job": document(found)})


async def records(request: web.Request) -> web.StreamResponse:
    after = request.query.get("from", "0")
    if unknown := [name for name in request.query if name != "from"]:
        raise UsageError(f"no parameter {unknown[0][:40]!r}; there is: from")
    if not after.isdecimal() or len(after) > 9:
        raise UsageError("from is the number of the last record that you have, 0 for none")
    enrollments = request.app[SERVICE].enrollments
    found = await enrollments.job(request.match_info["job"])
    return await stream(request, _lines(enrollments.watch(found.id, int(after))))


async def cancel(request: web.Request) -> web.Response:
    any_job = request.app[ROLES].of(asking(request)) >= Role.ADMIN
    stopped = await request.app[SERVICE].enrollments.cancel(request.match_info["job"], by(request), any_job=any_job)
    return answer({"schema": "optima.job/1", "job": document(stopped)}, 202)


async def _lines(found: AsyncGenerator[Mapping[str, Any], None]) -> AsyncGenerator[bytes, None]:
    async for record in found:
        yield line(record)


def by(request: web.Request) -> By:
    """Who asks."""
    who = actor_of(asking(request))
    assert who.uid is not None
    try:
        user = pwd.getpwuid(who.uid).pw_name
    except KeyError:
        user = str(who.uid)
    return By(who.uid, user, who.login_uid, who.pid, who.program)


def document(shown: Job) -> dict[str, Any]:
    """A job for people and programs."""
    facts: dict[str, Any] = msgspec.to_builtins(shown)
    facts["order"] = {key: value for key, value in facts["order"].items() if key not in LEFT_OUT}
    return facts

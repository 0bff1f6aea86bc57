"""Everything that can be asked of the daemon, in one table; see docs/reference/control-api.md."""

from __future__ import annotations

import platform
from typing import Annotated

import msgspec
from aiohttp import web

from optima_bridge import __version__
from optima_bridge.api import audit, credentials, enrollments, ndjson, wire
from optima_bridge.api.answers import answer
from optima_bridge.api.guard import Route
from optima_bridge.api.keys import SERVICE, STREAMS
from optima_bridge.api.peers import Role
from optima_bridge.api.since import position_since
from optima_bridge.api.stream import Wanted, lines
from optima_bridge.api.words import EVENT_TYPES
from optima_bridge.config.model import effective
from optima_bridge.driver import CONTRACT
from optima_bridge.errors import UsageError
from optima_bridge.model import Record
from optima_bridge.service import Service
from optima_bridge.topics import BRIDGE

EVENT_PARAMETERS = ("since", "snapshot", "types", "devices")


async def version(request: web.Request) -> web.Response:
    document = {"schema": "optima.version/1", "version": __version__, "api": 1, "driver_contract": CONTRACT}
    return answer({**document, "python": platform.python_version()})


async def status(request: web.Request) -> web.Response:
    return answer(request.app[SERVICE].status())


async def devices(request: web.Request) -> web.Response:
    return answer({"schema": "optima.devices/1", "devices": request.app[SERVICE].devices()})


async def device(request: web.Request) -> web.Response:
    return answer({"schema": "optima.device/1", **request.app[SERVICE].device(request.match_info["name"])})


async def config(request: web.Request) -> web.Response:
    return answer({"schema": "optima.config/1", "config": effective(request.app[SERVICE].config)})


Number = Annotated[int, msgspec.Meta(ge=1, le=1 << 53)]


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"first": "from", "last": "to"}):
    """Sequence numbers, both ends included, of the present epoch or the one given."""

    first: Number
    last: Number
    epoch: Number | None = None


async def replay(request: web.Request) -> web.Response:
    try:
        wanted = msgspec.json.decode(await request.read(), type=Replay)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"the body is not a replay request: {error}") from error
    if wanted.last < wanted.first:
        raise UsageError(f"the range ends before it begins: from {wanted.first} to {wanted.last}")
    service = request.app[SERVICE]
    epoch = service.journal.epoch if wanted.epoch is None else wanted.epoch
    first, last = (epoch, wanted.first), (epoch, wanted.last)
    service.replay(first, last)
    return answer({"schema": "optima.replay/1", "from": first, "to": last}, 202)


async def events(request: web.Request) -> web.StreamResponse:
    service, query = request.app[SERVICE], request.query
    if unknown := [name for name in query if name not in EVENT_PARAMETERS]:
        raise UsageError(f"no parameter {unknown[0][:40]!r}; there are: {', '.join(EVENT_PARAMETERS)}")
    if query.get("snapshot", "1") not in ("0", "1"):
        raise UsageError("snapshot is 0 or 1")
    wanted = _wanted(service, query.get("types", ""), query.get("devices", ""))
    with request.app[STREAMS].subscribe(service.listen, wanted) as subscription:
        after = None
        if "since" in query:
            after = await position_since(query["since"], service.journal, service.clock.now()[0])
        return await ndjson.stream(request, lines(service, subscription, wanted, after, query.get("snapshot") != "0"))


def _wanted(service: Service, types: str, devices: str) -> Wanted:
    """The filter on records that the comma-separated lists describe; an empty list lets everything through."""
    subjects, names = set(filter(None, types.split(","))), set(filter(None, devices.split(",")))
    if unknown := subjects.difference(EVENT_TYPES):
        raise UsageError(f"no event type {min(unknown)[:40]!r}; there are: {', '.join(EVENT_TYPES)}")
    for name in names - {BRIDGE}:
        service.device(name)  # raises NotFound

    def wanted(record: Record) -> bool:
        device, subject = record.topic.rsplit("/", 2)[1:]
        return (not subjects or subject in subjects) and (not names or device in names)

    return wanted


ROUTES: dict[str, Route] = {
    "version": Route("GET", "/v1/version", Role.VIEW, version),
    "status": Route("GET", "/v1/status", Role.VIEW, status),
    "devices": Route("GET", "/v1/devices", Role.VIEW, devices),
    "device": Route("GET", "/v1/devices/{name}", Role.VIEW, device),
    "events": Route("GET", "/v1/events", Role.VIEW, events),
    "wire": Route("GET", "/v1/devices/{name}/wire", Role.TECH, wire.heard),
    "config": Route("GET", "/v1/config", Role.TECH, config),
    "replay": Route("POST", "/v1/replay", Role.TECH, replay),
    "enroll": Route("POST", "/v1/enrollments", Role.TECH, enrollments.begin),
    "credentials": Route("GET", "/v1/credentials", Role.VIEW, credentials.listed),
    "credential": Route("GET", "/v1/credentials/{id}", Role.VIEW, credentials.shown),
    "credential-history": Route("GET", "/v1/credentials/{id}/history", Role.VIEW, credentials.history),
    "credential-revoke": Route("POST", "/v1/credentials/{id}/revoke", Role.ADMIN, credentials.revoke),
    "jobs": Route("GET", "/v1/jobs", Role.VIEW, enrollments.jobs),
    "job": Route("GET", "/v1/jobs/{job}", Role.VIEW, enrollments.job),
    "job-records": Route("GET", "/v1/jobs/{job}/records", Role.VIEW, enrollments.records),
    "job-cancel": Route("POST", "/v1/jobs/{job}/cancel", Role.TECH, enrollments.cancel),
    "audit": Route("GET", "/v1/audit", Role.TECH, audit.records),
    "audit-verify": Route("GET", "/v1/audit/verify", Role.TECH, audit.verify),
    "audit-export": Route("GET", "/v1/audit/export", Role.ADMIN, audit.export),
}

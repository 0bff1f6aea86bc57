"""Everything that can be asked of the daemon, in one table; see docs/reference/control-api.md."""

from __future__ import annotations

import asyncio
import platform
from contextlib import aclosing
from typing import Annotated

import msgspec
from aiohttp import web

from optima_bridge import __version__
from optima_bridge.api.answers import answer
from optima_bridge.api.guard import Route
from optima_bridge.api.peers import Role
from optima_bridge.api.since import position_since
from optima_bridge.api.stream import Streams, Wanted, lines, result_line, too_slow
from optima_bridge.api.words import EVENT_TYPES
from optima_bridge.config.model import effective
from optima_bridge.driver import CONTRACT
from optima_bridge.errors import BridgeError, UsageError
from optima_bridge.model import Record
from optima_bridge.service import Service
from optima_bridge.topics import BRIDGE

WRITE_TIMEOUT_S = 10.0
EVENT_PARAMETERS = ("since", "snapshot", "types", "devices")

SERVICE = web.AppKey("service", Service)
STREAMS = web.AppKey("streams", Streams)


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
    with request.app[STREAMS].subscribe(wanted) as subscription:
        after = None
        if "since" in query:
            after = await position_since(query["since"], service.journal, service.clock.now()[0])
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        try:
            await response.prepare(request)
            try:
                async with aclosing(
                    lines(service, subscription, wanted, after, query.get("snapshot") != "0")
                ) as chunks:
                    async for chunk in chunks:
                        async with asyncio.timeout(WRITE_TIMEOUT_S):
                            await response.write(chunk)
            except (BridgeError, TimeoutError) as error:
                last_word = result_line(error if isinstance(error, BridgeError) else too_slow())
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await response.write(last_word)
        except ConnectionError:
            pass  # the client has gone, as clients do
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()  # it does not even take the last word
    return response


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
    "config": Route("GET", "/v1/config", Role.TECH, config),
    "replay": Route("POST", "/v1/replay", Role.TECH, replay),
}

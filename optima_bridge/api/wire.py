"""What goes over a device's wire, as a stream; secrets are masked where it is heard, before it comes here."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from aiohttp import web

from optima_bridge import __version__
from optima_bridge.api import ndjson
from optima_bridge.api.keys import SERVICE, STREAMS, asking
from optima_bridge.api.stream import Subscription
from optima_bridge.api.trail import actor_of
from optima_bridge.errors import UsageError
from optima_bridge.link.tap import MASKED_NOTICE, NOTICE, SCHEMA, Piece


async def heard(request: web.Request) -> web.StreamResponse:
    name, service = request.match_info["name"], request.app[SERVICE]
    device = service.device(name)  # raises NotFound
    wire = service.keepers[name].wire
    if wire is None:
        raise UsageError(
            f"{name} is no byte pipe, so nothing can be recorded",
            cause=f"{device['port']} is another kind of link",
            next_step=f"see its events: bridge monitor {name}",
        )
    header = {
        "schema": SCHEMA,
        "device": name,
        "driver": device["driver"],
        "version": __version__,
        "masked": wire.masked,
        "notice": MASKED_NOTICE if wire.masked else NOTICE,
        "settings": device["settings"],
    }
    await service.audit.note("wire.heard", actor_of(asking(request)), device=name, masked=wire.masked)
    with request.app[STREAMS].subscribe(wire.listen) as subscription:
        return await ndjson.stream(request, _lines(header, subscription))


async def _lines(header: Mapping[str, object], subscription: Subscription[Piece]) -> AsyncGenerator[bytes, None]:
    yield ndjson.line(header)
    while True:
        yield b"".join(map(ndjson.line, await subscription.batch()))

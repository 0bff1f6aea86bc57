"""What every handler finds in the application."""

from __future__ import annotations

from aiohttp import web

from optima_bridge.api.peers import Peer, Roles, peer_of
from optima_bridge.api.stream import Streams
from optima_bridge.service import Service

SERVICE = web.AppKey("service", Service)
STREAMS = web.AppKey("streams", Streams)
ROLES = web.AppKey("roles", Roles)


def asking(request: web.Request) -> Peer:
    """Who asks; the guard lets only those through who are known."""
    peer = peer_of(request.get_extra_info("socket"))
    assert peer is not None
    return peer

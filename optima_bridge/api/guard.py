"""What every request passes: who is it, may it, is it of bearable size; and every refusal becomes a JSON document."""

from __future__ import annotations

import asyncio
import pwd
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

from aiohttp import web
from aiohttp.typedefs import Middleware

from optima_bridge.api.answers import refusal
from optima_bridge.api.peers import Peer, Role, Roles, peer_of
from optima_bridge.api.trail import Trail
from optima_bridge.errors import AccessDenied, BridgeError, NotFound, UsageError
from optima_bridge.log import get_logger

MAX_BODY_BYTES = 64 << 10
BODY_TIMEOUT_S = 10.0

log = get_logger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Route(NamedTuple):
    """One thing that can be asked, and the least role that may ask it."""

    method: str
    path: str
    role: Role
    handler: Handler


def guard(routes: Mapping[str, Route], roles: Roles, trail: Trail) -> Middleware:
    """The middleware that lets through what `routes` and `roles` allow, and nothing else; changes and refusals leave a trail."""

    @web.middleware
    async def middleware(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            await _check_role(request, routes, roles, trail)
            async with asyncio.timeout(BODY_TIMEOUT_S):
                await request.read()  # aiohttp keeps it for the handler
        except AccessDenied as error:
            return refusal(error)
        except web.HTTPRequestEntityTooLarge:
            too_large = UsageError(f"a request body has at most {MAX_BODY_BYTES} bytes")
            return refusal(too_large, 413, {"Connection": "close"})
        except TimeoutError:
            too_late = UsageError(f"the request body did not come within {BODY_TIMEOUT_S:.0f} s")
            return refusal(too_late, 408, {"Connection": "close"})
        try:
            return await handler(request)
        except BridgeError as error:
            return refusal(error)
        except web.HTTPNotFound:
            return refusal(NotFound(f"there is no {request.path[:100]}", next_step="see docs/reference/control-api.md"))
        except web.HTTPMethodNotAllowed as error:
            allowed = ", ".join(sorted(error.allowed_methods))
            problem = UsageError(f"{request.path[:100]} takes {allowed}, not {request.method[:20]}")
            return refusal(problem, 405, {"Allow": allowed})

    return middleware


async def _check_role(request: web.Request, routes: Mapping[str, Route], roles: Roles, trail: Trail) -> None:
    """Raises AccessDenied unless the peer is known and has the role that the route needs."""
    peer = peer_of(request.get_extra_info("socket"))
    if peer is None:
        raise AccessDenied("the kernel does not tell who asks", next_step="connect to the Unix socket")
    has = roles.of(peer)
    route = routes.get(request.match_info.route.name or "")
    if route is not None:
        needs, asked = route.role, f"{route.method} {route.path}"
    elif request.match_info.http_exception is not None:
        needs, asked = Role.VIEW, "anything"  # no such path or method: said to those who may ask at all
    else:
        raise AccessDenied("this route has no role, so nobody may use it", cause="a bug in optima-bridge")
    if has < needs:
        log.warning("api.denied", asked=asked, needs=needs.name.lower(), uid=peer.uid, pid=peer.pid)
        await trail.denied(peer, asked, needs)
        raise _denied(asked, needs, peer, roles)
    if route is not None and route.method != "GET":
        await trail.requested(peer, f"{route.method} {request.path}")


def _denied(asked: str, needs: Role, peer: Peer, roles: Roles) -> AccessDenied:
    try:
        user = pwd.getpwuid(peer.uid).pw_name
    except KeyError:
        user = str(peer.uid)
    group = roles.group_for(needs)
    return AccessDenied(
        f"user {user!r} may not ask for {asked}: that needs role {needs.name.lower()}",
        cause=f"{user!r} was not in the Unix group {group!r} when this session began",
        next_step=f"sudo usermod -aG {group} {user}, then log in again",
        group=group,
        role=needs.name.lower(),
    )

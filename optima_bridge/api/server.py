"""Serves the routes on the socket for as long as the daemon runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from optima_bridge.api.guard import MAX_BODY_BYTES, guard
from optima_bridge.api.keys import ROLES, SERVICE, STREAMS
from optima_bridge.api.peers import Role, Roles
from optima_bridge.api.routes import ROUTES
from optima_bridge.api.sockets import listening
from optima_bridge.api.stream import Streams
from optima_bridge.api.trail import Trail
from optima_bridge.log import get_logger
from optima_bridge.service import Service

IDLE_TIMEOUT_S = 15.0  # for a request line and headers, and between two requests
SHUTDOWN_S = 0.3
TRAIL = web.AppKey("trail", Trail)

log = get_logger(__name__)


async def serve(service: Service, ready: Callable[[], None]) -> None:
    """Serve until cancelled; calls `ready` once clients are accepted.

    Raises:
        ApiError: the socket cannot be had.
    """
    settings = service.config.api
    with listening(settings.socket, settings.view_group) as sock:
        runner = make_runner(make_app(service))
        await runner.setup()
        try:
            await web.SockSite(runner, sock).start()
            log.info("api.opened", socket=str(sock.getsockname()))
            ready()
            await asyncio.get_running_loop().create_future()  # until cancelled
        finally:
            runner.app[STREAMS].end()
            await runner.cleanup()
            await runner.app[TRAIL].end()
            log.info("api.closed")


def make_app(service: Service) -> web.Application:
    """The routes of the table behind the guard."""
    groups = service.config.api
    roles = Roles({Role.VIEW: groups.view_group, Role.TECH: groups.tech_group, Role.ADMIN: groups.admin_group})
    trail = Trail(service.audit)
    app = web.Application(middlewares=[guard(ROUTES, roles, trail)], client_max_size=MAX_BODY_BYTES)
    app[SERVICE] = service
    app[ROLES] = roles
    app[TRAIL] = trail
    app[STREAMS] = Streams()
    for name, route in ROUTES.items():
        app.router.add_route(route.method, route.path, route.handler, name=name)
    return app


def make_runner(app: web.Application) -> web.AppRunner:
    """A runner with bounds; a client that goes away ends its handler, or idle streams would pile up."""
    return web.AppRunner(
        app,
        access_log=None,
        logger=_http_logger(),
        keepalive_timeout=IDLE_TIMEOUT_S,
        lingering_time=1.0,
        auto_decompress=False,  # nothing that we take is worth compressing, and bombs stay packed
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_S,
    )


def _http_logger() -> logging.Logger:
    """aiohttp's logger without its tracebacks about requests that are not HTTP; those clients get a 400."""
    logger = logging.getLogger("optima_bridge.api.http")
    if not logger.filters:
        logger.addFilter(lambda line: not (line.exc_info and isinstance(line.exc_info[1], HttpProcessingError)))
    return logger

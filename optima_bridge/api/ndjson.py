"""A response that goes on: NDJSON lines, each written within a bound, the last one a result."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

from optima_bridge.errors import BridgeError, TimedOut

WRITE_TIMEOUT_S = 10.0


async def stream(request: web.Request, chunks: AsyncGenerator[bytes, None]) -> web.StreamResponse:
    """Send what `chunks` yields; where it ends by an error, that is the last line."""
    response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
    try:
        await response.prepare(request)
        try:
            async with aclosing(chunks):
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


def line(document: object) -> bytes:
    """One document on one line."""
    return msgspec.json.encode(document, enc_hook=str) + b"\n"


def result_line(error: BridgeError) -> bytes:
    """The last line of a stream: why it ends."""
    return line({"type": "result", "ok": False, "rc": error.exit_status, "error": error.document()})


def too_slow(waiting: str = "too much") -> TimedOut:
    """The client left more lying than is kept for it."""
    return TimedOut(
        f"{waiting} waits for this client",
        cause="it reads too slowly, or was stopped",
        next_step="go on behind the last event that came: since=EPOCH:SEQ",
    )

"""Open a TCP connection to a broker, with TLS where wanted; every step bounded and cancellable, no thread but for names."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable


async def dial(host: str, port: int, context: ssl.SSLContext | None, timeout_s: float) -> socket.socket:
    """A connected socket, non-blocking; over the first address that answers.

    Args:
        context: verifies the peer; None for plain TCP.
        timeout_s: for all steps together.

    Raises:
        OSError: nothing answers (TimeoutError, gaierror among them), or the handshake failed (ssl.SSLError among them).
            With TLS 1.3 a server refuses our certificate only after the handshake: the first read says so.
    """
    async with asyncio.timeout(timeout_s):
        sock = await _connect(host, port)
        if context is None:
            return sock
        try:
            wrapped = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        except BaseException:
            sock.close()
            raise
        try:
            await _handshake(wrapped)
        except BaseException:
            wrapped.close()
            raise
        return wrapped


async def _connect(host: str, port: int) -> socket.socket:
    loop = asyncio.get_running_loop()
    try:
        addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:  # the resolver's opinion of "a..b"
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} cannot be a host name") from error
    failure: OSError | None = None
    for family, kind, protocol, _, address in addresses:
        sock = socket.socket(family, kind, protocol)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
        else:
            return sock
    raise failure or OSError(f"{host} has no address")


async def _handshake(sock: ssl.SSLSocket) -> None:
    loop = asyncio.get_running_loop()
    while True:
        try:
            sock.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(sock.fileno(), loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(sock.fileno(), loop.add_writer, loop.remove_writer)
        except ConnectionError as error:  # as good as an end of file, and the same words for both
            raise ssl.SSLEOFError(ssl.SSL_ERROR_EOF, "the peer hung up during the handshake") from error
        else:
            return


async def _ready(
    descriptor: int, add: Callable[[int, Callable[[], None]], None], remove: Callable[[int], bool]
) -> None:
    came = asyncio.Event()
    add(descriptor, came.set)
    try:
        await came.wait()
    finally:
        remove(descriptor)

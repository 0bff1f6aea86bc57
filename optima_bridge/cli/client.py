"""The daemon as the command line sees it: HTTP over its Unix socket."""

from __future__ import annotations

import grp
import http.client
import json
import os
import pwd
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

from optima_bridge.cli.options import Settings
from optima_bridge.errors import AccessDenied, BridgeError, DaemonUnavailable, restored

SYSTEM_SOCKET = "/run/optima-bridge/api.sock"
MAX_LINE_BYTES = 1 << 20
BLOCK_BYTES = 64 << 10

Document = dict[str, Any]


class Daemon:
    """The running daemon; each request is a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._paths = [settings.socket] if settings.socket else usual_places()
        self._timeout_s = settings.timeout

    def get(self, path: str) -> Document:
        """The document at `path`.

        Raises:
            DaemonUnavailable, AccessDenied; or the error that the daemon answers with.
        """
        return self._document("GET", path)

    def post(self, path: str, body: Mapping[str, object]) -> Document:
        """Ask for a change; raises as get() does."""
        return self._document("POST", path, json.dumps(body))

    def live(self, path: str, until: float | None) -> Iterator[Document]:
        """What happens from now on, until `until` (``time.monotonic()`` seconds) where it is given; it has no other end.

        Raises:
            as get() does; DaemonUnavailable where the stream breaks off.
        """
        for record in self.stream(path, until, ends=False):
            if record.get("type") == "result":
                raise restored(record["error"])
            yield record

    def stream(self, path: str, until: float | None = None, *, ends: bool = True) -> Iterator[Document]:
        """Records, to the end of the response or of the time; raises as live() does.

        Args:
            ends: whether a good response has an end. A daemon that is killed between two records looks like one.
        """
        connection = self._connect()
        sock = connection.sock
        with _translated(connection.path, self._timeout_s):
            response = _request(connection, "GET", path)
        while True:
            left_s = None if until is None else until - time.monotonic()
            if left_s is not None and left_s <= 0:
                return
            sock.settimeout(left_s)
            try:
                line = response.readline(MAX_LINE_BYTES)
                if not line and ends:
                    return
                if not line:
                    raise _broken_off()
                record = json.loads(line)
            except TimeoutError:
                return
            except (OSError, http.client.HTTPException, ValueError) as error:  # what is cut off is no JSON
                raise _broken_off() from error
            yield record

    def blocks(self, path: str) -> Iterator[bytes]:
        """A long answer in blocks; raises as get() does, and DaemonUnavailable where it breaks off."""
        connection = self._connect()
        with closing(connection):
            with _translated(connection.path, self._timeout_s):
                response = _request(connection, "GET", path)
            while True:
                with _translated(connection.path, self._timeout_s):
                    block = response.read(BLOCK_BYTES)  # unlike readline() it tells an end from a break
                if not block:
                    return
                yield block

    def _document(self, method: str, path: str, body: str | None = None) -> Document:
        connection = self._connect()
        with _translated(connection.path, self._timeout_s):
            document: Document = json.loads(_request(connection, method, path, body).read())
        return document

    def _connect(self) -> _Connection:
        """A connection to the first socket that takes one."""
        for path in self._paths:
            connection = _Connection(path, self._timeout_s)
            try:
                connection.connect()
            except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
                continue
            except PermissionError as error:
                raise _no_permission(path) from error
            except TimeoutError as error:
                raise _silent(path, self._timeout_s) from error
            except OSError as error:
                raise DaemonUnavailable(f"{path} cannot be used: {error.strerror or error}") from error
            return connection
        raise DaemonUnavailable(f"no daemon answers on {' or '.join(self._paths)}")


def usual_places() -> list[str]:
    """Where the daemon listens: the system's, then that of a user's own (demo)."""
    runtime_directory = os.environ.get("XDG_RUNTIME_DIR")
    return [SYSTEM_SOCKET] + ([f"{runtime_directory}/optima-bridge/api.sock"] if runtime_directory else [])


class _Connection(http.client.HTTPConnection):
    sock: socket.socket

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self.path = path

    def connect(self) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(self.timeout)
        try:
            sock.connect(self.path)
        except OSError:
            sock.close()
            raise
        self.sock = sock


@contextmanager
def _translated(path: str, timeout_s: float) -> Iterator[None]:
    """Turn what sockets, HTTP and JSON raise into what a person can act upon."""
    try:
        yield
    except BridgeError:
        raise
    except TimeoutError as error:
        raise _silent(path, timeout_s) from error
    except (OSError, http.client.HTTPException, ValueError, KeyError) as error:
        raise DaemonUnavailable(
            f"what listens on {path} does not answer as the daemon does",
            cause="it ended in the middle of the answer, or it is another program",
            next_step="systemctl status optima-bridge",
        ) from error


def _request(connection: _Connection, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
    connection.request(method, path, body)
    response = connection.getresponse()
    if response.status >= 400:
        raise restored(json.loads(response.read()))
    return response


def _broken_off() -> DaemonUnavailable:
    return DaemonUnavailable("the stream of events broke off", cause="the daemon has ended or was restarted")


def _silent(path: str, timeout_s: float) -> DaemonUnavailable:
    return DaemonUnavailable(
        f"the daemon on {path} does not answer within {timeout_s:g} s",
        cause="it hangs, or this PC is overloaded",
        next_step="systemctl status optima-bridge; then: sudo systemctl restart optima-bridge",
    )


def _no_permission(path: str) -> AccessDenied:
    user = pwd.getpwuid(os.geteuid()).pw_name
    try:
        group = grp.getgrgid(os.stat(path).st_gid).gr_name  # noqa: PTH116
    except (OSError, KeyError):
        group = "optima"
    return AccessDenied(
        f"user {user!r} may not talk to the daemon on {path}",
        cause=f"{user!r} was not in the Unix group {group!r} when this session began",
        next_step=f"sudo usermod -aG {group} {user}, then log in again",
    )

"""The listening Unix socket: handed over by systemd, or made here without a moment in which everybody may connect."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from optima_bridge.api.peers import group_id
from optima_bridge.errors import ApiError

FIRST_PASSED_FD = 3  # sd_listen_fds(3)
MODE = 0o660
BACKLOG = 64


def passed_socket() -> socket.socket | None:
    """The socket that systemd made for this process (``optima-bridge.socket``); None where it made none.

    Raises:
        ApiError: it passed something else than a listening Unix stream socket.
    """
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or os.environ.get("LISTEN_FDS", "0") == "0":
        return None
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # no child of ours shall take it for its own
    try:
        sock = socket.socket(fileno=FIRST_PASSED_FD)
        listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError as error:
        raise ApiError(f"file descriptor 3 from systemd is not a socket: {error}") from error
    if sock.family != socket.AF_UNIX or sock.type != socket.SOCK_STREAM or not listens:
        raise ApiError(
            "the socket from systemd is not a listening Unix stream socket",
            cause="the .socket unit has another kind of Listen directive",
            next_step="use ListenStream= with a path in optima-bridge.socket",
        )
    os.set_inheritable(sock.fileno(), False)
    sock.setblocking(False)
    return sock


@contextmanager
def listening(path: Path, group: str) -> Iterator[socket.socket]:
    """systemd's socket where it passed one, else our own on `path`, whose name goes away at the end.

    Raises:
        ApiError: there is no socket to be had; says why.
    """
    passed = passed_socket()
    if passed is not None:
        with passed:
            yield passed
        return
    with make_socket(path, group) as sock:
        inode = path.stat().st_ino
        try:
            yield sock
        finally:
            with suppress(OSError):
                if path.stat().st_ino == inode:  # else it is a successor's
                    path.unlink()


def make_socket(path: Path, group: str) -> socket.socket:
    """Listen on `path`, for the owner and `group`; replaces what a dead daemon left.

    Nobody can connect before listen(), and by then owner, group and mode are right.

    Raises:
        ApiError: another daemon serves there, something else has that name, or the directory is not ours to write.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_dead(path)
        os.fchmod(sock.fileno(), 0o600)  # on Linux bind() takes the mode from here
        sock.bind(str(path))
        if (gid := group_id(group)) is not None and _may_give_to(gid):
            os.chown(path, -1, gid)
        path.chmod(MODE)
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        what = f"cannot listen on {path}: {error.strerror or error}"
        raise ApiError(what, next_step=f"see who may write there: ls -ld {path.parent}") from error
    except ApiError:
        sock.close()
        raise
    return sock


def _may_give_to(gid: int) -> bool:
    return os.geteuid() == 0 or gid in (os.getegid(), *os.getgroups())


def _remove_dead(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ApiError(f"{path} is not a socket", cause="another program's file", next_step=f"ls -l {path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except BlockingIOError:
            pass  # it lives, and many are waiting
    raise ApiError(
        f"another daemon serves on {path}",
        cause="a second copy of the daemon",
        next_step=f"see what it is: ss -xlp src {path}; stop one of the two",
    )

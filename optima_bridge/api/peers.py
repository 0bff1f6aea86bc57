"""Who is at the other end of the Unix socket, and which role that person's groups give.

The kernel tells (SO_PEERCRED, SO_PEERGROUPS: socket(7), unix(7)) what the peer was when it connected; a client cannot claim
to be somebody else.
"""

from __future__ import annotations

import grp
import os
import socket
import struct
from collections.abc import Mapping
from enum import IntEnum

import msgspec

SO_PEERGROUPS = 59  # asm-generic/socket.h; the socket module has no name for it
PEERCRED = struct.Struct("iII")  # struct ucred: pid, uid, gid
MAX_GROUPS_BYTES = 1024  # what Python's getsockopt takes: 256 groups
NOBODY = 0xFFFFFFFF  # the kernel's uid for a socket without credentials


class Role(IntEnum):
    """What a peer may do; each role includes those before it."""

    NONE = 0
    VIEW = 1
    TECH = 2
    ADMIN = 3


class Peer(msgspec.Struct, frozen=True):
    """The process that connected: its pid, effective uid and all its groups."""

    pid: int
    uid: int
    gids: frozenset[int]


def peer_of(sock: object) -> Peer | None:
    """The peer of a connected socket; None where the kernel vouches for nobody, as on TCP."""
    if not hasattr(sock, "getsockopt") or getattr(sock, "family", None) != socket.AF_UNIX:
        return None
    try:
        pid, uid, gid = PEERCRED.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEERCRED.size))
    except OSError:
        return None
    if uid == NOBODY:
        return None
    try:
        packed: bytes = sock.getsockopt(socket.SOL_SOCKET, SO_PEERGROUPS, MAX_GROUPS_BYTES)
    except OSError:  # more than 256 groups: only the primary one counts then
        packed = b""
    return Peer(pid, uid, frozenset({gid, *(group for (group,) in struct.iter_unpack("I", packed))}))


class Roles:
    """Group names to roles.

    Args:
        groups: the Unix group that gives each role; a group that does not exist gives nothing to anybody.
    """

    def __init__(self, groups: Mapping[Role, str]) -> None:
        self._names = dict(groups)
        self._gids = {role: gid for role, name in groups.items() if (gid := group_id(name)) is not None}

    def of(self, peer: Peer) -> Role:
        """The highest role of `peer`. Root and the daemon's own user are admin."""
        if peer.uid in (0, os.geteuid()):
            return Role.ADMIN
        return max((role for role, gid in self._gids.items() if gid in peer.gids), default=Role.NONE)

    def group_for(self, role: Role) -> str:
        """The name of the group that gives `role`."""
        return self._names[role]


def group_id(name: str) -> int | None:
    """The number of a Unix group, None where there is no such group."""
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        return None

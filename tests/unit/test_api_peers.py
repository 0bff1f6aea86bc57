"""Roles: the kernel says who asks, Unix groups say what that user may do."""

from __future__ import annotations

import asyncio
import grp
import json
import os
import shutil
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from optima_bridge.api.peers import Peer, Role, Roles, peer_of
from tests.unit.api_store import Store

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can start children of other users")
needs_curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")

VIEW, TECH, ADMIN = GROUPS = ("daemon", "bin", "sys")  # every Debian has them
SOMEBODY = 54321


def gid(name: str) -> int:
    return grp.getgrnam(name).gr_gid


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with Store(groups=GROUPS) as store:
        yield store


def test_the_kernel_names_the_peer_of_a_unix_socket() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        assert peer_of(ours) == Peer(os.getpid(), os.geteuid(), frozenset({os.getegid(), *os.getgroups()}))


def test_nobody_vouches_for_the_peer_of_a_tcp_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        assert peer_of(client) is None
    assert peer_of(None) is None


@pytest.mark.parametrize(
    ("uid", "gids", "role"),
    [
        (SOMEBODY, [], Role.NONE),
        (SOMEBODY, [99999], Role.NONE),
        (SOMEBODY, [gid(VIEW)], Role.VIEW),
        (SOMEBODY, [gid(TECH)], Role.TECH),
        (SOMEBODY, [gid(ADMIN), gid(VIEW)], Role.ADMIN),
        (0, [], Role.ADMIN),
        (os.geteuid(), [], Role.ADMIN),
    ],
)
def test_the_highest_group_gives_the_role(uid: int, gids: list[int], role: Role) -> None:
    roles = Roles(dict(zip((Role.VIEW, Role.TECH, Role.ADMIN), GROUPS, strict=True)))
    assert roles.of(Peer(1, uid, frozenset(gids))) is role


def test_a_group_that_does_not_exist_gives_nothing_to_anybody() -> None:
    roles = Roles({Role.VIEW: "no-such-group", Role.ADMIN: ADMIN})
    assert roles.of(Peer(1, SOMEBODY, frozenset(range(1000)) - {gid(ADMIN)})) is Role.NONE


@needs_root
@needs_curl
@pytest.mark.parametrize(
    ("groups", "status", "config"),
    [((VIEW,), 200, 403), ((VIEW, TECH), 200, 200), ((VIEW, ADMIN), 200, 200)],
)
async def test_a_user_may_what_the_groups_give(store: Store, groups: tuple[str, ...], status: int, config: int) -> None:
    assert (await curl(store, groups, "/v1/status"))[0] == status
    found, document = await curl(store, groups, "/v1/config")
    assert found == config
    if config == 403:
        assert document["code"] == "E-DENIED"
        assert document["data"] == {"group": TECH, "role": "tech"}
        assert document["next"].startswith(f"sudo usermod -aG {TECH} ")


@needs_root
@needs_curl
async def test_a_user_without_groups_cannot_even_connect(store: Store) -> None:
    assert await curl(store, (), "/v1/status") == (0, None)


@needs_root
@needs_curl
async def test_a_user_without_groups_gets_nothing_from_an_open_socket(store: Store) -> None:
    store.socket.chmod(0o666)
    for path in ("/v1/status", "/v1/events", "/v1/version", "/v1/config", "/v1/nothing", "/"):
        status, document = await curl(store, (), path)
        assert (status, document["code"]) == (403, "E-DENIED")


async def curl(store: Store, groups: tuple[str, ...], path: str) -> tuple[int, Any]:
    """HTTP status and document as a user in these groups gets them; status 0: no connection."""
    process = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "--max-time", "20", "--unix-socket", str(store.socket), f"http://x{path}"),
        *("-w", "\n%{http_code}"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        user=SOMEBODY,
        group=SOMEBODY,
        extra_groups=[gid(name) for name in groups],
    )
    out, _ = await process.communicate()
    body, _, status = out.rpartition(b"\n")
    return int(status), json.loads(body) if body else None

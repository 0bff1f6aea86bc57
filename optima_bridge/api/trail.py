"""What requests leave in the audit log: each change, and each refusal, of which a flood becomes one record a minute and user."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from optima_bridge.api.peers import Peer, Role
from optima_bridge.audit import Actor, Audit

WINDOW_S = 60.0
LAST_NOTE_S = 0.2


def actor_of(peer: Peer) -> Actor:
    """The process at the other end of the socket, for the audit log."""
    return Actor.process("socket", peer.pid, peer.uid)


@dataclass
class _Flood:
    """Refusals of one user that are not in the log yet; the last of them."""

    counting: asyncio.Task[None]
    count: int = 0
    peer: Peer | None = None
    asked: str = ""
    needs: str = ""


class Trail:
    """Writes for the guard. A disk that hangs delays a request by audit.NOTE_S, no longer."""

    def __init__(self, audit: Audit) -> None:
        self._audit = audit
        self._floods: dict[int, _Flood] = {}  # by uid: only members of the socket's group get as far as to be refused

    async def requested(self, peer: Peer, asked: str) -> None:
        """`peer` asks for a change, and may."""
        await self._audit.note("api.requested", actor_of(peer), asked=asked)

    async def denied(self, peer: Peer, asked: str, needs: Role) -> None:
        """`peer` asked for what needs a higher role. The first time is written at once, further ones are counted."""
        flood = self._floods.get(peer.uid)
        if flood is None:
            self._floods[peer.uid] = _Flood(asyncio.create_task(self._count(peer.uid)))
            await self._audit.note("access.denied", actor_of(peer), asked=asked, needs=needs.name.lower())
        else:
            flood.count += 1
            flood.peer, flood.asked, flood.needs = peer, asked, needs.name.lower()

    async def end(self) -> None:
        """Write what was counted."""
        for flood in self._floods.values():
            flood.counting.cancel()
            await self._write(flood, LAST_NOTE_S)
        self._floods.clear()

    async def _count(self, uid: int) -> None:
        while True:
            await asyncio.sleep(WINDOW_S)
            flood = self._floods[uid]
            if not flood.count:
                del self._floods[uid]
                return
            await self._write(flood, WINDOW_S)

    async def _write(self, flood: _Flood, within_s: float) -> None:
        if flood.peer is not None and flood.count:
            count, flood.count = flood.count, 0
            who = actor_of(flood.peer)
            facts = {"asked": flood.asked, "needs": flood.needs}
            await self._audit.note("access.denied", who, **facts, count=count, within_s=within_s)

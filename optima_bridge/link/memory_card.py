"""A card reader without hardware: the driver's end, and the reader that a test holds and puts cards into."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Protocol

from optima_bridge.errors import DeviceError, LinkLost, TokenAbsent
from optima_bridge.link.card import CardSession, CardState, converse


class Card(Protocol):
    """A simulated card."""

    atr: bytes

    def reset(self) -> None:
        """Forget all that is volatile."""

    def exchange(self, apdu: bytes) -> bytes:
        """Answer a command; empty: the card has lost its power and is as good as taken out."""


class MemoryReader:
    """The reader: what the world does to it."""

    def __init__(self) -> None:
        self.card: Card | None = None
        self.unplugged = False
        self._changes = 0
        self._changed = asyncio.Event()
        self._starving = asyncio.Event()

    @property
    def state(self) -> CardState:
        """What it says of its card."""
        return CardState(self.card.atr if self.card else None, self._changes)

    def insert(self, card: Card) -> None:
        """Put a card in."""
        card.reset()
        self.card = card
        self._happened()

    def remove(self) -> None:
        """Take it out."""
        self.card = None
        self._happened()

    def unplug(self) -> None:
        """Make every use of the driver's end fail with LinkLost, a pending one too."""
        self.unplugged = True
        self._happened()

    async def drained(self) -> None:
        """Wait until the driver has seen the present state and waits for another."""
        await self._starving.wait()

    async def changed(self) -> None:
        """Wait for the next change; called by the driver's end."""
        self._changed.clear()
        self._starving.set()
        try:
            await self._changed.wait()
        finally:
            self._starving.clear()

    def _happened(self) -> None:
        self._changes += 1
        self._starving.clear()
        self._changed.set()


class MemoryCardLink:
    """The driver's end; made by `memory_reader`."""

    name = "memory:reader"
    reader = "Memory Reader 00 00"

    def __init__(self, peer: MemoryReader) -> None:
        self._peer = peer
        self._turn = asyncio.Lock()

    def clock_ns(self) -> int:
        return time.monotonic_ns()

    def close(self) -> None:
        self._peer.unplug()

    async def wait(self, seen: CardState | None = None) -> CardState:
        while True:
            self._check()
            if (state := self._peer.state) != seen:
                return state
            await self._peer.changed()

    @asynccontextmanager
    async def session(self, *, reset: bool = True) -> AsyncIterator[CardSession]:
        async with self._turn:
            await asyncio.sleep(0)
            card = self._there()
            if not card.atr:
                raise DeviceError(f"{self.name}: the card is mute")
            try:
                yield _MemorySession(self, card)
            finally:
                if reset:
                    card.reset()

    def exchange(self, card: Card, apdu: bytes) -> bytes:
        """One command and its answer."""
        if self._there() is card and (answer := card.exchange(apdu)):
            return answer
        if self._peer.card is card:
            self._peer.remove()
        raise TokenAbsent(f"{self.name}: the card was taken out")

    def _there(self) -> Card:
        self._check()
        if self._peer.card is None:
            raise TokenAbsent(f"{self.name}: no card is in the reader")
        return self._peer.card

    def _check(self) -> None:
        if self._peer.unplugged:
            raise LinkLost(f"{self.name} is gone")


class _MemorySession:
    def __init__(self, link: MemoryCardLink, card: Card) -> None:
        self._link, self._card = link, card

    async def transmit(self, apdu: bytes) -> bytes:
        await asyncio.sleep(0)
        return converse(apdu, partial(self._link.exchange, self._card))


def memory_reader() -> tuple[MemoryCardLink, MemoryReader]:
    """Make both ends, with no card in."""
    peer = MemoryReader()
    return MemoryCardLink(peer), peer

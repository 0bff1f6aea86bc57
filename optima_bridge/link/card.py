"""Links to smart cards: a reader, whether a card is in it, and sessions in which commands (APDUs) are answered."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from optima_bridge.link.base import Link


class CardState(msgspec.Struct, frozen=True):
    """What a reader says of its card.

    Attributes:
        atr: the card's answer to reset; empty: it is mute (wrong way round, dirty); None: there is none.
        changes: how often a card was put in or taken out; two cards in quick succession differ in it.
    """

    atr: bytes | None
    changes: int = 0


class CardSession(Protocol):
    """A card that is ours until the session ends: no other program's command comes between ours."""

    async def transmit(self, apdu: bytes) -> bytes:
        """Send a command (short, case 1 to 4); returns the answer with its status word.

        Raises:
            TokenAbsent: the card was taken out.
            LinkLost: the reader is gone. LinkTimeout: the card takes too long.
        """


class CardLink(Link, Protocol):
    """A reader. One task waits for changes, any number of them use the card, one after the other."""

    @property
    def reader(self) -> str:
        """The reader's whole name."""

    async def wait(self, seen: CardState | None = None) -> CardState:
        """Return as soon as the state is another one than `seen`; at once where nothing was seen.

        Raises:
            LinkLost: the reader is gone.
        """

    def session(self, *, reset: bool = True) -> AbstractAsyncContextManager[CardSession]:
        """The card for ourselves, freshly connected.

        Args:
            reset: leave the card reset, so that no PIN or key that was shown to it serves the next program.

        Raises:
            TokenAbsent: no card is in the reader.
            LinkBusy: another program keeps it. LinkLost: the reader is gone. DeviceError: the card is mute.
        """

"""Links to smart cards: a reader, whether a card is in it, and sessions in which commands (APDUs) are answered.

    61 1c       28 more bytes of the answer wait: 00 c0 00 00 1c fetches them
    6c 1c       ask again with Le 1Ch

Links follow both by themselves. Source: ISO/IEC 7816-4:2020, 5.3.4 and 5.6.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

import msgspec

from optima_bridge.errors import FrameTooLong
from optima_bridge.link.base import Link

MAX_FETCHES = 64  # of 256 bytes: more than any object of a card has


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
        """Send a command (short, case 1 to 4); returns all of its answer, with the last status word.

        Raises:
            FrameTooLong: the answer does not end. TokenAbsent: the card was taken out.
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


def converse(apdu: bytes, exchange: Callable[[bytes], bytes]) -> bytes:
    """All of the answer to a command, in as many exchanges as the card likes; see `CardSession.transmit`."""
    answer = exchange(apdu)
    if answer[-2:-1] == b"\x6c":
        answer = exchange(apdu[:-1] + answer[-1:])
    data = b""
    for _ in range(MAX_FETCHES):
        if answer[-2:-1] != b"\x61":
            return data + answer
        data += answer[:-2]
        answer = exchange(b"\x00\xc0\x00\x00" + answer[-1:])
    raise FrameTooLong(f"an answer of more than {len(data)} bytes")

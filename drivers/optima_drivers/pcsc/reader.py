"""What happens at a card reader, as events: cards that come and go, and cards that give no answer.

The reader tells a card by its answer to reset, and pcscd counts the changes: a card that was taken out and put in again
between two looks is two events. The identifier is asked for once, when the card comes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable

from optima_bridge.errors import DeviceError, ProtocolError, TokenAbsent
from optima_bridge.link.card import CardLink, CardState
from optima_bridge.model import Data, Event, Observation, Subject
from optima_bridge.presence import ABSENT, PRESENT
from optima_bridge.reports import FaultReports

Identify = Callable[[bytes], Awaitable[str | None]]
"""The identifier of the card with this ATR; None: it has none."""


async def events(
    link: CardLink, identify: Identify, counters: Counter[str]
) -> AsyncGenerator[Event | Observation, None]:
    """Cards and mute cards; ends by LinkLost, or by LinkBusy where another program keeps the card to itself."""
    mute = FaultReports("card-mute")
    before: CardState | None = None
    identifier: str | None = None
    while True:
        now = await link.wait(before)
        now_ns = link.clock_ns()
        if before is not None and before.atr:
            yield Event(Subject.CARD, "removed", now_ns, identifier=identifier, state=ABSENT)
        elif before is None and not now.atr:
            yield Observation(Subject.CARD, ABSENT)
        for news in mute.polled(now.atr == b"", now_ns):
            yield news
        if now.atr:
            identifier = await _identified(now.atr, identify, counters)
            if await link.wait() != now:
                identifier = None  # another card may have answered in its place; the next look tells
            data: Data = {"atr": now.atr.hex().upper()}
            yield Event(Subject.CARD, "inserted", now_ns, identifier=identifier, data=data, state=PRESENT)
        before = now


async def _identified(atr: bytes, identify: Identify, counters: Counter[str]) -> str | None:
    counters["cards"] += 1
    try:
        return await identify(atr)
    except (TokenAbsent, DeviceError, ProtocolError):
        counters["unread"] += 1  # it came, and is gone again or another kind of card
        return None

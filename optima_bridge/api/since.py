"""Where a client wants to go on: ``EPOCH:SEQ``, ``SEQ`` of the present epoch, or an age such as ``10m``."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from optima_bridge.api.words import SINCE, SINCE_FORMS
from optima_bridge.errors import UsageError
from optima_bridge.journal import BEGINNING, Journal, Position

UNIT_NS = {unit: seconds * 1_000_000_000 for unit, seconds in {"s": 1, "m": 60, "h": 3600, "d": 86400}.items()}
LAST_SEQ = 1 << 50


async def position_since(text: str, journal: Journal, wall_now_ns: int) -> Position:
    """The position behind which the wanted records begin.

    A position names the last record that the client has: what follows is what it lacks.

    Raises:
        UsageError: `text` is none of the three forms.
    """
    found = SINCE.fullmatch(text)
    if found is None:
        raise UsageError(f"since={text[:40]!r} is neither {SINCE_FORMS}")
    if found["unit"]:
        return await _position_at(journal, wall_now_ns - int(found["age"]) * UNIT_NS[found["unit"]])
    return int(found["epoch"] or journal.epoch), int(found["seq"])


async def _position_at(journal: Journal, wall_ns: int) -> Position:
    """The position of the last record captured before `wall_ns`, by bisection; rough where the clock was set meanwhile."""

    async def is_older(position: Position) -> bool:
        following = await journal.read(position, 1)
        return bool(following) and following[0].wall_ns < wall_ns

    async def of_epoch(epoch: int) -> bool:
        return await is_older((epoch, 0))

    epoch = await _last(of_epoch, journal.epoch)
    if epoch < 0:
        return BEGINNING

    async def of_seq(seq: int) -> bool:
        return await is_older((epoch, seq))

    return epoch, await _last(of_seq, LAST_SEQ) + 1


async def _last(holds: Callable[[int], Awaitable[bool]], largest: int) -> int:
    """The largest number from 0 to `largest` for which `holds`, given that it does up to some number; -1: for none."""
    low, high = -1, largest
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if await holds(middle) else (low, middle - 1)
    return low

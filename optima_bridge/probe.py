"""A probe for 1-Wire keys: what its polls mean, whichever adapter makes them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Annotated

from pydantic import Field, StringConstraints

from optima_bridge.model import Data, Subject
from optima_bridge.reports import FaultReports, News, PolledSettings, TokenReports
from optima_bridge.wire.onewire import Rom

Family = Annotated[str, StringConstraints(pattern=r"^[0-9A-Fa-f]{2}$", to_upper=True)]


class ProbeSettings(PolledSettings):
    """Configuration keys of a device that is a probe for keys."""

    ignore_families: list[Family] = Field(
        default=["09", "89", "81"],
        description="families of chips that are no keys, two hex digits each; the default are ID chips in adapters",
    )


class KeyProbe:
    """The keys on one probe, and whether it is shorted.

    Args:
        counters: gets ``misses``, polls without the held key.
    """

    def __init__(self, settings: ProbeSettings, counters: Counter[str]) -> None:
        self._ignored = settings.ignore_families
        self._keys = TokenReports(Subject.KEY, settings, _describe, counters)
        self._short = FaultReports("probe-short")

    def polled(self, is_short: bool, roms: Iterable[Rom], now_ns: int) -> Iterator[News]:
        """Take the result of one complete poll, all chips on the line; gives what is to be said of it."""
        yield from self._short.polled(is_short, now_ns)
        yield from self._keys.polled(frozenset(str(rom) for rom in roms if rom.family not in self._ignored), now_ns)

    def failed(self, now_ns: int) -> Iterator[News]:
        """A poll came to no result, and the adapter has to be recovered first: a held key is ``suspect`` at once."""
        yield from self._keys.failed(now_ns)

    def next_poll_ns(self, now_ns: int) -> int:
        """When to poll again."""
        return self._keys.next_poll_ns(now_ns)


def _describe(rom: str) -> tuple[str, Data]:
    return rom, {"family": rom[:2]}

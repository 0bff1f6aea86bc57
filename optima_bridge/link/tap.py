"""A tap on a byte link: what goes over it, told to whoever listens. Mostly nobody does."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec

from optima_bridge.link.base import ByteLink

MAX_OPENING_PIECES = 256
MAX_OPENING_BYTES = 16 << 10
NS_PER_MS = 1e6
SCHEMA = "optima.wire/1"
NOTICE = "identifiers of keys and cards are in here as the device sent them"
MASKED_NOTICE = (
    "secrets may go over this wire, so it is told how many bytes there are, not which; this cannot be replayed"
)


class Piece(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that happened on the wire of a device.

    Attributes:
        t_ms: when, since the first one.
        dir: ``in``: the driver took these bytes; ``out``: it sent them; empty: no bytes.
        hex: the bytes; empty where they may hold a secret.
        size: how many they are, where only that may be told.
        subject, action: the event that the driver made of what it had.
        link: ``closed``: the driver has ended; ``opened``: another one begins.
    """

    t_ms: float
    dir: Literal["", "in", "out"] = ""
    hex: str = ""
    size: int = 0
    subject: str = ""
    action: str = ""
    link: Literal["", "opened", "closed"] = ""


Listener = Callable[[Piece], None]


class Wire:
    """Where what goes over one device's link can be heard; it outlives the links.

    How a driver begins is remembered, for what comes later cannot be understood without it by another driver.

    Args:
        masked: tell how many bytes there are, never which.
    """

    def __init__(self, *, masked: bool = False) -> None:
        self.masked = masked
        self._clock_ns: Callable[[], int] = time.monotonic_ns
        self._listeners: set[Listener] = set()
        self._opening: list[Piece] = []
        self._opening_bytes = 0
        self._is_opening = False

    def tap(self, link: ByteLink) -> ByteLink:
        """The same link, heard from now on."""
        self._clock_ns = link.clock_ns
        self._opening, self._opening_bytes, self._is_opening = [], 0, True
        self._tell(Piece(self._now_ms(), link="opened"))
        return _Tapped(link, self)

    def started(self) -> None:
        """The driver has begun; what comes from now on is not remembered."""
        self._is_opening = False

    def told(self, subject: str, action: str) -> None:
        """The driver made this event of what it had."""
        if self._listeners:
            self._tell(Piece(self._now_ms(), subject=subject, action=action))

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Tell `listener` how the driver began, then each piece; returns what ends that. The time between is left out."""
        opening = list(self._opening)
        began_ms = opening[0].t_ms if opening else self._now_ms()
        for piece in opening:
            listener(msgspec.structs.replace(piece, t_ms=round(piece.t_ms - began_ms, 3)))
        left_out_ms = self._now_ms() - (opening[-1].t_ms - began_ms if opening else 0)

        def later(piece: Piece) -> None:
            listener(msgspec.structs.replace(piece, t_ms=round(piece.t_ms - left_out_ms, 3)))

        self._listeners.add(later)
        return lambda: self._listeners.discard(later)

    def passed(self, direction: Literal["in", "out"], data: bytes) -> None:
        """These bytes go over the link."""
        if not (self._listeners or self._is_opening):
            return
        now_ms = self._now_ms()
        piece = Piece(now_ms, direction, size=len(data)) if self.masked else Piece(now_ms, direction, data.hex())
        if self._is_opening:
            self._remember(piece, len(data))
        self._tell(piece)

    def closed(self) -> None:
        """The link is no more."""
        self.started()
        self._opening.clear()
        self._tell(Piece(self._now_ms(), link="closed"))

    def _remember(self, piece: Piece, size_bytes: int) -> None:
        self._opening_bytes += size_bytes
        if len(self._opening) < MAX_OPENING_PIECES and self._opening_bytes <= MAX_OPENING_BYTES:
            self._opening.append(piece)
        else:  # half a beginning is none
            self._opening.clear()
            self._is_opening = False

    def _tell(self, piece: Piece) -> None:
        for listener in tuple(self._listeners):
            listener(piece)

    def _now_ms(self) -> float:
        return self._clock_ns() / NS_PER_MS


class _Tapped:
    """A byte link that tells its `Wire` what goes over it; whatever else the link can do passes by unheard."""

    def __init__(self, link: ByteLink, wire: Wire) -> None:
        self._link = link
        self._wire = wire
        self.name = link.name
        self.clock_ns = link.clock_ns
        self.discard_input = link.discard_input
        self.send_break = link.send_break

    async def read(self, timeout_s: float | None = None) -> bytes:
        data = await self._link.read(timeout_s)
        self._wire.passed("in", data)
        return data

    async def write(self, data: bytes) -> None:
        self._wire.passed("out", data)  # first, for the answer may be here before this returns
        await self._link.write(data)

    def close(self) -> None:
        self._link.close()
        self._wire.closed()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._link, name)

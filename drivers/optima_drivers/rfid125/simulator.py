"""A 125 kHz reader in software, byte exact, with the faults of a real one. Needs a running event loop.

Bytes take their time on the wire (10 bits at 9600 baud, 1.04 ms each) and reach the host when the frame is complete, or
is cut short by `Rfid125Simulator.remove`: as through a USB adapter, which hands over bytes in bunches.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Literal

from optima_drivers.rfid125.codec import ETX, encode

BYTE_S = 10 / 9600

Layout = Literal["rdm6300", "id12la"]
Fault = Literal["flip", "drop-etx"]


class Rfid125Simulator:
    """One reader and the card in its field.

    Args:
        layout: ``rdm6300`` repeats its frame while a card is held, ``id12la`` sends it once.
        repeat_ms: from one frame to the next, and from insert() to the end of the first; at least a frame's 15–17 ms.
        loss: probability that a frame is not sent at all, 0 to 1: a card at the edge of the field.
        seed: of everything random in here.
    """

    def __init__(self, layout: Layout = "rdm6300", repeat_ms: float = 65, loss: float = 0.0, seed: int = 0) -> None:
        self._layout = layout
        self._repeat_s = repeat_ms / 1000
        self._loss = loss
        self._random = random.Random(seed)  # noqa: S311 - faults, not keys
        self._send: Callable[[bytes], None] = _nowhere
        self._faults: deque[Fault] = deque()
        self._tag: str | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._on_wire = b""
        self._on_wire_since_s = 0.0

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say where the reader's bytes go."""
        self._send = send

    def receive(self, data: bytes) -> bytes:
        """Take what the host writes: the reader has no command channel, so nothing happens."""
        del data
        return b""

    def insert(self, tag_hex10: str) -> None:
        """Hold a card in the field, in place of the one before."""
        self.remove()
        self._tag = tag_hex10
        self._search()

    def swap(self, tag_hex10: str) -> None:
        """Change the held card without a gap: the next frame is the new card's."""
        self._tag = tag_hex10

    def remove(self) -> None:
        """Take the card away; a frame on the wire ends at once, in the middle."""
        if self._timer:
            self._timer.cancel()
        self._tag = self._timer = None
        if self._on_wire:
            elapsed_s = asyncio.get_running_loop().time() - self._on_wire_since_s
            self._send(self._on_wire[: int(elapsed_s / BYTE_S)])
            self._on_wire = b""

    def spoil(self, *faults: Fault) -> None:
        """Damage the next frames, one fault each: ``flip`` one hexadecimal character, or ``drop-etx``."""
        self._faults.extend(faults)

    def noise(self, size_bytes: int = 8) -> None:
        """Send random bytes, from a motor or a bad supply."""
        self._send(self._random.randbytes(size_bytes))

    def garbage(self, tag_hex10: str) -> None:
        """Send one frame as a port hears it that is set to 115200 baud by mistake."""
        self._send(heard_too_fast(self._frame(tag_hex10)))

    def _frame(self, tag: str) -> bytes:
        return encode(tag, cr_lf=self._layout == "id12la")

    def _search(self) -> None:
        """Look for a card until its frame must begin."""
        assert self._tag is not None
        frame_s = len(self._frame(self._tag)) * BYTE_S
        self._timer = asyncio.get_running_loop().call_later(max(0.0, self._repeat_s - frame_s), self._begin)

    def _begin(self) -> None:
        assert self._tag is not None
        loop = asyncio.get_running_loop()
        self._on_wire, self._on_wire_since_s = self._spoiled(self._frame(self._tag)), loop.time()
        self._timer = loop.call_later(len(self._on_wire) * BYTE_S, self._end)

    def _end(self) -> None:
        frame, self._on_wire = self._on_wire, b""
        if self._random.random() >= self._loss:
            self._send(frame)
        if self._layout == "rdm6300":
            self._search()

    def _spoiled(self, frame: bytes) -> bytes:
        match self._faults.popleft() if self._faults else None:
            case "flip":
                place = self._random.randrange(1, 13)
                other = self._random.choice(b"0123456789ABCDEF".replace(frame[place : place + 1], b""))
                return frame[:place] + bytes([other]) + frame[place + 1 :]
            case "drop-etx":
                return frame.removesuffix(ETX)
            case None:
                return frame


def heard_too_fast(data: bytes, ratio: int = 12) -> bytes:
    """What a port hears that samples `ratio` times too fast (8N1; 115200 for 9600 baud is 12)."""
    line: list[int] = []
    for byte in data:
        for bit in (0, *(byte >> place & 1 for place in range(8)), 1):
            line += [bit] * ratio
    heard = bytearray()
    at = 0
    while 0 in line[at:]:
        at = line.index(0, at)
        heard.append(sum(bit << place for place, bit in enumerate(line[at + 1 : at + 9])))
        at += 10
    return bytes(heard)


def _nowhere(data: bytes) -> None:
    """Where bytes go before attach()."""

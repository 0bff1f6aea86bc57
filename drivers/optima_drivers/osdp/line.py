"""One OSDP line: a command, its answer, and patience for what gets lost; one speaker at a time, for several tasks."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from optima_bridge.errors import LinkTimeout
from optima_bridge.link import ByteLink
from optima_drivers.osdp.codec import MARK, Frame, FrameDecoder
from optima_drivers.osdp.messages import Busy, Nak, NakCode, Reply
from optima_drivers.osdp.panel import Conversation

NS_PER_S = 1_000_000_000
BITS_PER_BYTE = 10  # 8N1
REPLY_TIMEOUT_S = 0.2  # section 5.7: until the first byte of the reply
GAP_S = 0.05  # silence in the middle of a frame; FTDI holds bytes back for 16 ms
LONGEST_REPLY_S = 0.5  # 480 bytes at 9600 baud; what goes on for longer is noise
TRIES = 2
BUSY_PAUSE_S = 0.05
MAX_BUSY = 20  # a peripheral that is busy for a second has lost the command


class Line:
    """Two wires and what hangs on them.

    Args:
        counters: gets ``frames_good``, ``frames_bad_…``, ``frames_ignored``, ``timeouts``, ``resent``, ``busy``, ``late_bytes``.

    Attributes:
        turn: who holds it has the line for oneself.
    """

    def __init__(self, link: ByteLink, baud: int, counters: Counter[str]) -> None:
        self.name = link.name
        self._link = link
        self._byte_s = BITS_PER_BYTE / baud
        self._counters = counters
        self.turn = asyncio.Lock()
        self._taken_until_ns = 0  # a peripheral may answer until then, though nobody waits for it any more

    def clock_ns(self) -> int:
        """The link's."""
        return self._link.clock_ns()

    async def exchange(self, conversation: Conversation, request: bytes, tries: int = TRIES) -> Reply:
        """Say `request` and hear the reply; only in one's turn. What is lost is said again, in the very same bytes.

        Raises:
            LinkTimeout: no reply, or only damaged ones.
            SessionLost, WrongKey, FrameError: see `Conversation.hear`.
            LinkLost: the port is gone.
        """
        left, busy = tries, 0
        while left:
            reply = await self._once(conversation, request)
            match reply:
                case Busy() if busy < MAX_BUSY and tries > 1:  # one try is all that somebody gets who was silent
                    busy += 1
                    self._counters["busy"] += 1
                    await asyncio.sleep(BUSY_PAUSE_S)
                    continue
                case None | Nak(NakCode.CHECK) | Busy():
                    left -= 1
                    self._counters["resent"] += left > 0
                case _:
                    return reply
        raise LinkTimeout(
            f"{self.name}: reader {conversation.address} does not answer",
            cause="no power, a loose or crossed pair, another address, or another speed",
            next_step="check wiring, address and speed of the reader",
        )

    async def _once(self, conversation: Conversation, request: bytes) -> Reply | None:
        """One try; None where no reply came."""
        await self._wait_for_silence()
        request_ns = round((len(MARK + request) * self._byte_s + REPLY_TIMEOUT_S) * NS_PER_S)
        self._taken_until_ns = self.clock_ns() + request_ns
        await self._link.write(MARK + request)
        decoder = FrameDecoder()
        while True:
            left_s = (self._taken_until_ns - self.clock_ns()) / NS_PER_S
            if left_s <= (-LONGEST_REPLY_S if decoder.begun else 0):
                self._counters["timeouts"] += 1
                return None
            try:
                results = decoder.feed(await self._link.read(GAP_S if decoder.begun else left_s))
            except LinkTimeout:
                results = decoder.give_up()
            for result in results:
                if isinstance(result, Frame):
                    self._counters["frames_good"] += 1
                    until_ns, self._taken_until_ns = self._taken_until_ns, 0
                    if (reply := conversation.hear(result)) is not None:
                        return reply
                    self._taken_until_ns = until_ns
                    self._counters["frames_ignored"] += 1
                else:
                    self._counters[f"frames_bad_{result.kind}"] += 1

    async def _wait_for_silence(self) -> None:
        """Let a reply pass whose asker was cancelled, and drop what is late: it must not count as an answer."""
        with suppress(LinkTimeout):
            while (left_ns := self._taken_until_ns - self.clock_ns()) > 0:
                self._counters["late_bytes"] += len(await self._link.read(left_ns / NS_PER_S))
        self._counters["late_bytes"] += self._link.discard_input()

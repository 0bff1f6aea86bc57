"""One PN532 behind a link: wake it, set it up, ask it, and get over what a bad line does to an exchange.

    host  00 … 00 FF … command …                       NACK, where the answer was damaged
    chip                          ACK  … answer …                                         the answer again

Source: PN532 user manual UM0701-02, 6.2.2 (dialogue), 6.2.3 (the host repeats a command without ACK).
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from itertools import count

from optima_bridge.errors import ChecksumError, FrameError, LinkTimeout, RemoteProtocolError
from optima_bridge.link import ByteLink
from optima_drivers.pn532 import cards
from optima_drivers.pn532.cards import Card, Command, Firmware
from optima_drivers.pn532.codec import FROM_CHIP, TO_CHIP, FrameDecoder, Message, Signal, encode

# The chip acknowledges within 15 ms; FTDI holds a byte back for 16 ms, a busy PC for some more.
ACK_TIMEOUTS_S = (0.1, 0.1, 0.1)
# After an opening: a Raspberry Pi's USB gives the first byte up to a second late.
FIRST_ACK_TIMEOUTS_S = (0.1, 0.3, 1.5)
ANSWER_TIMEOUT_S = 0.5  # a list with two tries takes some 20 ms
ABORT_PAUSE_S = 0.005  # after an abort the chip takes no command for 1 to 2 ms
MAX_NACKS = 2
LINE_TESTS = 3
NEXT_STEP = "check its power and wires, and that its switches are set to HSU; then see: bridge devices list"
WAKE_UP = b"\x55\x55" + bytes(14)  # the chip sleeps after power-up and loses what wakes it


class Chip:
    """The chip. Its field is on during polls only.

    Args:
        counters: gets ``frames_good``, ``frames_bad_…``, ``unacknowledged`` (commands sent again), ``late_frames``,
            ``late_bytes``.
    """

    def __init__(self, link: ByteLink, counters: Counter[str]) -> None:
        self._link = link
        self._counters = counters
        self._numbers = count()

    async def initialise(self, ack_timeouts_s: Sequence[float] = ACK_TIMEOUTS_S) -> Firmware:
        """Wake the chip, make sure that it is one, and set everything that a list depends on.

        Args:
            ack_timeouts_s: of the first command.

        Raises:
            LinkTimeout: nothing answers, or it stops answering.
            RemoteProtocolError: something else answers.
            LinkLost: from the link.
        """
        await self._abort()
        await self._command(Command.SAM_CONFIGURATION, cards.NORMAL_MODE, ack_timeouts_s, WAKE_UP)
        await self._test_line()
        firmware = Firmware.from_answer(await self._command(Command.GET_FIRMWARE_VERSION, b""))
        await self._command(Command.SET_PARAMETERS, cards.PARAMETERS)
        await self._command(Command.RF_CONFIGURATION, cards.TRY_TWICE)
        await self._command(Command.RF_CONFIGURATION, cards.FIELD_OFF)
        return firmware

    async def poll(self) -> tuple[Card, ...]:
        """All cards in the field, two at most. A list brings the field up, so that they answer whatever went before.

        A list that had to be asked for twice is answered twice. The second answer comes before that to the field's going
        off, and is dropped there: no list is ever taken for that of a later poll.

        Raises:
            LinkTimeout: no answer: the chip is asleep, has lost its settings, or is gone.
            RemoteProtocolError: an answer that does not fit.
            LinkLost: from the link.
        """
        answer = await self._command(Command.IN_LIST_PASSIVE_TARGET, cards.LIST_CARDS)
        await self._command(Command.RF_CONFIGURATION, cards.FIELD_OFF)
        return cards.decode_cards(answer)

    async def rest(self) -> None:
        """Stop what the chip is doing, and switch its field off. Raises as poll()."""
        await self._abort()
        await self._command(Command.RF_CONFIGURATION, cards.FIELD_OFF)

    async def _test_line(self) -> None:
        """Have a text sent back, another one each time: once it comes, nothing of before can still come."""
        for _ in range(LINE_TESTS):
            text = cards.LINE_TEST + next(self._numbers).to_bytes(8, "big")
            if await self._command(Command.DIAGNOSE, text) == text:
                return
            self._counters["late_frames"] += 1
        raise RemoteProtocolError(f"{self._link.name}: the line test gives other bytes back", port=self._link.name)

    async def _abort(self) -> None:
        """Stop the command that the chip may be working on; there will be no answer to it."""
        await self._link.write(Signal.ACK.value)
        await asyncio.sleep(ABORT_PAUSE_S)

    async def _command(
        self, code: Command, data: bytes, ack_timeouts_s: Sequence[float] = ACK_TIMEOUTS_S, before: bytes = b""
    ) -> bytes:
        """Send a command, again where the chip does not acknowledge it; returns the data of its answer."""
        frame = before + encode(Message(TO_CHIP, code, data))
        for timeout_s in ack_timeouts_s:
            self._counters["late_bytes"] += self._link.discard_input()
            await self._link.write(frame)
            answer = await self._answer(code, timeout_s)
            if answer is not None:
                self._counters["frames_good"] += 1
                return answer
            self._counters["unacknowledged"] += 1
        raise LinkTimeout(f"{self._link.name}: no PN532 answers", next_step=NEXT_STEP, port=self._link.name)

    async def _answer(self, code: Command, ack_timeout_s: float) -> bytes | None:
        """The data of the answer to `code`; None where the chip did not take the command."""
        decoder = FrameDecoder()
        acknowledged, nacks = False, 0
        deadline_ns = self._link.clock_ns() + round(ack_timeout_s * 1e9)
        while (left_ns := deadline_ns - self._link.clock_ns()) > 0:
            try:
                chunk = await self._link.read(left_ns / 1e9)
            except LinkTimeout:
                break
            for frame in decoder.feed(chunk):
                if frame is Signal.ACK and not acknowledged:
                    acknowledged = True
                    deadline_ns = self._link.clock_ns() + round(ANSWER_TIMEOUT_S * 1e9)
                elif isinstance(frame, Message) and (frame.direction, frame.code) == (FROM_CHIP, code + 1):
                    return frame.data  # an acknowledgement may get lost; its answer will do
                elif frame is Signal.ERROR:
                    raise RemoteProtocolError(f"{self._link.name}: the chip does not take {code.name}")
                elif isinstance(frame, FrameError):
                    self._counters[f"frames_bad_{frame.kind}"] += 1
                    if acknowledged and isinstance(frame, ChecksumError) and nacks < MAX_NACKS:
                        nacks += 1
                        await self._link.write(Signal.NACK.value)
                else:
                    self._counters["late_frames"] += 1
        if not acknowledged:
            return None
        await self._abort()
        raise LinkTimeout(f"{self._link.name}: {code.name} was taken and not answered", port=self._link.name)

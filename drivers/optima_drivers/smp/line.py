"""One SMP device's line: one question at a time, for two tasks at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress
from typing import TypeVar

from optima_bridge.errors import FrameError, LinkTimeout
from optima_bridge.link import ByteLink
from optima_drivers.smp import framing
from optima_drivers.smp.commands import Command
from optima_drivers.smp.message import Message, Op, Refusal, encode, parse, read

TRIES = 3

T = TypeVar("T")


class Line:
    """Questions and their answers; whichever task waits for bytes takes them for both.

    Attributes:
        counters: frames good and bad by kind, timeouts, late answers.
    """

    def __init__(self, link: ByteLink, answer_timeout_s: float) -> None:
        self.counters: Counter[str] = Counter()
        self.link = link
        self._answer_timeout_s = answer_timeout_s
        self._decoder = framing.Decoder()
        self._asking = asyncio.Lock()
        self._receiving = asyncio.Lock()
        self._asked: Message | None = None
        self._answer: Message | None = None
        self._sequence = 0
        self._heard_ns = 0

    async def ask(self, command: Command[T], **fields: object) -> T | Refusal:
        """Ask, three times if need be.

        Raises:
            LinkTimeout: no answer came. FrameError: it is not what this command answers.
        """
        async with self._asking:
            for _ in range(TRIES):
                self._sequence = (self._sequence + 1) % 256
                self._asked = Message(command.op, command.group, command.number, self._sequence, fields)
                self._answer = None
                try:
                    async with asyncio.timeout(self._answer_timeout_s):
                        await self.link.write(framing.encode(encode(self._asked)))
                        answer = await self._answered()
                except TimeoutError:
                    self.counters["timeouts"] += 1
                else:
                    return read(answer.body, command.reply)
            raise LinkTimeout(
                f"{self.link.name}: no SMP device answered {TRIES} times",
                cause="no power, a loose cable, or a firmware without SMP on this port",
                port=self.link.name,
            )

    async def quiet(self, quiet_s: float) -> None:
        """Wait until nothing was heard for so long. Raises LinkLost as soon as the port is gone."""
        while (left_s := quiet_s - (self.link.clock_ns() - self._heard_ns) / 1e9) > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(left_s), self._receiving:
                    await self._receive()

    async def _answered(self) -> Message:
        """Wait for the answer, received by this task or by the other one."""
        while self._answer is None:
            async with self._receiving:
                if self._answer is None:
                    await self._receive()
        return self._answer

    async def _receive(self) -> None:
        chunk = await self.link.read()
        for result in self._decoder.feed(chunk):
            try:
                if isinstance(result, FrameError):
                    raise result
                self._sort(parse(result))
            except FrameError as error:
                self.counters[f"frames_bad_{error.kind}"] += 1

    def _sort(self, message: Message) -> None:
        """Keep the one that answers; others are late."""
        self._heard_ns = self.link.clock_ns()
        self.counters["frames_good"] += 1
        asked = self._asked
        if asked is not None and (message.op, message.group, message.command, message.sequence) == (
            Op(asked.op + 1), asked.group, asked.command, asked.sequence,
        ):  # fmt: skip
            self._answer, self._asked = message, None
        else:
            self.counters["late_answers"] += 1

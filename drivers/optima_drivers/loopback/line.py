"""The loopback device's line: messages sorted into what happened and what was asked for, for two tasks at once."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable

from optima_bridge.errors import FrameError, LinkTimeout, SlotError
from optima_bridge.link import ByteLink
from optima_bridge.model import DeviceIdentity
from optima_drivers.loopback.codec import Decoder, Identity, Memory, Message, Query, Verb, encode
from optima_drivers.loopback.store import RawMemory

TRIES = 3
MAX_ANSWERS = 8

Answer = Memory | Identity


class Line:
    """Events for one task, raw memory for another: whichever waits for bytes sorts them for both.

    Attributes:
        inbox: what happened, with link.clock_ns() of its arrival; identities too.
        counters: frames good and bad by kind, timeouts.
    """

    def __init__(self, link: ByteLink, answer_timeout_s: float) -> None:
        self.inbox: list[tuple[Message, int]] = []
        self.counters: Counter[str] = Counter()
        self._link = link
        self._answer_timeout_s = answer_timeout_s
        self._decoder = Decoder()
        self._answers: deque[Answer] = deque(maxlen=MAX_ANSWERS)
        self._receiving = asyncio.Lock()

    async def events(self) -> list[tuple[Message, int]]:
        """Wait for what happens; returns it and empties the inbox."""
        await self._until(lambda: self.inbox)
        happened, self.inbox = self.inbox, []
        return happened

    async def exchange(self, request: Memory | Query, answers: Callable[[Answer], bool]) -> Answer:
        """Ask, three times if need be: each request done twice is as if done once.

        Raises:
            LinkTimeout: no message that `answers` came; others are late or lost their request and are dropped.
        """
        for _ in range(TRIES):
            self._answers.clear()
            await self._link.write(encode(request))
            try:
                async with asyncio.timeout(self._answer_timeout_s):
                    await self._until(lambda: any(map(answers, self._answers)))
                return next(filter(answers, self._answers))
            except TimeoutError:
                self.counters["timeouts"] += 1
        raise LinkTimeout(
            f"{self._link.name}: no loopback device answered {TRIES} times",
            cause="no simulator runs at the other end of this port, or its power was cut",
            next_step="start one: bridge demo, or optima_drivers.loopback.simulator in a test",
        )

    async def identify(self) -> DeviceIdentity:
        answer = await self.exchange(Query(), lambda message: isinstance(message, Identity))
        assert isinstance(answer, Identity)
        return DeviceIdentity(answer.model, answer.serial, answer.firmware)

    async def read(self, address: int, size_bytes: int) -> bytes:
        return await self._memory(Memory(Verb.READ, address, bytes([size_bytes])), Verb.DATA, size_bytes)

    async def write(self, address: int, data: bytes) -> None:
        await self._memory(Memory(Verb.WRITE, address, data), Verb.WROTE)

    async def erase(self, address: int) -> None:
        await self._memory(Memory(Verb.ERASE, address), Verb.ERASED)

    async def _memory(self, request: Memory, verb: Verb, size_bytes: int = 0) -> bytes:
        good, denied = (verb, request.address, size_bytes), (Verb.DENIED, request.address, 0)

        def answers(message: Answer) -> bool:
            return isinstance(message, Memory) and (message.verb, message.address, len(message.data)) in (good, denied)

        answer = await self.exchange(request, answers)
        assert isinstance(answer, Memory)
        if answer.verb is Verb.DENIED:
            raise SlotError(f"{self._link.name}: the device has no memory at {request.address:04x}")
        return answer.data

    async def _until(self, found: Callable[[], object]) -> None:
        """Wait until it is `found`, by this task or by the other one."""
        while not found():
            async with self._receiving:
                if not found():
                    await self._receive()

    async def _receive(self) -> None:
        chunk = await self._link.read()
        now_ns = self._link.clock_ns()
        for result in self._decoder.feed(chunk):
            if isinstance(result, FrameError):
                self.counters[f"frames_bad_{result.kind}"] += 1
                continue
            self.counters["frames_good"] += 1
            if isinstance(result, Answer):
                self._answers.append(result)
            if not isinstance(result, Memory):
                self.inbox.append((result, now_ns))


_conforms: type[RawMemory] = Line

"""One DS2480B behind a link: find it, ask it, and come back to a known state when an answer does not fit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

from optima_bridge.errors import FrameError, LinkTimeout, RemoteProtocolError
from optima_bridge.link import ByteLink
from optima_bridge.wire.onewire import Rom
from optima_drivers.ds2480b import codec
from optima_drivers.ds2480b.codec import Bus

ANSWER_TIMEOUT_S = 0.1  # silence; a reset takes 3 ms, a search byte 2 ms, USB up to 16 ms, a busy PC some more
SETTLE_S = 0.02  # the chip wants 2 ms after a break and 4 ms after calibration; FTDI holds a byte back for 16 ms
DETECT_TRIES = 3
MAX_CHIPS = 8  # passes of one search; more chips than that are not news: two keys are already ambiguous

Message = TypeVar("Message")


class Adapter:
    """The chip, between two exchanges always in command mode.

    Args:
        counters: gets ``late_bytes``, ``resets`` and ``frames_good`` (search passes).
    """

    def __init__(self, link: ByteLink, counters: Counter[str]) -> None:
        self._link = link
        self._counters = counters

    async def detect(self) -> None:
        """Reset the chip, calibrate it, configure it, and make sure that it is one (application note 192).

        Raises:
            LinkTimeout: nothing answers.
            RemoteProtocolError: something else answers.
        """
        failure: LinkTimeout | FrameError | None = None
        for _ in range(DETECT_TRIES):
            try:
                await self._link.send_break()
                await asyncio.sleep(SETTLE_S)
                await self._link.write(codec.RESET)  # calibrates; a chip that did not see the break answers it
                await asyncio.sleep(SETTLE_S)
                await self._exchange(codec.CONFIGURE, codec.CONFIGURE_ANSWER_SIZE_BYTES, codec.check_configured)
                await self.reset()
            except (LinkTimeout, FrameError) as error:
                failure = error
            else:
                return
        if isinstance(failure, LinkTimeout):
            raise LinkTimeout(f"{self._link.name}: no DS2480B answers", port=self._link.name) from failure
        raise RemoteProtocolError(
            f"{self._link.name}: what answers is not a DS2480B: {failure}", port=self._link.name
        ) from failure

    async def reset(self) -> Bus:
        """Reset the 1-Wire line: presence of any chip. Raises FrameError, LinkTimeout, LinkLost."""
        self._counters["resets"] += 1
        return await self._exchange(codec.RESET, codec.RESET_ANSWER_SIZE_BYTES, codec.decode_reset)

    async def poll(self) -> tuple[Bus, frozenset[Rom]]:
        """All chips on the line; none where one was lifted meanwhile.

        Raises:
            FrameError: poor contact or noise: worth another try at once.
            LinkTimeout: the chip does not answer.
            LinkLost: the adapter is gone.
        """
        found: set[Rom] = set()
        path: int | None = 0
        while path is not None and len(found) < MAX_CHIPS:
            bus = await self.reset()
            if bus in (Bus.NONE, Bus.SHORT):
                return bus, frozenset()
            one = await self._exchange(codec.search(path), codec.SEARCH_ANSWER_SIZE_BYTES, codec.decode_search)
            if one is None:
                return bus, frozenset()
            if not one.follows(path):
                raise FrameError("a search took another path than the one it was given", kind="path")
            found.add(one.rom())
            self._counters["frames_good"] += 1
            path = one.next_path()
        return bus, frozenset(found)

    async def _exchange(self, request: bytes, size_bytes: int, decode: Callable[[bytes], Message]) -> Message:
        """Send `request`, decode its answer. What came before it is late and answers nothing."""
        self._counters["late_bytes"] += self._link.discard_input()
        await self._link.write(request)
        try:
            return decode(await self._answer(size_bytes))
        except (FrameError, LinkTimeout):
            await self._recover()
            raise

    async def _answer(self, size_bytes: int) -> bytes:
        """At least `size_bytes`, or fewer when the rest does not come: the decoder refuses those."""
        answer = b""
        while len(answer) < size_bytes:
            try:
                answer = codec.without_arrivals(answer + await self._link.read(ANSWER_TIMEOUT_S))
            except LinkTimeout:
                if answer:
                    break
                raise
        return answer

    async def _recover(self) -> None:
        """Back to command mode, wherever the chip was left, with nothing of the old exchange still to come."""
        await self._link.write(codec.RECOVER)
        await asyncio.sleep(SETTLE_S)
        self._counters["late_bytes"] += self._link.discard_input()

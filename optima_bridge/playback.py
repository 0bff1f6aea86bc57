"""Playing a recording through the real driver: in virtual time, on a memory link, with the recorded device at its other end.

Where the driver asked, the recorded device answers what it answered then, as long after the question as it took then. What it
said unasked it says at the recorded time. What others asked through the driver (an enrolment) nobody asks now: after a moment the
device goes on, and the driver hears answers that it did not ask for.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from pydantic import ValidationError

from optima_bridge.driver import Driver, DriverSettings
from optima_bridge.errors import BridgeError, DriverError, LinkLost, UsageError
from optima_bridge.link import MemoryPeer, memory_pair
from optima_bridge.link.base import BYTE_OPENERS
from optima_bridge.link.tap import SCHEMA, Piece
from optima_bridge.model import Event
from optima_bridge.virtual_time import run, virtual_loop

NS_PER_MS = 1e6
LAST_EVENT_S = 0.05  # an event may be decided a little later than it was then
NO_QUESTION_S = 0.5
MAX_MS = 31 * 24 * 3600 * 1000

Told = tuple[str, str]
"""Subject and action of an event."""


class Header(msgspec.Struct, frozen=True):
    """The first line of a recording."""

    schema: str
    device: str
    driver: str
    masked: bool
    settings: Mapping[str, object]


class Recording(msgspec.Struct, frozen=True):
    """What was recorded of one run of a driver."""

    header: Header
    pieces: list[Piece]

    @property
    def events(self) -> list[Told]:
        """What the driver made of it then."""
        return [(piece.subject, piece.action) for piece in self.pieces if piece.subject]


def read(path: Path) -> Recording:
    """The recording in a file, to the end of the driver's first run.

    Raises:
        UsageError: it cannot be read, is no recording, or holds lengths only.
    """
    number = 1
    try:
        first, *lines = path.read_bytes().splitlines()
        header = msgspec.json.decode(first, type=Header)
        pieces: list[Piece] = []
        for line in lines:
            number += 1
            pieces.append(_piece(line, pieces[-1].t_ms if pieces else 0))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, msgspec.DecodeError) as error:
        raise UsageError(f"{path}, line {number}, is no line of a recording: {error}") from error
    if header.schema != SCHEMA:
        raise UsageError(f"{path} is a recording of another form: {header.schema}, not {SCHEMA}")
    if header.masked:
        raise UsageError(
            f"{path} cannot be played: it holds how many bytes there were, not which",
            cause="secrets may go over the wire of this device, so they were never recorded",
        )
    ends = [index for index, piece in enumerate(pieces) if piece.link == "closed"]
    return Recording(header, pieces[: ends[0]] if ends else pieces)


def _piece(line: bytes, after_ms: float) -> Piece:
    """The piece of one line.

    Raises:
        ValueError: it is none, or not from that moment or later.
    """
    piece = msgspec.json.decode(line, type=Piece)
    bytes.fromhex(piece.hex)
    if not after_ms <= piece.t_ms < MAX_MS:
        raise ValueError(f"t_ms goes from 0 to 31 days, never back: {piece.t_ms:g}")
    return piece


def play(
    driver: type[Driver], recording: Recording, told: Callable[[float, Event], None], speed: float = 0
) -> list[Told]:
    """Play it; returns the events, and calls `told` with the milliseconds and each of them.

    Args:
        speed: so many times faster than it was recorded; 0: without waiting.

    Raises:
        UsageError: the recorded settings are none of this driver, or it works on no byte pipe.
        DriverError: it failed in its own code.
        BridgeError: what the driver gave up with.
    """
    if driver.info.schemes.isdisjoint(BYTE_OPENERS):
        raise UsageError(
            f"the driver {driver.info.name} cannot be played to: it works on no byte pipe",
            cause=f"it is for {' and '.join(sorted(driver.info.schemes))}, so nothing is ever recorded of it",
            next_step="see which driver the first line of the recording names",
        )
    try:
        settings = driver.Settings.model_validate_json(msgspec.json.encode(recording.header.settings))
    except ValidationError as error:
        why = "; ".join(f"{'.'.join(map(str, it['loc']))}: {it['msg']}" for it in error.errors(include_url=False))
        raise UsageError(f"the driver {driver.info.name} does not take the recorded settings: {why}") from error
    return run(_play(driver, settings, recording.pieces, told), speed)


async def _play(
    driver: type[Driver], settings: DriverSettings, pieces: list[Piece], told: Callable[[float, Event], None]
) -> list[Told]:
    link, peer = memory_pair("memory:replay", clock_ns=virtual_loop().clock_ns)
    device = asyncio.create_task(_RecordedDevice(peer, pieces).live())
    events: list[Told] = []
    with _own_failures(driver):
        unit = driver(link, settings)
    try:
        with _own_failures(driver):
            await unit.start()
            stream = unit.events()
        while True:
            with _own_failures(driver):
                event = await anext(stream, None)
            if event is None:
                break
            if isinstance(event, Event):
                events.append((str(event.subject), event.action))
                told(event.mono_ns / NS_PER_MS, event)
    except LinkLost:
        if not device.done():
            raise
        device.result()
    finally:
        device.cancel()
        with _own_failures(driver):
            await unit.stop()
    return events


@contextmanager
def _own_failures(driver: type[Driver]) -> Iterator[None]:
    """What else than our errors comes out of a driver becomes one that names it."""
    try:
        yield
    except BridgeError:
        raise
    except (Exception, asyncio.CancelledError) as error:
        task = asyncio.current_task()
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
            raise
        t_ms = virtual_loop().time() * 1000
        raise DriverError(
            f"the driver {driver.info.name} failed at t_ms {t_ms:.3f} of the replay: {error!r}",
            cause=f"a mistake in the driver, in {_place(error)}",
            next_step="mend it there: what the recorded device said is no reason to fail",
        ) from error


def _place(error: BaseException) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{frame.filename}, line {frame.lineno}"


class _RecordedDevice:
    """The device's end of the link: says and answers what it did."""

    def __init__(self, peer: MemoryPeer, pieces: list[Piece]) -> None:
        self._peer = peer
        self._pieces = pieces
        self._asked: asyncio.Queue[str] = asyncio.Queue()
        peer.on_write = lambda data: self._asked.put_nowait(data.hex())

    async def live(self) -> None:
        """Play everything, then pull the plug."""
        loop = asyncio.get_running_loop()
        index, began_s = 0, loop.time()
        while index < len(self._pieces):
            piece = self._pieces[index]
            if piece.dir == "out":
                with suppress(TimeoutError):
                    index = await self._next_question(index)
                began_s = loop.time() - self._pieces[index].t_ms / 1000
            else:
                await asyncio.sleep(began_s + piece.t_ms / 1000 - loop.time())
                self._peer.feed(bytes.fromhex(piece.hex))
            index += 1
        await asyncio.sleep(LAST_EVENT_S)
        self._peer.unplug()

    async def _next_question(self, index: int) -> int:
        """Where in the recording the driver asks what it asks now: here, or farther on if it began in the middle of a dialogue.

        Raises:
            TimeoutError: it asks nothing that was recorded then or later.
        """
        async with asyncio.timeout(NO_QUESTION_S):
            while True:
                asked = await self._asked.get()
                for place in range(index, len(self._pieces)):
                    if self._pieces[place].dir == "out" and self._pieces[place].hex == asked:
                        return place

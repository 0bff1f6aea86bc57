"""What the OSDP tests share: a man in the middle of the line, a panel that runs, libosdp's peripheral in its own process."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Self

from optima_bridge.errors import BridgeError
from optima_bridge.link import ByteLink, open_byte_link
from optima_bridge.link.ptys import PtyServer
from optima_bridge.model import Event, Observation, Subject
from optima_drivers.osdp import OsdpDriver
from optima_drivers.osdp.codec import MARK, Frame, FrameDecoder
from optima_drivers.osdp.driver import OsdpSettings
from tests.support import until

KEY = bytes.fromhex("000102030405060708090a0b0c0d0e0f")
LIMIT_S = 20.0  # only a hang takes as long


def key_file(directory: Path, key: bytes = KEY) -> dict[str, str]:
    """A reference to a key, as it stands in the configuration."""
    file = directory / f"scbk-{key.hex()[:4]}"
    file.write_text(key.hex() + "\n")
    file.chmod(0o600)
    return {"file": str(file)}


class Wire:
    """A line cut open: the panel's end on one pty, the peripheral's on another, in the middle whoever spoils frames.

    Attributes:
        commands, replies: all frames that came, before they were spoilt.
        spoil: gets each frame and what goes on in its place; by default all goes on.
    """

    def __init__(self) -> None:
        self.commands: list[Frame] = []
        self.replies: list[Frame] = []
        self.spoil: Callable[[Frame, bytes], bytes] = lambda _, data: data
        self._panel = PtyServer(_End(self.commands, lambda data, frame: self._peripheral.send(self.spoil(frame, data))))
        self._peripheral = PtyServer(_End(self.replies, lambda data, frame: self._panel.send(self.spoil(frame, data))))

    async def __aenter__(self) -> Self:
        await self._panel.__aenter__()
        await self._peripheral.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._panel.unplug()
        self._peripheral.unplug()

    @property
    def panel_path(self) -> str:
        return self._panel.path

    @property
    def peripheral_path(self) -> str:
        return self._peripheral.path


class _End:
    def __init__(self, seen: list[Frame], on_frame: Callable[[bytes, Frame], None]) -> None:
        self._seen, self._on_frame = seen, on_frame
        self._decoder = FrameDecoder()

    def receive(self, data: bytes) -> bytes:
        for frame in self._decoder.feed(data):
            assert isinstance(frame, Frame), frame
            self._seen.append(frame)
            self._on_frame(MARK + frame.encode(), frame)
        return b""


class Once:
    """A spoiler of the next frame that `which` picks: it is dropped, or one of its bits is turned over."""

    def __init__(self, which: Callable[[Frame], bool], *, flip: bool = False) -> None:
        self._which, self._flip = which, flip
        self.done = False

    def __call__(self, frame: Frame, data: bytes) -> bytes:
        if self.done or not self._which(frame):
            return data
        self.done = True
        return data[:7] + bytes([data[7] ^ 0x04]) + data[8:] if self._flip else b""


class Panel:
    """A driver that runs, and what it said."""

    def __init__(self, driver: OsdpDriver) -> None:
        self.driver = driver
        self.news: list[Event | Observation] = []
        self.listening: asyncio.Task[None]

    def events(self, subject: Subject) -> list[Event]:
        return [news for news in self.news if isinstance(news, Event) and news.subject is subject]

    async def cards(self, count: int) -> list[str | None]:
        """Identifiers of all cards, when there are that many."""
        await until(lambda: len(self.events(Subject.CARD)) >= count, LIMIT_S)
        return [event.identifier for event in self.events(Subject.CARD)]

    async def polled(self, times: int = 2) -> None:
        """Wait until the readers were polled that often from now."""
        before = self.driver.counters["polls"]
        await until(lambda: self.driver.counters["polls"] >= before + times, LIMIT_S)


@asynccontextmanager
async def running_on(link: ByteLink, **settings: Any) -> AsyncIterator[Panel]:
    """The driver on a link, from start() to stop()."""
    driver = OsdpDriver(link, settings_of(**settings))
    panel = Panel(driver)

    async def listen() -> None:
        async with aclosing(driver.events()) as events:
            async for news in events:
                panel.news.append(news)

    async with asyncio.timeout(LIMIT_S):
        await driver.start()
        panel.listening = asyncio.create_task(listen())
        try:
            yield panel
        finally:
            panel.listening.cancel()
            with suppress(asyncio.CancelledError, BridgeError):
                await panel.listening
        await driver.stop()


@asynccontextmanager
async def running(path: str, **settings: Any) -> AsyncIterator[Panel]:
    """The driver on a serial port."""
    link = await open_byte_link(path, settings_of(**settings).serial_format(OsdpDriver.info.serial_format))
    try:
        async with running_on(link, **settings) as panel:
            yield panel
    finally:
        link.close()


def settings_of(**settings: Any) -> OsdpSettings:
    return OsdpSettings.model_validate({"poll_interval_ms": 20, **settings})


class Libosdp:
    """libosdp's peripheral device in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.lines: list[dict[str, Any]] = []

    async def order(self, **event: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(event).encode() + b"\n")
        await self._process.stdin.drain()

    async def card(self, data: str, bits: int) -> None:
        await self.order(event=1, reader_no=0, format=1, direction=0, length=bits, data=data)

    async def status(self, kind: int, report: str) -> None:
        """0 inputs, 2 local."""
        await self.order(event=4, type=kind, report=report)

    async def keys(self, digits: str) -> None:
        await self.order(event=2, reader_no=0, data=digits.encode().hex())

    def told(self, what: str) -> list[Any]:
        return [line[what] for line in self.lines if what in line]

    async def read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.lines.append(json.loads(line))


@asynccontextmanager
async def libosdp(
    path: str, *, key: bytes | None = KEY, flags: tuple[str, ...] = (), address: int = 0
) -> AsyncIterator[Libosdp]:
    """Run one on a port; without a key it is in its installation mode."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("osdp_peripheral.py")),
        path,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    device = Libosdp(process)
    reading = asyncio.create_task(device.read())
    try:
        await device.order(address=address, scbk=key.hex() if key else None, flags=flags)
        await until(lambda: device.told("started"), LIMIT_S)
        yield device
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
        await reading

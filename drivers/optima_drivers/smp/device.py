"""What an SMP device can do with files and settings, and a session with it."""

from __future__ import annotations

import hashlib
from typing import Any, TypeVar

from optima_bridge.errors import DeviceError, RemoteProtocolError, SlotError
from optima_bridge.store import Progress
from optima_drivers.smp import framing
from optima_drivers.smp.commands import (
    CLOSE,
    DOWNLOAD,
    ECHO,
    EMPTY_FILE,
    HASH,
    INFO,
    LOAD_SETTINGS,
    MEANINGS,
    NO_SUCH_FILE,
    NO_SUCH_HASH,
    NO_SUCH_SETTING,
    PARAMETERS,
    READ_SETTING,
    SAVE_SETTINGS,
    UNKNOWN_COMMAND,
    UPLOAD,
    WRITE_SETTING,
    WRONG_OFFSET,
    Command,
)
from optima_drivers.smp.line import Line
from optima_drivers.smp.message import Message, Refusal, encode

LATE_ANSWERS = 8  # that may still come of what was asked before
UPLOADS = 3  # of one file, each from its beginning
SMALLEST_BUFFER_BYTES = 128  # also of a device that does not tell; with less a chunk is not worth its frame
LARGEST_BUFFER_BYTES = 2048  # that is made use of: a frame of it takes a quarter of a second at 115200 baud

T = TypeVar("T")


class Device:
    """One device; begin() first. Every method may raise LinkError, FrameError, and SlotError where the device refuses."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._name = line.link.name
        self._buffer_bytes = SMALLEST_BUFFER_BYTES

    async def begin(self) -> None:
        """A fresh session: no answer from before is taken for one of now, no file is open, settings are the saved ones.

        Raises:
            RemoteProtocolError: what answers is no SMP device. DeviceError: its buffer is too small.
        """
        self._line.link.discard_input()
        await self._catch_up()
        found = await self._do("tell the size of its buffer", PARAMETERS, unless=UNKNOWN_COMMAND)
        self._buffer_bytes = min(found.buf_size, LARGEST_BUFFER_BYTES) if found else SMALLEST_BUFFER_BYTES
        if self._buffer_bytes < SMALLEST_BUFFER_BYTES:
            raise DeviceError(f"{self._name}: the device has a buffer of {self._buffer_bytes} bytes only")
        await self._close()
        await self._do("load its settings", LOAD_SETTINGS)

    async def _catch_up(self) -> None:
        """Answers come in the order of their questions: behind the echo of what was never sent before all are ours."""
        never_before = f"{self._line.link.clock_ns():x}"
        for _ in range(LATE_ANSWERS):
            echoed = await self._do("echo", ECHO, unless=UNKNOWN_COMMAND, d=never_before)
            if echoed is None or echoed.r == never_before:
                return
        raise RemoteProtocolError(f"{self._name}: the device echoes something else than what it was sent")

    async def check(self) -> None:
        """Raises LinkTimeout where the device does not answer."""
        await self._do("echo", ECHO, unless=UNKNOWN_COMMAND, d="")

    async def info(self, letters: str) -> str:
        """What the firmware says of itself (command INFO); empty where it does not."""
        found = await self._do("say what it is", INFO, unless=UNKNOWN_COMMAND, format=letters)
        return found.output if found else ""

    async def setting(self, name: str) -> bytes | None:
        """A setting's value; None: it has none."""
        found = await self._do(f"give its setting {name}", READ_SETTING, unless=NO_SUCH_SETTING, name=name)
        return found.val if found else None

    async def set(self, name: str, value: bytes) -> None:
        """Give a setting a value that goes with the power, until save()."""
        await self._do(f"take its setting {name}", WRITE_SETTING, name=name, val=value)

    async def save(self, root: str) -> None:
        """Keep the settings below `root`, of older firmware all settings; what has not changed is not written."""
        await self._do("save its settings", SAVE_SETTINGS, name=root)

    async def digest(self, name: str, max_size_bytes: int) -> tuple[bytes, int] | None:
        """SHA-256 and size of a file, by the device where it can; None: nothing is in it, or more than that."""
        unless = NO_SUCH_HASH | NO_SUCH_FILE | EMPTY_FILE
        found = await self._do(f"hash {name}", HASH, unless=unless, name=name, type="sha256")
        if found is not None:
            return (found.output, found.len) if found.len <= max_size_bytes else None
        content = await self.download(name, max_size_bytes)
        return None if content is None else (hashlib.sha256(content).digest(), len(content))

    async def download(self, name: str, max_size_bytes: int) -> bytes | None:
        """A file's content; None: nothing is in it, or more than that."""
        content, size_bytes = b"", 1
        while len(content) < size_bytes:
            chunk = await self._do(f"read {name}", DOWNLOAD, unless=NO_SUCH_FILE, name=name, off=len(content))
            if chunk is None:
                return None
            if not content:
                size_bytes = chunk.len or 0
            if not 0 < size_bytes <= max_size_bytes:
                return None
            if chunk.off != len(content) or not 0 < len(chunk.data) <= size_bytes - chunk.off:
                raise RemoteProtocolError(f"{self._name}: the device gave another part of {name} than it was asked for")
            content += chunk.data
        return content

    async def upload(self, name: str, content: bytes, progress: Progress) -> None:
        """Write a file, always from its beginning, and close it."""
        for _ in range(UPLOADS):
            await self._close()  # Zephyr goes on counting where an upload stopped, even if the next one begins at 0
            if await self._uploaded(name, content, progress):
                await self._close()
                return
            self._line.counters["uploads_again"] += 1
        raise SlotError(f"{self._name}: the device was not where it should be in {name}, {UPLOADS} times")

    async def _uploaded(self, name: str, content: bytes, progress: Progress) -> bool:
        """Whether all is written; not so where an answer was lost, and the chunk that was sent again came twice."""
        done = 0
        while done < len(content):
            fields: dict[str, object] = {"name": name, "off": done}
            if not done:
                fields["len"] = len(content)
            chunk = content[done : done + self._room_bytes(fields)]
            done += len(chunk)
            answer = await self._do(f"write {name}", UPLOAD, unless=WRONG_OFFSET, **fields, data=chunk)
            if answer is None or answer.off != done:
                return False
            progress(done, len(content))
        return True

    def _room_bytes(self, fields: dict[str, object]) -> int:
        """How much of a file fits into a frame beside these fields."""
        empty = encode(Message(UPLOAD.op, UPLOAD.group, UPLOAD.number, 0, {**fields, "data": b""}))
        return (
            self._buffer_bytes - framing.OVERHEAD_BYTES - len(empty) - 2
        )  # CBOR's length of longer data: 2 bytes more

    async def _close(self) -> None:
        """Close what is open; firmware that does not know this does it when the last chunk has come."""
        await self._do("close its files", CLOSE, unless=UNKNOWN_COMMAND)

    async def _do(
        self, what: str, command: Command[T], *, unless: frozenset[Refusal] = frozenset(), **fields: Any
    ) -> T | None:
        """Have it done; None: refused in a way that was to be expected."""
        answer = await self._line.ask(command, **fields)
        if not isinstance(answer, Refusal):
            return answer
        if answer in unless:
            return None
        numbers = f"error {answer.rc}" + ("" if answer.group is None else f" of group {answer.group}")
        raise SlotError(
            f"{self._name}: the device did not {what}: {MEANINGS.get(answer, numbers)}",
            cause="its firmware is built without what the driver needs, or keeps it elsewhere",
            rc=answer.rc,
            group=answer.group,
        )

"""A certificate as an OSDP file: `SecureStore` by FILETRANSFER. One place, written in place, and no way to read it.

    A2 abort ─ 7C file, from its beginning, in fragments ─ 7A status: go on │ all was processed │ refused

The peripheral says that it has processed all bytes; nothing in OSDP tells what it holds afterwards. So this store tells
nothing: an enrolment ends ``unconfirmed`` at best. Source: SIA OSDP 2.2, sections 6.26 and 7.25.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from optima_bridge.errors import LinkTimeout, RemoteProtocolError, SlotError
from optima_bridge.model import DeviceIdentity
from optima_bridge.store import Progress, Readback, SecureStore, SlotState, StoreTraits
from optima_drivers.osdp import messages
from optima_drivers.osdp.codec import HEADER_BYTES, MAC_BYTES, MARK
from optima_drivers.osdp.line import Line
from optima_drivers.osdp.messages import FILE_HEADER_BYTES, FileStatus
from optima_drivers.osdp.panel import SessionLost
from optima_drivers.osdp.peripheral import Peripheral, Refused
from optima_drivers.osdp.secure import BLOCK_BYTES, PAD

MAX_SIZE_BYTES = 4096
TRIES = 3
RESTART_PATIENCE_S = 8.0  # a peripheral may restart to take a file over
FINISH_PATIENCE_S = 20.0  # or think about it
FINISH_PAUSE_S = 0.2
PLAIN_BYTES = len(MARK) + HEADER_BYTES + 2 + 1 + MAC_BYTES + 2  # of a sealed frame: all but its encrypted data
ALL_PROCESSED, RESTARTS, FINISHING = 1, 2, 3


class OsdpStore:
    """The file of one type in one reader."""

    def __init__(self, line: Line, reader: Peripheral, kind: int) -> None:
        self._line = line
        self._reader = reader
        self._kind = kind
        self._room_bytes = 0
        self.traits = StoreTraits(
            slots=1,
            atomic_object=False,
            readback=Readback.NONE,
            max_size_bytes=MAX_SIZE_BYTES,
            can_prove_key=False,
            monotonic=False,
        )

    async def connect(self) -> DeviceIdentity:
        deadline_s = asyncio.get_running_loop().time() + RESTART_PATIENCE_S
        while True:
            try:
                async with self._line.turn:
                    await self._reader.greet()
            except LinkTimeout:
                if asyncio.get_running_loop().time() > deadline_s:
                    raise
            else:
                return self._reader.identity

    async def inspect(self) -> Sequence[SlotState]:
        return [SlotState(0)]

    async def read(self, slot: int) -> bytes:
        raise SlotError(f"a reader does not give files back: nothing is known of slot {slot}")

    async def stage(self, slot: int, certificate: bytes, progress: Progress) -> None:
        if not 0 < len(certificate) <= MAX_SIZE_BYTES:
            raise SlotError(f"a file takes 1 to {MAX_SIZE_BYTES} bytes, the certificate has {len(certificate)}")
        for left in reversed(range(TRIES)):
            try:
                await self._transfer(certificate, progress)
            except (LinkTimeout, SessionLost):
                if not left:
                    raise
            else:
                return

    async def verify(self, slot: int) -> str:
        raise SlotError(f"a reader does not tell what it holds: nothing is known of slot {slot}")

    async def activate(self, slot: int) -> None:
        """Nothing: the reader uses what it has processed."""

    async def confirm(self) -> None:
        """Nothing: the reader has no such memory."""

    async def erase(self, slot: int) -> None:
        raise SlotError(f"slot {slot} is the only one")

    async def recover(self) -> None:
        """Nothing: a file that was cut off is begun anew by the next transfer."""

    async def _transfer(self, certificate: bytes, progress: Progress) -> None:
        """The whole file; between its fragments the line is left to the other readers, and to this one where it allows that.

        Raises:
            SlotError: the reader refuses the file, or takes too long over it.
            LinkTimeout, SessionLost: begin anew.
        """
        reader, clock_s = self._reader, asyncio.get_running_loop().time
        greetings = offset = 0
        finish_by_s = clock_s() + FINISH_PATIENCE_S
        try:
            while True:
                async with self._line.turn:
                    greetings = greetings or await self._begin()
                    if not reader.online or reader.greetings != greetings:
                        raise SessionLost(f"reader {reader.address} lost its session in the middle of a file")
                    fragment = certificate[offset : offset + self._room_bytes]
                    status = await self._say(messages.file_fragment(self._kind, len(certificate), offset, fragment))
                    reader.undisturbed = not status.interleave
                if fragment:
                    offset += len(fragment)
                    progress(offset, len(certificate))
                    finish_by_s = clock_s() + FINISH_PATIENCE_S
                if offset == len(certificate) and status.status in (ALL_PROCESSED, RESTARTS):
                    return
                pause_s = _pause_s(status)
                if clock_s() + pause_s > finish_by_s:
                    raise SlotError(f"reader {reader.address} does not finish with the file")
                await asyncio.sleep(pause_s)
        finally:
            reader.undisturbed = False

    async def _begin(self) -> int:
        """A session, and no file from before in it; returns which session."""
        if not self._reader.online:
            await self._reader.greet()
        with suppress(Refused):  # there was none
            await self._reader.ask(messages.ABORT)
        self._room_bytes = fragment_bytes(self._reader.receive_bytes)
        return self._reader.greetings

    async def _say(self, fragment: bytes) -> FileStatus:
        try:
            reply = await self._reader.ask(fragment)
        except Refused as error:
            raise SlotError(f"{error}: it takes no such file") from error
        if not isinstance(reply, FileStatus):
            raise RemoteProtocolError(f"reader {self._reader.address} does not say what became of a file")
        if reply.status < 0:
            raise SlotError(f"reader {self._reader.address} refuses the file (status {reply.status})")
        if reply.max_message_bytes:
            self._room_bytes = fragment_bytes(reply.max_message_bytes)
        return reply


def _pause_s(status: FileStatus) -> float:
    return max(status.delay_ms / 1000, FINISH_PAUSE_S if status.status == FINISHING else 0)


def fragment_bytes(max_message_bytes: int) -> int:
    """How much of a file fits into one sealed frame of that size."""
    encrypted_bytes = (max_message_bytes - PLAIN_BYTES) // BLOCK_BYTES * BLOCK_BYTES
    return max(1, encrypted_bytes - len(PAD) - FILE_HEADER_BYTES)


_conforms: type[SecureStore] = OsdpStore

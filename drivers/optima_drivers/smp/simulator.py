"""A controller with Zephyr's MCUmgr: its console line on one side, its files and settings on the other. Sans-io.

    simulator = SmpSimulator(serial="TILL-3")
    async with PtyServer(simulator) as server: ...      # optima_bridge.link.ptys

    simulator.memory.cut_at(17, When.TORN)              # its power goes in the 17th operation on its memory
    simulator.restart()
    simulator.credential()                              # what the terminal uses after that

Refereed by smpclient and mcumgr-toolkit.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from optima_bridge.errors import FrameError
from optima_drivers.smp import framing, layout
from optima_drivers.smp.commands import FILES, OS, SETTINGS
from optima_drivers.smp.firmware import DIRECTORY, Body, Firmware
from optima_drivers.smp.memory import Memory, PowerCut
from optima_drivers.smp.message import Message, Op, Refusal, encode, parse

FROM_END = 6  # where a damaged answer is damaged: in its last line, before characters that mean only a part of a byte
IN_VERSION_1 = {
    Refusal(3, FILES): 5,
    Refusal(13, FILES): 3,
    Refusal(14, FILES): 5,
    Refusal(2, OS): 3,
    Refusal(3, SETTINGS): 5,
}
"""fs_mgmt_translate_error_code() and its likes; the others become 1, unknown."""


@dataclass
class Faults:
    """How this device differs from a complete one; counts run down to 0 by themselves.

    Attributes:
        version: 0: its firmware speaks SMP version 1.
        refusals: what it answers instead, by group and number of the command.
        lost_requests, lost_answers: frames that get lost on their way.
        damaged_answers: answers with a flipped bit.
        late_answers: answers that come only before the next one.
        console: text that it says before each answer.
    """

    version: int = 1
    refusals: Mapping[tuple[int, int], Refusal] = field(default_factory=dict)
    lost_requests: int = 0
    lost_answers: int = 0
    damaged_answers: int = 0
    late_answers: int = 0
    console: bytes = b""


class SmpSimulator:
    """One controller.

    Attributes:
        memory: its files and settings; its power is the device's.
        faults: what is wrong with it.
        on_power_cut: called when the power goes; a test pulls the plug of its link here.
    """

    def __init__(
        self,
        serial: str = "0",
        *,
        model: str = "simulated_mcu",
        firmware: str = "4.3.0",
        buffer_bytes: int = 384,
        chunk_bytes: int = 256,
    ) -> None:
        self.memory = Memory()
        self.faults = Faults()
        self.on_power_cut: Callable[[], None] = lambda: None
        self._buffer_bytes = buffer_bytes
        words = {"s": "Zephyr", "v": firmware, "i": model}
        self._boot = partial(Firmware, self.memory, serial, words, buffer_bytes, chunk_bytes)
        self._late = b""
        self.restart()

    def restart(self) -> None:
        """Give the power back."""
        self.memory.restart()
        self._firmware = self._boot()
        self._decoder = framing.Decoder()

    def credential(self) -> bytes | None:
        """The certificate that the terminal takes when its power comes back; None: it has none."""
        image = self.memory.image
        pointer = layout.pointer(image.saved.get(layout.ACTIVE))
        if pointer is None or pointer.slot == layout.NO_SLOT:
            return None
        content = image.files.get(layout.file(DIRECTORY, pointer.slot), b"")
        meant = image.saved.get(layout.digest_key(pointer.slot))
        return content if hashlib.sha256(content).digest() == meant else None

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host, split or glued as they came; returns the answers."""
        answers = b""
        for frame in self._decoder.feed(data) if self.memory.powered else ():
            if isinstance(frame, FrameError) or len(frame) > self._buffer_bytes - framing.OVERHEAD_BYTES:
                continue
            try:
                answers += self._answer(parse(frame))
            except FrameError:
                continue
            except PowerCut:
                self.on_power_cut()
                break
        return answers

    def _answer(self, asked: Message) -> bytes:
        faults = self.faults
        if asked.op not in (Op.READ, Op.WRITE):
            return b""
        if faults.lost_requests:
            faults.lost_requests -= 1
            return b""
        body = self._do(asked)
        reply = Message(
            Op(asked.op + 1), asked.group, asked.command, asked.sequence, body, min(asked.version, faults.version)
        )
        answer = faults.console + framing.encode(encode(reply))
        if faults.lost_answers:
            faults.lost_answers -= 1
            return b""
        if faults.damaged_answers:
            faults.damaged_answers -= 1
            return answer[:-FROM_END] + bytes([answer[-FROM_END] ^ 1]) + answer[1 - FROM_END :]
        if faults.late_answers:
            faults.late_answers -= 1
            self._late += answer
            return b""
        answer, self._late = self._late + answer, b""
        return answer

    def _do(self, asked: Message) -> Body:
        refusal = self.faults.refusals.get((asked.group, asked.command))
        done = self._firmware.do(asked) if refusal is None else refusal
        if not isinstance(done, Refusal):
            return done
        if done.group is None:
            return {"rc": done.rc}
        if not self.faults.version:
            return {"rc": IN_VERSION_1.get(done, 1)}
        return {"err": {"group": done.group, "rc": done.rc}}

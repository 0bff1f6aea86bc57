"""The loopback device itself: a person's hands on one side, its bytes on the other.

    simulator = LoopbackSimulator()
    async with PtyServer(simulator) as server:      # optima_bridge.link.ptys
        simulator.attach(server.send)
        simulator.key_in("01B7BA1000000075")

A fresh simulator has no key in it, an empty secure memory, and says nothing of what it was not told.

    simulator.flash.cut_at(17, When.TORN)           # its power goes in the 17th operation on its memory
    simulator.flash.restart()
    simulator.credential()                          # what the terminal uses after that
"""

from __future__ import annotations

from collections.abc import Callable

from optima_drivers.loopback import slots
from optima_drivers.loopback.codec import (
    CONTROLLER_STATUS,
    MAX_DATA_BYTES,
    Card,
    Controller,
    Decoder,
    Identity,
    KeyIn,
    KeyOut,
    Lock,
    Memory,
    Message,
    Query,
    Seal,
    Verb,
    encode,
)
from optima_drivers.loopback.flash import Flash, PowerCut

SLOTS = 2


class LoopbackSimulator:
    """Speaks the codec from the device's side. Each method sends its message and remembers the state it leaves.

    Attributes:
        flash: the secure memory; its power is the device's: without it nothing is answered.
        on_power_cut: called when the power goes; a test pulls the plug of its link here.
    """

    def __init__(self, model: str = "loopback", serial: str = "0", firmware: str = "1") -> None:
        self.flash = Flash(SLOTS * slots.REGION_BYTES)
        self.on_power_cut: Callable[[], None] = lambda: None
        self._identity = Identity(model, serial, firmware)
        self._states: dict[str, Message] = {"key": KeyOut()}
        self._decoder = Decoder()
        self._send: Callable[[bytes], None] | None = None

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say what happens through `send` from now on; before, nobody hears it."""
        self._send = send

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host; returns the answers."""
        answers: list[Message] = []
        for message in self._decoder.feed(data) if self.flash.powered else ():
            if isinstance(message, Query):
                answers += [*self._states.values(), self._identity]
            elif isinstance(message, Memory):
                try:
                    answers.append(self._operate(message))
                except PowerCut:
                    self._decoder = Decoder()
                    self.on_power_cut()
                    break
        return b"".join(map(encode, answers))

    def credential(self) -> bytes | None:
        """The certificate that the terminal takes when its power comes back; None: it has none."""
        best, certificate = 0, None
        for slot in range(SLOTS):
            region = bytes(self.flash.content[slot * slots.REGION_BYTES :][: slots.REGION_BYTES])
            page, data = region[: slots.PAGE_BYTES], region[slots.PAGE_BYTES :]
            record = slots.newest(page, data)
            if record is not None and record.active and record.generation > best:
                best, certificate = record.generation, data[: record.size_bytes]
        return certificate

    def key_in(self, rom: str) -> None:
        """Put a key in; `rom` is 16 upper-case hex digits."""
        self._tell("key", KeyIn(rom))

    def key_out(self) -> None:
        """Take the key out."""
        self._tell("key", KeyOut())

    def card(self, number: str) -> None:
        """Show a card for a moment; `number` is 10 upper-case hex digits."""
        self._say(encode(Card(number)))

    def lock(self, position_code: int) -> None:
        """Turn the keylock: UnifiedPOS 1, 2, 3, or 0 between two."""
        self._tell("lock", Lock(position_code))

    def seal(self, is_open: bool) -> None:
        """Open or close the seal switch."""
        self._tell("seal", Seal(is_open))

    def controller(self, word: str, code: str = "") -> None:
        """Let the controller report ``READY``, ``BUSY``, ``PENDING``, or ``ERROR`` with a `code` of digits."""
        self._tell("controller", Controller(CONTROLLER_STATUS.get(word, ""), code))

    def _operate(self, asked: Memory) -> Memory:
        flash, address, data = self.flash, asked.address, asked.data
        room_bytes = len(flash.content) - address
        match asked.verb:
            case Verb.READ if len(data) == 1 and 0 < data[0] <= min(MAX_DATA_BYTES, room_bytes):
                return Memory(Verb.DATA, address, flash.read(address, data[0]))
            case Verb.WRITE if len(data) <= room_bytes:
                flash.program(address, data)
                return Memory(Verb.WROTE, address)
            case Verb.ERASE if room_bytes > 0:
                flash.erase(address)
                return Memory(Verb.ERASED, address)
        return Memory(Verb.DENIED, address)

    def _tell(self, what: str, message: Message) -> None:
        frame = encode(message)  # refuses what the protocol cannot say, before it becomes a state
        self._states[what] = message
        self._say(frame)

    def _say(self, frame: bytes) -> None:
        if self._send is not None and self.flash.powered:
            self._send(frame)

"""The loopback device itself: a person's hands on one side, its bytes on the other.

    simulator = LoopbackSimulator()
    async with PtyServer(simulator) as server:      # optima_bridge.link.ptys
        simulator.attach(server.send)
        simulator.key_in("01B7BA1000000075")

A fresh simulator has no key in it, and says nothing of what it was not told.
"""

from __future__ import annotations

from collections.abc import Callable

from optima_drivers.loopback.codec import (
    CONTROLLER_STATUS,
    Card,
    Controller,
    Decoder,
    Identity,
    KeyIn,
    KeyOut,
    Lock,
    Message,
    Query,
    Seal,
    encode,
)


class LoopbackSimulator:
    """Speaks the codec from the device's side. Each method sends its message and remembers the state it leaves."""

    def __init__(self, model: str = "loopback", serial: str = "0", firmware: str = "1") -> None:
        self._identity = Identity(model, serial, firmware)
        self._states: dict[str, Message] = {"key": KeyOut()}
        self._decoder = Decoder()
        self._send: Callable[[bytes], None] | None = None

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say what happens through `send` from now on; before, nobody hears it."""
        self._send = send

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host; returns the answers."""
        asked = [message for message in self._decoder.feed(data) if isinstance(message, Query)]
        return b"".join(encode(message) for _ in asked for message in (*self._states.values(), self._identity))

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

    def _tell(self, what: str, message: Message) -> None:
        frame = encode(message)  # refuses what the protocol cannot say, before it becomes a state
        self._states[what] = message
        self._say(frame)

    def _say(self, frame: bytes) -> None:
        if self._send is not None:
            self._send(frame)

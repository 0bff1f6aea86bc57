"""The reader's side, with cards that are put into its field and taken away. Needs a running event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from optima_driver_rc522_serial.codec import ASK, encode


class Rc522SerialSimulator:
    """Sends one line each look.

    Args:
        look_ms: from one look to the next.
        model: what it answers when it is asked who it is.
    """

    def __init__(self, look_ms: float = 100, model: str = "rc522-serial") -> None:
        self._look_s = look_ms / 1000
        self._model = model
        self._uids: list[str] = []
        self._asked = bytearray()
        self._send: Callable[[bytes], None] | None = None

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say what happens through `send` from now on."""
        begun, self._send = self._send is not None, send
        if not begun:
            self._look()

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host, cut anywhere; answer each question."""
        self._asked += data
        questions = self._asked.count(ASK)
        self._asked = self._asked[self._asked.rfind(b"\n") + 1 :][-len(ASK) :]
        return encode("ID", self._model, "1.0") * questions

    def put(self, uid: str) -> None:
        """Hold a card in the field, beside those that are there."""
        if uid not in self._uids:
            self._uids.append(uid)

    def lift(self) -> None:
        """Take all cards away."""
        self._uids.clear()

    def _look(self) -> None:
        assert self._send is not None
        self._send(encode("CARD", *self._uids))
        asyncio.get_running_loop().call_later(self._look_s, self._look)

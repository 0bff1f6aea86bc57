"""The device's side, for whoever has no such device at hand."""

from __future__ import annotations

from collections.abc import Callable


class TemplateSimulator:
    """The device's side: says through `attach`ed send what its switch does."""

    def __init__(self) -> None:
        self._send: Callable[[bytes], None] | None = None

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say what happens through `send` from now on."""
        self._send = send

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the host: this device answers nothing."""
        return b""

    def seal(self, is_open: bool) -> None:
        """Open or close the switch."""
        if self._send is not None:
            self._send(b"O\n" if is_open else b"C\n")

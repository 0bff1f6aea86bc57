"""The seal switch's bytes: one line for each change, and nothing to ask.

    4f 0a    "O\n"  the seal was opened        8N1, 9600 baud, the device only talks
    43 0a    "C\n"  the seal was closed

Specification: name the document and its section here. This one is our own, for `docs/howto/write-a-driver.md`.
"""

from __future__ import annotations

from optima_bridge.errors import FrameError, FrameTooLong

LINES = {b"O": True, b"C": False}
MAX_LINE_BYTES = 1


class Decoder:
    """The codec: bytes in, messages out. It knows no port and no clock, so every case is a test of one line."""

    def __init__(self) -> None:
        self._line = bytearray()

    def feed(self, data: bytes) -> list[bool | FrameError]:
        """Take bytes as they come, cut anywhere; True: the seal is open. Never raises, never holds more than a line."""
        results: list[bool | FrameError] = []
        for byte in data:
            if byte != ord("\n"):
                if len(self._line) <= MAX_LINE_BYTES:  # one more than allowed is enough to know that it is too long
                    self._line.append(byte)
                continue
            line = bytes(self._line)
            self._line.clear()
            if line in LINES:
                results.append(LINES[line])
            elif len(line) > MAX_LINE_BYTES:
                results.append(FrameTooLong(f"a line of more than {MAX_LINE_BYTES} character"))
            else:
                results.append(FrameError("a line that is neither O nor C", kind="characters"))
        return results

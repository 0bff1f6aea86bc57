"""OSDP readers in software, byte exact: one on a line, or several. Sans-io, but for `simulator_on_pty`.

    reader = OsdpSimulator(key=bytes.fromhex("…"))
    async with simulator_on_pty(reader) as path:
        reader.card("A0B0C0", bits=24)

It keeps to the specification where programs differ: a command that comes again with its old number gets its old answer,
in the very same bytes. Refereed by the control panels of libosdp and of PyPI `osdp`. Source: SIA OSDP 2.2.
"""

from __future__ import annotations

import secrets
import struct
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from optima_bridge.errors import FrameError
from optima_bridge.link.ptys import ByteDevice, PtyServer
from optima_drivers.osdp import messages
from optima_drivers.osdp.codec import MAC_TYPES, MARK, Frame, FrameDecoder
from optima_drivers.osdp.messages import NakCode
from optima_drivers.osdp.panel import CCRYPT_BLOCK, R_MAC_BLOCK
from optima_drivers.osdp.secure import DEFAULT_KEY, RANDOM_BYTES, SecureChannel, SessionKeys

CLIENT_UID = bytes.fromhex("0102020044332211")
ACK = bytes([messages.ACK])
BUSY = bytes([messages.BUSY])
RECEIVE_BYTES = 256
FILE_HEADER = struct.Struct("<BIIH")


@dataclass
class Faults:
    """Faults to order; counts run down to 0 by themselves.

    Attributes:
        dead: nothing is heard and nothing answered.
        lost_commands, lost_replies: that many frames get lost on their way.
        damaged_replies: replies with one bit turned over.
        busy: commands that are answered by BUSY.
        dies_at_fragment: its power goes when it gets that fragment of a file, 1 is the next one; 0: never.
        plain_events: what happened is said in the clear, as by an impostor.
    """

    dead: bool = False
    lost_commands: int = 0
    lost_replies: int = 0
    damaged_replies: int = 0
    busy: int = 0
    dies_at_fragment: int = 0
    plain_events: bool = False

    def take(self, name: str) -> bool:
        """Whether the next one of these is due; counts it."""
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


class OsdpSimulator:
    """One reader.

    Args:
        address: on the line.
        key: of its secure channel; then nothing but the greeting is answered in the clear.
        install: it takes a key over the default key.
        refused: codes of commands that it does not do.
        serial: its serial number.

    Attributes:
        key: as above; KEYSET changes it.
        faults: what is wrong with it.
        lights, beeps: commands for LED and buzzer that it got: reader and colour; reader.
        files: complete ones by type.
        exclusive_files: it wants nothing else said between the fragments of a file.
    """

    def __init__(
        self,
        address: int = 0,
        *,
        key: bytes | None = None,
        install: bool = False,
        refused: Sequence[int] = (),
        serial: int = 1,
    ) -> None:
        self.address = address
        self.key = key
        self.faults = Faults()
        self.lights: list[tuple[int, int]] = []
        self.beeps: list[int] = []
        self.files: dict[int, bytes] = {}
        self.exclusive_files = False
        self._install = install
        self._refused = refused
        self._serial = serial
        self._decoder = FrameDecoder()
        self._events: deque[bytes] = deque()
        self._inputs = [False] * 4
        self._local = bytes(2)
        self._head = 0
        self.restart()

    def restart(self) -> None:
        """Switch it off and on."""
        self._sequence = -1
        self._last: tuple[bytes, bytes] = b"", b""  # the last command and its reply, as they went over the line
        self._handshake: tuple[SessionKeys, bytes, bytes] | None = None
        self._channel: SecureChannel | None = None
        self._file = bytearray()

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the panel; return the replies."""
        if self.faults.dead:
            return b""
        return b"".join(self._answer(frame) for frame in self._decoder.feed(data) if isinstance(frame, Frame))

    def card(self, data: str, bits: int, *, reader: int = 0, wiegand: bool = True) -> None:
        """Show a card; `data` is its bits as hexadecimal digits, first bit first."""
        self._events.append(struct.pack("<BBBH", messages.CARD, reader, wiegand, bits) + bytes.fromhex(data))

    def keys(self, digits: str, *, reader: int = 0) -> None:
        """Press keys."""
        self._events.append(bytes([messages.KEYPAD, reader, len(digits)]) + digits.encode("ascii"))

    def input(self, number: int, *, active: bool) -> None:
        """Open or close a contact; 1 is the first."""
        self._inputs[number - 1] = active
        self._events.append(self._input_report())

    def local(self, *, tampered: bool = False, power_failed: bool = False) -> None:
        """Open the housing, cut the supply, or neither."""
        self._local = bytes([tampered, power_failed])
        self._events.append(bytes([messages.LOCAL]) + self._local)

    def head(self, status: int) -> None:
        """Connect the head behind it (0), take it away (1), or tamper with it (2)."""
        self._head = status
        self._events.append(bytes([messages.READERS, status]))

    def say(self, body: bytes) -> None:
        """Answer the next poll with this."""
        self._events.append(body)

    def _answer(self, frame: Frame) -> bytes:
        if frame.is_reply or frame.address != self.address or self.faults.take("lost_commands"):
            return b""
        if self.faults.take("busy"):
            return MARK + Frame(self.address, is_reply=True, sequence=0, body=BUSY).encode()
        raw = frame.encode()
        if raw == self._last[0] and frame.sequence:
            reply = self._last[1]
        else:
            reply = self._reply_to(frame).encode()
            self._last = raw, reply
        if self.faults.dead or self.faults.take("lost_replies"):
            return b""
        if self.faults.take("damaged_replies"):
            reply = reply[:6] + bytes([reply[6] ^ 0x10]) + reply[7:]
        return MARK + reply

    def _reply_to(self, frame: Frame) -> Frame:
        if frame.sequence == 0:
            self._channel = None
        elif frame.sequence != self._sequence % 3 + 1:
            return self._refuse(frame, NakCode.SEQUENCE)
        self._sequence = frame.sequence
        body, channel = frame.body, self._channel
        sealed = bool(frame.security) and frame.security[0] in MAC_TYPES
        if sealed:
            if channel is None:
                return self._refuse(frame, NakCode.SECURITY_NEEDED)
            try:
                body = channel.open(frame)
            except FrameError:
                self._channel = None
                return self._refuse(frame, NakCode.SECURITY_NEEDED)
        elif channel is not None or (
            self.key is not None and not frame.security and body not in (messages.IDENTIFY, messages.CAPABILITIES)
        ):
            self._channel = None
            return self._refuse(frame, NakCode.SECURITY_NEEDED)
        event = body == messages.POLL and bool(self._events)
        reply, block = self._do(body[0], body[1:], frame.security)
        answer = Frame(self.address, is_reply=True, sequence=frame.sequence, body=reply, security=block, crc=frame.crc)
        if channel is None or (event and self.faults.plain_events):
            return answer
        return channel.seal(answer)

    def _do(self, code: int, data: bytes, security: bytes) -> tuple[bytes, bytes]:
        """What a command in the clear is answered with, and in which security block."""
        if code in self._refused:
            return _nak(NakCode.UNKNOWN_COMMAND), b""
        match bytes([code]) + data:
            case messages.POLL:
                return (self._events.popleft() if self._events else ACK), b""
            case messages.IDENTIFY:
                numbers = struct.pack("<3s2BI3B", b"\x56\x34\x12", 1, 2, self._serial, 1, 0, 3)
                return bytes([messages.IDENTITY]) + numbers, b""
            case messages.CAPABILITIES:
                entries = [
                    (1, 1, len(self._inputs)),
                    (4, 1, 1),
                    (5, 1, 1),
                    (8, 1, 0),
                    (10, *struct.pack("<H", RECEIVE_BYTES)),
                ]
                if self.key is not None or self._install:
                    entries.append((9, 1, 1))
                return bytes([messages.CAPABILITY_LIST]) + b"".join(map(bytes, entries)), b""
            case messages.LOCAL_STATUS:
                return bytes([messages.LOCAL]) + self._local, b""
            case messages.INPUT_STATUS:
                return self._input_report(), b""
            case messages.HEAD_STATUS:
                return bytes([messages.READERS, self._head]), b""
            case messages.ABORT:
                self._file.clear()
                return ACK, b""
        return self._do_more(code, data, security)

    def _do_more(self, code: int, data: bytes, security: bytes) -> tuple[bytes, bytes]:
        match code:
            case messages.LED:
                self.lights.append((data[0], data[5]))
                return ACK, b""
            case messages.BUZZER:
                self.beeps.append(data[0])
                return ACK, b""
            case messages.FILE_TRANSFER:
                return self._take_file(data), b""
            case messages.KEY_SET if self._channel is not None and data[:2] == b"\x01\x10":
                self.key, self._install = data[2:], False
                return ACK, b""
            case messages.CHALLENGE:
                return self._challenged(data, security)
            case messages.SERVER_CRYPTOGRAM:
                return self._proved(data)
        return _nak(NakCode.UNKNOWN_COMMAND), b""

    def _challenged(self, random_a: bytes, security: bytes) -> tuple[bytes, bytes]:
        default = self._install and security[1:] == b"\x00"
        key = DEFAULT_KEY if default else self.key  # PyPI's `osdp` names the default key and means its own
        if key is None:
            return _nak(NakCode.SECURITY_UNSUPPORTED), b""
        keys, random_b = SessionKeys.derive(key, random_a), secrets.token_bytes(RANDOM_BYTES)
        self._handshake = keys, random_a, random_b
        reply = CLIENT_UID + random_b + keys.cryptogram(random_a, random_b)
        return bytes([messages.CLIENT_CRYPTOGRAM]) + reply, bytes([CCRYPT_BLOCK, not default])

    def _proved(self, cryptogram: bytes) -> tuple[bytes, bytes]:
        handshake, self._handshake = self._handshake, None
        if handshake is None or cryptogram != handshake[0].cryptogram(handshake[2], handshake[1]):
            return _nak(NakCode.SECURITY_NEEDED), b""
        mac = handshake[0].first_mac(cryptogram)
        self._channel = SecureChannel(handshake[0], mac)
        return bytes([messages.INITIAL_R_MAC]) + mac, bytes([R_MAC_BLOCK, 1])

    def _take_file(self, data: bytes) -> bytes:
        self.faults.dead = self.faults.dies_at_fragment == 1
        if self.faults.take("dies_at_fragment") and self.faults.dead:
            return ACK  # nobody hears it
        kind, size_bytes, offset, _ = FILE_HEADER.unpack_from(data)
        fragment = data[FILE_HEADER.size :]
        status = 0
        if offset == 0 and fragment:
            self._file.clear()
        if offset != len(self._file):
            status = -3
        self._file += fragment
        if len(self._file) == size_bytes and status == 0:
            self.files[kind] = bytes(self._file)
            status = 1
        return bytes([messages.FILE_STATUS]) + struct.pack("<BHhH", not self.exclusive_files, 0, status, 0)

    def _input_report(self) -> bytes:
        return bytes([messages.INPUTS, *self._inputs])

    def _refuse(self, frame: Frame, code: NakCode) -> Frame:
        return Frame(self.address, is_reply=True, sequence=frame.sequence, body=_nak(code), crc=frame.crc)


class OsdpBus:
    """Several readers on one line: all hear everything."""

    def __init__(self, *readers: OsdpSimulator) -> None:
        self.readers = readers

    def receive(self, data: bytes) -> bytes:
        """Take bytes of the panel; return what the readers answer."""
        return b"".join(reader.receive(data) for reader in self.readers)


@asynccontextmanager
async def simulator_on_pty(device: ByteDevice, baud: int | None = None) -> AsyncIterator[str]:
    """Serve a reader, or a line of them, on a pty; yields its path."""
    async with PtyServer(device, baud=baud) as server:
        yield server.path


def _nak(code: NakCode) -> bytes:
    return bytes([messages.NAK, code])

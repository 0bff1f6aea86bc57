"""A PN532 at its serial port, byte exact, with cards in its field. Sans-io; `simulator_on_pty` gives it a port.

Refereed by nfcpy. Not simulated: other cards than ISO 14443A, what is in them, the time that the field needs.
Source: PN532 user manual UM0701-02, 6.2 and 7.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from optima_bridge.errors import FrameError
from optima_bridge.link.ptys import PtyServer
from optima_drivers.pn532.cards import CHIP, ISO_14443_4, MAX_CARDS, UID_SIZES_BYTES, Card, Command
from optima_drivers.pn532.codec import FROM_CHIP, TO_CHIP, Frame, FrameDecoder, Message, Signal, encode

VERSION = bytes([CHIP, 0x01, 0x06, 0x07])
WAKE_BYTES = 10
AUTOMATIC_RATS = 0x10  # in SET_PARAMETERS
RETRIES_ITEM, FIELD_ITEM, FOR_EVER = 5, 1, 0xFF
RF_ON = 0x01  # of the data of FIELD_ITEM
FIFO_DATA = 0x6339  # a register: after a list without an answer the REQA is still in it
REQA = 0x26

CLASSIC = Card(bytes.fromhex("DEADBEEF"), 0x0004, 0x08)
NTAG = Card(bytes.fromhex("04A1B2C3D4E5F6"), 0x0044, 0x00)
DESFIRE = Card(bytes.fromhex("04112233445566"), 0x0344, 0x20, bytes.fromhex("067577810280"))


class OtherCommand(IntEnum):
    """Commands that other programs use."""

    READ_REGISTER = 0x06
    WRITE_REGISTER = 0x08
    SET_SERIAL_BAUD_RATE = 0x10
    POWER_DOWN = 0x16
    IN_RELEASE = 0x52


@dataclass
class Faults:
    """Faults to order; counts run down to 0 by themselves.

    Attributes:
        dead: nothing is taken and nothing answered.
        version: the answer to GET_FIRMWARE_VERSION.
        echo: how the line test gives its text back.
        refuses: commands that are answered by an error frame.
        lost_commands: commands that get lost on their way to the chip.
        lost_acks: commands that are carried out without an acknowledgement.
        lost_answers: answers that get lost on their way to the host; a NACK brings them.
        bad_checksums: answers with a wrong checksum, those to a NACK too.
        late_answers: answers that come only with the next frame.
        empty_lists: lists that find nobody, whoever is there.
        noise: what stands in front of every answer.
    """

    dead: bool = False
    version: bytes = VERSION
    echo: Callable[[bytes], bytes] = bytes
    refuses: Collection[int] = ()
    lost_commands: int = 0
    lost_acks: int = 0
    lost_answers: int = 0
    bad_checksums: int = 0
    late_answers: int = 0
    empty_lists: int = 0
    noise: bytes = b""

    def falls_due(self, name: str) -> bool:
        """Whether the fault of this name happens now; counts it down."""
        left: int = getattr(self, name)
        setattr(self, name, max(0, left - 1))
        return left > 0


@dataclass
class Settings:
    """What a power failure takes away."""

    awake: bool = False
    parameters: int = 0x14
    retries: int = FOR_EVER
    field_on: bool = False
    registers: dict[int, int] = field(default_factory=dict)


class Pn532Simulator:
    """The chip.

    Attributes:
        cards: who is in the field; may change at any time by `put` and `lift`.
        faults: what is wrong.
        settings: as the host made them.
        log: codes of the commands that were carried out.
    """

    def __init__(self) -> None:
        self.cards: list[Card] = []
        self.faults = Faults()
        self.log: list[int] = []
        self._send: Callable[[bytes], None] = lambda _data: None
        self._random = itertools.count(1)
        self.power_cycle()

    def power_cycle(self) -> None:
        """The power fails for a moment: all settings are lost, and the chip sleeps."""
        self.settings = Settings()
        self._wake_bytes = 0
        self._decoder = FrameDecoder()
        self._waiting: bytes | None = None  # a list without end
        self._last = self._late = b""

    def attach(self, send: Callable[[bytes], None]) -> None:
        """Say where an answer goes that comes by itself: to a list without end."""
        self._send = send

    def put(self, card: Card | str) -> Card:
        """Put a card into the field, beside those that are there; a UID in hex is a card of that size."""
        if isinstance(card, str):
            uid = bytes.fromhex(card)
            card = Card(uid, CLASSIC.atqa | UID_SIZES_BYTES.index(len(uid)) << 6, CLASSIC.sak)
        self.cards.append(card)
        if self._waiting is not None:
            request, self._waiting = self._waiting, None
            self._send(self._answer(Command.IN_LIST_PASSIVE_TARGET, self._list(request)))
        return card

    def lift(self, card: Card | None = None) -> None:
        """Take this card away, or all."""
        self.cards = [other for other in self.cards if card is not None and other is not card]

    def receive(self, data: bytes) -> bytes:
        """Take bytes from the host, split or glued as they came; return the answers."""
        if self.faults.dead:
            return b""
        return b"".join(map(self._frame, self._decoder.feed(self._awake_for(data))))

    def _awake_for(self, data: bytes) -> bytes:
        """`data` without what was lost in waking up."""
        for index, byte in enumerate(data):
            if self.settings.awake:
                return data[index:]
            self._wake_bytes += byte in (0x00, 0x55)
            self.settings.awake = self._wake_bytes >= WAKE_BYTES
        return b""

    def _frame(self, frame: Frame | FrameError) -> bytes:
        if frame is Signal.NACK:
            return self._spoiled(self._last)
        self._waiting = None  # by any other frame, an ACK too
        if not isinstance(frame, Message) or frame.direction != TO_CHIP or self.faults.falls_due("lost_commands"):
            return b""
        late, self._late = self._late, b""
        ack = b"" if self.faults.falls_due("lost_acks") else Signal.ACK.value
        self.log.append(frame.code)
        try:
            data = self._carry_out(frame.code, frame.data)
        except IndexError:  # parameters are missing
            data = Signal.ERROR
        answer = b"" if data is None else self._answer(frame.code, data)
        if answer and self.faults.falls_due("late_answers"):
            self._late, answer = answer, b""
        return late + ack + self.faults.noise + answer

    def _answer(self, code: int, data: bytes | Signal) -> bytes:
        frame = data.value if isinstance(data, Signal) else encode(Message(FROM_CHIP, code + 1, data))
        self._last = frame
        return b"" if self.faults.falls_due("lost_answers") else self._spoiled(frame)

    def _spoiled(self, frame: bytes) -> bytes:
        if not frame or not self.faults.falls_due("bad_checksums"):
            return frame
        return frame[:-2] + bytes([frame[-2] ^ 1, frame[-1]])

    def _carry_out(self, code: int, data: bytes) -> bytes | Signal | None:
        """The data of the answer, or an error; None where there is none yet."""
        settings = self.settings
        match code:
            case _ if code in self.faults.refuses:
                return Signal.ERROR
            case Command.DIAGNOSE:
                return self.faults.echo(data)
            case Command.GET_FIRMWARE_VERSION:
                return self.faults.version
            case Command.SET_PARAMETERS:
                settings.parameters = data[0]
            case Command.RF_CONFIGURATION if data[0] == RETRIES_ITEM:
                settings.retries = data[3]
            case Command.RF_CONFIGURATION if data[0] == FIELD_ITEM:
                settings.field_on = bool(data[1] & RF_ON)
                self._new_random_uids()
            case Command.IN_LIST_PASSIVE_TARGET:
                answer = self._list(data)
                if answer[0] or settings.retries != FOR_EVER:
                    return answer
                self._waiting = data
                return None
            case OtherCommand.READ_REGISTER:
                addresses = (data[at] << 8 | data[at + 1] for at in range(0, len(data), 2))
                return bytes(settings.registers.get(address, 0) for address in addresses)
            case OtherCommand.WRITE_REGISTER:
                settings.registers |= {data[at] << 8 | data[at + 1]: data[at + 2] for at in range(0, len(data), 3)}
            case OtherCommand.POWER_DOWN:
                settings.awake, self._wake_bytes = False, 0
                return b"\x00"
            case OtherCommand.IN_RELEASE:
                return b"\x00"
            case Command.SAM_CONFIGURATION | Command.RF_CONFIGURATION | OtherCommand.SET_SERIAL_BAUD_RATE:
                pass
            case _:
                return Signal.ERROR
        return b""

    def _list(self, request: bytes) -> bytes:
        """The answer to IN_LIST_PASSIVE_TARGET, of type A; after max and baud rate there may be one UID to look for."""
        most, wanted = min(request[0], MAX_CARDS), request[2:]
        present = [] if request[1] or self.faults.falls_due("empty_lists") else self.cards
        found = [card for card in present if wanted in (b"", card.uid)][:most]
        self.settings.registers[FIFO_DATA] = REQA
        self.settings.field_on = True
        return bytes([len(found)]) + b"".join(self._target(number + 1, card) for number, card in enumerate(found))

    def _target(self, number: int, card: Card) -> bytes:
        with_ats = card.sak & ISO_14443_4 and self.settings.parameters & AUTOMATIC_RATS
        head = bytes([number, card.atqa >> 8, card.atqa & 0xFF, card.sak, len(card.uid)])
        return head + card.uid + (card.ats if with_ats else b"")

    def _new_random_uids(self) -> None:
        self.cards = [
            Card(b"\x08" + next(self._random).to_bytes(3, "big"), card.atqa, card.sak, card.ats)
            if card.has_random_uid
            else card
            for card in self.cards
        ]


@asynccontextmanager
async def simulator_on_pty(
    simulator: Pn532Simulator, *, symlink: Path | None = None, baud: int | None = None
) -> AsyncIterator[str]:
    """Serve `simulator` on a pty; gives the path to open. Arguments as in `PtyServer`; ``baud=115200`` for a real pace."""
    async with PtyServer(simulator, symlink=symlink, baud=baud) as server:
        simulator.attach(server.send)
        yield server.path

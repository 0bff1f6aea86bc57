"""Simulated keys and the wire they share, one time slot at a time. Sans-io; used by the simulators."""

from __future__ import annotations

from collections.abc import Generator

from optima_bridge.wire.onewire import Rom

READ_ROM, READ_ROM_OLD, SEARCH_ROM = 0x33, 0x0F, 0xF0
ROM_BITS = 64

# Yields the level a slave drives in the next slot (0 pulls low, 1 lets go), is sent the level the line took.
Conversation = Generator[int, int, None]


class OneWireSlave:
    """A DS1990A: a ROM and the commands 33, 0F, 55, CC and F0; after them it has nothing to say.

    Attributes:
        rom: 8 bytes in wire order; a wrong CRC is allowed here.
        drives: the level it drives in the coming slot.
        damaged_reads: how many of its next answers have a wrong CRC byte.
    """

    def __init__(self, rom: bytes) -> None:
        self.rom = rom
        self.damaged_reads = 0
        self.reset()

    def reset(self) -> None:
        """Back to the ROM command level."""
        self._conversation: Conversation | None = self._talk()
        self.drives = next(self._conversation)

    def clock(self, level: int) -> None:
        """One slot has passed; the line was at `level`."""
        if self._conversation is None:
            return
        try:
            self.drives = self._conversation.send(level)
        except StopIteration:
            self._conversation, self.drives = None, 1

    def _talk(self) -> Conversation:
        command = 0
        for index in range(8):
            command |= (yield 1) << index
        if command in (READ_ROM, READ_ROM_OLD):
            for bit in self._spoken_bits():
                yield bit
        elif command == SEARCH_ROM:
            for bit in self._spoken_bits():
                yield bit
                yield 1 - bit
                if (yield 1) != bit:
                    return  # the search went the other way: silent until the next reset

    def _spoken_bits(self) -> list[int]:
        number = int.from_bytes(self.rom, "little")
        if self.damaged_reads:
            self.damaged_reads -= 1
            number ^= 1 << 60
        return [number >> index & 1 for index in range(ROM_BITS)]


class OneWireBus:
    """The wire: low if the master or anybody on it pulls low.

    Attributes:
        keys: who is on it; may change at any time.
        short: the line is held low for good.
        lift_after_slots: all keys leave that many slots after the next reset; None: they stay.
    """

    def __init__(self) -> None:
        self.keys: list[OneWireSlave] = []
        self.short = False
        self.lift_after_slots: int | None = None
        self._slots = 0

    def put(self, rom: str | bytes) -> OneWireSlave:
        """Put one more key on the wire; text in any form that `Rom.from_text` takes."""
        slave = OneWireSlave(Rom.from_text(rom).wire if isinstance(rom, str) else rom)
        self.keys.append(slave)
        return slave

    def lift(self, slave: OneWireSlave | None = None) -> None:
        """Take this key away, or all."""
        self.keys = [key for key in self.keys if slave is not None and key is not slave]

    def reset(self) -> None:
        self._slots = 0
        for key in self.keys:
            key.reset()

    def slot(self, level: int) -> int:
        """One time slot in which the master sends `level`, or reads with 1; returns the level of the line."""
        if self._slots == self.lift_after_slots:
            self.lift()
            self.lift_after_slots = None
        self._slots += 1
        for key in self.keys:
            level &= key.drives
        if self.short:
            level = 0
        for key in self.keys:
            key.clock(level)
        return level

"""The simulated DS2480B answers byte for byte as the worked exchanges say."""

from __future__ import annotations

import pytest

from optima_bridge.wire.onewire_slaves import OneWireBus
from optima_drivers.ds2480b.simulator import Ds2480bSimulator, Mode

ROM_A = "017856341200004E"
ROM_B = "0101EFCDAB00002C"
ROM_ESCAPED = "01F1E1E3E300008D"
SEARCH = f"E1 F0 E3 B1 E1 {'00 ' * 16} E3 A1"

EXCHANGES = [
    ("detection", [], "17 45 5B 0F 91", "16 44 5A 00 93"),
    ("read ROM of a key", [ROM_A], "C1 E1 33 FF FF FF FF FF FF FF FF E3 C1", "CD 33 01 78 56 34 12 00 00 4E CD"),
    ("read ROM by its old code", [ROM_A], "C1 E1 0F FF FF FF FF FF FF FF FF E3", "CD 0F 01 78 56 34 12 00 00 4E"),
    ("reset of an empty line", [], "C1", "CF"),
    ("read ROM of an empty line", [], "C1 E1 33 FF FF FF FF FF FF FF FF E3", "CF 33" + "FF" * 8),
    ("read ROM of two keys: the AND", [ROM_A, ROM_B], "C1 E1 33 FF FF FF E3", "CD 33 01 00 46"),
    ("search, one key", [ROM_A], "C1" + SEARCH, "CD F0 02 00 80 2A 28 22 20 0A 08 02 00 00 00 00 A8 20"),
    ("search, two keys", [ROM_A, ROM_B], "C1" + SEARCH, "CD F0 02 00 81 2A 28 22 20 0A 08 02 00 00 00 00 A8 20"),
    (
        "search, the other key",
        [ROM_A, ROM_B],
        f"C1 E1 F0 E3 B1 E1 02 00 02 00 {'00 ' * 12} E3 A1",
        "CD F0 02 00 03 00 AA A8 A2 A0 8A 88 00 00 00 00 A0 08",
    ),
    ("search, nobody", [], "C1" + SEARCH, "CF F0" + "FF" * 16),
    ("a path byte E3", [], "C1 E1 F0 E3 B1 E1 E3 E3 00 E3 A1 C1", "CF F0 FF FF CF"),
    (
        "match ROM, escaped",
        [ROM_ESCAPED],
        "C1 E1 55 01 F1 E1 E3 E3 E3 E3 00 00 8D E3",
        "CD 55 01 F1 E1 E3 E3 00 00 8D",
    ),
    ("after match ROM a key has nothing to say", [ROM_A], "C1 E1 55 01 78 56 34 12 00 00 4E FF E3 C1", "CD 55 01 78 56 34 12 00 00 4E FF CD"),
    ("after skip ROM a key has nothing to say", [ROM_A], "C1 E1 CC FF FF E3 C1", "CD CC FF FF CD"),
    ("single bits", [], "91 81 93", "93 80 93 EF"),
    ("baud codes", [], "71 0F", "70 00"),
    ("configuration is written and read back", [], "17 03 45 09", "16 06 44 04"),
    ("defaults", [], "03 05 07 09 0B 0F", "00 08 08 00 00 00"),
    ("illegal commands", [], "00 10 C0 FE C3", ""),
    ("mode changes", [], "E3 F1 E1 E3 F1", ""),
    ("pulses", [], "EF ED", "EC EC"),
    ("an armed pull-up", [], "EF E1 FF 00 E3 ED", "EC FF F6 00 76 EC"),
    ("E3 twice is one byte of data", [], "C1 E1 E3 E3 FF E3 C1", "CF E3 FF CF"),
]  # fmt: skip


@pytest.mark.parametrize("size_bytes", [1, 3, 1000])
@pytest.mark.parametrize(("keys", "sent", "answered"), [e[1:] for e in EXCHANGES], ids=[e[0] for e in EXCHANGES])
def test_exchange(keys: list[str], sent: str, answered: str, size_bytes: int) -> None:
    simulator = Ds2480bSimulator()
    simulator.receive(b"\xc1")
    for rom in keys:
        simulator.put(rom)
    data = bytes.fromhex(sent)
    answer = b"".join(simulator.receive(data[i : i + size_bytes]) for i in range(0, len(data), size_bytes))
    assert answer.hex(" ") == bytes.fromhex(answered).hex(" ")


def test_the_first_byte_after_a_break_calibrates_and_is_not_answered() -> None:
    simulator = Ds2480bSimulator()
    assert simulator.receive(b"\xc1\xc1") == b"\xcf"
    simulator.receive(b"\x17")
    simulator.break_()
    assert simulator.receive(b"\xc1\xc1\x03") == b"\xcf\x00"  # the configuration is the default again


def test_an_endless_pulse_ends_by_f1_only() -> None:
    simulator = Ds2480bSimulator()
    assert simulator.receive(bytes.fromhex("C1 3F EF C1 E3 C1")) == b"\x3e"
    assert simulator.mode is Mode.PULSE
    assert simulator.receive(b"\xf1\xc1") == b"\xec\xcf"


def test_faults_of_the_line_show_in_the_reset() -> None:
    simulator = Ds2480bSimulator()
    simulator.receive(b"\xc1")
    simulator.put(ROM_A)
    simulator.bus.short = True
    assert simulator.receive(b"\xc1") == b"\xcc"
    assert simulator.receive(bytes.fromhex("91 E1 FF E3")) == b"\x90\x00"
    simulator.bus.short = False
    simulator.faults.alarm = True
    assert simulator.receive(b"\xc1") == b"\xce"
    simulator.faults.no_presence = True
    assert simulator.receive(b"\xc1") == b"\xcf"
    simulator.faults.no_presence = False
    simulator.faults.alarm = False
    simulator.faults.revision = 2
    assert simulator.receive(b"\xc1") == b"\xc9"


def test_a_key_lifted_during_read_rom_reads_ones_from_there() -> None:
    simulator = Ds2480bSimulator()
    simulator.receive(b"\xc1")
    simulator.put(ROM_A)
    simulator.bus.lift_after_slots = 8 + 24
    assert simulator.receive(bytes.fromhex("C1 E1 33" + "FF" * 8 + "E3 C1")).hex() == "cd33017856" + "ff" * 5 + "cf"


def test_a_key_lifted_during_a_search_leaves_nobody_from_there() -> None:
    simulator = Ds2480bSimulator()
    simulator.receive(b"\xc1")
    simulator.put(ROM_A)
    simulator.bus.lift_after_slots = 8 + 3 * 32
    answer = simulator.receive(bytes.fromhex("C1" + SEARCH))
    assert answer.hex() == "cdf0020080" + "2a28222" + "00a" + "ff" * 8


def test_a_damaged_read_has_a_wrong_crc_once() -> None:
    simulator = Ds2480bSimulator()
    simulator.receive(b"\xc1")
    key = simulator.put(ROM_A)
    key.damaged_reads = 1
    read_rom = bytes.fromhex("C1 E1 33" + "FF" * 8 + "E3")
    assert simulator.receive(read_rom).hex() == "cd33" + "0178563412000" + "05e"
    assert simulator.receive(read_rom).hex() == "cd33" + "017856341200004e"


def test_arrivals_are_told_in_command_mode_only() -> None:
    simulator, told = Ds2480bSimulator(), bytearray()
    simulator.attach(told.extend)
    simulator.put(ROM_A)  # not calibrated yet
    simulator.receive(b"\xc1")
    simulator.put(ROM_A)
    assert told == b"\x01"
    simulator.receive(b"\xe1")
    simulator.put(ROM_A)
    simulator.receive(b"\xe3\xf1")
    simulator.faults.arrival_byte = None
    simulator.put(ROM_A)
    assert told == b"\x01"


def test_lost_and_late_bytes_count_down() -> None:
    simulator = Ds2480bSimulator()
    simulator.receive(b"\xc1")
    simulator.faults.lost_bytes = 2
    assert simulator.receive(b"\xc1\x03\x0f") == b"\x00"
    simulator.faults.lost_answers = 1
    assert simulator.receive(b"\xc1\x0f") == b"\x00"
    simulator.faults.late_answers = 1
    assert simulator.receive(b"\xc1") == b""
    assert simulator.receive(b"\x0f") == b"\xcf\x00"
    simulator.faults.dead = True
    assert simulator.receive(b"\xc1") == b""


def test_keys_are_lifted_one_by_one_or_all() -> None:
    bus = OneWireBus()
    first = bus.put(ROM_A)
    bus.put(ROM_B)
    bus.lift(first)
    assert [key.rom.hex().upper() for key in bus.keys] == [ROM_B]
    bus.put(ROM_A)
    bus.lift()
    assert bus.keys == []

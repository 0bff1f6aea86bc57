"""The PN532 simulator, byte by byte: published exchanges, sleep, lists without end."""

from __future__ import annotations

import pytest

from optima_drivers.pn532.cards import Card
from optima_drivers.pn532.codec import Signal
from optima_drivers.pn532.simulator import CLASSIC, DESFIRE, NTAG, Pn532Simulator

ACK = Signal.ACK.value.hex(" ").upper()
NONE = "00 00 FF 03 FD D5 4B 00 E0 00"
ONE_CLASSIC = "00 00 FF 0C F4 D5 4B 01 01 00 04 08 04 DE AD BE EF 96 00"
ONE_NTAG = "00 00 FF 0F F1 D5 4B 01 01 00 44 00 07 04 A1 B2 C3 D4 E5 F6 CA 00"
BOTH = "00 00 FF 18 E8 D5 4B 02 01 00 04 08 04 DE AD BE EF 02 00 44 00 07 04 A1 B2 C3 D4 E5 F6 7F 00"
ONE_DESFIRE = "00 00 FF 15 EB D5 4B 01 01 03 44 20 07 04 11 22 33 44 55 66 06 75 77 81 02 80 12 00"
LIST_ONE, LIST_TWO = "00 00 FF 04 FC D4 4A 01 00 E1 00", "00 00 FF 04 FC D4 4A 02 00 E0 00"
TRY_TWICE, CONFIGURED = "00 00 FF 06 FA D4 32 05 FF 01 01 F4 00", "00 00 FF 02 FE D5 33 F8 00"
GET_VERSION, VERSION = "00 00 FF 02 FE D4 02 2A 00", "00 00 FF 06 FA D5 03 32 01 06 07 E8 00"


def awake(*cards: Card) -> Pn532Simulator:
    simulator = Pn532Simulator()
    assert simulator.receive(b"\x55\x55" + bytes(14)) == b""
    assert ask(simulator, TRY_TWICE) == f"{ACK} {CONFIGURED}"
    for card in cards:
        simulator.put(card)
    return simulator


def ask(simulator: Pn532Simulator, frame: str) -> str:
    return simulator.receive(bytes.fromhex(frame)).hex(" ").upper()


@pytest.mark.parametrize(
    ("cards", "asked", "answer"),
    [
        ((), GET_VERSION, VERSION),
        ((), "00 00 FF 05 FB D4 14 01 00 00 17 00", "00 00 FF 02 FE D5 15 16 00"),
        ((), "00 00 FF 04 FC D4 32 01 01 F8 00", CONFIGURED),
        ((), "00 00 FF 09 F7 D4 00 00 6C 69 62 6E 66 63 BE 00", "00 00 FF 09 F7 D5 01 00 6C 69 62 6E 66 63 BC 00"),
        ((), "00 00 FF 03 FD D4 10 04 18 00", "00 00 FF 02 FE D5 11 1A 00"),
        ((), "00 00 FF 03 FD D4 52 00 DA 00", "00 00 FF 03 FD D5 53 00 D8 00"),
        ((), "00 00 FF 03 FD D4 98 00 94 00", Signal.ERROR.value.hex(" ").upper()),
        ((), "00 00 FF 02 FE D4 12 1A 00", Signal.ERROR.value.hex(" ").upper()),  # without its parameter
        ((), LIST_ONE, NONE),
        ((CLASSIC,), LIST_ONE, ONE_CLASSIC),
        ((NTAG,), LIST_ONE, ONE_NTAG),
        ((DESFIRE,), LIST_ONE, ONE_DESFIRE),
        ((CLASSIC, NTAG), LIST_TWO, BOTH),
        ((CLASSIC, NTAG), LIST_ONE, ONE_CLASSIC),
        ((NTAG, CLASSIC), "00 00 FF 08 F8 D4 4A 01 00 DE AD BE EF A9 00", ONE_CLASSIC),
        ((NTAG,), "00 00 FF 08 F8 D4 4A 01 00 DE AD BE EF A9 00", NONE),
    ],
)
def test_it_answers_as_published(cards: tuple[Card, ...], asked: str, answer: str) -> None:
    assert ask(awake(*cards), asked) == f"{ACK} {answer}"


def test_bytes_come_glued_or_one_by_one() -> None:
    simulator = awake()
    assert ask(simulator, GET_VERSION * 2) == " ".join([ACK, VERSION] * 2)
    assert b"".join(simulator.receive(bytes([byte])) for byte in bytes.fromhex(GET_VERSION)).hex(" ").upper() == f"{ACK} {VERSION}"  # fmt: skip


def test_it_sleeps_until_enough_bytes_came_and_after_a_power_down() -> None:
    simulator = Pn532Simulator()
    assert ask(simulator, GET_VERSION) == ""
    simulator.power_cycle()
    assert ask(simulator, "00 " * 10 + GET_VERSION) == f"{ACK} {VERSION}"
    assert ask(simulator, "00 00 FF 03 FD D4 16 10 06 00") == f"{ACK} 00 00 FF 03 FD D5 17 00 14 00"
    assert ask(simulator, GET_VERSION) == ""
    assert ask(simulator, "55 " * 10 + GET_VERSION) == f"{ACK} {VERSION}"


def test_a_damaged_command_and_an_answer_from_the_wrong_side_are_ignored() -> None:
    simulator = awake()
    assert ask(simulator, "00 00 FF 02 FE D4 02 2B 00") == ""
    assert ask(simulator, "00 00 FF 02 FE D5 15 16 00") == ""


def test_a_nack_brings_the_last_answer_again() -> None:
    simulator = awake(NTAG)
    assert ask(simulator, LIST_ONE) == f"{ACK} {ONE_NTAG}"
    simulator.lift()
    nack = Signal.NACK.value.hex()
    assert ask(simulator, nack) == ONE_NTAG
    assert ask(simulator, nack) == ONE_NTAG
    assert ask(awake(), nack) == CONFIGURED


def test_a_list_without_end_is_answered_when_a_card_comes_or_ended_by_an_ack() -> None:
    said: list[str] = []
    simulator = awake()
    simulator.attach(lambda data: said.append(data.hex(" ").upper()))
    assert ask(simulator, "00 00 FF 06 FA D4 32 05 FF 01 FF F6 00") == f"{ACK} {CONFIGURED}"
    assert ask(simulator, LIST_ONE) == ACK
    simulator.put(CLASSIC)
    assert said == [ONE_CLASSIC]
    simulator.lift()
    assert ask(simulator, LIST_ONE) == ACK
    assert ask(simulator, ACK) == ""
    simulator.put(CLASSIC)
    assert said == [ONE_CLASSIC]


def test_a_uid_in_hex_is_a_card_of_that_size() -> None:
    simulator = Pn532Simulator()
    assert [simulator.put(uid).atqa for uid in ("01020304", "04A1B2C3D4E5F6", "04A1B2C3D4E5F6A7B8C9")] == [
        0x0004, 0x0044, 0x0084
    ]  # fmt: skip


def test_registers_keep_what_is_written() -> None:
    simulator = awake()
    assert ask(simulator, "00 00 FF 05 FB D4 08 63 03 59 65 00") == f"{ACK} 00 00 FF 02 FE D5 09 22 00"
    assert ask(simulator, "00 00 FF 04 FC D4 06 63 03 C0 00") == f"{ACK} 00 00 FF 03 FD D5 07 59 CB 00"

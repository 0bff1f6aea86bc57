"""The virtual PIV card by itself: strict about lengths, order and who may do what; the referees are in tests/pcscd."""

from __future__ import annotations

import hashlib
import socket
import threading
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256, SHA384
from cryptography.hazmat.primitives.serialization import load_der_private_key

from optima_drivers.pcsc import tlv, vpcd
from optima_drivers.pcsc.apdu import Command
from optima_drivers.pcsc.management import Algorithm, decrypt, encrypt
from optima_drivers.pcsc.virtual_card import ATR, MANAGEMENT_KEY, PIN, Refused, VirtualPivCard, parse
from optima_drivers.pcsc.virtual_files import Writes

SELECT = "00A4040005A000000308"
OBJECT = 0x5FC10A


def say(card: VirtualPivCard, *commands: str) -> str:
    """The last answer."""
    answer = b""
    for command in commands:
        answer = card.exchange(bytes.fromhex(command))
    return answer.hex()


def logged_in(card: VirtualPivCard) -> VirtualPivCard:
    say(card, SELECT)
    witness = card.exchange(bytes.fromhex("0087039B047C02800000"))
    shown = decrypt(Algorithm.TDES, MANAGEMENT_KEY, witness[4:-2])
    assert card.exchange(bytes.fromhex("0087039B0C7C0A8008") + shown)[-2:] == b"\x90\x00"
    return card


def put(card: VirtualPivCard, tag: int, value: bytes) -> list[str]:
    data = tlv.encode(0x5C, tag.to_bytes(3)) + tlv.encode(0x53, value)
    return [card.exchange(piece).hex() for piece in Command(0xDB, 0x3F, 0xFF, data, answers=False).pieces()]


@pytest.mark.parametrize(
    ("apdu", "data", "wanted"),
    [
        ("00FD0000", "", 256),
        ("00FD000000", "", 256),
        ("00FD000004", "", 4),
        ("00FD0000020102", "0102", 256),
        ("00FD000002010207", "0102", 7),
        ("00FD0000000000", "", 65536),
        ("00FD0000000123", "", 0x123),
        ("00FD00000000020102", "0102", 256),
        ("00FD000000000201020100", "0102", 256),
    ],
)
def test_all_cases_of_a_command_are_understood(apdu: str, data: str, wanted: int) -> None:
    assert parse(bytes.fromhex(apdu)) == (0x00, 0xFD, 0x00, 0x00, bytes.fromhex(data), wanted)


@pytest.mark.parametrize(
    "apdu", ["", "00FD00", "00FD00000201", "00FD000002010203FF", "00FD0000000002AA", "00FD00000000000102"]
)
def test_lengths_that_do_not_fit_are_refused(apdu: str) -> None:
    with pytest.raises(Refused) as caught:
        parse(bytes.fromhex(apdu))
    assert caught.value.status == 0x6700


@pytest.mark.parametrize(
    ("commands", "answer"),
    [
        (["00FD000000"], "6985"),
        (["00A4040004A0000003"], "6a82"),
        (["00A4040006A00000030801"], "6a82"),
        (["00A4000005A000000308"], "6a86"),
        (["00A404000BA000000308000010000100"], "61254f0600001000010079074f05a00000030850124f7074696d61207669727475616c205049569000"),
        ([SELECT, "80FD000000"], "6e00"),
        ([SELECT, "FFCA000000"], "6e00"),
        ([SELECT, "0099000000"], "6d00"),
        ([SELECT, "00F8000000"], "6d00"),
        ([SELECT, "00FD000000"], "0403059000"),
        ([SELECT, "00CB3F00055C035FC10200"], "6a86"),
        ([SELECT, "00CB3FFF055C035FC10A00"], "6a82"),
        ([SELECT, "00CB3FFF055C035FC10900"], "6982"),
        ([SELECT, "00CB3FFF025C0500"], "6a80"),
        ([SELECT, "00CB3FFF035C017E00"], "7e124f0ba0000003080000100001005f2f0240009000"),
        ([SELECT, "00CB3FFF035C017E03", "00C0000000"], "0ba0000003080000100001005f2f0240009000"),
        (["00DB3FFF075C035FC10A5300"], "6985"),
        ([SELECT, "00DB3FFF075C035FC10A5300"], "6982"),
        ([SELECT, "0047009E05AC038001110000"], "6700"),
        ([SELECT, "0047009E05AC0380011100"], "6982"),
        ([SELECT, "0047019E05AC0380011100"], "6a86"),
        ([SELECT, "0087119A067C048200810000"], "6a88"),
        ([SELECT, "0087089B047C02800000"], "6a86"),
        ([SELECT, "0087039B0C7C0A8008000000000000000000"], "6982"),
        ([SELECT, "0087039B047C02830000"], "6a80"),
        ([SELECT, "0087039B047C02820000"], "6982"),
        ([SELECT, "0087039B027C008000"], "6700"),
    ],
)  # fmt: skip
def test_a_command_is_answered_as_the_standard_says(commands: list[str], answer: str) -> None:
    assert say(VirtualPivCard(), *commands) == answer


def test_a_pin_is_tried_three_times() -> None:
    card = VirtualPivCard()
    verify, wrong = "0020008008" + PIN.hex(), "0020008008" + "31" * 8
    assert say(card, SELECT, "00200080") == "63c3"
    assert say(card, wrong) == "63c2"
    assert say(card, verify, "00200080") == "9000"
    assert [say(card, wrong) for _ in range(4)] == ["63c2", "63c1", "63c0", "6983"]
    assert say(card, verify) == "6983"
    assert say(card, "0020008108" + "31" * 8) == "6a86"


def test_the_management_key_is_shown_in_two_ways_and_forgotten_at_the_next_select() -> None:
    card = logged_in(VirtualPivCard())
    assert put(card, OBJECT, b"abc") == ["9000"]
    say(card, SELECT)
    assert put(card, OBJECT, b"abc") == ["6982"]
    challenge = card.exchange(bytes.fromhex("0087039B047C02810000"))
    shown = encrypt(Algorithm.TDES, MANAGEMENT_KEY, challenge[4:-2])
    assert card.exchange(bytes.fromhex("0087039B0C7C0A8208") + shown).hex() == "9000"
    assert put(card, OBJECT, b"abc") == ["9000"]
    card.reset()
    assert put(card, OBJECT, b"abc") == ["6985"]


def test_objects_come_and_go_in_pieces() -> None:
    card = logged_in(VirtualPivCard())
    assert put(card, OBJECT, bytes(700)) == ["9000"] * 3
    first = card.exchange(bytes.fromhex("00CB3FFF055C035FC10A00"))
    assert (first[:4].hex(), first[-2:].hex()) == ("538202bc", "6100")
    rest = card.exchange(bytes.fromhex("00C0000000"))
    last = card.exchange(bytes.fromhex("00C00000C0"))
    assert (rest[-2:].hex(), len(first + rest + last), last[-2:].hex()) == ("61c0", 704 + 6, "9000")
    assert card.exchange(bytes.fromhex("00CB3FFF0000055C035FC10A0000"))[:-2] == first[:-2] + rest[:-2] + last[:-2]
    assert put(card, OBJECT, b"") == ["9000"]
    assert say(card, "00CB3FFF055C035FC10A00") == "6a82"
    assert put(card, OBJECT, bytes(3200))[-1] == "6a84"


def test_a_chain_that_another_command_breaks_is_forgotten() -> None:
    card = logged_in(VirtualPivCard())
    put(card, OBJECT, b"old")
    data = tlv.encode(0x5C, OBJECT.to_bytes(3)) + tlv.encode(0x53, bytes(300))
    first, last = Command(0xDB, 0x3F, 0xFF, data, answers=False).pieces()
    card.exchange(first)
    assert say(card, "00CB3FFF055C035FC10A00") == "53036f6c649000"
    assert card.exchange(last).hex() == "6a80"
    assert say(card, "00CB3FFF055C035FC10A00") == "53036f6c649000"
    assert say(card, "10CB3FFF025C03", "00CB3FFF035FC10A00") == "53036f6c649000"


@pytest.mark.parametrize(
    "wrong", ["5C025FC1530000", "5C035FC10A530161"[:-2], "5C035FC10A5381016100", "5D035FC10A530161"]
)
def test_what_is_no_object_is_not_written(wrong: str) -> None:
    card = logged_in(VirtualPivCard())
    assert say(card, f"00DB3FFF{len(wrong) // 2:02X}{wrong}") == "6a80"
    assert say(card, "00DB3F00075C035FC10A5300") == "6a86"


@pytest.mark.parametrize(("writes", "left"), [(Writes.ATOMIC, "old"), (Writes.IN_PLACE, "mixed"), (Writes.ANEW, "cut")])
def test_cards_differ_in_what_a_power_cut_leaves(writes: Writes, left: str) -> None:
    card = VirtualPivCard(writes=writes)
    put(logged_in(card), OBJECT, bytes(600))
    card.cut_at(2, "before")
    assert put(card, OBJECT, b"\xff" * 500) == ["9000", ""]
    there = card.files.objects[OBJECT]
    come = 255 - 9
    assert there == {"old": bytes(600), "mixed": b"\xff" * come + bytes(500 - come), "cut": b"\xff" * come}[left]
    assert say(card, SELECT) == ""
    card.restart()
    assert say(card, SELECT)[-4:] == "9000"
    assert put(card, OBJECT, b"") == ["6982"]


@pytest.mark.parametrize("writes", list(Writes))
def test_a_torn_command_has_written_a_part(writes: Writes) -> None:
    seen = set()
    for seed in range(60):
        card = VirtualPivCard(writes=writes)
        put(logged_in(card), OBJECT, b"\x01" * 8)
        card.cut_at(1, "torn", seed)
        assert put(card, OBJECT, b"\x02" * 8) == [""]
        seen.add(card.files.objects.get(OBJECT, b""))
    assert seen >= {b"\x01" * 8, b"\x02" * 8}
    assert (len(seen) > 2) is (writes is not Writes.ATOMIC)


@pytest.mark.parametrize(("number", "slot"), [(0x11, 0x9E), (0x14, 0x82), (0x07, 0x9C)])
def test_keys_are_made_and_sign(number: int, slot: int) -> None:
    card = logged_in(VirtualPivCard())
    made = card.exchange(bytes([0, 0x47, 0, slot, 5, 0xAC, 3, 0x80, 1, number, 0]))
    assert made[:2].hex() == "7f49"
    key = load_der_private_key(card.files.keys[slot][1], None)
    verify = "0020008008" + PIN.hex()
    if isinstance(key, rsa.RSAPrivateKey):
        digest = hashlib.sha256(b"text").digest()
        padded = (
            b"\x00\x01" + b"\xff" * 202 + b"\x00" + bytes.fromhex("3031300d060960864801650304020105000420") + digest
        )
    else:
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        padded = digest = hashlib.new("sha256" if number == 0x11 else "sha384", b"text").digest()
    template = tlv.encode(0x7C, tlv.encode(0x82, b"") + tlv.encode(0x81, padded))

    def sign(data: bytes = template) -> bytes:
        answer = b""
        for piece in Command(0x87, number, slot, data).pieces():
            answer = card.exchange(piece)
        while answer[-2] == 0x61:
            answer = answer[:-2] + card.exchange(bytes([0, 0xC0, 0, 0, answer[-1]]))
        return answer

    if slot != 0x9E:
        assert sign().hex() == "6982"
        say(card, verify)
    answer = sign()
    signature = tlv.only(0x82, tlv.only(0x7C, answer[:-2]))
    if isinstance(key, rsa.RSAPrivateKey):
        key.public_key().verify(signature, b"text", padding.PKCS1v15(), SHA256())
        assert sign().hex() == "6982"  # 9C wants the PIN each time
        say(card, verify)
    else:
        kind = SHA256() if number == 0x11 else SHA384()
        key.public_key().verify(signature, digest, ec.ECDSA(Prehashed(kind)))
    assert sign(tlv.encode(0x7C, tlv.encode(0x82, b"") + tlv.encode(0x81, b"short"))).hex() == "6a80"
    say(card, verify)
    assert sign(tlv.encode(0x7C, tlv.encode(0x85, padded))).hex() == "6a80"


@pytest.mark.parametrize(
    ("command", "answer"),
    [("0047009E05AC0380019900", "6a80"), ("0047009905AC0380011100", "6a86"), ("0047009E02AC0000", "6a86")],
)
def test_what_is_no_kind_of_key_is_not_made(command: str, answer: str) -> None:
    assert say(logged_in(VirtualPivCard()), command) == answer


def test_the_uid_is_told_where_the_card_has_one() -> None:
    assert say(VirtualPivCard(uid=b"\x04\x01\x02\x03"), "FFCA000000") == "040102039000"


def test_what_was_written_is_there_after_a_restart(tmp_path: Path) -> None:
    memory = tmp_path / "card.json"
    card = logged_in(VirtualPivCard(memory))
    put(card, OBJECT, b"kept")
    say(card, "0047009E05AC0380011100", "0020008008" + "31" * 8)
    again = VirtualPivCard(memory)
    assert (again.files.objects, again.files.keys, again.files.pin_tries) == (card.files.objects, card.files.keys, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["card.json"]


def test_the_runner_is_the_card_on_the_readers_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        connection = socket.create_connection(server.getsockname())
        reader, _ = server.accept()
    reader.settimeout(10)
    card = VirtualPivCard()
    serving = threading.Thread(target=vpcd.serve, args=(connection, card), daemon=True)
    serving.start()
    reader.sendall(b"\x00\x01\x01\x00\x01\x04")
    assert reader.recv(100) == bytes([0, len(ATR)]) + ATR
    select = bytes.fromhex(SELECT)
    for part in (b"\x00", bytes([len(select)]) + select[:3], select[3:]):
        reader.sendall(part)
    assert reader.recv(100)[-2:] == b"\x90\x00"
    reader.sendall(b"\x00\x01\x02\x00\x05\x00\xfd\x00\x00\x00")
    assert reader.recv(100) == b"\x00\x02\x69\x85"
    card.cut_at(1, "before")
    reader.sendall(b"\x00\x05\x00\xfd\x00\x00\x00")
    assert reader.recv(100) == b""
    serving.join(10)
    assert not serving.is_alive()
    reader.close()

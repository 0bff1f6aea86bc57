"""A PIV card's secure memory on a reader in memory: its steps, its key, its secrets, and what goes wrong halfway."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from optima_bridge.enroll.engine import enroll
from optima_bridge.enroll.journal import HostJournal
from optima_bridge.enroll.recover import recover
from optima_bridge.enroll.words import Outcome, Request, Result, fingerprint
from optima_bridge.errors import (
    BridgeError,
    ConfigError,
    DeviceError,
    FrameError,
    FrameTooLong,
    NotAuthorised,
    RemoteProtocolError,
    SecretLocked,
    SecretMissing,
    SingleSlot,
    SlotError,
    TokenAbsent,
    WriteUncertain,
    WrongDevice,
    WrongSecret,
)
from optima_bridge.store import Readback, SlotState
from optima_drivers.pcsc import objects, tlv
from optima_drivers.pcsc.management import Algorithm
from optima_drivers.pcsc.store import MAIN, PREVIOUS, STAGE
from optima_drivers.pcsc.virtual_card import LABEL, MANAGEMENT_KEY, VirtualPivCard
from optima_drivers.pcsc.virtual_files import Writes
from tests.drivers.piv import Bench, key_file, silent

chance = random.Random(7)
OLD, NEW, FOREIGN = chance.randbytes(400), chance.randbytes(400), chance.randbytes(300)
NUMBER = bytes(range(1, 17)).hex().upper()


async def put(bench: Bench, certificate: bytes) -> None:
    await bench.store.stage(STAGE, certificate, silent)
    await bench.store.activate(STAGE)
    await bench.store.confirm()


def held(bench: Bench) -> list[bytes | None]:
    """What is in STAGE, MAIN and PREVIOUS."""
    values = [bench.object(tag) for tag in (objects.STAGE, objects.MAIN, objects.PREVIOUS)]
    return [objects.certificate(value) if value else None for value in values]


# -- the steps


async def test_an_empty_card_has_empty_slots(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    identity = await bench.store.connect()
    assert (identity.model, identity.serial) == (LABEL.decode(), NUMBER)
    assert await bench.store.inspect() == [SlotState(STAGE), SlotState(MAIN), SlotState(PREVIOUS)]
    assert await bench.store.verify(MAIN) == ""
    for nothing in (bench.store.read, bench.store.activate):
        with pytest.raises(SlotError, match="holds no valid certificate"):
            await nothing(MAIN)


async def test_a_certificate_goes_through_stage_to_main_and_the_old_one_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await put(bench, OLD)
    told: list[tuple[int, int]] = []
    await bench.store.stage(STAGE, NEW, lambda done, size: told.append((done, size)))
    assert told == [(255, 400), (400, 400)]
    assert held(bench) == [NEW, OLD, None]
    assert await bench.store.verify(STAGE) == fingerprint(NEW)
    await bench.store.activate(STAGE)
    assert held(bench) == [NEW, NEW, OLD]
    active = SlotState(MAIN, sha256=fingerprint(NEW), size_bytes=400, valid=True, active=True)
    assert (await bench.store.inspect())[MAIN] == active
    await bench.store.confirm()
    assert held(bench) == [None, NEW, OLD]
    assert (await bench.store.inspect())[MAIN].confirmed
    assert await bench.store.read(MAIN) == NEW
    await bench.store.activate(PREVIOUS)
    assert held(bench) == [None, OLD, OLD]


async def test_what_was_done_is_not_done_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await put(bench, OLD)
    await put(bench, NEW)
    before = bench.card.writes
    for again in (bench.store.activate(MAIN), bench.store.confirm(), bench.store.erase(STAGE), bench.store.recover()):
        await again
    assert bench.card.writes == before
    await bench.store.erase(PREVIOUS)
    assert held(bench) == [None, NEW, None]


@pytest.mark.parametrize("size_bytes", [0, 1857])
async def test_what_does_not_fit_is_not_begun(size_bytes: int, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(SlotError, match="1856 bytes"):
        await bench.store.stage(STAGE, bytes(size_bytes), silent)
    assert bench.card.writes == 0


async def test_the_largest_certificate_fits_into_all_slots(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_certificate_bytes=2900)
    for certificate in (bytes(2900), bytes([1]) * 2900):
        await put(bench, certificate)
    assert held(bench) == [None, bytes([1]) * 2900, bytes(2900)]


async def test_a_card_that_is_full_says_so(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_certificate_bytes=8192)
    with pytest.raises(SlotError, match="not enough memory"):
        await bench.store.stage(STAGE, bytes(4000), silent)


async def test_main_is_neither_staged_nor_erased(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await put(bench, OLD)
    before = bench.card.writes
    with pytest.raises(SlotError, match="by activating another slot only"):
        await bench.store.stage(MAIN, NEW, silent)
    with pytest.raises(SlotError, match="cannot be erased"):
        await bench.store.erase(MAIN)
    assert bench.card.writes == before


async def test_a_certificate_of_another_program_is_active_confirmed_and_kept(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.card.files.objects[objects.MAIN] = tlv.encode(0x70, FOREIGN) + bytes.fromhex("710100fe00")
    [_, main, _] = await bench.store.inspect()
    assert (main.sha256, main.active, main.confirmed) == (fingerprint(FOREIGN), True, True)
    await put(bench, NEW)
    assert held(bench) == [None, NEW, FOREIGN]


def test_the_traits_say_what_a_power_cut_does(tmp_path: Path) -> None:
    careful, vendor = Bench(tmp_path).store.traits, Bench(tmp_path, atomic_put_data=True).store.traits
    assert (careful.slots, careful.readback, careful.can_prove_key) == (3, Readback.BYTES, True)
    assert (careful.atomic_object, careful.survives_power_loss) == (False, False)
    assert (vendor.atomic_object, vendor.survives_power_loss) == (True, True)


class DoesNotDelete(VirtualPivCard):
    """An empty object is no object to it."""

    def exchange(self, apdu: bytes) -> bytes:
        return b"\x6a\x80" if apdu[1] == 0xDB and apdu.endswith(b"\x53\x00") else super().exchange(apdu)


async def test_a_card_that_does_not_delete_gets_an_empty_container(tmp_path: Path) -> None:
    bench = Bench(tmp_path, DoesNotDelete())
    await put(bench, OLD)
    assert bench.object(objects.STAGE) == b"\xfe\x00"
    before = bench.card.writes
    await bench.store.erase(STAGE)
    assert (await bench.store.inspect())[STAGE] == SlotState(STAGE)
    assert bench.card.writes == before


class ForgetsPrevious(VirtualPivCard):
    """A retired object is taken and not kept."""

    def exchange(self, apdu: bytes) -> bytes:
        answer = super().exchange(apdu)
        self.files.objects.pop(objects.PREVIOUS, None)
        return answer


async def test_without_a_copy_of_the_old_certificate_the_old_one_stays(tmp_path: Path) -> None:
    bench = Bench(tmp_path, ForgetsPrevious())
    await put(bench, OLD)
    await bench.store.stage(STAGE, NEW, silent)
    with pytest.raises(SlotError, match="did not keep a copy"):
        await bench.store.activate(STAGE)
    assert held(bench) == [NEW, OLD, None]


# -- power


@pytest.mark.parametrize("writes", [Writes.IN_PLACE, Writes.ANEW])
async def test_a_broken_main_is_completed_from_stage_by_the_card_alone(writes: Writes, tmp_path: Path) -> None:
    broken = 0
    for operation in range(1, 40):
        card = VirtualPivCard(writes=writes)
        bench = Bench(tmp_path, card)
        await put(bench, OLD)
        await bench.store.stage(STAGE, NEW, silent)
        card.cut_at(operation, "torn", seed=operation)
        try:
            await bench.store.activate(STAGE)
        except TokenAbsent:
            pass
        else:
            break
        card.restart()
        bench.reader.insert(card)
        [stage, main, _] = await bench.store.inspect()
        assert stage.valid
        broken += not main.valid
        counted = bench.driver.counters
        assert main.valid or sum(counted[name] for name in counted if name.startswith("frames_bad")) == 1
        await bench.store.recover()
        assert await bench.store.read(MAIN) in ((OLD, NEW) if main.valid else (NEW,))
    assert broken > 0


async def test_what_we_cannot_read_and_did_not_write_is_left_as_it_is(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.card.files.objects[objects.MAIN] = b"\x73\x01a"
    await bench.store.recover()
    assert bench.object(objects.MAIN) == b"\x73\x01a"
    await bench.store.erase(MAIN)
    assert bench.object(objects.MAIN) == b""


async def test_a_cancelled_write_leaves_nothing_half_sent(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await put(bench, OLD)
    for step in range(1, 12):
        staging = asyncio.create_task(bench.store.stage(STAGE, NEW, silent))
        for _ in range(step):
            await asyncio.sleep(0)
        staging.cancel()
        await asyncio.wait({staging})
        assert (await bench.store.inspect())[MAIN].sha256 == fingerprint(OLD)
    await bench.store.stage(STAGE, NEW, silent)
    assert held(bench)[STAGE] == NEW


async def test_every_use_leaves_the_card_reset(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await put(bench, OLD)
    assert bench.card.exchange(bytes.fromhex("00DB3FFF0C5C035FC10D5305 7003616263")) == b"\x69\x85"


# -- the key


async def test_the_key_is_made_once_and_its_public_half_is_always_known(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert await bench.store.public_key() is None
    with pytest.raises(SlotError, match="has no P-256 key"):
        await bench.store.sign(b"challenge")
    made = await bench.store.make_key()
    assert await bench.store.public_key() == made
    key = load_der_public_key(made)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    key.verify(await bench.store.sign(b"challenge"), b"challenge", ec.ECDSA(SHA256()))
    before = bench.card.writes
    with pytest.raises(SlotError, match="has a key already"):
        await bench.store.make_key()
    assert bench.card.writes == before


async def test_a_key_of_which_nobody_heard_is_found_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.card.cut_at(8, "after")
    with pytest.raises(TokenAbsent):
        await bench.store.make_key()
    bench.card.restart()
    bench.reader.insert(bench.card)
    assert 0x9E in bench.card.files.keys
    assert await bench.store.public_key() is not None


async def test_no_key_is_made_under_a_certificate(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await put(bench, OLD)
    with pytest.raises(SlotError, match="without its own"):
        await bench.store.make_key()
    assert 0x9E not in bench.card.files.keys


class SignsWithManyKeys(VirtualPivCard):
    """A new key for each signature."""

    def exchange(self, apdu: bytes) -> bytes:
        answer = super().exchange(apdu)
        if apdu[1:4] == b"\x87\x11\x9e":
            digest = tlv.elements(tlv.only(0x7C, apdu[5:-1]))
            signature = ec.generate_private_key(ec.SECP256R1()).sign(dict(digest)[0x81], ec.ECDSA(SHA256()))
            return tlv.encode(0x7C, tlv.encode(0x82, signature)) + b"\x90\x00"
        return answer


async def test_signatures_that_fit_no_key_are_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="not of one P-256 key"):
        await Bench(tmp_path, SignsWithManyKeys()).store.public_key()


# -- the management key


@pytest.mark.parametrize("algorithm", list(Algorithm))
async def test_every_kind_of_management_key_is_shown(algorithm: Algorithm, tmp_path: Path) -> None:
    key = bytes(range(algorithm.key_bytes))
    bench = Bench(
        tmp_path, VirtualPivCard(algorithm=algorithm, management_key=key), management_algorithm=algorithm.value
    )
    key_file(tmp_path, key.hex(":"))
    await bench.store.authenticate()
    await put(bench, NEW)
    assert held(bench) == [None, NEW, None]


async def test_a_wrong_key_of_the_settings_is_tried_once(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    key_file(tmp_path, "11" * 24)
    with pytest.raises(WrongSecret, match="the card refused the management key") as caught:
        await bench.store.authenticate()
    assert caught.value.data == {"attempts_remaining": None}
    bench.card.apdus = []
    for again in (bench.store.authenticate(), bench.store.stage(STAGE, NEW, silent)):
        with pytest.raises(WrongSecret, match="not tried again"):
            await again
    assert not [apdu for apdu, _ in bench.card.apdus if apdu[1] == 0x87]
    bench.store.unlock(MANAGEMENT_KEY.hex().encode())
    await bench.store.stage(STAGE, NEW, silent)
    bench.store.unlock(b"")
    with pytest.raises(WrongSecret, match="not tried again"):
        await bench.store.authenticate()
    assert bench.card.writes == 2


async def test_a_persons_key_is_tried_when_it_is_given(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    for _ in range(2):
        bench.store.unlock(b"22" * 24)
        with pytest.raises(WrongSecret, match="the card refused"):
            await bench.store.authenticate()
    with pytest.raises(WrongSecret, match="not tried again"):
        await bench.store.authenticate()
    bench.store.unlock(b"")
    await bench.store.authenticate()


@pytest.mark.parametrize("text", ["", "01", "nonsense", "0102030405060708" * 4, "é"])
async def test_what_is_no_key_is_not_shown_to_the_card(text: str, tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.card.apdus = []
    key_file(tmp_path, text)
    with pytest.raises(WrongSecret if text else ConfigError):
        await bench.store.authenticate()
    assert not [apdu for apdu, _ in bench.card.apdus if apdu[1] == 0x87]


async def test_without_a_key_nothing_is_written(tmp_path: Path) -> None:
    bench = Bench(tmp_path, management_key=None)
    with pytest.raises(SecretMissing):
        await bench.store.stage(STAGE, NEW, silent)
    assert bench.card.writes == 0


async def test_another_kind_of_management_key_is_said_to_be_one(tmp_path: Path) -> None:
    bench = Bench(tmp_path, management_algorithm="aes-192")
    with pytest.raises(NotAuthorised, match="no aes-192 management key"):
        await bench.store.authenticate()


class Answers(VirtualPivCard):
    """A card whose answer to the management key is another one; `instead` of the one with this many bytes in."""

    def __init__(self, instead: dict[int, bytes]) -> None:
        super().__init__()
        self.instead = instead

    def exchange(self, apdu: bytes) -> bytes:
        answer = super().exchange(apdu)
        return self.instead.get(apdu[4], answer) if apdu[1] == 0x87 else answer


WITNESS, SHOWN = 4, 22
"""Bytes of the command that asks for a witness, and of the one that shows it."""


@pytest.mark.parametrize(
    ("instead", "error", "says"),
    [
        ({WITNESS: b"\x69\x83"}, SecretLocked, "begin with its management key"),
        ({SHOWN: b"\x69\x83"}, SecretLocked, "authentication method blocked"),
        ({SHOWN: b"\x63\xc2"}, WrongSecret, "accept the management key"),
        ({SHOWN: b"\x63\x00"}, WrongSecret, "refused"),
        ({SHOWN: b"\x6f\x00"}, DeviceError, r"status 6F00\)"),
        ({WITNESS: bytes.fromhex("7C0380010090 00")}, RemoteProtocolError, "a block of 1 bytes"),
        ({WITNESS: b"\x90\x00"}, FrameError, "without the tag 7C"),
        ({SHOWN: bytes.fromhex("7C0A8208") + bytes(8) + b"\x90\x00"}, RemoteProtocolError, "does not know its own"),
    ],
)
async def test_each_way_to_be_refused_has_a_name(
    instead: dict[int, bytes], error: type[BridgeError], says: str, tmp_path: Path
) -> None:
    bench = Bench(tmp_path, Answers(instead))
    with pytest.raises(error, match=says) as caught:
        await bench.store.authenticate()
    assert type(caught.value) is error
    if b"\x63\xc2" in instead.values():
        assert caught.value.data == {"attempts_remaining": 2}


# -- answers


class Scripted:
    """A card that says what it is told, one answer after the other; then it has no PIV application."""

    atr = b"\x3b\x00"

    def __init__(self, *answers: str) -> None:
        self.answers = [bytes.fromhex(answer) for answer in answers]
        self.asked: list[str] = []

    def reset(self) -> None:
        """Nothing to forget."""

    def exchange(self, apdu: bytes) -> bytes:
        self.asked.append(apdu.hex())
        return self.answers.pop(0) if self.answers else b"\x6a\x82"


def scripted(tmp_path: Path, *answers: str) -> tuple[Bench, Scripted]:
    bench, card = Bench(tmp_path), Scripted(*answers)
    bench.reader.insert(card)
    return bench, card


async def test_an_answer_comes_in_as_many_parts_as_the_card_likes(tmp_path: Path) -> None:
    chuid = tlv.encode(0x53, tlv.encode(0x34, bytes([7]) * 16)).hex()
    bench, card = scripted(
        tmp_path, "9000", "6d00", "6c14", chuid[:20] + "6105", chuid[20:30] + "6105", chuid[30:] + "9000"
    )
    identity = await bench.store.connect()
    assert (identity.model, identity.serial) == ("PIV card", "07" * 16)
    assert card.asked[1:] == [
        "00f8000000",
        "00cb3fff055c035fc10200",
        "00cb3fff055c035fc10214",
        "00c0000005",
        "00c0000005",
    ]


async def test_an_answer_without_end_is_given_up(tmp_path: Path) -> None:
    bench, _ = scripted(tmp_path, *["6100"] * 100)
    with pytest.raises(FrameTooLong):
        await bench.store.connect()


@pytest.mark.parametrize(
    ("answers", "error", "says"),
    [
        (["6a82"], DeviceError, "no PIV application"),
        (["9000", "6d00", "9000"], DeviceError, "neither a serial number"),
        (["9000", "00019000", "5312" + "3410" + "00" * 16 + "9000"], DeviceError, "neither a serial number"),
        (
            ["9000", "6d00", "6a81"],
            DeviceError,
            r"did not give the object 5FC102 \(status 6A81, function not supported\)",
        ),
        (["9000", "6d00", "5302ffff9000"], FrameError, "ends before its length"),
        (["9000", "6d00", "54009000"], FrameError, "without the tag 53"),
    ],
)
async def test_a_card_that_cannot_be_told_from_others_is_no_store(
    answers: list[str], error: type[BridgeError], says: str, tmp_path: Path
) -> None:
    bench, _ = scripted(tmp_path, *answers)
    with pytest.raises(error, match=says):
        await bench.store.connect()


async def test_a_label_is_made_fit_to_be_shown(tmp_path: Path) -> None:
    bench, _ = scripted(tmp_path, "6104" + "5002" + "1b5b" + "9000", "000000079000")
    assert (await bench.store.connect()).model == r"\x1b["


async def test_a_label_that_lies_deep_in_templates_does_no_harm(tmp_path: Path) -> None:
    template = b""
    for _ in range(4000):
        template = tlv.encode(0x61, template)
    answers = [template[at : at + 256].hex() + "6100" for at in range(0, len(template), 256)]
    bench, _ = scripted(tmp_path, *answers, "9000", "000000079000")
    assert (await bench.store.connect()).model == "PIV card"


# -- the card and the job


def request(certificate: bytes = NEW, **options: Any) -> Request:
    usual = {"job": "j1", "serial": NUMBER, "certificate": certificate, "replace": True, "accept_single_slot": True}
    return Request(**{**usual, **options})


async def job(bench: Bench, directory: Path, **options: Any) -> Result:
    with HostJournal(directory) as journal:
        return await enroll(bench.store, request(**options), journal, lambda _: None)


async def settle(bench: Bench, directory: Path) -> Result | None:
    with HostJournal(directory) as journal:
        return await recover(bench.store, journal)


async def test_a_card_that_may_write_as_it_goes_needs_consent(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    with pytest.raises(SingleSlot, match="over the certificate in use"):
        await job(bench, tmp_path, accept_single_slot=False)
    assert bench.card.writes == 0
    vendors_word = Bench(tmp_path, atomic_put_data=True)
    assert (await job(vendors_word, tmp_path, accept_single_slot=False)).outcome is Outcome.VERIFIED


async def test_a_wrong_management_key_is_refused_before_anything_is_journaled(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    key_file(tmp_path, "11" * 24)
    with pytest.raises(WrongSecret):
        await job(bench, tmp_path)
    assert bench.card.writes == 0
    assert await settle(bench, tmp_path) is None


async def test_a_revoked_certificate_is_erased_in_the_end(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await put(bench, OLD)
    assert (await job(bench, tmp_path, erase_old=True)).outcome is Outcome.VERIFIED
    assert held(bench) == [None, NEW, None]


async def test_an_absent_card_is_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.reader.remove()
    with pytest.raises(TokenAbsent):
        await job(bench, tmp_path)


def at(bench: Bench, command: int, do: Callable[[], object]) -> None:
    """Do something at the reader before that command of the card."""
    left = [command]

    def count_down() -> None:
        left[0] -= 1
        if left[0] == 0:
            do()

    bench.card.on_operation = count_down


async def test_a_card_removed_halfway_is_settled_when_it_is_back(tmp_path: Path) -> None:
    outcomes = set()
    for command in range(12, 100, 4):
        directory = tmp_path / str(command)
        directory.mkdir()
        bench = Bench(tmp_path)
        await put(bench, OLD)
        at(bench, command, bench.reader.remove)
        try:
            result = await job(bench, directory)
        except TokenAbsent:
            continue
        outcomes.add(result.outcome)
        if result.outcome is Outcome.VERIFIED:
            break
        assert isinstance(result.error, TokenAbsent | WriteUncertain)
        bench.card.on_operation = lambda: None
        bench.reader.insert(bench.card)
        settled = await settle(bench, directory)
        assert settled is not None
        assert held(bench)[1] == (NEW if settled.outcome is Outcome.VERIFIED else OLD)
    assert outcomes == {Outcome.ROLLED_BACK, Outcome.NEEDS_ATTENTION, Outcome.VERIFIED}


class Swaps(VirtualPivCard):
    """Another card of the same kind."""

    def __init__(self) -> None:
        super().__init__(guid=bytes([9]) * 16)


async def test_a_card_swapped_halfway_is_left_as_it_is(tmp_path: Path) -> None:
    seen: set[type[BridgeError]] = set()
    for command in range(12, 90, 3):
        directory = tmp_path / str(command)
        directory.mkdir()
        bench, other = Bench(tmp_path), Swaps()
        await put(bench, OLD)
        at(bench, command, lambda: bench.reader.insert(other))  # noqa: B023 - used at once
        try:
            result = await job(bench, directory)
        except (TokenAbsent, WrongDevice) as error:
            seen.add(type(error))
        else:
            if result.outcome is Outcome.VERIFIED:
                break
            assert result.error is not None
            seen.add(type(result.error))
        assert other.writes == 0
        assert await settle(bench, directory) is None  # the other card has no open job
        bench.reader.insert(bench.card)
        bench.card.on_operation = lambda: None
        await settle(bench, directory)
        assert held(bench)[1] in (OLD, NEW)
    assert seen >= {TokenAbsent, WriteUncertain}


async def test_a_session_is_with_the_card_that_connect_found(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    await bench.store.connect()
    other = Swaps()
    bench.reader.insert(other)
    with pytest.raises(TokenAbsent, match="instead of " + NUMBER):
        await bench.store.stage(STAGE, NEW, silent)
    assert other.writes == 0
    assert (await bench.store.connect()).serial == "09" * 16

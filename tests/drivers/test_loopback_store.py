"""The loopback device's secure memory by itself: the layout's rules, and what the driver says to the device."""

from __future__ import annotations

import pytest

from optima_bridge.errors import SlotError
from optima_bridge.link import memory_pair
from optima_bridge.store import SlotState
from optima_drivers.loopback import LoopbackDriver, slots
from optima_drivers.loopback.codec import Memory, Verb, encode
from optima_drivers.loopback.driver import LoopbackSettings
from optima_drivers.loopback.flash import When
from optima_drivers.loopback.simulator import LoopbackSimulator
from optima_drivers.loopback.store import LoopbackStore

OLD, NEW = b"old certificate", b"new certificate"
GOLDEN = bytes.fromhex("00000003 000f 17f60983")
"""Generation 3, 15 bytes, CRC-32 over both and NEW as gzip computes it: its trailer has it, lowest byte first."""


def silent(done_bytes: int, size_bytes: int) -> None:
    """Progress that nobody watches."""


def make(slot_count: int = 2) -> tuple[LoopbackSimulator, LoopbackStore]:
    simulator = LoopbackSimulator()
    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(simulator.receive(data))
    simulator.on_power_cut = peer.unplug
    store = LoopbackDriver(link, LoopbackSettings(slots=slot_count)).store
    assert isinstance(store, LoopbackStore)
    return simulator, store


async def put(store: LoopbackStore, slot: int, certificate: bytes) -> None:
    await store.stage(slot, certificate, silent)
    await store.activate(slot)


def test_a_record_is_what_the_layout_says() -> None:
    assert slots.header(3, NEW) == GOLDEN


def test_every_flipped_bit_of_record_or_data_makes_it_invalid() -> None:
    whole = GOLDEN + bytes([0xFF] * 4) + b"\x00\xff" + bytes([0xFF] * 240)
    assert slots.newest(whole, NEW) == slots.Record(0, 3, len(NEW), 0x00, 0xFF)
    for bit in range(len(GOLDEN) * 8):
        page = bytearray(whole)
        page[bit // 8] ^= 1 << bit % 8
        assert slots.newest(bytes(page), NEW + bytes(2048)) is None
    for bit in range(len(NEW) * 8):
        data = bytearray(NEW)
        data[bit // 8] ^= 1 << bit % 8
        assert slots.newest(whole, bytes(data)) is None


async def test_an_empty_device_has_empty_slots() -> None:
    simulator, store = make()
    assert await store.inspect() == [SlotState(0), SlotState(1)]
    assert simulator.credential() is None
    for nothing in (store.read, store.activate):
        with pytest.raises(SlotError, match="holds no valid certificate"):
            await nothing(0)


async def test_the_active_slot_can_be_neither_staged_nor_erased() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    writes = simulator.flash.writes
    with pytest.raises(SlotError, match="is the active one"):
        await store.stage(0, NEW, silent)
    with pytest.raises(SlotError, match="is the active one"):
        await store.erase(0)
    assert simulator.flash.writes == writes


@pytest.mark.parametrize("size_bytes", [0, slots.MAX_SIZE_BYTES + 1])
async def test_what_does_not_fit_is_not_begun(size_bytes: int) -> None:
    simulator, store = make()
    with pytest.raises(SlotError, match="2048 bytes"):
        await store.stage(0, bytes(size_bytes), silent)
    assert simulator.flash.writes == 0


async def test_the_largest_certificate_fits_into_both_slots() -> None:
    simulator, store = make()
    old, new = b"\x0f" * slots.MAX_SIZE_BYTES, b"\xf0" * slots.MAX_SIZE_BYTES
    await put(store, 0, old)
    await put(store, 1, new)
    assert [await store.read(slot) for slot in (0, 1)] == [old, new]
    assert simulator.credential() == new


async def test_slots_take_turns_sixteen_times_and_no_generation_is_used_twice() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await put(store, 1, NEW)
    seen = [2]
    for turn in range(30):
        await store.activate(turn % 2)
        assert simulator.credential() == (NEW if turn % 2 else OLD)
        seen.append(max(state.generation for state in await store.inspect()))
    assert seen == sorted(set(seen))
    with pytest.raises(SlotError, match="stage it anew"):
        await store.activate(0)
    assert simulator.credential() == NEW
    await put(store, 0, OLD)
    assert simulator.credential() == OLD


async def test_activating_and_confirming_twice_writes_once() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await store.confirm()
    writes = simulator.flash.writes
    await store.activate(0)
    await store.confirm()
    await store.recover()
    assert simulator.flash.writes == writes


@pytest.mark.parametrize(("at", "value"), [(slots.ACTIVATED_AT, 0x5A), (slots.CONFIRMED_AT, 0xFE)])
async def test_a_torn_last_byte_is_completed(at: int, value: int) -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    simulator.flash.content[at] = value
    await store.recover()
    assert simulator.flash.content[at] == slots.DONE
    assert simulator.credential() == OLD


def test_the_device_refuses_what_is_outside_of_its_memory() -> None:
    simulator = LoopbackSimulator()
    end = len(simulator.flash.content)
    for asked in (
        Memory(Verb.READ, end - 1, b"\x02"),
        Memory(Verb.READ, 0, b"\x00"),
        Memory(Verb.READ, 0, b"\x41"),
        Memory(Verb.READ, 0, b"\x01\x01"),
        Memory(Verb.WRITE, end - 1, b"\x00\x00"),
        Memory(Verb.ERASE, end),
        Memory(Verb.DATA, 0, b"\x00"),
    ):
        assert simulator.receive(encode(asked)) == encode(Memory(Verb.DENIED, asked.address))
    assert simulator.flash.operations == 0


async def test_a_device_with_less_memory_than_configured_says_so() -> None:
    simulator, store = make()
    del simulator.flash.content[slots.REGION_BYTES :]
    with pytest.raises(SlotError, match="no memory at 0900"):
        await store.inspect()


async def test_a_lost_frame_is_asked_for_again() -> None:
    simulator = LoopbackSimulator()
    link, peer = memory_pair()
    heard = 0

    def every_second(data: bytes) -> None:
        nonlocal heard
        heard += 1
        if heard % 2 == 0:
            peer.feed(simulator.receive(data))

    peer.on_write = every_second
    driver = LoopbackDriver(link, LoopbackSettings(slots=1, answer_timeout_ms=10))
    await driver.store.stage(0, OLD, silent)
    await driver.store.activate(0)
    assert simulator.credential() == OLD
    assert driver.counters["timeouts"] == heard // 2


@pytest.mark.parametrize("when", list(When))
def test_power_that_is_gone_stays_gone_until_it_comes_back(when: When) -> None:
    simulator = LoopbackSimulator()
    simulator.flash.cut_at(2, when)
    write = encode(Memory(Verb.WRITE, 0, b"\x00\x00\x00"))
    assert simulator.receive(write) == b""
    simulator.key_in("01B7BA1000000075")
    assert simulator.receive(write) == b""
    first, second, third = simulator.flash.content[:3]
    assert (first, third) == (0x00, 0xFF)
    assert {When.BEFORE: second == 0xFF, When.TORN: second not in {0x00, 0xFF}, When.AFTER: second == 0x00}[when]
    simulator.flash.restart()
    assert simulator.receive(write) == encode(Memory(Verb.WROTE, 0))

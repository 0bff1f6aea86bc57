"""The SMP device's secure memory by itself: the layout's rules, and what is kept of them on a device that was left anyhow."""

from __future__ import annotations

import hashlib

import pytest
from msgspec import structs

from optima_bridge.errors import RemoteProtocolError, SlotError
from optima_bridge.link import memory_pair
from optima_bridge.store import SecureStore, SlotState
from optima_drivers.smp import SmpDriver, layout
from optima_drivers.smp.commands import UPLOAD
from optima_drivers.smp.driver import SmpSettings
from optima_drivers.smp.framing import Decoder
from optima_drivers.smp.framing import encode as framed
from optima_drivers.smp.layout import ACTIVE, CONFIRMED, Pointer
from optima_drivers.smp.memory import PowerCut, When
from optima_drivers.smp.message import Message, Op, Refusal, encode, parse
from optima_drivers.smp.simulator import SmpSimulator

OLD, NEW = b"old certificate", b"new certificate"
FILES = ("/lfs1/optima_a", "/lfs1/optima_b")


def silent(done_bytes: int, size_bytes: int) -> None:
    """Progress that nobody watches."""


def make() -> tuple[SmpSimulator, SecureStore]:
    simulator = SmpSimulator("till-3")
    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(simulator.receive(data))
    return simulator, SmpDriver(link, SmpSettings()).store


async def put(store: SecureStore, slot: int, certificate: bytes) -> None:
    await store.stage(slot, certificate, silent)
    await store.activate(slot)


def sha256(certificate: bytes) -> str:
    return hashlib.sha256(certificate).hexdigest()


async def test_files_and_settings_are_what_the_layout_says() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await put(store, 1, NEW)
    await store.confirm()
    image = simulator.memory.image
    assert image.files == {FILES[0]: OLD, FILES[1]: NEW}
    assert {name: value.hex() for name, value in image.saved.items()} == {
        "optima/a": sha256(OLD),
        "optima/b": sha256(NEW),
        "optima/active": "0100000002",
        "optima/confirmed": "00000002",
    }
    assert await store.inspect() == [
        SlotState(0, sha256=sha256(OLD), size_bytes=len(OLD), valid=True),
        SlotState(1, 2, sha256(NEW), len(NEW), valid=True, active=True, confirmed=True),
    ]


async def test_an_empty_device_has_empty_slots() -> None:
    simulator, store = make()
    assert await store.inspect() == [SlotState(0), SlotState(1)]
    for nothing in (store.read, store.activate):
        with pytest.raises(SlotError, match="holds no valid certificate"):
            await nothing(0)
    await store.confirm()
    await store.erase(0)
    await store.recover()
    assert simulator.memory.writes == 0
    assert await store.verify(0) == ""


async def test_the_active_slot_can_be_neither_staged_nor_erased() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    writes = simulator.memory.writes
    with pytest.raises(SlotError, match="is the active one"):
        await store.stage(0, NEW, silent)
    with pytest.raises(SlotError, match="is the active one"):
        await store.erase(0)
    assert simulator.memory.writes == writes


@pytest.mark.parametrize("size_bytes", [0, 1, 2049])
async def test_what_does_not_fit_is_not_begun(size_bytes: int) -> None:
    simulator, store = make()
    with pytest.raises(SlotError, match="2 to 2048 bytes"):
        await store.stage(0, bytes(size_bytes), silent)
    assert simulator.memory.writes == 0


async def test_activating_and_confirming_twice_writes_once() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await store.confirm()
    writes = simulator.memory.writes
    await store.activate(0)
    await store.confirm()
    await store.recover()
    assert simulator.memory.writes == writes


async def test_slots_take_turns_and_no_generation_is_used_twice() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await put(store, 1, NEW)
    for turn in range(6):
        await store.activate(turn % 2)
        assert simulator.credential() == (NEW if turn % 2 else OLD)
        [active] = [state for state in await store.inspect() if state.active]
        assert (active.generation, active.confirmed) == (turn + 3, False)


async def test_an_erased_slot_holds_nothing_and_is_erased_again_without_harm() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await store.stage(1, NEW, silent)
    await store.erase(1)
    await store.erase(1)
    assert [state.valid for state in await store.inspect()] == [True, False]
    assert simulator.memory.image.files[FILES[1]] == layout.NOTHING
    assert simulator.credential() == OLD


async def test_what_was_set_and_not_saved_is_forgotten_when_a_session_begins() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await store.stage(1, NEW, silent)
    simulator.memory.settings[ACTIVE] = Pointer(1, 2).encode()  # somebody was interrupted before save
    assert [state.active for state in await store.inspect()] == [False, True]
    await store.connect()
    assert [state.active for state in await store.inspect()] == [True, False]


async def test_a_damaged_active_file_is_replaced_and_is_active_only_when_activated() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    await store.confirm()
    simulator.memory.image.files[FILES[0]] = b"something else"
    assert await store.inspect() == [SlotState(0), SlotState(1)]
    await store.stage(0, NEW, silent)
    assert [state.active for state in await store.inspect()] == [False, False]
    assert simulator.credential() is None
    await store.activate(0)
    [state, _] = await store.inspect()
    assert (state.active, state.confirmed, state.generation) == (True, False, 2)


@pytest.mark.parametrize("value", [b"", b"\x02\x00\x00\x00\x01", b"\x00\x00\x00\x00", bytes(6)])
async def test_a_pointer_that_is_none_points_nowhere(value: bytes) -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    simulator.memory.settings[ACTIVE] = value
    assert not any(state.active for state in await store.inspect())


async def test_a_file_that_is_larger_than_the_limit_is_not_read() -> None:
    simulator, store = make()
    simulator.memory.image.files[FILES[0]] = bytes(4096)
    simulator.memory.settings["optima/a"] = hashlib.sha256(bytes(4096)).digest()
    for refusals in ({}, {(8, 2): Refusal(8)}):
        simulator.faults.refusals = refusals
        assert await store.inspect() == [SlotState(0), SlotState(1)]


async def test_a_file_that_is_read_differently_than_hashed_is_not_taken() -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    simulator.faults.refusals = {(8, 0): Refusal(3, 8)}
    with pytest.raises(SlotError, match="read differently"):
        await store.read(0)


async def test_a_write_that_the_device_refuses_says_why() -> None:
    simulator, store = make()
    simulator.faults.refusals = {(8, 0): Refusal(15, 8)}
    with pytest.raises(SlotError, match="did not write /lfs1/optima_a: the file system can only be read"):
        await store.stage(0, NEW, silent)


async def test_another_directory_than_the_devices_is_noticed() -> None:
    simulator = SmpSimulator()
    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(simulator.receive(data))
    with pytest.raises(SlotError, match="no file system is mounted there"):
        await SmpDriver(link, SmpSettings(directory="/SD:")).store.stage(0, NEW, silent)


def answered(simulator: SmpSimulator, asked: Message) -> dict[str, object]:
    [frame] = Decoder().feed(simulator.receive(framed(encode(asked))))
    assert isinstance(frame, bytes)
    return dict(parse(frame).body)


def test_the_simulator_counts_on_like_zephyr_where_an_upload_stopped() -> None:
    simulator = SmpSimulator()

    def upload(off: int, size_bytes: int, **more: object) -> dict[str, object]:
        fields = {"name": FILES[0], "off": off, "data": bytes(size_bytes), **more}
        return answered(simulator, Message(UPLOAD.op, 8, 0, 1, fields))

    assert upload(0, 10, len=30) == {"off": 10}
    assert upload(0, 10, len=30) == {"off": 20}  # the file has 10
    assert answered(simulator, Message(Op.READ, 8, 1, 2, {"name": FILES[0]})) == {"len": 10}
    assert upload(11, 10) == {"err": {"group": 8, "rc": 11}}
    assert upload(10, 10) == {"off": 20}
    assert upload(0, 1) == {"rc": 3}
    assert upload(0, 1, len="x") == {"rc": 3}


@pytest.mark.parametrize(
    ("command", "fields", "answer"),
    [
        ((Op.READ, 9, 0), {}, {"rc": 8}),
        ((Op.READ, 0, 7), {"format": "z"}, {"err": {"group": 0, "rc": 2}}),
        ((Op.READ, 3, 0), {"name": "other/key"}, {"err": {"group": 3, "rc": 5}}),
        ((Op.WRITE, 3, 0), {"name": "other/key", "val": b""}, {"err": {"group": 3, "rc": 5}}),
        ((Op.WRITE, 3, 0), {"name": "optima/serial", "val": b""}, {"err": {"group": 3, "rc": 7}}),
        ((Op.WRITE, 3, 1), {"name": "optima/a"}, {}),
        ((Op.WRITE, 3, 2), {}, {}),
        ((Op.READ, 8, 2), {"name": FILES[0], "type": "md5"}, {"err": {"group": 8, "rc": 13}}),
        ((Op.READ, 8, 2), {"name": FILES[0], "off": 15}, {"err": {"group": 8, "rc": 12}}),
        ((Op.READ, 8, 2), {"name": FILES[1]}, {"err": {"group": 8, "rc": 16}}),
        (
            (Op.READ, 8, 2),
            {"name": FILES[0], "off": 4, "len": 4},
            {"type": "crc32", "len": 4, "output": 0x0CAA206B, "off": 4},
        ),
        ((Op.READ, 8, 3), {}, {"types": {"crc32": {"format": 0, "size": 4}, "sha256": {"format": 1, "size": 32}}}),
        ((Op.READ, 8, 0), {"name": FILES[0], "off": 4}, {"off": 4, "data": OLD[4:]}),
    ],
)
def test_the_simulator_answers_like_zephyr(
    command: tuple[Op, int, int], fields: dict[str, object], answer: dict[str, object]
) -> None:
    simulator = SmpSimulator()
    simulator.memory.image.files = {FILES[0]: OLD, FILES[1]: b""}
    assert answered(simulator, Message(*command, 1, fields)) == answer


def test_the_simulator_answers_nothing_but_requests_that_fit_its_buffer() -> None:
    simulator = SmpSimulator()
    assert simulator.receive(framed(bytes(381)) + framed(b"short") + b"\x04\x14\n") == b""
    assert simulator.receive(framed(encode(Message(Op.WRITE_REPLY, 0, 0, 1, {})))) == b""


@pytest.mark.parametrize("when", list(When))
def test_power_that_is_gone_stays_gone_until_it_comes_back(when: When) -> None:
    simulator = SmpSimulator()
    cuts: list[str] = []
    simulator.on_power_cut = lambda: cuts.append("cut")
    simulator.memory.cut_at(1, when)
    write = framed(encode(Message(UPLOAD.op, 8, 0, 1, {"name": FILES[0], "off": 0, "data": NEW, "len": 99})))
    assert simulator.receive(write) == simulator.receive(write) == b""
    assert cuts == ["cut"]
    held = simulator.memory.image.files.get(FILES[0])
    assert {When.BEFORE: held is None, When.TORN: held is not None and len(held) < len(NEW), When.AFTER: held == NEW}[
        when
    ]
    with pytest.raises(PowerCut):
        simulator.memory.delete(CONFIRMED)
    simulator.restart()
    assert simulator.receive(write) != b""


def misread(simulator: SmpSimulator, command: tuple[int, int], **changes: object) -> SmpDriver:
    """A driver on a line that changes what the device answers to one command."""

    def receive(data: bytes) -> bytes:
        answers = b""
        for frame in Decoder().feed(simulator.receive(data)):
            assert isinstance(frame, bytes)
            answer = parse(frame)
            if (answer.group, answer.command) == command:
                answer = structs.replace(answer, body={**answer.body, **changes})
            answers += framed(encode(answer))
        return answers

    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(receive(data))
    return SmpDriver(link, SmpSettings())


@pytest.mark.parametrize("changes", [{"off": 1}, {"data": b""}, {"data": bytes(99)}])
async def test_a_part_of_a_file_that_was_not_asked_for_is_refused(changes: dict[str, object]) -> None:
    simulator, store = make()
    await put(store, 0, OLD)
    with pytest.raises(RemoteProtocolError, match="another part"):
        await misread(simulator, (8, 0), **changes).store.read(0)


async def test_a_device_that_echoes_something_else_is_refused() -> None:
    with pytest.raises(RemoteProtocolError, match="echoes something else"):
        await misread(SmpSimulator(), (0, 0), r="something else").start()

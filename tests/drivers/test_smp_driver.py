"""The SMP driver keeps the contract over any cable, and holds out against a line that loses, damages and delays."""

from __future__ import annotations

import asyncio

import pytest

from optima_bridge.errors import DeviceError, LinkLost, LinkTimeout, RemoteProtocolError, SlotError
from optima_bridge.link import MemoryPeer, memory_pair
from optima_bridge.model import DeviceIdentity
from optima_bridge.testing import ConformanceCase, StoreContract
from optima_bridge.testing.bench import BYTE_BY_BYTE, GLUED, ByteBench, Cable
from optima_drivers.smp import SmpDriver
from optima_drivers.smp.driver import SmpSettings
from optima_drivers.smp.message import Refusal
from optima_drivers.smp.simulator import SmpSimulator
from tests.support import until

CERTIFICATE = bytes(range(256)) * 4
SETTINGS = SmpSettings(answer_timeout_ms=100, echo_interval_ms=100)
ECHO, PARAMETERS, INFO, SAVE, UPLOAD, HASH, CLOSE = (0, 0), (0, 6), (0, 7), (3, 3), (8, 0), (8, 2), (8, 4)


class TestSmp(StoreContract):
    case = ConformanceCase(driver=SmpDriver, simulator=SmpSimulator)


def make(serial: str = "till-3", buffer_bytes: int = 384) -> tuple[SmpSimulator, SmpDriver, MemoryPeer]:
    simulator = SmpSimulator(serial, buffer_bytes=buffer_bytes)
    link, peer = memory_pair()
    peer.on_write = lambda data: peer.feed(simulator.receive(data))
    return simulator, SmpDriver(link, SETTINGS), peer


def silent(done_bytes: int, size_bytes: int) -> None:
    """Progress that nobody watches."""


async def put(driver: SmpDriver, slot: int = 0) -> None:
    await driver.store.stage(slot, CERTIFICATE, silent)
    await driver.store.activate(slot)


async def test_a_device_says_who_it_is() -> None:
    _, driver, _ = make()
    assert await driver.start() == DeviceIdentity("simulated_mcu", "till-3", "4.3.0")


async def test_a_device_that_does_not_say_who_it_is_has_empty_names() -> None:
    simulator, driver, _ = make("")
    simulator.faults.refusals = {INFO: Refusal(8)}
    assert await driver.start() == DeviceIdentity()


@pytest.mark.parametrize("serial", ["till\x1b[2J", "till 3"])
async def test_a_name_with_other_characters_is_refused(serial: str) -> None:
    _, driver, _ = make(serial)
    with pytest.raises(RemoteProtocolError, match="visible ASCII"):
        await driver.start()


@pytest.mark.parametrize("cable", [BYTE_BY_BYTE, GLUED], ids=["byte by byte", "glued"])
async def test_a_certificate_arrives_over_any_cable(cable: Cable) -> None:
    bench = ByteBench(TestSmp.case, cable)
    driver = bench.driver
    assert isinstance(driver, SmpDriver)
    await driver.start()
    await put(driver)
    assert bench.simulator.credential() == CERTIFICATE
    assert await driver.store.read(0) == CERTIFICATE


@pytest.mark.parametrize("fault", ["lost_requests", "lost_answers", "damaged_answers"])
@pytest.mark.parametrize("chunk", [1, 2, 3])
async def test_a_certificate_arrives_though_a_frame_does_not(fault: str, chunk: int) -> None:
    simulator, driver, _ = make()
    await driver.start()
    chunks = 0

    def trouble(done_bytes: int, size_bytes: int) -> None:
        nonlocal chunks
        chunks += 1
        if chunks == chunk:
            setattr(simulator.faults, fault, 1)

    await driver.store.stage(0, CERTIFICATE, trouble)
    await driver.store.activate(0)
    assert simulator.credential() == CERTIFICATE
    assert driver.counters["timeouts"] == 1
    assert driver.counters["uploads_again"] == (fault != "lost_requests")  # then a chunk came twice


async def test_a_first_chunk_that_came_twice_begins_the_upload_again() -> None:
    simulator, driver, _ = make()
    await driver.start()

    def lose_the_answer() -> None:
        simulator.faults.lost_answers = 1
        simulator.memory.on_write = lambda: None

    simulator.memory.on_write = lose_the_answer
    await put(driver)
    assert simulator.credential() == CERTIFICATE
    assert driver.counters["uploads_again"] == 1


async def test_a_device_that_is_never_where_it_should_be_is_given_up() -> None:
    simulator, driver, _ = make()
    await driver.start()
    simulator.faults.refusals = {UPLOAD: Refusal(11, 8)}
    with pytest.raises(SlotError, match="3 times"):
        await put(driver)


async def test_late_answers_and_console_text_are_no_answers() -> None:
    simulator, driver, _ = make()
    await driver.start()
    simulator.faults.console = b"<inf> main: \x06\x09 told\r\nuart:~$ "
    simulator.faults.late_answers = 1
    await put(driver)
    assert simulator.credential() == CERTIFICATE
    assert driver.counters["late_answers"] == 1
    assert driver.counters["frames_bad_characters"] > 0


async def test_an_answer_to_an_earlier_session_is_not_taken_for_one_of_this() -> None:
    simulator, driver, peer = make()
    await driver.start()
    echo = bytes(peer.written)  # the very question that the next session begins with
    link, other = memory_pair()
    other.on_write = lambda data: other.feed(simulator.receive(echo) + simulator.receive(data))
    assert (await SmpDriver(link, SETTINGS).start()).serial == "till-3"


async def test_a_device_without_the_lesser_commands_is_used_all_the_same() -> None:
    simulator, driver, _ = make()
    simulator.faults.refusals = {command: Refusal(8) for command in (ECHO, PARAMETERS, INFO, HASH, CLOSE)}
    await driver.start()
    await put(driver)
    assert simulator.credential() == CERTIFICATE
    assert await driver.store.read(0) == CERTIFICATE


async def test_firmware_that_speaks_version_1_is_used_all_the_same() -> None:
    simulator, driver, _ = make()
    simulator.faults.version = 0
    await driver.start()
    assert [state.valid for state in await driver.store.inspect()] == [False, False]
    await put(driver)
    assert simulator.credential() == CERTIFICATE


@pytest.mark.parametrize(
    ("command", "refusal", "said"),
    [
        (SAVE, Refusal(11), "did not load its settings: its firmware does not allow it"),
        (PARAMETERS, Refusal(10), "did not tell the size of its buffer: it is busy"),
        (CLOSE, Refusal(1), "did not close its files: error 1$"),
    ],
)
async def test_a_device_that_refuses_what_is_needed_says_so(
    command: tuple[int, int], refusal: Refusal, said: str
) -> None:
    simulator, driver, _ = make()
    simulator.faults.refusals = {command: refusal}
    with pytest.raises(SlotError, match=said) as caught:
        await driver.start()
    assert (caught.value.data["rc"], caught.value.data["group"]) == (refusal.rc, refusal.group)


async def test_a_buffer_that_is_too_small_is_refused() -> None:
    _, driver, _ = make(buffer_bytes=127)
    with pytest.raises(DeviceError, match="127 bytes only"):
        await driver.start()


@pytest.mark.parametrize("buffer_bytes", [128, 384, 1024, 65_535])
async def test_chunks_fill_the_devices_buffer_and_no_more(buffer_bytes: int) -> None:
    simulator, driver, _ = make(buffer_bytes=buffer_bytes)
    await driver.start()
    chunks: list[int] = []
    await driver.store.stage(0, CERTIFICATE, lambda done_bytes, _: chunks.append(done_bytes))
    await driver.store.activate(0)
    assert simulator.credential() == CERTIFICATE
    first = chunks[0]
    assert first == len(CERTIFICATE) or 45 <= buffer_bytes - first <= 64


async def test_an_idle_device_is_asked_for_an_echo_until_it_falls_silent() -> None:
    simulator, driver, _ = make()
    await driver.start()
    waiting = asyncio.ensure_future(anext(driver.events(), None))
    asked = simulator.memory.operations
    await until(lambda: simulator.memory.operations >= asked + 2)
    assert not waiting.done()
    simulator.faults.lost_requests = 1_000
    with pytest.raises(LinkTimeout, match="no SMP device answered 3 times"):
        await waiting


async def test_a_pulled_plug_is_noticed_at_once() -> None:
    _, driver, peer = make()
    driver._settings = SmpSettings(echo_interval_ms=60_000)
    await driver.start()
    waiting = asyncio.ensure_future(anext(driver.events(), None))
    await peer.drained()
    peer.unplug()
    with pytest.raises(LinkLost):
        async with asyncio.timeout(5):
            await waiting


async def test_the_store_works_beside_the_events() -> None:
    simulator, driver, _ = make()
    await driver.start()
    waiting = asyncio.ensure_future(anext(driver.events(), None))
    for turn in range(30):
        await driver.store.connect()
        await put(driver, turn % 2)
        await asyncio.sleep(0.01)
    assert simulator.credential() == CERTIFICATE
    assert driver.counters["timeouts"] == 0
    waiting.cancel()
    await asyncio.wait({waiting})

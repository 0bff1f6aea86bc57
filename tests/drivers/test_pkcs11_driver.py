"""The pkcs11 driver on SoftHSM2: its contract, what it refuses, whose attempts it spends, what it leaves alone."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from optima_bridge.enroll.words import Outcome
from optima_bridge.errors import (
    BridgeError,
    DriverError,
    LinkBusy,
    LinkError,
    LinkLost,
    LinkNotFound,
    LinkTimeout,
    NotAuthorised,
    RemoteProtocolError,
    SecretLocked,
    SecretMissing,
    SlotError,
    TokenAbsent,
    WriteProtected,
    WrongDevice,
    WrongSecret,
)
from optima_bridge.link import SerialFormat, open_link
from optima_bridge.link import pkcs11 as link_module
from optima_bridge.link.pkcs11 import Pkcs11Link, token_session
from optima_bridge.link.pkcs11_uri import parse
from optima_bridge.store import SlotState
from optima_bridge.testing import ConformanceCase, StoreContract
from optima_drivers.pkcs11 import Pkcs11Driver
from tests import cryptoki_faults as rv
from tests.cryptoki_faults import Faults, faults
from tests.drivers.pkcs11_desk import LABEL, Desk, new_desk
from tests.softhsm import MODULE, PIN, SoftHsm, memory_folder, needs_softhsm

pytestmark = needs_softhsm
OLD, NEW = b"\x30" + b"old" * 200, b"\x30" + b"new" * 286
CKR_GENERAL_ERROR, CKR_USER_NOT_LOGGED_IN, CKR_PIN_INCORRECT = 0x05, 0x101, 0xA0


@cache
def folder() -> Any:
    """Kept until the process ends."""
    return memory_folder()


@cache
def shared() -> SoftHsm:
    """One token for tests that change nothing on it."""
    hsm = SoftHsm(Path(folder().name) / "shared")
    hsm.make(LABEL)
    return hsm


class Peer:
    """The token's end of a link: it is in the reader, or not."""

    def __init__(self, broken: Faults) -> None:
        self._broken = broken

    def unplug(self) -> None:
        self._broken.gone = rv.CKR_DEVICE_REMOVED

    async def drained(self) -> None:
        """Nothing ever waits in a link of calls."""


def join(hsm: SoftHsm) -> tuple[Pkcs11Link, Peer]:
    hsm.use()
    broken = faults()
    uri = parse(hsm.uri(LABEL))
    return Pkcs11Link(uri, token_session(uri)), Peer(broken)


class TestPkcs11(StoreContract):
    case = ConformanceCase(driver=Pkcs11Driver, simulator=shared, join=join, settings={"look_interval_ms": 100})


@pytest.fixture
def desk() -> Iterator[Desk]:
    with new_desk() as desk:
        yield desk


def silent(done_bytes: int, size_bytes: int) -> None:
    """Progress that nobody watches."""


# -- secure memory


async def test_a_token_says_who_it_is(desk: Desk) -> None:
    async with desk.driver(uri=desk.hsm.uri(LABEL, serial=desk.serial, model="SoftHSM v2")) as driver:
        identity = await driver.store.connect()
    assert (identity.model, identity.serial, identity.firmware) == ("SoftHSM v2", desk.serial, "2.6")


async def test_certificates_take_turns_in_two_slots_and_the_last_one_is_kept_for_going_back(desk: Desk) -> None:
    async with desk.driver() as driver:
        store = driver.store
        for number, certificate in enumerate((OLD, NEW, OLD)):
            assert (await desk.enrol(store, certificate)).outcome is Outcome.VERIFIED
            [active] = [state for state in await store.inspect() if state.active]
            assert (active.generation, active.slot, active.confirmed) == (number + 2, number % 2, True)
            assert await store.read(active.slot) == certificate
        before, now = sorted(await store.inspect(), key=lambda state: state.active)
        assert await store.read(before.slot) == NEW
        await store.activate(before.slot)
        await store.activate(before.slot)
        back, spare = sorted(await store.inspect(), key=lambda state: not state.active)
        assert (back.slot, back.generation, back.confirmed) == (before.slot, now.generation + 1, False)
        assert (spare.slot, spare.generation) == (now.slot, now.generation)
        await store.confirm()
        writes = desk.faults.writes
        await store.confirm()
        assert desk.faults.writes == writes


async def test_the_active_slot_can_be_neither_staged_nor_erased(desk: Desk) -> None:
    async with desk.driver() as driver:
        store = driver.store
        await desk.enrol(store, OLD)
        [slot] = [state.slot for state in await store.inspect() if state.active]
        writes = desk.faults.writes
        for change in (store.stage(slot, NEW, silent), store.erase(slot)):
            with pytest.raises(SlotError, match="is the active one"):
                await change
        for nothing in (store.read, store.activate):
            with pytest.raises(SlotError, match="holds no valid certificate"):
                await nothing(1 - slot)
        await store.erase(1 - slot)
        assert desk.faults.writes == writes


@pytest.mark.parametrize("size_bytes", [0, 513])
async def test_what_does_not_fit_is_not_begun(desk: Desk, size_bytes: int) -> None:
    async with desk.driver(max_size_bytes=512) as driver:
        with pytest.raises(SlotError, match="1 to 512 bytes"):
            await driver.store.stage(0, bytes(size_bytes), silent)
    assert desk.faults.writes == 0


async def test_recovery_removes_what_counts_for_nothing_and_nothing_else(desk: Desk) -> None:
    async with desk.driver() as driver:
        store = driver.store
        await desk.enrol(store, OLD)
        await desk.enrol(store, NEW)
        kept = await store.inspect()
        await store.recover()
        writes = desk.faults.writes

        def litter(token: Any) -> None:
            token.add_certificate("optima:staged:9", b"never finished")
            token.add_certificate("optima:supervisor:1", b"older")
            token.add_certificate("optima:other:1", b"theirs")
            token.add_data("optima:confirmed:1", bytes(32))

        await store.authenticate()
        await driver._link.call(litter)
        assert desk.faults.writes == writes + 4
        assert await store.inspect() == kept
        await store.recover()
        assert desk.faults.writes == writes + 7
        assert await store.inspect() == kept
        left = await driver._link.call(lambda token: [entry.label for entry in token.certificates("optima:")])
        assert sorted(left) == ["optima:other:1", "optima:supervisor:2", "optima:supervisor:3"]


async def test_leftovers_wait_for_a_pin_and_harm_nobody_until_then(desk: Desk) -> None:
    async with desk.driver() as driver:
        await desk.enrol(driver.store, OLD)
        await driver.store.authenticate()
        await driver._link.call(lambda token: token.add_data("optima:confirmed:1", bytes(32)))
        writes = desk.faults.writes
    async with desk.driver(pin=None) as driver:
        assert await desk.recover(driver.store) is None
        assert desk.faults.writes == writes
        driver.store.unlock(PIN.encode())
        await driver.store.recover()
        assert desk.faults.writes == writes + 1


# -- the key


async def test_the_key_is_made_in_the_token_once_and_signs(desk: Desk) -> None:
    async with desk.driver() as driver:
        store = driver.store
        assert await store.public_key() is None
        with pytest.raises(SlotError, match="does not hold the private key"):
            await store.sign(b"data")
        spki = await store.make_key()
        assert await store.public_key() == spki
        with pytest.raises(SlotError, match="has a key"):
            await store.make_key()
        await store.connect()
        key = load_der_public_key(spki)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        key.verify(await store.sign(b"data"), b"data", ec.ECDSA(SHA256()))


async def test_reading_and_the_public_key_need_no_pin(desk: Desk) -> None:
    async with desk.driver() as driver:
        await desk.enrol(driver.store, OLD)
        spki = await driver.store.make_key()
    logins = desk.faults.calls["C_Login"]
    async with desk.driver(pin=None) as driver:
        [active] = [state for state in await driver.store.inspect() if state.active]
        assert await driver.store.read(active.slot) == OLD
        assert await driver.store.verify(active.slot) == active.sha256
        assert await driver.store.verify(1 - active.slot) == ""
        assert await driver.store.public_key() == spki
        for needs in (driver.store.sign(b"data"), driver.store.stage(1 - active.slot, NEW, silent)):
            with pytest.raises(SecretMissing):
                await needs
    assert desk.faults.calls["C_Login"] == logins


# -- the PIN


@pytest.fixture
def wrong_pin(desk: Desk) -> dict[str, str]:
    file = desk.state / "wrong"
    file.write_text("654321")
    file.chmod(0o600)
    return {"file": str(file)}


async def test_a_wrong_pin_from_the_settings_is_tried_once_in_a_drivers_life(
    desk: Desk, wrong_pin: dict[str, str]
) -> None:
    logins = desk.faults.calls["C_Login"]
    async with desk.driver(pin=wrong_pin) as driver:
        for _ in range(3):
            with pytest.raises(WrongSecret) as caught:
                await desk.enrol(driver.store, OLD)
            assert caught.value.data == {"attempts_remaining": None}
        assert desk.faults.calls["C_Login"] == logins + 1
        driver.store.unlock(PIN.encode())
        assert (await desk.enrol(driver.store, OLD)).outcome is Outcome.VERIFIED
        await driver._link.call(lambda token: token.end())
        driver.store.unlock(b"")
        with pytest.raises(WrongSecret, match="is not tried again"):
            await driver.store.authenticate()
    assert desk.faults.calls["C_Login"] == logins + 2


async def test_a_wrong_pin_that_somebody_gave_is_tried_once(desk: Desk) -> None:
    async with desk.driver() as driver:
        logins = desk.faults.calls["C_Login"]
        driver.store.unlock(b"654321")
        for _ in range(2):
            with pytest.raises(WrongSecret):
                await driver.store.authenticate()
        assert desk.faults.calls["C_Login"] == logins + 1
        driver.store.unlock(b"\xff\xfe")
        with pytest.raises(WrongSecret, match="no UTF-8 text"):
            await driver.store.authenticate()
        assert desk.faults.calls["C_Login"] == logins + 1


async def test_where_somebody_gave_a_wrong_pin_before_the_configured_one_is_not_tried(desk: Desk) -> None:
    async with desk.driver(pin=None) as driver:
        driver.store.unlock(b"654321")
        with pytest.raises(WrongSecret):
            await driver.store.authenticate()
    async with desk.driver() as driver:
        logins = desk.faults.calls["C_Login"]
        with pytest.raises(NotAuthorised, match="the configured one is not tried") as caught:
            await desk.enrol(driver.store, OLD)
        assert caught.value.code == "E-SECRET"
        assert (desk.faults.calls["C_Login"], desk.faults.writes) == (logins, 0)
        driver.store.unlock(PIN.encode())
        assert (await desk.enrol(driver.store, OLD)).outcome is Outcome.VERIFIED
    async with desk.driver() as driver:
        assert (await desk.enrol(driver.store, NEW)).outcome is Outcome.VERIFIED


async def test_the_last_attempt_is_shown(desk: Desk, wrong_pin: dict[str, str]) -> None:
    async with desk.driver(pin=wrong_pin) as driver:
        desk.faults.flags = rv.PIN_FINAL_TRY
        with pytest.raises(WrongSecret, match="1 attempt remains") as caught:
            await desk.enrol(driver.store, OLD)
    assert (caught.value.data, desk.faults.writes) == ({"attempts_remaining": 1}, 0)


async def test_a_locked_pin_is_told_from_a_wrong_one(desk: Desk) -> None:
    async with desk.driver() as driver:
        logins = desk.faults.calls["C_Login"]
        desk.faults.flags = rv.PIN_LOCKED
        with pytest.raises(SecretLocked):
            await desk.enrol(driver.store, OLD)
        assert desk.faults.calls["C_Login"] == logins
        desk.faults.flags, desk.faults.refuse = 0, {"C_Login": rv.CKR_PIN_LOCKED}  # a token that tells only then
        with pytest.raises(SecretLocked):
            await desk.enrol(driver.store, OLD)
        desk.faults.refuse = {}
        with pytest.raises(WrongSecret, match="not tried again"):
            await desk.enrol(driver.store, OLD)
    assert (desk.faults.calls["C_Login"], desk.faults.writes) == (logins + 1, 0)


async def test_the_wrong_pin_that_locks_the_token_says_so(desk: Desk, wrong_pin: dict[str, str]) -> None:
    async with desk.driver(pin=wrong_pin) as driver:
        desk.faults.on_operation = lambda: setattr(desk.faults, "flags", rv.PIN_LOCKED)  # as C_Login is called
        with pytest.raises(SecretLocked, match="takes none any more"):
            await driver.store.authenticate()


async def test_nobody_stays_logged_in_to_a_token_that_nobody_uses(desk: Desk) -> None:
    async with desk.driver(look_interval_ms=100) as driver:
        await driver.store.authenticate()
        looking = asyncio.ensure_future(anext(driver.events()))
        async with asyncio.timeout(20):
            while await driver._link.call(lambda token: token.logged_in):  # noqa: ASYNC110 - on the module's thread
                await asyncio.sleep(0.02)
        looking.cancel()
        await asyncio.wait({looking})


# -- the token


async def test_a_token_that_is_not_there_is_absent_and_found_when_it_is_back(desk: Desk) -> None:
    uri = desk.hsm.uri("optima-ctl-2")
    with pytest.raises(TokenAbsent, match="optima-ctl-2"):
        async with desk.driver(uri=uri):
            pass
    serial = desk.hsm.make("optima-ctl-2")
    async with desk.driver(uri=uri) as driver:
        assert (await driver.store.connect()).serial == serial


async def test_two_tokens_of_one_label_are_told_apart_by_their_serial_numbers(desk: Desk) -> None:
    other = desk.hsm.make(LABEL)
    with pytest.raises(LinkError, match="2 tokens are as") as caught:
        async with desk.driver():
            pass
    assert caught.value.next_step == f"name one by serial=: {', '.join(sorted((desk.serial, other)))}"
    async with desk.driver(uri=desk.hsm.uri(LABEL, serial=other)) as driver:
        assert (await driver.store.connect()).serial == other


async def test_a_token_has_one_user_in_a_process(desk: Desk) -> None:
    async with desk.driver():
        with pytest.raises(LinkBusy, match="in use"):
            async with desk.driver():
                pass
    async with desk.driver() as driver:
        desk.faults.refuse = {"C_Login": 0x100}  # CKR_USER_ALREADY_LOGGED_IN: by a library that is not ours
        with pytest.raises(LinkBusy, match="in use"):
            await driver.store.authenticate()


@pytest.mark.parametrize("code", [rv.CKR_TOKEN_NOT_PRESENT, rv.CKR_DEVICE_REMOVED, CKR_GENERAL_ERROR])
async def test_a_token_that_has_gone_ends_the_events_and_every_step(desk: Desk, code: int) -> None:
    async with desk.driver(look_interval_ms=100) as driver:
        await driver.store.inspect()
        desk.faults.gone = code
        with pytest.raises(LinkError):
            async with asyncio.timeout(20):
                await anext(driver.events())
        for step in (driver.store.inspect, driver.store.connect, driver.store.public_key, driver.store.authenticate):
            with pytest.raises(LinkError):
                await step()


async def test_a_token_swapped_halfway_is_left_as_it_is(desk: Desk) -> None:
    async with desk.driver() as driver:
        await desk.enrol(driver.store, OLD)
        written: list[int] = []

        def swap() -> None:
            if desk.faults.writes > before and not written:
                desk.faults.serial = b"another"
                written.append(desk.faults.writes)

        before = desk.faults.writes
        desk.faults.on_operation = swap
        result = await desk.enrol(driver.store, NEW)
        assert isinstance(result.error, WrongDevice | TokenAbsent)
        assert result.outcome is Outcome.ROLLED_BACK
        assert desk.faults.writes - written[0] <= 1, "the write that was under way"
        with pytest.raises(WrongDevice):
            await desk.enrol(driver.store, NEW)
        desk.faults.heal()
        assert (await desk.enrol(driver.store, NEW)).outcome is Outcome.VERIFIED


async def test_a_token_in_the_place_of_another_between_two_steps_is_noticed(desk: Desk) -> None:
    async with desk.driver() as driver:
        await driver.store.authenticate()
        desk.faults.serial = b"another"
        with pytest.raises(TokenAbsent, match="the token another is in the place of"):
            await driver.store.stage(0, NEW, silent)
        assert (await driver.store.connect()).serial == "another"
        assert not await driver._link.call(lambda token: token.logged_in)
    assert desk.faults.writes == 0


async def test_a_write_protected_token_is_refused_before_the_first_write(desk: Desk) -> None:
    async with desk.driver() as driver:
        logins = desk.faults.calls["C_Login"]
        desk.faults.flags = rv.WRITE_PROTECTED
        with pytest.raises(WriteProtected):
            await desk.enrol(driver.store, OLD)
        assert await driver.store.inspect() == [SlotState(0), SlotState(1)]
    assert (desk.faults.writes, desk.faults.calls["C_Login"]) == (0, logins)


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (rv.CKR_TOKEN_WRITE_PROTECTED, WriteProtected),
        (rv.CKR_DEVICE_MEMORY, SlotError),
        (CKR_GENERAL_ERROR, RemoteProtocolError),
        (CKR_USER_NOT_LOGGED_IN, LinkLost),
        (rv.CKR_DEVICE_REMOVED, LinkLost),
    ],
)
async def test_a_write_that_fails_leaves_the_old_certificate(desk: Desk, code: int, error: type[BridgeError]) -> None:
    async with desk.driver() as driver:
        await desk.enrol(driver.store, OLD)
        desk.faults.refuse = {"C_CreateObject": code}
        result = await desk.enrol(driver.store, NEW)
        assert type(result.error) is error
        assert result.outcome is Outcome.ROLLED_BACK
        [active] = [state for state in await driver.store.inspect() if state.active]
        assert await driver.store.read(active.slot) == OLD
        desk.faults.refuse = {}
        assert (await desk.enrol(driver.store, NEW)).outcome is Outcome.VERIFIED


async def test_a_token_that_lets_nobody_in_for_another_reason_says_so(desk: Desk) -> None:
    async with desk.driver() as driver:
        desk.faults.refuse = {"C_Login": 0x102}  # CKR_USER_PIN_NOT_INITIALIZED
        with pytest.raises(NotAuthorised, match="UserPinNotInitialized"):
            await driver.store.authenticate()
        desk.faults.refuse = {"C_FindObjectsInit": CKR_USER_NOT_LOGGED_IN, "C_FindObjectsFinal": 0}
        with pytest.raises(NotAuthorised, match="UserNotLoggedIn"):
            await driver.store.inspect()


# -- the module


async def test_a_module_that_is_not_there_is_named() -> None:
    with pytest.raises(LinkNotFound, match=r"the module /nowhere/module\.so cannot be loaded"):
        await open_link("pkcs11:token=a?module-path=/nowhere/module.so", SerialFormat())


async def test_a_module_that_does_not_start_says_how_to_try_it(desk: Desk) -> None:
    (desk.hsm.tokens.parent / "softhsm2.conf").write_text("objectstore.backend = none\n")
    with pytest.raises(LinkError, match=f"the module {MODULE} does not start") as caught:
        await open_link(desk.hsm.uri(LABEL), SerialFormat())
    assert "--list-slots" in caught.value.next_step


async def test_a_module_that_stops_answering_is_lost(desk: Desk) -> None:
    async with desk.driver() as driver:
        desk.faults.refuse = {"C_GetSlotList": CKR_GENERAL_ERROR}
        with pytest.raises(LinkLost, match="does not answer"):
            await driver.store.connect()


async def test_without_the_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cryptoki", "cryptoki_library", "cryptoki_errors"):
        monkeypatch.delitem(sys.modules, f"optima_bridge.link.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "pkcs11", None)
    with pytest.raises(DriverError, match="python-pkcs11, which is not installed") as caught:
        await open_link(f"pkcs11:token=a?module-path={MODULE}", SerialFormat())
    assert caught.value.next_step == "pip install 'optima-bridge[pkcs11]'"


async def test_a_closed_link_is_lost(desk: Desk) -> None:
    async with desk.driver() as driver:
        driver._link.close()
        driver._link.close()
        with pytest.raises(LinkLost, match="was closed"):
            await driver.store.inspect()


@pytest.fixture
def hanging(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Awaitable[object]], Awaitable[Any]]]:
    """Has a step hang in the module; the rest of the test happens meanwhile."""

    async def begun(step: Awaitable[object]) -> asyncio.Future[object]:
        desk.faults.held = "C_FindObjectsInit"
        task = asyncio.ensure_future(step)
        assert await asyncio.to_thread(desk.faults.waiting.wait, 20)
        return task

    yield begun
    desk.faults.go.set()


async def test_a_module_that_hangs_is_a_timeout_and_later_steps_go_on(
    desk: Desk, hanging: Callable[[Awaitable[object]], Awaitable[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk.driver() as driver:
        monkeypatch.setattr(link_module, "CALL_TIMEOUT_S", 0.2)
        task = await hanging(driver.store.inspect())
        with pytest.raises(LinkTimeout, match="did not answer within"):
            await task
        monkeypatch.undo()
        desk.faults.held = ""
        desk.faults.go.set()
        assert await driver.store.inspect() == [SlotState(0), SlotState(1)]


async def test_a_cancelled_step_ends_before_the_next_one_begins(
    desk: Desk, hanging: Callable[[Awaitable[object]], Awaitable[Any]]
) -> None:
    async with desk.driver() as driver:
        task = await hanging(driver.store.stage(0, NEW, silent))
        task.cancel()
        await asyncio.wait({task}, timeout=0.05)
        assert not task.done()
        desk.faults.held = ""
        desk.faults.go.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert [state.valid for state in await driver.store.inspect()] == [True, False]


async def test_all_calls_of_all_links_of_a_module_are_made_on_one_thread(desk: Desk) -> None:
    desk.hsm.make("optima-ctl-2")
    seen: set[int] = set()
    desk.faults.on_operation = lambda: seen.add(threading.get_ident())
    async with desk.driver() as one, desk.driver(uri=desk.hsm.uri("optima-ctl-2")) as other:
        await asyncio.gather(*(driver.store.stage(0, NEW, silent) for driver in (one, other)))
    assert len(seen) == 1
    assert seen != {threading.get_ident()}
